"""The admission policy for agents' pods on a real API server, which alone evaluates it: no webhook answers here."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.controlplane.fixtures import make_namespace, remove_namespace
from support.controlplane.plane import ControlPlane
from support.podpolicies import GOVERNED, INJECTED, UNGOVERNED, create_agent, create_pod, enforced, pod, seen

from fleetward_operator.view.pods import read_pod, runs

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def policy(plane: ControlPlane) -> Iterator[ControlPlane]:
    """Have both policies in force."""
    with enforced(plane, "probe"):
        yield plane


def test_a_governed_pod_without_sidecar_is_refused_and_told_why(policy: ControlPlane, namespace: str) -> None:
    create_agent(policy, namespace, "worker", {"matchLabels": {"app": "worker"}})
    seen(policy, namespace, "worker")
    said = create_pod(policy, pod(namespace, {"app": "worker", "more": "x"}))
    assert f"Agent {namespace}/worker selects this pod, and it carries no decision webhook" in said
    assert "not answering" in said
    assert GOVERNED in said


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
    assert (UNGOVERNED in said) if selected else (said == ""), said


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
            assert said == "" or UNGOVERNED in said
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
    assert UNGOVERNED in create_pod(policy, pod(namespace))
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


@pytest.mark.parametrize("name", [GOVERNED, INJECTED])
def test_the_api_server_finds_nothing_wrong_with_the_expressions(policy: ControlPlane, name: str) -> None:
    deadline = time.monotonic() + 30
    path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}"
    while "typeChecking" not in (body := policy.request("GET", path)).get("status", {}):
        assert time.monotonic() < deadline, "the controller manager has not looked"
        time.sleep(0.1)
    assert body["status"]["typeChecking"] == {}
