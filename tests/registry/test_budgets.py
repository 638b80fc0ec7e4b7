"""Budgets in the registry: whom they concern, how they are part of one another, and the agents they pause."""

from typing import Any

import msgspec
import pytest
from decision.build import agent, catalog, fleet, policy, resource, slice_of
from decision.test_fields import fields_of

from fleetward.registry import slice as sl
from fleetward.registry.convert import budget_item, budget_key, policy_item
from fleetward.registry.registry import BudgetPauses, NamespaceLabels, Registry, RegistryChange, Remove, Upsert
from fleetward.resources import KINDS, AgentBudget, AgentPolicy, Resource

LIMITS = {"records": 10}
PAUSE = sl.Mode(operating_mode="Paused", reason="spent", source="AgentBudget reports/day")


def budget(name: str = "day", namespace: str | None = "reports", **spec: Any) -> Resource:
    kind = "ClusterAgentBudget" if namespace is None else "AgentBudget"
    return resource(kind, name, {"limits": LIMITS, **spec}, namespace)


def part_of(name: str, kind: str = "AgentBudget") -> dict[str, str]:
    return {"kind": kind, "name": name}


def budgets_of(registry: Registry, key: str = "reports/worker") -> tuple[str, ...]:
    return registry.agents[key].budgets


class TestSubjects:
    AGENTS = (
        agent("planner", role="Planner", labels={"team": "a"}),
        agent("worker", labels={"team": "b"}),
        agent("clerk", "sales"),
    )

    def _sharing(self, shared: Resource, *more: Resource, **namespaces: dict[str, str]) -> set[str]:
        registry = Registry.build([*self.AGENTS, shared, *more], namespaces)
        return {key.rpartition("/")[2] for key, item in registry.agents.items() if item.budgets}

    def test_left_out_every_agent_within_reach(self) -> None:
        assert self._sharing(budget()) == {"planner", "worker"}
        assert self._sharing(budget(namespace=None)) == {"planner", "worker", "clerk"}

    @pytest.mark.parametrize(
        ("subjects", "sharing"),
        [
            ({"roles": ["Planner"]}, {"planner"}),
            ({"agents": ["worker"]}, {"worker"}),
            ({"agents": ["reports/worker", "sales/clerk"]}, {"worker"}),
            ({"agentSelector": {"matchLabels": {"team": "a"}}}, {"planner"}),
            ({"roles": ["Planner"], "agents": ["worker"]}, set()),
            ({"fleets": ["none"]}, set()),
        ],
    )
    def test_all_fields_given_must_hold(self, subjects: dict[str, Any], sharing: set[str]) -> None:
        assert self._sharing(budget(subjects=subjects)) == sharing

    def test_of_fleets_one_suffices(self) -> None:
        chosen = fleet("a", agents={"agentSelector": {"matchLabels": {"team": "a"}}})
        assert self._sharing(budget(subjects={"fleets": ["none", "a"]}), chosen) == {"planner"}

    def test_namespaces_of_a_cluster_budget(self) -> None:
        live = {"namespaceSelector": {"matchLabels": {"env": "live"}}}
        assert self._sharing(budget(namespace=None, subjects=live), sales={"env": "live"}) == {"clerk"}


class TestFollowing:
    """What an agent's budgets depend on may change; each change is followed by itself."""

    def _after(self, start: list[Resource], *changes: RegistryChange) -> Registry:
        return Registry.build(start).apply(changes)

    def test_a_fleet_that_comes_changes_and_goes(self) -> None:
        shared = budget(subjects={"fleets": ["f"]})
        registry = Registry.build([agent(labels={"team": "a"}), shared])
        assert budgets_of(registry) == ()
        registry = registry.apply([Upsert(fleet("f"))])
        assert budgets_of(registry) == ("AgentBudget/reports/day",)
        others = fleet("f", agents={"agentSelector": {"matchLabels": {"team": "b"}}})
        assert budgets_of(registry.apply([Upsert(others)])) == ()
        assert budgets_of(registry.apply([Remove("AgentFleet", "f")])) == ()

    def test_labels_of_an_agent_and_of_its_namespace(self) -> None:
        shared = budget(
            namespace=None,
            subjects={
                "agentSelector": {"matchLabels": {"team": "a"}},
                "namespaceSelector": {"matchLabels": {"env": "live"}},
            },
        )
        registry = self._after([agent(), shared], NamespaceLabels("reports", {"env": "live"}))
        assert budgets_of(registry) == ()
        registry = registry.apply([Upsert(agent(labels={"team": "a"}))])
        assert budgets_of(registry) == ("ClusterAgentBudget/day",)
        assert budgets_of(registry.apply([NamespaceLabels("reports", {"env": "test"})])) == ()

    def test_a_budget_that_changes_its_limits_concerns_no_agent(self) -> None:
        registry = Registry.build([agent(), budget()])
        after = registry.apply([Upsert(budget(limits={"records": 5}))])
        assert after.agents["reports/worker"] is registry.agents["reports/worker"]
        assert after.budgets["AgentBudget/reports/day"].limits.records == 5
        assert after.version != registry.version

    def test_a_budget_that_changes_its_subjects_concerns_those_of_before_and_after(self) -> None:
        registry = Registry.build([agent(), agent("clerk"), budget(subjects={"agents": ["worker"]})])
        after = registry.apply([Upsert(budget(subjects={"agents": ["clerk"]}))])
        assert budgets_of(after) == ()
        assert budgets_of(after, "reports/clerk") == ("AgentBudget/reports/day",)
        assert budgets_of(after.apply([Remove("AgentBudget", "reports/day")]), "reports/clerk") == ()

    def test_only_the_subjects_are_worked_out_anew(self) -> None:
        many = [agent(f"a{n}", f"n{n % 4}") for n in range(100)]
        registry = Registry.build([*many, budget("up", None, subjects={"agents": ["n1/a1"]})])
        after = registry.apply([Upsert(budget("day", "n1", parent=part_of("up", "ClusterAgentBudget")))])
        renewed = {key for key, item in after.agents.items() if item is not registry.agents[key]}
        assert renewed == {f"n1/a{n}" for n in range(100) if n % 4 == 1}


class TestNesting:
    def test_what_counts_in_a_part_counts_in_the_whole(self) -> None:
        registry = Registry.build(
            [
                agent(),
                agent("clerk", "sales"),
                budget("day", parent=part_of("month")),
                budget("month", parent=part_of("org", "ClusterAgentBudget"), subjects={"agents": ["nobody"]}),
                budget("org", None, subjects={"agents": ["nobody"]}),
            ]
        )
        whole = ("AgentBudget/reports/day", "AgentBudget/reports/month", "ClusterAgentBudget/org")
        assert budgets_of(registry) == whole
        assert budgets_of(registry, "sales/clerk") == ()
        assert not any(item.problem for item in registry.budgets.values())
        items = registry.cut(["reports/worker"]).items
        assert tuple(items.budgets) == whole
        assert registry.cut(["sales/clerk"]).items.budgets == {}

    def test_principals_bring_their_budgets(self) -> None:
        registry = Registry.build([agent(), agent("clerk", "sales"), budget()])
        assert set(registry.cut(["sales/clerk"], ["reports/worker"]).items.budgets) == {"AgentBudget/reports/day"}

    def test_a_parent_that_is_not_there_leaves_nothing_to_spend(self) -> None:
        registry = Registry.build([agent(), budget("day", parent=part_of("month"))])
        item = registry.budgets["AgentBudget/reports/day"]
        assert item.problem == "AgentBudget reports/month, which it is part of (spec.parent), is not there"
        assert budgets_of(registry) == ("AgentBudget/reports/day",)
        registry = registry.apply([Upsert(budget("month", subjects={"agents": ["nobody"]}))])
        assert registry.budgets["AgentBudget/reports/day"].problem == ""
        assert budgets_of(registry) == ("AgentBudget/reports/day", "AgentBudget/reports/month")
        registry = registry.apply([Remove("AgentBudget", "reports/month")])
        assert "is not there" in registry.budgets["AgentBudget/reports/day"].problem

    def test_a_parent_is_one_of_the_same_namespace(self) -> None:
        registry = Registry.build([budget("day", parent=part_of("month")), budget("month", "sales")])
        assert "reports/month, which" in registry.budgets["AgentBudget/reports/day"].problem

    def test_a_circle_is_told_and_nothing_hangs(self) -> None:
        registry = Registry.build(
            [
                agent(),
                budget("a", parent=part_of("b")),
                budget("b", parent=part_of("c")),
                budget("c", parent=part_of("b")),
            ]
        )
        assert registry.budgets["AgentBudget/reports/a"].problem == ""
        assert registry.budgets["AgentBudget/reports/b"].problem == (
            "it is part of itself (spec.parent): AgentBudget reports/b is part of AgentBudget reports/c "
            "is part of AgentBudget reports/b"
        )
        assert registry.budgets["AgentBudget/reports/c"].problem.startswith("it is part of itself")
        assert set(budgets_of(registry)) == {f"AgentBudget/reports/{name}" for name in "abc"}
        mended = registry.apply([Upsert(budget("c"))])
        assert not any(item.problem for item in mended.budgets.values())

    def test_a_problem_stays_when_something_else_changes(self) -> None:
        registry = Registry.build([budget("day", parent=part_of("month"))])
        after = registry.apply([Upsert(budget("day", parent=part_of("month"), limits={"records": 1}))])
        assert "is not there" in after.budgets["AgentBudget/reports/day"].problem


class TestPauses:
    def test_paused_agents_say_why_and_others_go_on(self) -> None:
        registry = Registry.build([agent(), agent("clerk")])
        paused = registry.apply([BudgetPauses({"reports/worker": PAUSE})])
        assert paused.agents["reports/worker"].mode == PAUSE
        assert paused.agents["reports/clerk"] is registry.agents["reports/clerk"]
        assert set(paused.not_running) == {"reports/worker"}
        assert paused.version != registry.version
        assert paused.cut(["reports/clerk"], ["reports/worker"]).items.principals["reports/worker"].mode == PAUSE

    def test_they_take_the_place_of_those_said_before(self) -> None:
        registry = Registry.build([agent(), agent("clerk")])
        paused = registry.apply([BudgetPauses({"reports/worker": PAUSE})])
        moved = paused.apply([BudgetPauses({"reports/clerk": PAUSE})])
        assert set(moved.not_running) == {"reports/clerk"}
        assert moved.apply([BudgetPauses({})]).version == registry.version
        assert paused.apply([BudgetPauses({"reports/worker": PAUSE})]) is paused

    @pytest.mark.parametrize("mode", sl.MODES)
    def test_the_stronger_mode_counts_and_the_agents_own_at_a_draw(self, mode: str) -> None:
        registry = Registry.build([agent(operatingMode=mode)]).apply([BudgetPauses({"reports/worker": PAUSE})])
        found = registry.agents["reports/worker"].mode
        assert found.operating_mode == ("Paused" if mode == "Running" else mode)
        assert found.source == ("AgentBudget reports/day" if mode == "Running" else "Agent reports/worker")

    def test_an_agent_that_comes_later_is_paused(self) -> None:
        registry = Registry.build([]).apply([BudgetPauses({"reports/worker": PAUSE})])
        assert registry.apply([Upsert(agent())]).agents["reports/worker"].mode == PAUSE
        assert registry.replace_all([agent()]).agents["reports/worker"].mode == PAUSE


class TestItems:
    def test_a_budget_as_it_travels(self) -> None:
        written = budget(
            scope="Subtree",
            window={"kind": "Rolling", "duration": "1h30m"},
            limits={"wallSeconds": 60, "calls": [{"names": ["crm.**", "mail.*"], "max": 3}]},
            thresholds=[
                {"percent": 100, "action": "Pause"},
                {"percent": 80, "action": "Throttle", "perMinute": 6},
                {"percent": 80, "action": "Event"},
            ],
            defaultEstimate={"wallSeconds": 2, "records": 0},
            unpricedModels="UseEstimate",
            settleAfterSeconds=60,
        )
        assert isinstance(written, AgentBudget)
        item = budget_item(written, "why")
        assert item.key == budget_key(written) == "AgentBudget/reports/day"
        assert item.window == sl.BudgetWindow(kind="Rolling", duration_seconds=5400)
        assert item.limits == sl.BudgetLimits(wall_seconds=60, calls=(sl.CallLimit(names=("crm.**", "mail.*"), max=3),))
        assert [(t.percent, t.action, t.per_minute) for t in item.thresholds] == [
            (80, "Event", 1),
            (80, "Throttle", 6),
            (100, "Pause", 1),
        ]
        assert item.default_estimate == sl.DefaultEstimate(wall_seconds=2, records=0)
        assert (item.unpriced_models, item.settle_after_seconds, item.problem) == ("UseEstimate", 60, "why")
        assert msgspec.json.decode(msgspec.json.encode(item), type=sl.Budget) == item

    def test_what_is_left_out(self) -> None:
        item = Registry.build([budget(window={"kind": "Calendar", "unit": "Day"})]).budgets["AgentBudget/reports/day"]
        assert (item.scope, item.window.time_zone, item.settle_after_seconds) == ("Shared", "UTC", 3600)
        assert Registry.build([budget()]).budgets["AgentBudget/reports/day"].window == sl.BudgetWindow(kind="Total")

    def test_a_throttled_rule_and_a_price(self) -> None:
        rate = {"count": 5, "perSeconds": 60}
        written = policy({"decision": "Throttle", "throttle": {"rate": rate}})
        assert isinstance(written, AgentPolicy)
        (rule,) = policy_item(written).rules
        assert rule.throttle == sl.Throttle(rate=sl.Rate(count=5, per_seconds=60, burst=5), scope="Agent")
        price = {"models": ["large-*"], "inputMicroUsdPerMillion": 3, "outputMicroUsdPerMillion": 15}
        prices = resource("ActionCatalog", "prices", {"models": [price]})
        items = slice_of(agent(), prices, catalog({"names": ["a"]})).items
        assert items.catalogs["prices"].models == (
            sl.ModelPrice(models=("large-*",), input_micro_usd_per_million=3, output_micro_usd_per_million=15),
        )
        assert items.catalogs["c"].models == ()


@pytest.mark.parametrize("kind", ["AgentBudget", "ClusterAgentBudget"])
def test_every_field_of_a_budget_makes_a_difference(kind: str) -> None:
    """A field that is taken and then read by nothing would be a limit that does not limit."""
    model = KINDS[kind].model_fields["spec"].annotation
    assert isinstance(model, type)
    fields = {path.removeprefix("spec.") for path in fields_of(model, "spec")}
    assert {path for path, _, _ in DIFFERENCES if kind != "AgentBudget" or path not in CLUSTER_ONLY} == fields
    here = agent(labels={"team": "a"})
    for path, one, other in DIFFERENCES:
        if path in CLUSTER_ONLY and kind == "AgentBudget":
            continue
        seen = []
        for spec in (one, other):
            place = "reports" if kind == "AgentBudget" else None
            registry = Registry.build([here, fleet("f"), resource(kind, "b", {"limits": LIMITS, **spec}, place)])
            (item,) = registry.budgets.values()
            seen.append((msgspec.structs.replace(item, hash=""), budgets_of(registry)))
        assert seen[0] != seen[1], path


def _wall(seconds: int, **more: Any) -> dict[str, Any]:
    return {"limits": {"wallSeconds": seconds}, "defaultEstimate": {"wallSeconds": 1}, **more}


def _selecting(selector: str, key: str, operator: str = "Exists", *values: str) -> dict[str, Any]:
    requirement = {"key": key, "operator": operator, "values": list(values)}
    return {"subjects": {selector: {"matchExpressions": [requirement]}}}


def _calendar(**more: Any) -> dict[str, Any]:
    return {"window": {"kind": "Calendar", "unit": "Day", **more}}


def _calls(**more: Any) -> dict[str, Any]:
    return {"limits": {"calls": [{"names": ["a"], "max": 1, **more}]}}


def _threshold(**more: Any) -> dict[str, Any]:
    return {"thresholds": [{"percent": 50, "action": "Throttle", **more}]}


AMOUNTS = ("inputTokens", "outputTokens", "costMicroUsd", "records")
CLUSTER_ONLY = {
    f"subjects.namespaceSelector.{name}"
    for name in ("matchLabels", *(f"matchExpressions.{part}" for part in ("key", "operator", "values")))
}
DIFFERENCES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("subjects.fleets", {"subjects": {"fleets": ["f"]}}, {"subjects": {"fleets": ["g"]}}),
    ("subjects.roles", {"subjects": {"roles": ["Worker"]}}, {"subjects": {"roles": ["Planner"]}}),
    ("subjects.agents", {"subjects": {"agents": ["worker"]}}, {"subjects": {"agents": ["other"]}}),
    ("subjects.agentSelector.matchLabels", {}, {"subjects": {"agentSelector": {"matchLabels": {"k": "v"}}}}),
    *[
        (f"subjects.{selector}.matchExpressions.{part}", _selecting(selector, *one), _selecting(selector, *other))
        for selector, key, value in (
            ("agentSelector", "team", "a"),
            ("namespaceSelector", "kubernetes.io/metadata.name", "reports"),
        )
        for part, one, other in (
            ("key", (key,), ("absent",)),
            ("operator", (key,), (key, "DoesNotExist")),
            ("values", (key, "In", value), (key, "In", "other")),
        )
    ],
    ("subjects.namespaceSelector.matchLabels", {}, {"subjects": {"namespaceSelector": {"matchLabels": {"k": "v"}}}}),
    ("scope", {"scope": "Agent"}, {"scope": "Run"}),
    ("window.kind", {"window": {"kind": "Total"}}, {"window": {"kind": "Rolling", "duration": "1h"}}),
    ("window.unit", _calendar(), _calendar(unit="Week")),
    ("window.timeZone", _calendar(), _calendar(timeZone="Europe/Berlin")),
    (
        "window.duration",
        {"window": {"kind": "Rolling", "duration": "1h"}},
        {"window": {"kind": "Rolling", "duration": "61m"}},
    ),
    *[(f"limits.{name}", {"limits": {name: 1}}, {"limits": {name: 2}}) for name in AMOUNTS],
    ("limits.wallSeconds", _wall(1), _wall(2)),
    ("limits.calls.names", _calls(), _calls(names=["b"])),
    ("limits.calls.max", _calls(), _calls(max=2)),
    ("thresholds.percent", _threshold(), _threshold(percent=51)),
    ("thresholds.action", _threshold(), _threshold(action="Pause")),
    ("thresholds.perMinute", _threshold(), _threshold(perMinute=2)),
    ("parent.kind", {}, {"parent": {"kind": "ClusterAgentBudget", "name": "c"}}),
    (
        "parent.name",
        {"parent": {"kind": "ClusterAgentBudget", "name": "c"}},
        {"parent": {"kind": "ClusterAgentBudget", "name": "d"}},
    ),
    *[(f"defaultEstimate.{name}", {}, {"defaultEstimate": {name: 1}}) for name in (*AMOUNTS, "calls", "wallSeconds")],
    ("unpricedModels", {}, {"unpricedModels": "UseEstimate"}),
    ("settleAfterSeconds", {}, {"settleAfterSeconds": 60}),
]
