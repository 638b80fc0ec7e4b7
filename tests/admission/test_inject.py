"""Injection as a pure function: what a pod becomes, and what it stays."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.podpatch import patched, pod

from fleetward_webhook.admission.container import container, volumes
from fleetward_webhook.admission.inject import Governed, RefusedError, govern
from fleetward_webhook.admission.settings import Sidecar

SIDECAR = Sidecar(image="example.com/fleetward-webhook:1")
ONE = ["reports/worker"]
TWO = ["reports/planner", "reports/worker"]
URL = {"name": "FLEETWARD_URL", "value": "http://127.0.0.1:8180"}


def apply(before: dict[str, Any], agents: list[str] = ONE, *, hold: bool = False) -> dict[str, Any]:
    return patched(before, govern(before, agents, SIDECAR, hold=hold).patch)


def change(before: dict[str, Any], agents: list[str] = ONE, *, hold: bool = False) -> Governed:
    return govern(before, agents, SIDECAR, hold=hold)


def test_a_pod_gets_the_webhook_first() -> None:
    after = apply(pod(initContainers=[{"name": "migrate"}]))
    assert [one["name"] for one in after["spec"]["initContainers"]] == ["fleetward-webhook", "migrate"]
    webhook = after["spec"]["initContainers"][0]
    assert webhook["restartPolicy"] == "Always"
    assert webhook["image"] == SIDECAR.image
    environment = {each["name"]: each.get("value") for each in webhook["env"]}
    names = [each["name"] for each in webhook["env"]]
    assert names.index("POD_NAME") < names.index("FLEETWARD_WORKLOAD")
    assert environment | {"POD_NAME": None} == {
        "POD_NAMESPACE": None,
        "POD_NAME": None,
        "FLEETWARD_WORKLOAD": "$(POD_NAMESPACE)/$(POD_NAME)",
        "FLEETWARD_LISTEN": "http://127.0.0.1:8180",
        "FLEETWARD_HUB": "https://fleetward-hub.fleetward-system.svc:8443",
        "FLEETWARD_HUB_CA": "/var/run/fleetward/hub/ca.crt",
        "FLEETWARD_HUB_TOKEN": "/var/run/fleetward/hub/token",
        "FLEETWARD_SPOOL": "/var/lib/fleetward/spool",
        "FLEETWARD_HEALTH_LISTEN": "0.0.0.0:8182",
    }


def test_it_is_marked() -> None:
    after = apply(pod(), TWO)
    assert after["metadata"]["labels"] == {"app": "worker", "fleetward.dev/injected": "true"}
    assert after["metadata"]["annotations"] == {"fleetward.dev/agents": "reports/planner,reports/worker"}


def test_its_webhook_gets_a_token_for_the_hub_alone_and_a_bounded_spool() -> None:
    hub, spool = apply(pod())["spec"]["volumes"]
    token = {"audience": "fleetward", "expirationSeconds": 3600, "path": "token"}
    assert hub["projected"]["sources"] == [
        {"serviceAccountToken": token},
        {"configMap": {"name": "fleetward-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
    assert spool == {"name": "fleetward-spool", "emptyDir": {"sizeLimit": "256Mi"}}


@pytest.mark.parametrize(("agents", "named"), [(ONE, [{"name": "FLEETWARD_AGENT", "value": ONE[0]}]), (TWO, [])])
def test_every_other_container_learns_where_to_ask(agents: list[str], named: list[dict[str, str]]) -> None:
    own = [{"name": "MODE", "value": "$(FLEETWARD_URL)/x"}]
    before = pod(initContainers=[{"name": "fetch"}, {"name": "mesh", "restartPolicy": "Always"}])
    before["spec"]["containers"][0]["env"] = own
    spec = apply(before, agents)["spec"]
    assert spec["containers"][0]["env"] == [URL, *named, *own]
    assert [one["env"] for one in spec["initContainers"][1:]] == [[URL, *named]] * 2
    assert "FLEETWARD_URL" not in {each["name"] for each in spec["initContainers"][0]["env"]}


def test_an_address_of_ones_own_does_not_count() -> None:
    before = pod()
    before["spec"]["containers"][0]["env"] = [
        {"name": "FLEETWARD_URL", "value": "http://127.0.0.1:1"},
        {"name": "A", "value": "1"},
        {"name": "FLEETWARD_URL", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}},
        {"name": "FLEETWARD_AGENT", "value": "reports/other"},
    ]
    found = change(before)
    agent = {"name": "FLEETWARD_AGENT", "value": "reports/worker"}
    assert patched(before, found.patch)["spec"]["containers"][0]["env"] == [URL, agent, {"name": "A", "value": "1"}]
    assert found.warnings == [
        "spec.containers[0].env: FLEETWARD_URL was set and is replaced by http://127.0.0.1:8180",
        "spec.containers[0].env: FLEETWARD_URL was set and is replaced by http://127.0.0.1:8180",
        "spec.containers[0].env: FLEETWARD_AGENT was set and is replaced by reports/worker",
    ]


def test_among_several_agents_each_container_may_say_which_it_is() -> None:
    before = pod(initContainers=[{"name": "plan", "env": [{"name": "FLEETWARD_AGENT", "value": "reports/planner"}]}])
    before["spec"]["containers"][0]["env"] = [{"name": "FLEETWARD_AGENT", "value": "reports/nobody"}]
    found = change(before, TWO)
    after = patched(before, found.patch)
    assert after["spec"]["initContainers"][1]["env"][1] == {"name": "FLEETWARD_AGENT", "value": "reports/planner"}
    assert found.warnings == [
        "spec.containers[0].env: FLEETWARD_AGENT: found reports/nobody, allowed reports/planner or reports/worker"
    ]


@pytest.mark.parametrize("part", ["initContainers", "containers"])
def test_a_false_webhook_is_replaced(part: str) -> None:
    false = {**container(SIDECAR), "command": ["/bin/true"]}
    before = pod()
    before["spec"].setdefault(part, []).append(false)
    spec = apply(before)["spec"]
    assert spec["initContainers"] == [container(SIDECAR)]
    assert [one["name"] for one in spec["containers"]] == ["app"]


def test_false_volumes_are_replaced() -> None:
    false = [{"name": "fleetward-hub", "emptyDir": {}}, {"name": "mine", "emptyDir": {}}]
    assert apply(pod(volumes=false))["spec"]["volumes"] == [false[1], *volumes(SIDECAR)]


def test_resources_that_a_limit_range_adds_stay_and_others_do_not() -> None:
    after = apply(pod())
    webhook = after["spec"]["initContainers"][0]
    webhook["resources"]["limits"]["cpu"] = "1"
    assert change(after).patch == []
    webhook["resources"]["limits"]["memory"] = "1Mi"
    assert apply(after)["spec"]["initContainers"] == [container(SIDECAR)]
    webhook["volumeMounts"].append({"name": "mine", "mountPath": "/usr/lib"})
    assert apply(after)["spec"]["initContainers"] == [container(SIDECAR)]


def test_it_is_held_once_and_only_when_told() -> None:
    before = pod(schedulingGates=[{"name": "example.com/quota"}])
    assert apply(before)["spec"]["schedulingGates"] == [{"name": "example.com/quota"}]
    held = apply(before, hold=True)
    assert held["spec"]["schedulingGates"] == [{"name": "example.com/quota"}, {"name": "fleetward.dev/stopped"}]
    assert change(held, hold=True).patch == []


@pytest.mark.parametrize(
    ("spec", "hold", "says"),
    [
        ({"os": {"name": "windows"}}, False, "spec.os.name: found windows, allowed linux"),
        ({"nodeName": "node-1"}, True, "spec.nodeName: found node-1"),
        ({"containers": [{"name": "fleetward-webhook"}]}, False, "spec.containers: found only fleetward-webhook"),
        (
            {"containers": [{"name": "a", "volumeMounts": [{"name": "fleetward-spool", "mountPath": "/x"}]}]},
            False,
            "spec.containers[0].volumeMounts: found fleetward-spool",
        ),
        (
            {"initContainers": [{"name": "a", "volumeMounts": [{"name": "fleetward-hub", "mountPath": "/x"}]}]},
            False,
            "spec.initContainers[0].volumeMounts: found fleetward-hub",
        ),
    ],
)
def test_what_cannot_be_governed_is_refused(spec: dict[str, Any], *, hold: bool, says: str) -> None:
    with pytest.raises(RefusedError) as refused:
        change(pod(**spec), hold=hold)
    assert says in str(refused.value)


def test_a_static_pod_is_refused() -> None:
    before = pod(nodeName="node-1")
    before["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    with pytest.raises(RefusedError, match="static pod"):
        change(before)


def test_a_bound_pod_whose_agents_run_is_governed() -> None:
    assert "schedulingGates" not in apply(pod(nodeName="node-1"))["spec"]


def test_what_may_not_work_is_told() -> None:
    before = pod(hostNetwork=True)
    before["spec"]["containers"][0]["ports"] = [{"containerPort": 80}, {"containerPort": 8180}]
    found = change(before)
    assert [warning.partition(":")[0] for warning in found.warnings] == [
        "spec.hostNetwork",
        "spec.containers[0].ports[1]",
    ]
    port = patched(before, found.patch)["spec"]["initContainers"][0]["ports"][0]
    assert port["hostPort"] == port["containerPort"] == 8182  # so that the scheduler keeps two apart


def test_settings_reach_the_pod() -> None:
    sidecar = Sidecar(
        image="i", image_pull_policy="Never", hub_url="https://h:1", cpu_request="", memory_request="1Mi",
        cpu_limit="2", memory_limit="2Mi", spool_size="3Mi", token_seconds=700,
    )  # fmt: skip
    after = patched(pod(), govern(pod(), ONE, sidecar, hold=False).patch)["spec"]
    webhook = after["initContainers"][0]
    assert (webhook["image"], webhook["imagePullPolicy"]) == ("i", "Never")
    assert webhook["resources"] == {"requests": {"memory": "1Mi"}, "limits": {"cpu": "2", "memory": "2Mi"}}
    assert {"name": "FLEETWARD_HUB", "value": "https://h:1"} in webhook["env"]
    assert after["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 700
    assert after["volumes"][1]["emptyDir"] == {"sizeLimit": "3Mi"}


def name_of(one: dict[str, Any]) -> str:
    return str(one["name"])


names = st.sampled_from(["app", "mesh", "fleetward-webhook", "fetch"])
variables = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["A", "FLEETWARD_URL", "FLEETWARD_AGENT"]), "value": st.text()})
    | st.just({"name": "FLEETWARD_AGENT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
)
containers = st.fixed_dictionaries(
    {"name": names, "image": st.text(max_size=5)},
    optional={
        "env": variables,
        "restartPolicy": st.just("Always"),
        "securityContext": st.dictionaries(st.sampled_from(["runAsUser", "privileged"]), st.integers(0, 9)),
        "volumeMounts": st.lists(st.fixed_dictionaries({"name": st.just("mine"), "mountPath": st.text(max_size=3)})),
    },
)
lists = st.lists(containers, max_size=4, unique_by=name_of)
specs = st.fixed_dictionaries(
    {"containers": lists.filter(lambda all_: any(one["name"] != "fleetward-webhook" for one in all_))},
    optional={
        "initContainers": lists,
        "volumes": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["mine", "fleetward-hub"])}),
            unique_by=name_of,
        ),
        "schedulingGates": st.lists(st.sampled_from([{"name": "a/b"}, {"name": "fleetward.dev/stopped"}]), max_size=2),
        "hostNetwork": st.booleans(),
        "shareProcessNamespace": st.booleans(),
        "securityContext": st.fixed_dictionaries({"fsGroup": st.integers(0, 9)}),
    },
)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.dictionaries(st.sampled_from(["app", "fleetward.dev/injected"]), st.text(max_size=5)),
        "annotations": st.dictionaries(st.sampled_from(["a", "fleetward.dev/agents"]), st.text(max_size=5)),
    },
)
pods = st.fixed_dictionaries({"metadata": metadata, "spec": specs})


@given(before=pods, agents=st.sampled_from([ONE, TWO]), hold=st.booleans())
def test_twice_is_once(before: dict[str, Any], agents: list[str], *, hold: bool) -> None:
    original = copy.deepcopy(before)
    once = apply(before, agents, hold=hold)
    assert before == original  # the pod given is left alone
    assert change(once, agents, hold=hold).patch == []
    assert [one["name"] for one in once["spec"]["initContainers"]].count("fleetward-webhook") == 1
    assert once["spec"]["initContainers"][0] == container(SIDECAR, host_network=bool(before["spec"].get("hostNetwork")))


@given(before=pods, agents=st.sampled_from([ONE, TWO]), hold=st.booleans())
def test_all_that_is_the_owners_stays(before: dict[str, Any], agents: list[str], *, hold: bool) -> None:
    after = apply(before, agents, hold=hold)
    for part in ("initContainers", "containers"):
        theirs = [
            [
                {k: v for k, v in one.items() if k != "env"}
                for one in each["spec"].get(part, [])
                if one["name"] != "fleetward-webhook"
            ]
            for each in (before, after)
        ]
        assert theirs[0] == theirs[1]
        for one in after["spec"][part]:
            if one["name"] != "fleetward-webhook":
                assert [each for each in one["env"] if each["name"] == "FLEETWARD_URL"] == [URL]
    for each in ("shareProcessNamespace", "securityContext", "hostNetwork"):
        assert before["spec"].get(each) == after["spec"].get(each)
    gates = [gate for gate in after["spec"].get("schedulingGates", []) if gate["name"] != "fleetward.dev/stopped"]
    assert gates == [g for g in before["spec"].get("schedulingGates", []) if g["name"] != "fleetward.dev/stopped"]
    assert {k: v for k, v in after["metadata"]["labels"].items() if k == "app"} == {
        k: v for k, v in before["metadata"].get("labels", {}).items() if k == "app"
    }
