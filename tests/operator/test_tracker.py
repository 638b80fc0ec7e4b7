"""The tracker names every object whose status may have changed, and works from one round to the next.

The model: whatever an object's status is made of, worked out anew by a tracker that has seen nothing before, may differ
from the round before only for objects that were named.
"""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.clusterview import View, agent, link, pod, resource

from fleetward.resources.base import LabelSelector
from fleetward_operator.status.compute import Computer
from fleetward_operator.status.conditions import meaning
from fleetward_operator.view.quarantine import Opening

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
APPS = st.sampled_from("xy")
MODES = st.sampled_from(["Running", "Paused", "Stopped", "Quarantined"])
RULE = {"name": "all", "match": {}, "decision": "Allow"}


def _agents(name: str, app: str, mode: str, labels: dict[str, str]) -> dict[str, Any]:
    return agent(name, mode, app=app, labels=labels)


RESOURCES = st.one_of(
    st.builds(_agents, st.sampled_from("abc"), APPS, MODES, st.sampled_from([{}, {"fleet": "p"}])),
    st.builds(
        lambda selected, mode: resource(
            "AgentFleet", "p", {"agents": {"agentSelector": {"matchLabels": selected}}, "operatingMode": mode}
        ),
        st.sampled_from([{}, {"fleet": "p"}]),
        MODES,
    ),
    st.builds(
        lambda names, decision: resource(
            "AgentPolicy", "q", {"subjects": {"agents": names}, "rules": [{**RULE, "decision": decision}]}
        ),
        st.sampled_from([[], ["a"], ["b", "c"]]),
        st.sampled_from(["Allow", "Deny", "Sometimes"]),
    ),
)
PODS = st.builds(
    pod,
    st.sampled_from(["p1", "p2", "p3"]),
    APPS,
    phase=st.sampled_from(["Pending", "Running", "Failed"]),
    held=st.booleans(),
    injected=st.booleans(),
    terminating=st.booleans(),
    quarantined=st.sampled_from(["", "true"]),
)
CUTS = st.sampled_from([{}, {"reports": ()}, {"reports": (Opening("dns", LabelSelector(matchLabels={"app": "x"})),)}])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), st.one_of(RESOURCES, PODS)),
        st.tuples(st.just("gone"), st.one_of(RESOURCES, PODS)),
        st.tuples(st.just("link"), st.tuples(st.sampled_from(["p1", "p2", "p3"]), st.booleans())),
        st.tuples(st.just("block"), st.sampled_from(["p1", "p2"])),
        st.tuples(st.just("cut"), CUTS),
    ),
    max_size=14,
)


def statuses(view: View, computer: Computer) -> dict[tuple[str, str], Any]:
    """Give every status, those of agents first: a fleet's is made of them."""
    return {key: meaning(computer.status(view.observed[key], {}, NOW)) for key in sorted(view.observed)}


@given(STEPS)
@settings(max_examples=300)
def test_what_is_not_named_has_not_changed(steps: list[tuple[str, Any]]) -> None:
    view = View()
    computer = Computer(view, clock=lambda: 0.0)
    known: dict[tuple[str, str], Any] = {}
    for what, value in steps:
        match what:
            case "see":
                view.see(value)
            case "gone":
                view.gone(value)
            case "link":
                name, current = value
                version = view.registry.version if current else "unheard of"
                view.connected = [link(f"reports/{name}", sorted(view.registry.agents), version)]
            case "cut":
                view.cut_off = value
            case _:
                view.evictions_blocked = {f"reports/{value}": "a budget"}
        dirty = computer.follow()
        now = statuses(view, computer)
        named = dirty.soon | dirty.later | {("AgentFleet", fleet) for fleet in computer.unsettled_fleets()}
        for key, status in now.items():
            assert key in named or status == known[key]
        known = now


@given(STEPS)
@settings(max_examples=200)
def test_following_step_by_step_comes_to_the_same_as_looking_once(steps: list[tuple[str, Any]]) -> None:
    view = View()
    computer = Computer(view, clock=lambda: 0.0)
    for what, value in steps:
        if what in {"see", "gone"}:
            getattr(view, what)(value)
            computer.follow()
    running = sorted(view.registry.agents)
    view.connected = [link(f"reports/{name}", running, view.registry.version) for name in ("p1", "p2", "p3")]
    computer.follow()
    fresh = Computer(view, clock=lambda: 0.0)
    fresh.follow()
    assert statuses(view, computer) == statuses(view, fresh)


def test_a_change_of_a_role_concerns_those_who_may_delegate_to_roles() -> None:
    delegating = agent("a")
    delegating["spec"]["mayDelegateTo"] = {"roles": ["Worker"]}
    view = View()
    view.see(delegating, agent("b"), agent("c"))
    computer = Computer(view, clock=lambda: 0.0)
    computer.follow()
    view.see(agent("b", "Paused"))
    assert ("Agent", "reports/a") not in computer.follow().later
    planner = agent("b")
    planner["spec"]["role"] = "Planner"
    view.see(planner)
    dirty = computer.follow()
    assert ("Agent", "reports/a") in dirty.later
    assert ("Agent", "reports/c") not in dirty.later | dirty.soon


def test_a_change_that_concerns_nobody_names_nobody() -> None:
    view = View()
    view.see(agent("a"), agent("b"), pod("p1", "a"), resource("AgentPolicy", "q", {"rules": [RULE]}))
    computer = Computer(view, clock=lambda: 0.0)
    computer.follow()
    dirty = computer.follow()
    assert dirty.soon | dirty.later == set()
    view.see(pod("p2", "nobody"))
    dirty = computer.follow()
    assert dirty.soon | dirty.later == set()
    view.see(pod("p1", "a", phase="Failed"))
    assert computer.follow().soon == {("Agent", "reports/a")}


def test_a_pod_that_comes_to_run_another_agent_concerns_both() -> None:
    view = View()
    view.see(agent("a"), agent("b"), pod("p1", "a"))
    computer = Computer(view, clock=lambda: 0.0)
    computer.follow()
    view.see(pod("p1", "b"))
    assert computer.follow().soon == {("Agent", "reports/a"), ("Agent", "reports/b")}
