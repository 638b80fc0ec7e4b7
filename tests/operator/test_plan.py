"""The plan stops what must not run and lets go what may, and touches nothing else."""

from hypothesis import given, settings
from hypothesis import strategies as st
from support.make import API

from fleetward.registry.registry import Registry
from fleetward.resources import Agent, AgentFleet
from fleetward.resources.names import STOPPED_GATE
from fleetward_operator.killsurface.plan import plan
from fleetward_operator.view.pods import Pod, agents_of
from fleetward_operator.view.workloads import Workloads

MODES = st.sampled_from(["Running", "Paused", "Stopped", "Quarantined"])
NAMESPACES = ["one", "two", "off"]
LABELS = {"off": {"fleetward.dev/injection": "disabled"}}


@st.composite
def registries(draw: st.DrawFn) -> Registry:
    found: list[Agent | AgentFleet] = []
    for namespace in NAMESPACES:
        for name in draw(st.sets(st.sampled_from("abcd"))):
            spec = {
                "role": "Worker",
                "operatingMode": draw(MODES),
                "workload": {"selector": {"matchLabels": {"app": draw(st.sampled_from("xy"))}}},
            }
            metadata = {"name": name, "namespace": namespace, "labels": {"fleet": draw(st.sampled_from("pq"))}}
            found.append(Agent.model_validate({"apiVersion": API, "kind": "Agent", "metadata": metadata, "spec": spec}))
    for name in draw(st.sets(st.sampled_from("pq"))):
        spec = {"agents": {"agentSelector": {"matchLabels": {"fleet": name}}}, "operatingMode": draw(MODES)}
        found.append(
            AgentFleet.model_validate(
                {"apiVersion": API, "kind": "AgentFleet", "metadata": {"name": name}, "spec": spec}
            )
        )
    return Registry.build(found, LABELS)


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    gates = draw(st.sampled_from([(), (STOPPED_GATE,), ("other/gate",), ("other/gate", STOPPED_GATE)]))
    name = draw(st.text("mn", min_size=1, max_size=4))
    return Pod(
        namespace=draw(st.sampled_from(NAMESPACES)),
        name=name,
        uid=name,
        resource_version=1,
        service_account="default",
        labels={"app": draw(st.sampled_from("xyz"))},
        phase=draw(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"])),
        node="" if gates else draw(st.sampled_from(["", "node"])),
        gates=gates,
        terminating=draw(st.booleans()),
    )


@given(registries(), st.lists(pods(), max_size=12))
@settings(max_examples=300, deadline=None)
def test_exactly_the_right_pods_are_evicted_and_released(registry: Registry, there: list[Pod]) -> None:
    evicted, released = [], []
    for pod in there:
        agents = agents_of(pod, registry) if pod.namespace != "off" else []
        modes = {registry.agents[agent.key].mode.operating_mode for agent in agents}
        if pod.over or pod.terminating:
            continue
        if modes == {"Stopped"} and pod.node:
            evicted.append(pod)
        if STOPPED_GATE in pod.gates and modes != {"Stopped"}:
            released.append(pod)
    actions = plan(registry, there, Workloads())
    assert [a.pod for a in actions if a.verb == "Evict"] == evicted
    assert [a.pod for a in actions if a.verb == "Release"] == released
    assert len(actions) == len(evicted) + len(released)
    for action in actions:
        assert set(action.agents) <= {agent.key for agent in agents_of(action.pod, registry)}
        if action.verb == "Evict":
            assert action.agents
