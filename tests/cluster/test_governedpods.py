"""The admission policy for agents' pods on a real API server, which alone evaluates it: no webhook answers here."""

import asyncio
import json
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.controlplane.fixtures import make_namespace, remove_namespace
from support.controlplane.plane import ControlPlane

from fleetward.resources import Agent
from fleetward_operator.keeper import KeeperSettings, governedpods
from fleetward_operator.keeper.ensure import Ensure
from fleetward_operator.kube.objects import BINDING, POLICY, Objects
from fleetward_operator.view.pods import read_pod, runs

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

NAME = "fleetward-governed-pods"
IMAGE = "registry.example:5000/fleetward/webhook:1.2.3"
SETTINGS = KeeperSettings(
    IMAGE,
    namespace="fleetward-system",
    excluded_namespaces=("excluded-one",),
    other_repositories=("mirror.example/fw",),
)
REFUSED = "selects this pod, and it carries no decision webhook"


@pytest.fixture(scope="module")
def policy(plane: ControlPlane) -> Iterator[ControlPlane]:
    """Have policy and binding in force."""
    make_namespace(plane, "probe")

    async def install() -> None:
        async with plane.api() as api:
            ensure = Ensure(Objects(api))
            for _ in range(2):  # the second time nothing may differ
                await ensure(POLICY, NAME, governedpods.policy(SETTINGS), None)
                await ensure(BINDING, NAME, governedpods.binding(), None)

    asyncio.run(install())
    try:
        create_agent(plane, "probe", "probe", {"matchLabels": {"app": "probe"}})
        deadline = time.monotonic() + 30
        while not create_pod(plane, pod("probe", {"app": "probe"})):
            assert time.monotonic() < deadline, "the policy is not in force"
            time.sleep(0.05)
        yield plane
    finally:
        plane.kubectl("delete", "validatingadmissionpolicybinding", NAME, "--ignore-not-found")
        plane.kubectl("delete", "validatingadmissionpolicy", NAME, "--ignore-not-found")
        remove_namespace(plane, "probe")


def pod(namespace: str, labels: dict[str, str] | None = None, account: str = "", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "p-",
            "namespace": namespace,
            **({"labels": labels} if labels is not None else {}),
        },
        "spec": {
            "containers": [{"name": "agent", "image": "agent"}],
            **({"serviceAccountName": account} if account else {}),
            **spec,
        },
    }


def sidecar(**changes: Any) -> dict[str, Any]:
    container = {"name": "fleetward-webhook", "image": IMAGE, "restartPolicy": "Always", **changes}
    return {key: value for key, value in container.items() if value is not None}


def create_pod(plane: ControlPlane, body: dict[str, Any]) -> str:
    """Create a pod as a dry run; give the refusal, or nothing where it passes."""
    try:
        plane.request("POST", f"/api/v1/namespaces/{body['metadata']['namespace']}/pods?dryRun=All", body)
    except urllib.error.HTTPError as error:
        return str(json.loads(error.read())["message"])
    return ""


def create_agent(
    plane: ControlPlane, namespace: str, name: str, selector: dict[str, Any] | None, account: str | None = None
) -> Agent:
    workload = (
        None if selector is None else {"selector": selector} | ({"serviceAccountName": account} if account else {})
    )
    body = {
        "apiVersion": "fleetward.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"role": "Worker", **({"workload": workload} if workload is not None else {})},
    }
    plane.request("POST", f"/apis/fleetward.dev/v1alpha1/namespaces/{namespace}/agents", body)
    return Agent.model_validate(body)


def seen(plane: ControlPlane, namespace: str, agent: str) -> None:
    """Wait until the policy knows of an Agent, by a pod that only a further Agent made after it selects.

    The API server learns of Agents by watching them, in order.
    """
    label = f"after-{agent}"
    create_agent(plane, namespace, label, {"matchLabels": {"probe": label}})
    deadline = time.monotonic() + 30
    while not create_pod(plane, pod(namespace, {"probe": label})):
        assert time.monotonic() < deadline, "the policy does not see Agents"
        time.sleep(0.02)


def test_a_governed_pod_without_sidecar_is_refused_and_told_why(policy: ControlPlane, namespace: str) -> None:
    create_agent(policy, namespace, "worker", {"matchLabels": {"app": "worker"}})
    seen(policy, namespace, "worker")
    said = create_pod(policy, pod(namespace, {"app": "worker", "more": "x"}))
    assert f"Agent {namespace}/worker selects this pod, and it carries no decision webhook" in said
    assert "not answering" in said
    assert NAME in said


LABELS = {"app": "worker"}
INJECTED = {**LABELS, "fleetward.dev/injected": "true"}


@pytest.mark.parametrize(
    ("labels", "sidecars", "passes"),
    [
        (INJECTED, [sidecar()], True),
        (INJECTED, [{"name": "first", "image": "x"}, sidecar()], True),
        (INJECTED, [sidecar(image="registry.example:5000/fleetward/webhook")], True),
        (INJECTED, [sidecar(image="registry.example:5000/fleetward/webhook@sha256:" + "0" * 64)], True),
        (INJECTED, [sidecar(image="registry.example:5000/fleetward/webhook:0.9@sha256:" + "0" * 64)], True),
        (INJECTED, [sidecar(image="mirror.example/fw:1")], True),
        (INJECTED, [sidecar(image="registry.example:5000/fleetward/webhook-of-mine:1.2.3")], False),
        (INJECTED, [sidecar(image="elsewhere/fleetward/webhook:1.2.3")], False),
        (INJECTED, [sidecar(restartPolicy=None)], False),
        (INJECTED, [sidecar(name="other")], False),
        (INJECTED, [], False),
        (LABELS, [sidecar()], False),
        ({**LABELS, "fleetward.dev/injected": "yes"}, [sidecar()], False),
    ],
)
def test_what_counts_as_injected(
    policy: ControlPlane, namespace: str, *, labels: dict[str, str], sidecars: list[dict[str, Any]], passes: bool
) -> None:
    create_agent(policy, namespace, "worker", {"matchLabels": LABELS})
    seen(policy, namespace, "worker")
    said = create_pod(policy, pod(namespace, labels, initContainers=sidecars))
    assert (said == "") if passes else (REFUSED in said), said


def test_a_sidecar_among_the_containers_is_none(policy: ControlPlane, namespace: str) -> None:
    create_agent(policy, namespace, "worker", {"matchLabels": LABELS})
    seen(policy, namespace, "worker")
    body = pod(namespace, INJECTED)
    body["spec"]["containers"].append({"name": "fleetward-webhook", "image": IMAGE})
    assert REFUSED in create_pod(policy, body)


@pytest.mark.parametrize(
    ("selector", "account", "labels", "pod_account", "selected"),
    [
        ({}, None, {}, "", True),
        ({}, None, None, "", True),
        ({}, None, None, "default", True),
        ({}, "worker", None, "", False),
        ({}, "worker", None, "worker", True),
        ({}, None, None, "worker", False),
        ({"matchLabels": {"a": "1"}}, None, None, "", False),
        ({"matchLabels": {"a": "1"}}, None, {"a": "2"}, "", False),
        ({"matchLabels": {"a": "1", "b": "2"}}, None, {"a": "1"}, "", False),
        ({"matchLabels": {"a": ""}}, None, {}, "", False),
        ({"matchLabels": {"a": ""}}, None, {"a": ""}, "", True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, None, {"a": "2"}, "", True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, None, {"a": "3"}, "", False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, None, None, "", False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, None, None, "", True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, None, {"a": "1"}, "", False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, None, {"a": "2"}, "", True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, None, {"a": "x"}, "", True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, None, {"b": "x"}, "", False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, None, {"a": "x"}, "", False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, None, {"b": "x"}, "", True),
        (
            {"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]},
            None,
            {"a": "x", "b": "2"},
            "",
            False,
        ),
        (None, None, {"a": "x"}, "", False),
    ],
)
def test_selectors(
    policy: ControlPlane,
    namespace: str,
    *,
    selector: dict[str, Any] | None,
    account: str | None,
    labels: dict[str, str] | None,
    pod_account: str,
    selected: bool,
) -> None:
    policy.kubectl("create", "serviceaccount", "worker", "-n", namespace)
    create_agent(policy, namespace, "worker", selector, account)
    seen(policy, namespace, "worker")
    said = create_pod(policy, pod(namespace, labels, pod_account))
    assert (REFUSED in said) if selected else (said == ""), said


keys = st.sampled_from(("a", "b", "x.example/c"))
values = st.sampled_from(("", "1", "2", "three"))
requirements = st.one_of(
    st.builds(
        lambda key, operator, chosen: {"key": key, "operator": operator, "values": chosen},
        keys,
        st.sampled_from(("In", "NotIn")),
        st.lists(values, min_size=1, max_size=3),
    ),
    st.builds(
        lambda key, operator: {"key": key, "operator": operator}, keys, st.sampled_from(("Exists", "DoesNotExist"))
    ),
)
selectors = st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": st.dictionaries(keys, values, max_size=2),
        "matchExpressions": st.lists(requirements, max_size=3),
    },
)


@pytest.mark.slow
def test_api_server_and_operator_agree_on_who_is_selected(policy: ControlPlane) -> None:
    """The same question, answered by the policy's CEL and by `pods.runs`."""
    make_namespace(policy, "agree")
    policy.kubectl("create", "serviceaccount", "worker", "-n", "agree")
    number = 0

    @given(
        selector=selectors,
        account=st.sampled_from((None, "default", "worker")),
        tries=st.lists(
            st.tuples(
                st.none() | st.dictionaries(keys, values, max_size=3), st.sampled_from(("", "default", "worker"))
            ),
            min_size=4,
            max_size=4,
        ),
    )
    @settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True)
    def agree(selector: dict[str, Any], account: str | None, tries: list[tuple[dict[str, str] | None, str]]) -> None:
        nonlocal number
        number += 1
        agent = create_agent(policy, "agree", f"agent-{number}", selector, account)
        seen(policy, "agree", f"agent-{number}")
        for labels, pod_account in tries:
            body = pod("agree", labels, pod_account)
            whole = {**body, "metadata": {**body["metadata"], "name": "p", "uid": "u", "resourceVersion": "1"}}
            said = create_pod(policy, body)
            assert said == "" or REFUSED in said
            assert runs(read_pod(whole), agent) == (f"Agent agree/agent-{number} selects" in said), said
        policy.kubectl("delete", "agents", "--all", "-n", "agree")

    try:
        agree()
    finally:
        remove_namespace(policy, "agree")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("kube-system", None),
        ("fleetward-system", {}),
        ("excluded-one", {}),
        ("labelled", {"fleetward.dev/injection": "disabled"}),
    ],
)
def test_excluded_namespaces(policy: ControlPlane, name: str, labels: dict[str, str] | None) -> None:
    if labels is not None:
        make_namespace(policy, name, labels)
    try:
        create_agent(policy, name, "everything", {})
        # Nothing in the namespace shows that the policy has seen the Agent, so one made later elsewhere has to.
        create_agent(policy, "probe", f"after-{name}", {"matchLabels": {"probe": name}})
        deadline = time.monotonic() + 30
        while not create_pod(policy, pod("probe", {"probe": name})):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert create_pod(policy, pod(name, {"app": "x"})) == ""
    finally:
        policy.request("DELETE", f"/apis/fleetward.dev/v1alpha1/namespaces/{name}/agents/everything")
        if labels is not None:
            remove_namespace(policy, name)


def test_other_namespaces_are_none_of_an_agents_business(policy: ControlPlane, namespace: str) -> None:
    create_agent(policy, namespace, "everything", {})
    seen(policy, namespace, "everything")
    assert REFUSED in create_pod(policy, pod(namespace))
    assert create_pod(policy, pod("default", {"app": "x"})) == ""


def test_many_agents_with_large_selectors(policy: ControlPlane, namespace: str) -> None:
    """The API server bounds what CEL may cost; the largest selectors that our CRD allows stay within."""
    names = [f"label-{number}" for number in range(64)]
    selector = {
        "matchLabels": dict.fromkeys(names, "v" * 63),
        "matchExpressions": [
            {"key": name, "operator": "In", "values": [f"{n:062}x" for n in range(63)] + ["v" * 63]}
            for name in names[:32]
        ],
    }
    for number in range(30):
        create_agent(policy, namespace, f"large-{number}", selector)
    for number in range(200):
        create_agent(policy, namespace, f"small-{number}", {"matchLabels": {"app": f"app-{number}"}})
    seen(policy, namespace, "small-199")
    large = dict.fromkeys(names, "v" * 63)
    assert "Agent " + namespace + "/large-" in create_pod(policy, pod(namespace, large))
    assert f"Agent {namespace}/small-77 selects" in create_pod(policy, pod(namespace, {"app": "app-77"}))
    assert create_pod(policy, pod(namespace, {**large, "label-63": "other"})) == ""
    began = time.monotonic()
    for _ in range(20):
        assert create_pod(policy, pod(namespace, {"app": "free"})) == ""
    print(f"230 agents: {(time.monotonic() - began) / 20 * 1000:.1f} ms a pod")  # noqa: T201 - for the reader of -s


def test_the_api_server_finds_nothing_wrong_with_the_expressions(policy: ControlPlane) -> None:
    deadline = time.monotonic() + 30
    path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{NAME}"
    while "typeChecking" not in (body := policy.request("GET", path)).get("status", {}):
        assert time.monotonic() < deadline, "the controller manager has not looked"
        time.sleep(0.1)
    assert body["status"]["typeChecking"] == {}
    assert body["metadata"]["generation"] == 1, "written once: what the API server gives back is what was wanted"
