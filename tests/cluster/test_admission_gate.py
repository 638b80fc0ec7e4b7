"""New pods of stopped agents wait; `replicas` is never touched."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.admission import apply
from support.controlplane.errors import KubectlError
from support.governed import Governed, agent, fleet, governed
from support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

__all__ = ["governed"]

STOPPED = {"name": "fleetward.dev/stopped"}
Json = dict[str, Any]


def pod(name: str = "worker", **spec: Any) -> Json:
    containers = [{"name": "app", "image": "i"}]
    metadata = {"name": name, "labels": {"app": "worker"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers} | spec}


def create(governed: Governed, namespace: str, body: Json) -> Json:
    made = governed.plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)
    assert isinstance(made, dict)
    return made


def gates(found: Json) -> list[dict[str, str]]:
    given: list[dict[str, str]] = found["spec"].get("schedulingGates", [])
    return given


@pytest.mark.parametrize(
    ("mode", "held"), [("Running", False), ("Paused", False), ("Stopped", True), ("Quarantined", True)]
)
def test_a_mode_holds_new_pods_or_not(governed: Governed, namespace: str, mode: str, *, held: bool) -> None:
    apply(governed.plane, agent(namespace, operatingMode=mode))
    found = create(governed, namespace, pod())
    assert gates(found) == ([STOPPED] if held else [])
    assert found["spec"]["initContainers"][0]["name"] == "fleetward-webhook"


def test_a_held_pod_says_so_and_keeps_other_gates(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace, operatingMode="Stopped"))
    found = create(governed, namespace, pod(schedulingGates=[{"name": "example.com/quota"}]))
    assert gates(found) == [{"name": "example.com/quota"}, STOPPED]

    def shown() -> str:
        return governed.plane.kubectl("-n", namespace, "get", "pod", "worker")

    until(lambda: "SchedulingGated" in shown(), "shown as SchedulingGated")


def test_a_pod_is_held_only_when_all_its_agents_are(governed: Governed, namespace: str) -> None:
    shared = {"selector": {"matchLabels": {"app": "worker"}}}
    apply(
        governed.plane,
        agent(namespace, operatingMode="Stopped"),
        agent(namespace, "planner", workload=shared, operatingMode="Paused"),
    )
    assert gates(create(governed, namespace, pod("one-runs"))) == []
    governed.plane.kubectl("-n", namespace, "patch", "agent", "planner", "--type=merge", "-p", _mode("Quarantined"))
    assert gates(create(governed, namespace, pod("none-runs"))) == [STOPPED]
    governed.plane.kubectl("-n", namespace, "patch", "agent", "worker", "--type=merge", "-p", _mode("Running"))
    assert gates(create(governed, namespace, pod("again"))) == []


def test_a_patch_counts_for_the_very_next_pod_while_many_come(governed: Governed, namespace: str) -> None:
    """What serves several pods is which agents there are; how each is, is read for each pod."""
    apply(governed.plane, agent(namespace))
    path = f"/apis/fleetward.dev/v1alpha1/namespaces/{namespace}/agents/worker"
    for number, mode in enumerate(["Stopped", "Running"] * 5):
        create(governed, namespace, pod(f"before-{number}"))
        stored = governed.plane.request("GET", path)
        stored["spec"]["operatingMode"] = mode
        governed.plane.request("PUT", path, stored)
        assert gates(create(governed, namespace, pod(f"after-{number}"))) == ([STOPPED] if mode == "Stopped" else [])


def test_an_agent_gets_its_very_next_pod_while_many_come(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    for number in range(5):
        create(governed, namespace, pod(f"worker-{number}"))
        late = agent(namespace, f"late-{number}", workload={"selector": {"matchLabels": {"app": f"late-{number}"}}})
        agents = f"/apis/fleetward.dev/v1alpha1/namespaces/{namespace}/agents"
        governed.plane.request("POST", agents, late)
        governed.plane.request("GET", agents)  # answered once the API server's own cache has it
        body = pod(f"late-{number}")
        body["metadata"]["labels"] = {"app": f"late-{number}"}
        assert create(governed, namespace, body)["spec"]["initContainers"][0]["name"] == "fleetward-webhook"


@pytest.fixture
def stopped_fleet(governed: Governed, namespace: str) -> Iterator[str]:
    apply(governed.plane, fleet(namespace, namespace, "Stopped"))
    yield namespace
    governed.plane.kubectl("delete", "agentfleet", namespace)


def test_a_stopped_fleet_holds_the_pods_of_its_agents(governed: Governed, stopped_fleet: str) -> None:
    apply(governed.plane, agent(stopped_fleet))
    assert gates(create(governed, stopped_fleet, pod("held"))) == [STOPPED]
    other = {"agents": {"agentSelector": {"matchLabels": {"team": "another"}}}}
    governed.plane.kubectl("patch", "agentfleet", stopped_fleet, "--type=merge", "-p", json.dumps({"spec": other}))
    assert gates(create(governed, stopped_fleet, pod("free"))) == []


def test_a_bound_pod_of_a_stopped_agent_is_refused(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace, operatingMode="Stopped"))
    with pytest.raises(KubectlError, match=r"spec\.nodeName: found node-1, so the pod is bound to a node already"):
        governed.plane.kubectl("-n", namespace, "create", "-f", "-", input=json.dumps(pod(nodeName="node-1")))


def test_replicas_stay_and_their_pods_wait(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace, operatingMode="Stopped"))
    labels = {"app": "worker"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "i"}]}}
    spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker"}, "spec": spec}
    governed.plane.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", body)

    def pods() -> list[Json]:
        items: list[Json] = governed.plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        return items

    until(lambda: len(pods()) == 3, "three pods")
    assert all(gates(each) == [STOPPED] for each in pods())
    stored = governed.plane.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/worker")
    assert stored["spec"]["replicas"] == 3


def _mode(mode: str) -> str:
    return json.dumps({"spec": {"operatingMode": mode}})
