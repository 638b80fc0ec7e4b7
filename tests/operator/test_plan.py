"""The plan stops and cuts off what must not run, lets go what may, and touches nothing else."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from support.make import API

from fleetward.registry.registry import Registry
from fleetward.resources import Agent, AgentFleet
from fleetward.resources.names import QUARANTINED_LABEL, STOPPED_GATE
from fleetward_operator.killsurface.plan import plan
from fleetward_operator.view.pods import Pod, agents_of
from fleetward_operator.view.quarantine import quarantines
from fleetward_operator.view.workloads import Workloads
from fleetward_webhook.admission import agents as admission

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
    label = draw(st.sampled_from([{}, {QUARANTINED_LABEL: "true"}, {QUARANTINED_LABEL: "by-hand"}]))
    return Pod(
        namespace=draw(st.sampled_from(NAMESPACES)),
        name=name,
        uid=name,
        resource_version=1,
        service_account="default",
        labels={"app": draw(st.sampled_from("xyz")), **label},
        phase=draw(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"])),
        node="" if gates else draw(st.sampled_from(["", "node"])),
        gates=gates,
        terminating=draw(st.booleans()),
    )


@given(registries(), st.lists(pods(), max_size=12))
@settings(max_examples=300)
def test_exactly_the_right_pods_are_evicted_released_cut_off_and_let_in_again(
    registry: Registry, there: list[Pod]
) -> None:
    right: dict[str, list[Pod]] = {"Evict": [], "Release": [], "Quarantine": [], "Unquarantine": []}
    for pod in there:
        agents = agents_of(pod, registry) if pod.namespace != "off" else []
        modes = {registry.agents[agent.key].mode.operating_mode for agent in agents}
        labelled = pod.labels.get(QUARANTINED_LABEL) == "true"
        if modes == {"Quarantined"} and not labelled and not pod.over:
            right["Quarantine"].append(pod)
        may_act = modes not in ({"Stopped"}, {"Quarantined"}, {"Stopped", "Quarantined"})
        if may_act and labelled:
            right["Unquarantine"].append(pod)
        if pod.over or pod.terminating:
            continue
        if modes == {"Stopped"} and pod.node:
            right["Evict"].append(pod)
        if STOPPED_GATE in pod.gates and may_act:
            right["Release"].append(pod)
    actions = plan(registry, there, Workloads())
    for verb, wanted in right.items():
        assert [a.pod for a in actions if a.verb == verb] == wanted, verb
    assert len(actions) == sum(map(len, right.values()))
    for action in actions:
        assert set(action.agents) <= {agent.key for agent in agents_of(action.pod, registry)}
        if action.verb in {"Evict", "Quarantine"}:
            assert action.agents


@given(registries(), st.lists(pods(), max_size=12))
@settings(max_examples=100)
def test_the_policy_stands_wherever_a_pod_is_cut_off_and_not_where_nothing_is_governed(
    registry: Registry, there: list[Pod]
) -> None:
    found = quarantines(registry, there, {"two"})
    cut_off = {a.pod.namespace for a in plan(registry, there, Workloads(), {"two"}) if a.verb == "Quarantine"}
    assert cut_off <= found.agents <= {"one"}
    assert found.pods == {pod.namespace for pod in there if pod.labels.get(QUARANTINED_LABEL) == "true"}


@given(MODES, MODES, st.booleans())
@settings(max_examples=60)
def test_what_admission_holds_is_not_released(one: str, other: str, fleet: bool) -> None:  # noqa: FBT001 - drawn
    """Both ask the same of a new pod that two agents share, one of which a fleet may hold."""
    found: list[Agent | AgentFleet] = []
    for name, mode in (("a", one), ("b", other)):
        spec = {"role": "Worker", "operatingMode": mode, "workload": {"selector": {"matchLabels": {"app": "x"}}}}
        metadata = {"name": name, "namespace": "one", "labels": {"fleet": name}}
        found.append(Agent.model_validate({"apiVersion": API, "kind": "Agent", "metadata": metadata, "spec": spec}))
    if fleet:
        spec = {"agents": {"agentSelector": {"matchLabels": {"fleet": "a"}}}, "operatingMode": "Quarantined"}
        body = {"apiVersion": API, "kind": "AgentFleet", "metadata": {"name": "f"}, "spec": spec}
        found.append(AgentFleet.model_validate(body))
    pod = Pod("one", "p", "u", 1, "default", labels={"app": "x"}, gates=(STOPPED_GATE,))
    kinds: dict[str, list[object]] = {"Agent": [], "AgentFleet": []}
    for each in found:
        model = admission.Agent if each.kind == "Agent" else admission.Fleet
        body = each.model_dump(by_alias=True, mode="json", exclude_none=True)
        kinds[each.kind].append(msgspec.convert(body, model, dec_hook=admission.hook))
    held = admission.held(kinds["Agent"], kinds["AgentFleet"], {})  # type: ignore[arg-type]
    released = "Release" in {a.verb for a in plan(Registry.build(found, {}), [pod], Workloads())}
    assert held is not released
