"""What lint finds: expressions that must not ship, names that refer to nothing, catalogs at odds."""

import subprocess
import sys
from typing import Any

import pytest
from decision.build import agent, catalog, fleet, policy, resource

from fleetward.decision.lint import check_references, check_resource
from fleetward.resources import Resource


@pytest.mark.parametrize(
    ("phase", "when", "words"),
    [
        (
            "Before",
            "action.estimate.record > 1",
            "1:17: unknown field 'record' of action.estimate; did you mean 'records'?",
        ),
        ("Before", "agent.tier == 'High'", "1:7: unknown field 'tier' of agent;"),
        ("Before", "acton.name == 'a'", "1:1: unknown variable 'acton'; did you mean 'action'?"),
        ("Before", "action.name", "1:1: the result is of type string; it must be bool"),
        ("Before", "action.arguments.n", "1:1: the result may be of any type; it must be bool"),
        ("Before", "action.name ==", "1:15: Syntax error"),
        ("Before", "action.name == 1", "1:13: found no matching overload for '_==_'"),
        (
            "Before",
            "outcome.status == 'Failed'",
            "1:1: outcome is known in the phases During and After only; this rule's phase is Before",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["AgentPolicy", "ClusterAgentPolicy"])
def test_an_expression_that_must_not_ship(kind: str, phase: str, when: str, words: str) -> None:
    rules = [
        {"name": "fine", "match": {}, "decision": "Deny", "when": "action.name == 'a'"},
        {"name": "none", "match": {}, "decision": "Deny"},
        {"name": "wrong", "match": {}, "decision": "Deny", "phase": phase, "when": when},
    ]
    namespace = "reports" if kind == "AgentPolicy" else None
    [(location, found)] = check_resource(resource(kind, "p", {"rules": rules}, namespace))
    assert location == ("spec", "rules", 2, "when")
    assert found.startswith(words)
    source, caret = found.split("\n")[1:]
    assert source == f"  | {when}"
    column = int(found.split(":")[1])
    assert caret == f"  | {' ' * (column - 1)}^"


@pytest.mark.parametrize("phase", ["During", "After"])
def test_the_outcome_is_known_once_there_can_be_one(phase: str) -> None:
    assert check_resource(policy({"decision": "Deny", "phase": phase, "when": "outcome.status == 'Failed'"})) == []


def test_every_mistake_of_a_policy_is_found() -> None:
    rules = [{"decision": "Deny", "when": when} for when in ("action.a == 1", "true", "action.b == 1")]
    assert [location[2] for location, _ in check_resource(policy(*rules))] == [0, 2]


def test_other_kinds_have_no_expressions() -> None:
    for other in (agent(), fleet(), catalog({"names": ["a"]})):
        assert check_resource(other) == []


def everywhere(*rules: dict[str, Any], **spec: Any) -> Any:
    return resource(
        "ClusterAgentPolicy", "e", {"rules": [{"name": f"r{n}", "match": {}, **r} for n, r in enumerate(rules)], **spec}
    )


ALLOW = {"decision": "Allow"}


@pytest.mark.parametrize(
    ("referring", "location", "name"),
    [
        (agent("a", mayDelegateTo={"agents": ["worker", "gone"]}), ("spec", "mayDelegateTo", "agents", 1), "gone"),
        (
            agent("a", mayDelegateTo={"agents": ["sales/worker"]}),
            ("spec", "mayDelegateTo", "agents", 0),
            "sales/worker",
        ),
        (policy(ALLOW, subjects={"agents": ["gone"]}), ("spec", "subjects", "agents", 0), "gone"),
        (
            everywhere(ALLOW, subjects={"agents": ["worker", "reports/gone"]}),
            ("spec", "subjects", "agents", 1),
            "reports/gone",
        ),
        (policy(ALLOW, {**ALLOW, "match": {"agents": ["gone"]}}), ("spec", "rules", 1, "match", "agents", 0), "gone"),
        (policy({**ALLOW, "exclude": {"agents": ["gone"]}}), ("spec", "rules", 0, "exclude", "agents", 0), "gone"),
        (everywhere({**ALLOW, "match": {"agents": ["gone"]}}), ("spec", "rules", 0, "match", "agents", 0), "gone"),
    ],
)
def test_an_agent_that_does_not_exist(referring: Any, location: Any, name: str) -> None:
    [(found_in, found_at, words)] = check_references([agent("worker"), fleet("f"), referring])
    assert (found_in, found_at) == (referring, location)
    known = "reports/a, reports/worker" if referring.kind == "Agent" else "reports/worker"
    assert words == f"found {name}, which is no Agent here; there are: {known}"


@pytest.mark.parametrize("part", ["match", "exclude"])
def test_a_fleet_that_does_not_exist(part: str) -> None:
    for make in (policy, everywhere):
        referring = make({**ALLOW, part: {"fleets": ["f", "gone"]}})
        [(_, location, words)] = check_references([fleet("f"), referring])
        assert location == ("spec", "rules", 0, part, "fleets", 1)
        assert words == "found gone, which is no AgentFleet here; there are: f"


def test_names_that_exist() -> None:
    fine = [
        agent("worker"),
        agent("desk", mayDelegateTo={"agents": ["worker", "reports/worker", "sales/clerk"]}),
        agent("clerk", "sales"),
        fleet("f"),
        policy(
            {**ALLOW, "match": {"agents": ["worker", "reports/worker"], "fleets": ["f"]}}, subjects={"agents": ["desk"]}
        ),
        everywhere({**ALLOW, "match": {"agents": ["clerk", "worker"]}}, subjects={"agents": ["sales/clerk"]}),
    ]
    assert check_references(fine) == []


def test_where_nothing_exists_the_message_says_so() -> None:
    [(_, _, words)] = check_references([policy({**ALLOW, "match": {"fleets": ["f"]}})])
    assert words == "found f, which is no AgentFleet here; there are: none"


def test_a_name_of_another_namespace_is_no_neighbours() -> None:
    [(_, _, words)] = check_references([agent("clerk", "sales"), policy(ALLOW, subjects={"agents": ["clerk"]})])
    assert words == "found clerk, which is no Agent here; there are: none"


def test_a_namespaced_policy_reaches_no_agent_of_another_namespace() -> None:
    known = [agent("clerk", "sales"), agent("worker")]
    [(_, location, words)] = check_references([*known, policy(ALLOW, subjects={"agents": ["sales/clerk"]})])
    assert location == ("spec", "subjects", "agents", 0)
    assert words == "found sales/clerk, which is no Agent here; there are: reports/worker"


def test_a_plain_name_without_a_target_shows_that_others_disagree() -> None:
    plain = catalog({"names": ["a.b"], "riskTags": ["r"]})
    one, other = (
        catalog({"names": ["a.*"], "target": "t"}, name="d"),
        catalog({"names": ["**"], "target": "u"}, name="e"),
    )
    [(found_in, location, _)] = check_references([plain, one, other])
    assert (found_in, location) == (plain, ("spec", "entries", 0, "names", 0))


def test_catalogs_that_disagree_about_a_target() -> None:
    one, other = catalog({"names": ["a.b", "x"], "target": "t"}), catalog({"names": ["a.*"], "target": "u"}, name="d")
    [(found_in, location, words)] = check_references([one, other])
    assert found_in == one
    assert location == ("spec", "entries", 0, "names", 0)
    assert words == (
        "the catalog gives a.b more than one target: t (ActionCatalog c) and u (ActionCatalog d); leave one"
    )


def test_catalogs_that_agree_or_never_meet() -> None:
    assert check_references([catalog({"names": ["a", "b"], "target": "t"}, {"names": ["**"], "riskTags": ["r"]})]) == []
    assert check_references([catalog({"names": ["a"], "target": "t"}), catalog({"names": ["b"], "target": "u"})]) == []
    assert check_references([catalog({"names": ["a"], "target": "t"}, {"names": ["*"], "target": "t"})]) == []


def test_without_googles_runtime_an_expression_need_only_compile() -> None:
    """Some platforms have only the portable runtime; a folder is still checked there, if less strictly."""
    code = (
        "import sys\n"
        "sys.modules['cel_expr_python'] = None\n"
        "from fleetward.decision.lint import _mistake\n"
        "print(_mistake('action.nme == 1', 'Before') is None, 'nosuch' in _mistake('nosuch == 1', 'Before'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True True\n", done.stderr


def budget(name: str = "day", namespace: str | None = "reports", **spec: Any) -> Resource:
    kind = "ClusterAgentBudget" if namespace is None else "AgentBudget"
    return resource(kind, name, {"limits": {"records": 1}, **spec}, namespace)


@pytest.mark.parametrize("namespace", ["reports", None])
@pytest.mark.parametrize("zone", ["Europe/Berlim", "localtime", "europe/berlin"])
def test_a_time_zone_that_does_not_exist(namespace: str | None, zone: str) -> None:
    window = {"kind": "Calendar", "unit": "Day", "timeZone": zone}
    [(location, found)] = check_resource(budget(namespace=namespace, window=window))
    assert location == ("spec", "window", "timeZone")
    assert found.startswith(f'found "{zone}", allowed a time zone of the IANA database')
    assert ("did you mean Europe/Berlin?" in found) == (zone != "localtime")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_a_time_zone_that_exists(zone: str) -> None:
    assert check_resource(budget(window={"kind": "Calendar", "unit": "Day", "timeZone": zone})) == []


NOTHING = "nothing may be spent from this budget"


def test_a_budget_that_names_what_is_not_there() -> None:
    lost = budget(
        subjects={"fleets": ["f", "g"], "agents": ["worker", "sales/clerk"]},
        parent={"kind": "ClusterAgentBudget", "name": "all"},
    )
    found = check_references([lost, agent(), agent("clerk", "sales"), fleet("f")])
    assert [(where, said) for _, where, said in found] == [
        (
            ("spec", "subjects", "agents", 1),
            "found sales/clerk, which is no Agent here; there are: reports/worker",
        ),
        (("spec", "subjects", "fleets", 1), "found g, which is no AgentFleet here; there are: f"),
        (
            ("spec", "parent"),
            f"ClusterAgentBudget all, which it is part of (spec.parent), is not there; {NOTHING}",
        ),
    ]
    assert all(one is lost for one, _, _ in found)


def test_budgets_in_a_circle_are_told_each() -> None:
    part_of = {"a": "b", "b": "a", "c": "a"}
    budgets = [budget(name, parent={"kind": "AgentBudget", "name": above}) for name, above in part_of.items()]
    found = {one.key: said for one, _, said in check_references(budgets)}
    assert set(found) == {"reports/a", "reports/b"}
    assert found["reports/a"].startswith(
        "it is part of itself (spec.parent): AgentBudget reports/a is part of AgentBudget reports/b is part of"
    )
