"""A registry changed step by step equals one built afresh; what does not change is kept; a cut is what is needed."""

import random
from typing import Any

import pytest
from decision.build import agent, catalog, fleet, policy, resource, slice_of
from decision.strategies import AGENTS, FEW, LABELS, NAMESPACES, SOME, Data, World, worlds
from hypothesis import given
from hypothesis import strategies as st

from fleetward.registry import slice as sl
from fleetward.registry.registry import BudgetPauses, NamespaceLabels, Registry, RegistryChange, Remove, Upsert
from fleetward.resources import AuditSink

FILED = ("agents_in", "policies_in", "budgets_in", "parents", "pauses", "fleets", "sinks_by_key", "not_running")
PARTS = ("resources", "namespaces", "agents", "policies", "catalogs", "budgets", *FILED, "sum")

WORLDS = worlds(with_budgets=True)
PAUSES = st.dictionaries(
    st.sampled_from((*AGENTS, "n/nobody")),
    st.builds(
        sl.Mode,
        operating_mode=st.sampled_from(sl.MODES),
        reason=st.sampled_from(("spent", "")),
        source=st.just("AgentBudget n/b0"),
    ),
    max_size=2,
).map(BudgetPauses)


def _content(registry: Registry) -> dict[str, Any]:
    """Give all of a registry but when it was made."""
    return {name: getattr(registry, name) for name in PARTS} | {"version": registry.version}


def _key(document: Data) -> tuple[str, str]:
    meta = document["metadata"]
    return document["kind"], f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]


def test_every_part_of_a_registry_is_compared() -> None:
    assert set(PARTS) | {"changed_at"} == set(Registry.__dataclass_fields__)


def _steps(draw: Any, world: World, target: World) -> list[RegistryChange]:
    """Draw changes that lead, with detours, from one world to the other."""
    wanted = {_key(document): resource for document, resource in zip(target.documents, target.resources, strict=True)}
    steps: list[RegistryChange] = [Upsert(r) for r in wanted.values()]
    steps += [Remove(*_key(d)) for d in world.documents if _key(d) not in wanted]
    steps += [NamespaceLabels(name, target.namespaces.get(name)) for name in NAMESPACES]
    detours: list[RegistryChange] = [Upsert(r) for r in draw(WORLDS).resources]
    detours += [NamespaceLabels(name, draw(st.sampled_from(LABELS))) for name in NAMESPACES]
    detours += [Remove(*key) for key in wanted]
    detours.append(draw(PAUSES))
    return [*draw(st.permutations(detours))[:6], *draw(st.permutations(steps))]


def _without_detours(registry: Registry, steps: list[RegistryChange], target: World) -> list[RegistryChange]:
    """Add the removals of what only a detour brought."""
    wanted = {_key(document) for document in target.documents}
    brought = {(s.resource.kind, s.resource.key) for s in steps if isinstance(s, Upsert)}
    return [*steps, *(Remove(*key) for key in sorted(brought - wanted)), BudgetPauses({})]


@given(st.data())
@SOME
def test_changes_one_by_one_give_the_registry_built_afresh(data: Any) -> None:
    world, target = data.draw(WORLDS), data.draw(WORLDS)
    fresh = target.registry
    registry = world.registry
    steps = _without_detours(registry, _steps(data.draw, world, target), target)
    at_once = registry.apply(steps)
    for step in steps:
        registry = registry.apply([step])
    assert _content(registry) == _content(fresh)
    assert _content(at_once) == _content(fresh)
    assert registry.cut(AGENTS) == fresh.cut(AGENTS)


@given(st.data())
@FEW
def test_every_step_on_the_way_equals_a_fresh_registry(data: Any) -> None:
    world, target = data.draw(WORLDS), data.draw(WORLDS)
    registry = world.registry
    present = {(r.kind, r.key): r for r in world.resources}
    labels: dict[str, Any] = dict(world.namespaces)
    pauses = BudgetPauses({})
    for step in _steps(data.draw, world, target):
        registry = registry.apply([step])
        match step:
            case Upsert(resource):
                present[resource.kind, resource.key] = resource
            case Remove(kind, key):
                present.pop((kind, key), None)
            case NamespaceLabels(name, None):
                labels.pop(name, None)
            case NamespaceLabels(name, values):
                labels[name] = values
            case BudgetPauses():
                pauses = step
        assert _content(registry) == _content(Registry.build(present.values(), labels).apply([pauses]))


@given(WORLDS, WORLDS, PAUSES)
@SOME
def test_replacing_everything_gives_the_registry_built_afresh(
    world: World, target: World, pauses: BudgetPauses
) -> None:
    before = world.registry.apply([pauses])
    content = _content(before)
    after = before.replace_all(target.resources, target.namespaces)
    assert _content(after) == _content(target.registry.apply([pauses])), "what budgets pause, stays paused"
    assert _content(before) == content, "a registry never changes"
    assert after.replace_all(target.resources, target.namespaces) is after


@given(st.data())
@FEW
def test_order_of_building_never_matters(data: Any) -> None:
    world = data.draw(WORLDS)
    shuffled = World(data.draw(st.permutations(world.documents)), world.namespaces)
    assert _content(shuffled.registry) == _content(world.registry)


@given(WORLDS, st.lists(st.sampled_from(AGENTS), unique=True))
@SOME
def test_a_cut_holds_just_what_its_agents_need(world: World, keys: list[str]) -> None:
    registry = world.registry
    items = registry.cut(keys).items
    assert set(items.agents) == set(keys) & set(registry.agents)
    assert set(items.policies) == {p for a in items.agents.values() for p in a.policies}
    assert set(items.catalogs) == set(registry.catalogs)
    assert set(items.budgets) == {b for a in items.agents.values() for b in a.budgets}
    for key, budget in items.budgets.items():
        above = registry.parents[key]
        assert above in items.budgets or (above not in registry.budgets and bool(budget.problem) == bool(above))
    spaces = {a.namespace for a in items.agents.values() if a.may_delegate_to and a.may_delegate_to.roles}
    assert items.roles == {key: a.role for key, a in registry.agents.items() if a.namespace in spaces}


@pytest.mark.parametrize(
    "different",
    [
        agent(role="Planner"),
        agent(labels={"team": "x"}),
        agent(operatingMode="Paused"),
        resource("Agent", "worker", {"role": "Worker"}, "reports", uid="u"),
        resource("Agent", "worker", {"role": "Worker"}, "reports", generation=2),
        resource(
            "Agent", "worker", {"role": "Worker"}, "reports", annotations={"fleetward.dev/operating-mode-set-by": "x"}
        ),
    ],
)
def test_the_version_tells_contents_apart(different: Any) -> None:
    assert Registry.build([agent()]).version == Registry.build([agent()]).version
    assert Registry.build([agent()]).version != Registry.build([different]).version


def test_the_version_of_nothing_and_of_namespaces() -> None:
    assert Registry.build([]).version == "0" * 16
    labelled: list[dict[str, dict[str, str]]] = [{}, {"n": {}}, {"n": {"a": "1"}}, {"m": {"a": "1"}}]
    assert len({Registry.build([], labels).version for labels in labelled}) == 4


def test_a_change_that_changes_nothing_gives_the_same_registry() -> None:
    registry = Registry.build([agent(), policy({"decision": "Allow"})], {"reports": {"a": "1"}})
    nothing: list[RegistryChange] = [
        Upsert(agent()),
        Remove("Agent", "reports/nobody"),
        NamespaceLabels("reports", {"a": "1"}),
    ]
    assert registry.apply(nothing) is registry
    assert registry.apply([]) is registry


def test_the_age_starts_anew_with_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("fleetward.registry.registry.time.time", lambda: now[0])
    registry = Registry.build([agent()])
    now[0] += 5
    assert registry.age_seconds == 5.0
    assert registry.apply([Upsert(agent())]).age_seconds == 5.0
    assert registry.apply([Upsert(agent("b"))]).age_seconds == 0.0
    now[0] -= 60
    assert registry.age_seconds == 0.0


def test_sinks_are_given_by_name() -> None:
    sinks = [resource("AuditSink", name, {"type": "JsonLines", "jsonLines": {"path": "a"}}) for name in ("b", "a")]
    found = Registry.build([agent(), *sinks]).sinks
    assert [sink.key for sink in found] == ["a", "b"]
    assert all(isinstance(sink, AuditSink) for sink in found)


def test_a_namespaced_resource_without_a_namespace_is_refused() -> None:
    """Filed as it is, an AgentPolicy of no namespace would reach every namespace."""
    rule = {"name": "r", "match": {}, "decision": "Allow"}
    for kind, spec, place, words in (
        ("AgentPolicy", {"rules": [rule]}, None, "metadata.namespace is missing; AgentPolicy is namespaced"),
        ("Agent", {"role": "Worker"}, None, "metadata.namespace is missing; Agent is namespaced"),
        (
            "ClusterAgentPolicy",
            {"rules": [rule]},
            "reports",
            "metadata.namespace: found reports, allowed none; ClusterAgentPolicy is cluster-scoped",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            Registry.build([resource(kind, "p", spec, place)])


class TestFleets:
    def test_of_several_the_strictest_default_counts(self) -> None:
        defaults = {"a": "Allow", "b": "Deny", "c": "RequireApproval"}
        fleets = [fleet(name, defaultDecision=default) for name, default in defaults.items()]
        item = slice_of(agent(), *fleets).items.agents["reports/worker"]
        assert (item.default_decision, item.default_source, item.fleets) == ("Deny", "b", ("a", "b", "c"))
        item = slice_of(agent(), fleets[0], fleets[2]).items.agents["reports/worker"]
        assert (item.default_decision, item.default_source) == ("RequireApproval", "c")

    def test_an_agent_of_no_fleet_is_denied_by_default_and_not_believed(self) -> None:
        item = slice_of(agent()).items.agents["reports/worker"]
        assert (item.default_decision, item.default_source, item.declared_facts) == ("Deny", "", "RestrictOnly")

    def test_agents_are_believed_where_all_their_fleets_trust_them(self) -> None:
        trusting, other = fleet("t", declaredFacts="Trusted"), fleet("o")
        assert slice_of(agent(), trusting).items.agents["reports/worker"].declared_facts == "Trusted"
        assert slice_of(agent(), trusting, other).items.agents["reports/worker"].declared_facts == "RestrictOnly"

    def test_the_name_every_namespace_carries_as_a_label_selects(self) -> None:
        selector = {"matchLabels": {"kubernetes.io/metadata.name": "reports"}}
        chosen = fleet("f", agents={"namespaceSelector": selector})
        for labels in ({}, {"reports": {"a": "1"}}):
            items = slice_of(agent(), agent("clerk", "sales"), chosen, namespaces=labels).items
            assert items.agents["reports/worker"].fleets == ("f",)
            assert items.agents["sales/clerk"].fleets == ()


class TestCost:
    """One change to a registry of 2,000 agents works out anew only the agents concerned; the others keep their item."""

    SIZE = 2000
    registry = Registry.build(
        [agent(f"a{n}", f"n{n % 20}", labels={"team": f"t{n % 100}"}) for n in range(SIZE)]
        + [policy({"decision": "Allow"}, name=f"p{n}", namespace=f"n{n}") for n in range(20)]
        + [fleet(f"f{n}", agents={"agentSelector": {"matchLabels": {"team": f"t{n}"}}}) for n in range(10)],
        {f"n{n}": {"env": "test"} for n in range(20)},
    )

    def _renewed(self, *changes: RegistryChange) -> set[str]:
        after = self.registry.apply(changes)
        assert after is not self.registry
        keys = set(self.registry.agents) | set(after.agents)
        return {key for key in keys if self.registry.agents.get(key) is not after.agents.get(key)}

    def test_an_agent_concerns_itself(self) -> None:
        assert self._renewed(Upsert(agent("a7", "n7", operatingMode="Paused"))) == {"n7/a7"}
        assert self._renewed(Upsert(agent("new", "n7"))) == {"n7/new"}
        assert self._renewed(Remove("Agent", "n7/a7")) == {"n7/a7"}

    def test_a_policy_concerns_its_subjects(self) -> None:
        chosen = {"agentSelector": {"matchLabels": {"team": "t7"}}}
        added = policy({"decision": "Deny"}, name="q", namespace="n7", subjects=chosen)
        assert len(self._renewed(Upsert(added))) == self.SIZE / 100
        named = policy({"decision": "Deny"}, name="q", namespace="n7", subjects={"agents": ["a7"]})
        assert self._renewed(Upsert(named)) == {"n7/a7"}

    def test_a_policys_rules_concern_no_agent_as_they_refer_to_it_by_key(self) -> None:
        changed = policy({"decision": "Deny"}, name="p7", namespace="n7")
        assert self._renewed(Upsert(changed)) == set()
        after = self.registry.apply([Upsert(changed)])
        assert after.policies["AgentPolicy/n7/p7"].rules[0].decision == "Deny"
        assert (
            after.policies["AgentPolicy/n7/p8".replace("p8", "p7")] is not self.registry.policies["AgentPolicy/n7/p7"]
        )
        assert after.policies["AgentPolicy/n8/p8"] is self.registry.policies["AgentPolicy/n8/p8"]

    def test_a_fleet_concerns_its_members_old_and_new(self) -> None:
        paused = fleet("f7", agents={"agentSelector": {"matchLabels": {"team": "t7"}}}, operatingMode="Paused")
        assert len(self._renewed(Upsert(paused))) == self.SIZE / 100
        moved = fleet("f7", agents={"agentSelector": {"matchLabels": {"team": "t50"}}})
        assert len(self._renewed(Upsert(moved))) == 2 * self.SIZE / 100
        assert len(self._renewed(Remove("AgentFleet", "f7"))) == self.SIZE / 100

    def test_a_namespaces_labels_concern_its_agents(self) -> None:
        assert len(self._renewed(NamespaceLabels("n7", {"env": "live"}))) == self.SIZE / 20
        assert len(self._renewed(NamespaceLabels("n7", None))) == self.SIZE / 20

    def test_a_catalog_concerns_no_agent(self) -> None:
        assert self._renewed(Upsert(catalog({"names": ["a"]}))) == set()

    def test_a_thousand_random_changes_end_where_a_fresh_build_does(self) -> None:
        chance = random.Random(7)  # noqa: S311  # reproducible, not secret
        registry, present = self.registry, dict(self.registry.resources.items())
        for number in range(300):
            kind, key = chance.choice(sorted(present))
            if number % 3 == 0:
                registry = registry.apply([Remove(kind, key)])
                del present[kind, key]
            else:
                added = agent(f"b{number}", f"n{chance.randrange(20)}", labels={"team": f"t{chance.randrange(100)}"})
                registry = registry.apply([Upsert(added)])
                present[added.kind, added.key] = added
        fresh = Registry.build(present.values(), dict(self.registry.namespaces.items()))
        assert _content(registry) == _content(fresh)
