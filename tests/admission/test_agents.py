"""Which agents a pod runs and which mode they are in: the same as the operator and its registry say."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetward.registry.registry import Registry
from fleetward.resources import Agent, AgentFleet
from fleetward_operator.view.pods import read_pod, runs
from fleetward_webhook.admission import agents

API = {"apiVersion": "fleetward.dev/v1alpha1"}
keys, values = st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b", ""])
labels = st.dictionaries(keys, values, max_size=2)
requirements = st.one_of(
    st.fixed_dictionaries({"key": keys, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
    st.fixed_dictionaries(
        {"key": keys, "operator": st.sampled_from(["In", "NotIn"]), "values": st.lists(values, min_size=1, max_size=2)}
    ),
)
selectors = st.fixed_dictionaries(
    {}, optional={"matchLabels": labels, "matchExpressions": st.lists(requirements, max_size=2)}
)
accounts = st.sampled_from(["default", "other"])
modes = st.sampled_from(["Running", "Paused", "Stopped", "Quarantined"])
workloads = st.fixed_dictionaries({"selector": selectors}, optional={"serviceAccountName": accounts})
specs = st.fixed_dictionaries({"role": st.just("Worker")}, optional={"workload": workloads, "operatingMode": modes})
fleets = st.fixed_dictionaries(
    {"agents": st.fixed_dictionaries({}, optional={"namespaceSelector": selectors, "agentSelector": selectors})},
    optional={"operatingMode": modes},
)


def read(kind: type[Any], body: dict[str, Any]) -> Any:
    return msgspec.json.decode(msgspec.json.encode(body), type=kind, dec_hook=agents.hook)


def body(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {**API, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


@given(st.lists(specs, max_size=3), labels, st.none() | accounts)
def test_a_pod_runs_the_agents_the_operator_says(
    given: list[dict[str, Any]], of_pod: dict[str, str], account: str | None
) -> None:
    bodies = [body("Agent", f"a{number}", spec, namespace="n") for number, spec in enumerate(given)]
    metadata = {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1", "labels": of_pod}
    spec: dict[str, Any] = {"containers": []} | ({"serviceAccountName": account} if account else {})
    found = agents.running(
        [read(agents.Agent, each) for each in bodies], read(agents.Pod, {"metadata": metadata, "spec": spec})
    )
    pod = read_pod({"metadata": metadata, "spec": spec})
    assert [one.key for one in found] == [a.key for a in map(Agent.model_validate, bodies) if runs(pod, a)]


@given(
    st.lists(st.tuples(specs, labels), min_size=1, max_size=3),
    st.lists(fleets, max_size=3),
    labels,
)
def test_pods_are_held_in_the_modes_the_registry_gives(
    given: list[tuple[dict[str, Any], dict[str, str]]], around: list[dict[str, Any]], namespace_labels: dict[str, str]
) -> None:
    of_namespace = namespace_labels | {"kubernetes.io/metadata.name": "n"}
    agent_bodies = [
        body("Agent", f"a{number}", spec, namespace="n", labels=own) for number, (spec, own) in enumerate(given)
    ]
    fleet_bodies = [body("AgentFleet", f"f{number}", spec) for number, spec in enumerate(around)]
    resources = [*map(Agent.model_validate, agent_bodies), *map(AgentFleet.model_validate, fleet_bodies)]
    registry = Registry.build(resources, {"n": of_namespace})
    in_force = [agent.mode.operating_mode for agent in registry.agents.values()]
    held = agents.held(
        [read(agents.Agent, each) for each in agent_bodies],
        [read(agents.Fleet, each) for each in fleet_bodies],
        of_namespace,
    )
    assert held == all(mode in {"Stopped", "Quarantined"} for mode in in_force)


@pytest.mark.parametrize(
    ("selectors", "held"),
    [
        ({}, True),
        ({"namespaceSelector": {"matchLabels": {"env": "prod"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"env": "test"}}}, False),
        ({"agentSelector": {"matchLabels": {"team": "a"}}}, True),
        ({"agentSelector": {"matchLabels": {"team": "b"}}}, False),
    ],
)
def test_a_fleet_holds_its_own_agents_alone(selectors: dict[str, Any], *, held: bool) -> None:
    one = read(agents.Agent, body("Agent", "a", {"role": "Worker"}, namespace="n", labels={"team": "a"}))
    stopped = read(agents.Fleet, body("AgentFleet", "f", {"agents": selectors, "operatingMode": "Stopped"}))
    assert agents.held([one], [stopped], {"env": "prod"}) == held


def test_a_selector_that_does_not_read_is_an_error_and_never_nothing() -> None:
    wrong = {"workload": {"selector": {"matchLabels": {"app": 1}}}}
    with pytest.raises(msgspec.ValidationError):
        read(agents.Agent, body("Agent", "a", wrong, namespace="n"))
