"""The admission process in a cluster: started without what it needs, killed, given a new certificate, asked a lot."""

import json
import secrets
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.admission import Admission, Authority, allow, apply, disallow, guarded, put_certificate
from support.controlplane.fixtures import make_namespace, remove_namespace
from support.controlplane.plane import ControlPlane
from support.governed import Governed, agent, governed
from support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

__all__ = ["governed"]


def pod(name: str, app: str = "worker") -> dict[str, Any]:
    spec = {"containers": [{"name": "app", "image": "i"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": spec,
    }


def injected(governed: Governed, namespace: str, name: str, app: str = "worker") -> bool:
    made = governed.plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod(name, app))
    return "initContainers" in made["spec"]


def governed_pods(governed: Governed, namespace: str) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{namespace}/pods?labelSelector=fleetward.dev/injected=true"
    found: list[dict[str, Any]] = governed.plane.request("GET", path)["items"]
    return found


def deployment(namespace: str) -> dict[str, Any]:
    labels = {"app": "worker", "of": "deployment"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "worker", "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def waits(governed: Governed, namespace: str) -> str:
    """Give what the Deployment says about itself."""
    return governed.plane.kubectl("-n", namespace, "get", "deployment", "worker", "-o", "jsonpath={.status.conditions}")


def served(governed: Governed) -> str:
    host, _, port = governed.admission.listen.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=5)


def test_while_it_is_down_governed_pods_wait_and_others_run(governed: Governed, namespace: str) -> None:
    plane = governed.plane
    apply(plane, agent(namespace))
    assert injected(governed, namespace, "before")
    governed.admission.kill()
    try:
        with guarded(plane, f"guarded-{namespace}", governed.system):

            def refusal() -> str:
                body = json.dumps(pod("trial"))
                return plane.kubectl("-n", namespace, "create", "--dry-run=server", "-f", "-", input=body, check=False)

            until(lambda: "carries no decision webhook" in refusal(), "refused by the API server itself")
            assert not injected(governed, namespace, "another", app="other")
            apply(plane, deployment(namespace))
            until(lambda: "carries no decision webhook" in waits(governed, namespace), "told why there is no pod")
            governed.admission.start().until_ready()
            assert injected(governed, namespace, "after")
            until(lambda: len(governed_pods(governed, namespace)) == 3, "the deployment's pod", seconds=60)
    finally:
        if governed.admission.process is None:
            governed.admission.start().until_ready()


def test_a_hundred_pods_at_once_are_all_governed(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    with ThreadPoolExecutor(max_workers=10) as users:
        made = users.map(lambda number: injected(governed, namespace, f"p-{number}"), range(100))
        assert all(made)
    assert len(governed_pods(governed, namespace)) == 100


def test_a_change_holds_for_the_very_next_pod(governed: Governed, namespace: str) -> None:
    """Reviews read what is, not what was: an agent patched and a pod made right after it."""
    apply(governed.plane, agent(namespace))
    path = f"/apis/fleetward.dev/v1alpha1/namespaces/{namespace}/agents/worker"
    for number in range(10):
        body = governed.plane.request("GET", path)
        body["spec"]["operatingMode"] = "Running" if number % 2 else "Stopped"
        governed.plane.request("PUT", path, body)
        made = governed.plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod(f"p-{number}"))
        assert ("schedulingGates" in made["spec"]) == (number % 2 == 0)


def test_a_renewed_secret_is_served_without_a_restart(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    before, pid = served(governed), governed.admission.pid
    put_certificate(governed.plane, governed.system, governed.authority.issue())
    until(lambda: served(governed) != before, "the new certificate")
    assert injected(governed, namespace, "renewed")
    assert governed.admission.pid == pid


@pytest.fixture
def lacking(plane: ControlPlane, tmp_path: Path) -> Iterator[tuple[ControlPlane, str, Admission]]:
    """Give a process whose service account may do nothing, and that has no certificate."""
    system = f"system-{secrets.token_hex(4)}"
    make_namespace(plane, system)
    apply(plane, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "lacking", "namespace": system}})
    kubeconfig = plane.kubeconfig_for(system, "lacking")
    admission = Admission(tmp_path / "log", "--namespace", system, "--kubeconfig", str(kubeconfig)).start()
    yield plane, system, admission
    admission.stop()
    disallow(plane, system, "lacking")
    remove_namespace(plane, system)


def test_it_says_what_it_lacks_and_gets_ready_once_it_has_it(lacking: tuple[ControlPlane, str, Admission]) -> None:
    plane, system, admission = lacking
    until(lambda: "cannot list resource" in admission.probe()[1], "told which verb is missing")
    status, says = admission.probe()
    assert status == 503
    assert f'User "system:serviceaccount:{system}:lacking" cannot list resource "agents"' in says
    assert 'cannot get resource "secrets"' in admission.log
    allow(plane, system, "lacking")
    missing = f"there is no Secret {system}/fleetward-admission-tls yet; the operator makes it"
    until(lambda: missing in admission.probe()[1], "told that there is no certificate")
    assert admission.probe("/healthz")[0] == 200
    put_certificate(plane, system, Authority().issue())
    admission.until_ready()


def test_what_it_measures_is_there(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    assert injected(governed, namespace, "one")
    metrics = governed.admission.probe("/metrics")[1]
    for line in (
        'fleetward_admission_reviews_total{outcome="changed",path="/mutate/pods"}',
        'fleetward_admission_duration_seconds_bucket{le="0.025",path="/mutate/pods"}',
        "process_resident_memory_bytes",
    ):
        assert line in metrics, json.dumps(metrics)
