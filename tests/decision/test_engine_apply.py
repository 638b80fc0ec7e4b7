"""An engine that went through many slices decides as one that was given the last slice alone."""

from typing import Any

import msgspec
from decision.build import agent, all_of, ask, catalog, engine_of, fleet, policy, slice_of
from decision.strategies import AGENTS, FEW, World, catalogs, decide, fleets, policies, requests, worlds
from hypothesis import given
from hypothesis import strategies as st

from fleetward.decision.engine import Engine
from fleetward.registry import slice as sl


@st.composite
def neighbours(draw: st.DrawFn, world: World) -> World:
    """Draw a world that differs from another in a few documents, or in everything."""
    if draw(st.integers(0, 4)) == 0:
        return draw(worlds())
    documents = list(world.documents)
    for _ in range(draw(st.integers(1, 2))):
        index = draw(st.integers(0, len(documents) - 1))
        changed = documents[index]
        match changed["kind"]:
            case "Agent":
                mode = draw(st.sampled_from(("Running", "Paused", "Stopped")))
                changed = {**changed, "spec": {**changed["spec"], "operatingMode": mode}}
            case "AgentFleet":
                changed = draw(fleets(changed["metadata"]["name"]))
            case "ActionCatalog":
                changed = draw(catalogs(changed["metadata"]["name"]))
            case kind:
                changed = draw(policies(kind, changed["metadata"]["name"]))
        if draw(st.booleans()) or len(documents) == 1:
            documents[index] = changed
        else:
            del documents[index]
    return World(documents, world.namespaces)


@given(st.data())
@FEW
def test_any_sequence_of_slices_ends_as_the_last(data: Any) -> None:
    world = data.draw(worlds())
    asked = data.draw(st.lists(requests(world), min_size=1, max_size=3))
    engine = Engine(sl.Slice(version=""))
    for _ in range(data.draw(st.integers(1, 5))):
        registry = world.registry
        last = registry.cut(data.draw(st.one_of(st.just(AGENTS), st.lists(st.sampled_from(AGENTS), max_size=3))))
        engine.apply(last)
        fresh = Engine(last)
        assert set(engine.agents) == set(fresh.agents)
        for request in asked:
            assert all_of(decide(engine, request)) == all_of(decide(fresh, request))
        world = data.draw(neighbours(world))


@given(st.data())
@FEW
def test_changes_on_the_wire_make_the_same_engine(data: Any) -> None:
    """What a sidecar holds after a snapshot and changes, encoded and decoded, decides as the registry's own slice."""
    world = data.draw(worlds())
    asked = data.draw(st.lists(requests(world), min_size=1, max_size=3))
    held = _travelled(world.registry.cut(AGENTS), sl.Slice)
    engine = Engine(held)
    for _ in range(data.draw(st.integers(1, 4))):
        world = data.draw(neighbours(world))
        wanted = world.registry.cut(AGENTS)
        change = _travelled(sl.difference(held, wanted), sl.Change)
        held = sl.apply(held, change)
        assert held == wanted
        engine.apply(held)
        fresh = Engine(wanted)
        for request in asked:
            assert all_of(decide(engine, request)) == all_of(decide(fresh, request))


def _travelled(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


ALLOW = policy({"decision": "Allow"})


def test_a_pause_keeps_what_was_worked_out() -> None:
    """The change that must be fast: nothing is compiled or planned anew, and nothing forgotten."""
    engine = engine_of(agent(), ALLOW)
    before = engine.agents["reports/worker"]
    engine.apply(slice_of(agent(operatingMode="Paused"), ALLOW))
    assert engine.agents["reports/worker"] is before
    assert ask(engine).decision == "Deny"
    engine.apply(slice_of(agent(), ALLOW))
    assert engine.agents["reports/worker"] is before
    assert ask(engine).decision == "Allow"


def test_only_the_agents_concerned_are_made_anew() -> None:
    other = policy({"decision": "Deny"}, name="q", subjects={"agents": ["b"]})
    engine = engine_of(agent("a"), agent("b"), ALLOW)
    a, b = engine.agents["reports/a"], engine.agents["reports/b"]
    engine.apply(slice_of(agent("a"), agent("b"), ALLOW, other))
    assert engine.agents["reports/a"] is a
    assert engine.agents["reports/b"] is not b
    assert ask(engine, "reports/b").decision == "Deny"
    assert ask(engine, "reports/a").decision == "Allow"


def test_a_catalog_or_a_neighbours_role_reaches_every_agent() -> None:
    desk = agent("desk", mayDelegateTo={"roles": ["Planner"]})
    to = catalog({"names": ["give"], "target": "worker"})
    asked = {"kind": "Delegation", "name": "give"}
    engine = engine_of(desk, agent(role="Worker"), ALLOW, to)
    assert ask(engine, "reports/desk", **asked).decision == "Deny"
    engine.apply(slice_of(desk, agent(role="Planner"), ALLOW, to))
    assert ask(engine, "reports/desk", **asked).decision == "Allow"
    engine.apply(slice_of(desk, agent(role="Planner"), ALLOW))
    assert ask(engine, "reports/desk", **asked).decision == "Deny"


def test_a_fleets_default_reaches_its_agents() -> None:
    engine = engine_of(agent(), fleet(defaultDecision="Allow"))
    assert ask(engine).decision == "Allow"
    engine.apply(slice_of(agent(), fleet(defaultDecision="Deny")))
    assert ask(engine).decision == "Deny"


def test_the_answer_names_the_version_it_was_made_at() -> None:
    first, second = slice_of(agent(), ALLOW), slice_of(agent(), ALLOW, agent("other"))
    engine = Engine(first)
    assert ask(engine).answer("id").registry_version == first.version
    engine.apply(second)
    assert ask(engine).answer("id").registry_version == second.version != first.version
