"""The index finds just the agents that asking each of them would, whatever the registry went through."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.make import API

from fleetward.registry.registry import Registry, Remove, Upsert
from fleetward.resources import Agent
from fleetward_operator.view.pods import Pod, agents_of
from fleetward_operator.view.workloads import Workloads, excluded, left_alone

NAMES = st.sampled_from("abcd")
NAMESPACES = st.sampled_from(["one", "two"])
ACCOUNTS = st.sampled_from(["default", "other"])
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]))
EXPRESSIONS = st.lists(
    st.sampled_from(
        [
            {"key": "tier", "operator": "In", "values": ["x"]},
            {"key": "app", "operator": "DoesNotExist"},
        ]
    ),
    max_size=2,
)


def agent(namespace: str, name: str, workload: dict[str, Any] | None, mode: str = "Running") -> Agent:
    spec = {"role": "Worker", "operatingMode": mode} | ({"workload": workload} if workload is not None else {})
    metadata = {"name": name, "namespace": namespace}
    return Agent.model_validate({"apiVersion": API, "kind": "Agent", "metadata": metadata, "spec": spec})


@st.composite
def agents(draw: st.DrawFn) -> Agent:
    workload = None
    if draw(st.integers(0, 5)):
        selector = {"matchLabels": draw(LABELS), "matchExpressions": draw(EXPRESSIONS)}
        workload = {"selector": selector, "serviceAccountName": draw(ACCOUNTS)}
    return agent(draw(NAMESPACES), draw(NAMES), workload, draw(st.sampled_from(["Running", "Stopped"])))


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    return Pod(draw(NAMESPACES), draw(NAMES), "uid", 1, draw(ACCOUNTS), draw(LABELS))


REMOVALS = st.tuples(NAMESPACES, NAMES).map(lambda key: Remove("Agent", "/".join(key)))
STEPS = st.lists(st.lists(st.one_of(agents().map(Upsert), REMOVALS), max_size=6), max_size=5)


@given(STEPS, st.lists(pods(), min_size=1, max_size=5))
@settings(max_examples=200)
def test_it_finds_what_asking_every_agent_finds(steps: list[list[Any]], asked: list[Pod]) -> None:
    registry, workloads = Registry(), Workloads()
    for step in steps:
        registry = registry.apply(step)
        before = [workloads.agents_of(pod) for pod in asked]
        touched = workloads.follow(registry)
        for pod, known in zip(asked, before, strict=True):
            found = sorted(a.key for a in workloads.agents_of(pod))
            assert found == sorted(a.key for a in agents_of(pod, registry))
            assert pod.namespace in touched or found == sorted(a.key for a in known)


def test_a_namespace_is_touched_when_pods_may_belong_to_others_now_and_not_otherwise() -> None:
    workload = {"selector": {"matchLabels": {"app": "x"}}}
    registry, workloads = Registry.build([agent("one", "a", workload)]), Workloads()
    assert workloads.follow(registry) == {"one"}
    assert workloads.follow(registry) == set()
    registry = registry.apply([Upsert(agent("one", "a", workload, "Paused"))])
    assert workloads.follow(registry) == set()
    registry = registry.apply([Upsert(agent("one", "a", {"selector": {"matchLabels": {"app": "y"}}}))])
    assert workloads.follow(registry) == {"one"}
    assert workloads.follow(registry.apply([Remove("Agent", "one/a")])) == {"one"}


def test_namespaces_are_excluded_by_their_label_or_for_what_they_are() -> None:
    registry = Registry.build([], {"off": {"fleetward.dev/injection": "disabled"}, "on": {}})
    never = left_alone("governance", ["mine"])
    assert "labelled fleetward.dev/injection: disabled" in excluded("off", registry, never)
    assert excluded("on", registry, never) == excluded("unheard-of", registry, never) == ""
    assert all("is never governed" in excluded(name, registry, never) for name in ("kube-system", "governance", "mine"))
    assert not excluded("fleetward-system", registry, never)
    assert excluded("fleetward-system", registry, left_alone())
