"""What can never make a decision milder: declared facts, errors, another Deny, one Allow less, an audited policy."""

import copy
from typing import Any

import pytest
from decision.build import agent, all_of, ask, catalog, engine_of, fleet, policy
from decision.strategies import (
    DECISIONS,
    ERRING,
    EXPRESSIONS,
    FEW,
    MANY,
    SOME,
    Data,
    World,
    decide,
    requests,
    rules,
    undeclared,
    worlds,
)
from hypothesis import given
from hypothesis import strategies as st

from fleetward.decision.evaluation import Evaluation
from fleetward.decision.rules import SEVERITY


def _severity(evaluation: Evaluation) -> int:
    return SEVERITY[evaluation.decision]


def _rules_of(world: World) -> list[tuple[Data, int]]:
    return [(p, n) for p in world.of("AgentPolicy", "ClusterAgentPolicy") for n in range(len(p["spec"]["rules"]))]


@given(st.data())
@SOME
def test_adding_a_deny_never_allows_more(data: Any) -> None:
    world = data.draw(worlds())
    more = copy.deepcopy(world)
    chosen, _ = data.draw(st.sampled_from(_rules_of(more)))
    chosen["spec"]["rules"].append({"name": "added", **data.draw(rules(decisions=("Deny",)))})
    before, after = world.engine, more.engine
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=4)):
        assert _severity(decide(after, request)) >= _severity(decide(before, request))


@given(st.data())
@SOME
def test_removing_an_allow_never_allows_more(data: Any) -> None:
    world = data.draw(worlds())
    less = copy.deepcopy(world)
    chosen, _ = data.draw(st.sampled_from(_rules_of(less)))
    allows = [rule for rule in chosen["spec"]["rules"] if rule["decision"] == "Allow"]
    if not allows:
        chosen["spec"]["rules"].append({"name": "allow", "match": {}, "decision": "Allow"})
        world, less = less, copy.deepcopy(less)
        chosen = next(d for d in less.documents if d["kind"] == chosen["kind"] and d["metadata"] == chosen["metadata"])
        allows = [chosen["spec"]["rules"][-1]]
    gone = data.draw(st.sampled_from(allows))["name"]
    # A policy keeps at least one rule; this one never holds.
    never = {"name": "never", "match": {"agents": ["nobody"]}, "decision": "Allow"}
    chosen["spec"]["rules"] = [rule for rule in chosen["spec"]["rules"] if rule["name"] != gone] + [never]
    before, after = world.engine, less.engine
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=4)):
        assert _severity(decide(after, request)) >= _severity(decide(before, request))


@given(st.data())
@MANY
def test_nothing_declared_ever_allows_more_than_declaring_nothing(data: Any) -> None:
    world = data.draw(worlds(restrict_only=True))
    engine = world.engine
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=4)):
        silent, telling = decide(engine, undeclared(request)), decide(engine, request)
        assert _severity(telling) >= _severity(silent), request
        if telling.decision != "Deny":
            owed = {(o.type, o.field): o.maximum for o in telling.judgement.obligations}
            for obligation in silent.judgement.obligations:
                least = owed.get((obligation.type, obligation.field), -1)
                assert least is None or 0 <= least <= (obligation.maximum or 0), request


DECLARATIONS: list[tuple[str, Any]] = [
    ("riskTags", ["t"]),
    ("dataClasses", ["c"]),
    ("labels", ["v"]),
    ("target", "x"),
    ("estimate", {"records": 5}),
]


@pytest.mark.parametrize(("field", "value"), DECLARATIONS)
def test_a_declared_fact_alone_allows_nothing(field: str, value: Any) -> None:
    matched = {field if field != "target" else "targets": value if field != "target" else [value]}
    rule = {"when": "action.estimate.records > 4"} if field == "estimate" else {"match": matched}
    evaluation = ask(engine_of(agent(), fleet(), policy({"decision": "Allow", **rule})), name="a", **{field: value})
    assert evaluation.decision == "Deny"
    advice = "\n".join(evaluation.judgement.advice)
    assert "rule r0 of reports/p" in advice
    save = ", save for labels" if field == "labels" else ""
    assert f"State it in an ActionCatalog entry for a{save}, or set declaredFacts: Trusted on AgentFleet f" in advice
    assert field in advice


@pytest.mark.parametrize(("field", "value"), DECLARATIONS)
def test_a_declared_fact_restricts(field: str, value: Any) -> None:
    matched = {field if field != "target" else "targets": value if field != "target" else [value]}
    when = "has(action.estimate.records) && action.estimate.records > 4"
    rule = {"when": when} if field == "estimate" else {"match": matched}
    engine = engine_of(agent(), policy({"decision": "Allow"}, {"decision": "RequireApproval", **rule}))
    assert ask(engine, name="a").decision == "Allow"
    assert ask(engine, name="a", **{field: value}).decision == "RequireApproval"


@pytest.mark.parametrize(("field", "value"), DECLARATIONS[:4])
def test_a_declared_fact_excludes_from_nothing(field: str, value: Any) -> None:
    excluded = {field if field != "target" else "targets": value if field != "target" else [value]}
    rules = ({"decision": "Allow"}, {"decision": "Deny", "exclude": excluded})
    assert ask(engine_of(agent(), policy(*rules)), name="a", **{field: value}).decision == "Deny"


@pytest.mark.parametrize(("field", "value"), DECLARATIONS)
def test_a_fleet_that_trusts_its_agents_believes_what_they_declare(field: str, value: Any) -> None:
    matched = {field if field != "target" else "targets": value if field != "target" else [value]}
    rule = {"when": "action.estimate.records > 4"} if field == "estimate" else {"match": matched}
    engine = engine_of(agent(), fleet(declaredFacts="Trusted"), policy({"decision": "Allow", **rule}))
    evaluation = ask(engine, name="a", **{field: value})
    assert evaluation.decision == "Allow"
    assert not evaluation.judgement.advice


def test_a_smaller_estimate_than_the_catalogs_changes_nothing() -> None:
    rules = ({"decision": "Allow"}, {"decision": "Deny", "when": "action.estimate.records > 10"})
    engine = engine_of(agent(), catalog({"names": ["a"], "estimate": {"records": 11}}), policy(*rules))
    assert ask(engine, name="a", estimate={"records": 1}).decision == "Deny"


def test_a_declared_target_that_contradicts_the_catalog_is_denied() -> None:
    engine = engine_of(agent(), catalog({"names": ["a"], "target": "x"}), policy({"decision": "Allow"}))
    assert ask(engine, name="a", target="x").decision == "Allow"
    evaluation = ask(engine, name="a", target="y")
    assert evaluation.decision == "Deny"
    assert evaluation.reason == "the declared target y contradicts the catalog, which says that a goes to x"


def test_catalogs_that_name_two_targets_leave_the_action_denied() -> None:
    entries = catalog({"names": ["a"], "target": "x"}), catalog({"names": ["*"], "target": "y"}, name="d")
    evaluation = ask(engine_of(agent(), *entries, policy({"decision": "Allow"})), name="a")
    assert evaluation.decision == "Deny"
    assert evaluation.reason == (
        "the catalog gives a more than one target: x (ActionCatalog c) and y (ActionCatalog d); leave one"
    )


@pytest.mark.parametrize("when", ERRING)
@pytest.mark.parametrize("decision", DECISIONS)
def test_an_expression_that_errs_is_never_an_allow(when: str, decision: str) -> None:
    owed = {"obligations": [{"type": "Redact", "field": "result.a"}]} if decision == "Constrain" else {}
    rule = {"name": "errs", "decision": decision, "when": when, **owed}
    evaluation = ask(engine_of(agent(), fleet(defaultDecision="Allow"), policy(rule)), name="a")
    if decision == "Allow":
        # It does not count, so the default holds, and the answer says why.
        assert evaluation.rules == ()
        assert evaluation.judgement.advice[0].startswith("rule errs of AgentPolicy reports/p did not count: ")
    else:
        assert evaluation.decision == "Deny"
        assert evaluation.rules[0].error
        assert evaluation.rules[0].decision == "Deny"
        assert evaluation.reason.startswith(
            "denied by rule errs of AgentPolicy reports/p, whose expression could not be evaluated: "
        )


@given(st.data())
@SOME
def test_errors_never_allow_more(data: Any) -> None:
    """A rule whose expression errs leaves a decision at least as strict as without the rule, and never Allows."""
    world = data.draw(worlds())
    erring = copy.deepcopy(world)
    chosen, _ = data.draw(st.sampled_from(_rules_of(erring)))
    rule = {"name": "errs", **data.draw(rules(ERRING[:-1])), "when": data.draw(st.sampled_from(ERRING[:-1]))}
    chosen["spec"]["rules"].append(rule)
    before, after = world.engine, erring.engine
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=3)):
        evaluation = decide(after, request)
        assert _severity(evaluation) >= _severity(decide(before, request))
        assert all(ref.decision == "Deny" for ref in evaluation.rules if ref.rule == "errs")


NUL_IN_ARGUMENTS = {"n": 1, "text": "a\0b"}


def test_arguments_no_expression_should_see_make_every_expression_err() -> None:
    rules = ({"decision": "Allow", "when": "action.arguments.n == 1"},)
    assert ask(engine_of(agent(), policy(*rules)), arguments={"n": 1}).decision == "Allow"
    assert ask(engine_of(agent(), policy(*rules)), arguments=NUL_IN_ARGUMENTS).decision == "Deny"


@given(st.data())
@SOME
def test_an_audited_policy_changes_nothing_and_is_listed(data: Any) -> None:
    world = data.draw(worlds((*EXPRESSIONS, *ERRING[:2])))
    audited = copy.deepcopy(world)
    chosen = data.draw(st.sampled_from(audited.of("AgentPolicy", "ClusterAgentPolicy")))
    chosen["spec"]["enforcement"] = "Audit"
    key = (chosen["kind"], chosen["metadata"])
    without = World([d for d in world.documents if (d["kind"], d["metadata"]) != key], world.namespaces)
    enforced, after, before = world.engine, audited.engine, without.engine
    name = chosen["metadata"]["name"]
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=3)):
        listed, plain = decide(after, request), decide(before, request)
        assert _what_counts(listed, name) == _what_counts(plain, name)
        judged = decide(enforced, request)
        as_enforced = [r.rule for r in judged.rules if r.policy.endswith(name)]
        if judged.decision == "Deny":
            continue  # what has a limit is not told of then
        limits = (pot.partition("#") for pot in judged.judgement.throttles)
        as_enforced += [rule for policy, _, rule in limits if policy.endswith(name)]
        assert sorted(as_enforced) == sorted(r.rule for r in listed.rules if r.policy.endswith(name))
        assert all(r.enforcement == "Audit" for r in listed.rules if r.policy.endswith(name))


def _what_counts(evaluation: Evaluation, besides: str) -> Data:
    answer: Data = all_of(evaluation)["answer"]
    answer["rules"] = [r for r in answer["rules"] if not r["policy"].endswith(besides)]
    answer.pop("registryVersion")
    answer.pop("advice", None)
    return answer


@given(st.data())
@FEW
def test_a_deny_owes_nothing_and_waits_for_nothing(data: Any) -> None:
    world = data.draw(worlds())
    engine = world.engine
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=4)):
        evaluation = decide(engine, request)
        assert evaluation.reason
        if evaluation.decision == "Deny":
            assert evaluation.judgement.obligations == ()
        assert (evaluation.judgement.retry_after_seconds is not None) == (evaluation.decision == "Throttle")
