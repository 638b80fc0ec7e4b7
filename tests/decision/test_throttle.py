"""Rules that throttle beyond some limit: they decide nothing by themselves, and are told of."""

from typing import Any

import pytest
from decision.build import agent, ask, catalog, engine_of, fleet, outcome, policy, request

from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.judgement import throttled
from fleetward.decision.situation import Situation
from fleetward.decision.throttles import limits_advice, throttling

ALLOW = {"name": "may", "decision": "Allow"}
FEW = {"name": "few", "decision": "Throttle", "throttle": {"rate": {"count": 3, "perSeconds": 60}}}
POT = "AgentPolicy/reports/p#few"


def test_a_limit_decides_nothing_by_itself_and_is_told() -> None:
    for rules in ((ALLOW, FEW), (FEW, ALLOW)):
        evaluation = ask(engine_of(agent(), policy(*rules)))
        assert evaluation.decision == "Allow"
        assert evaluation.reason == "allowed by rule may of AgentPolicy reports/p"
        assert [ref.rule for ref in evaluation.rules] == ["may"]
        assert evaluation.judgement.throttles == (POT,)
        assert evaluation.judgement.retry_after_seconds is None


def test_a_limit_alone_leaves_the_default() -> None:
    assert ask(engine_of(agent(), policy(FEW))).decision == "Deny"
    evaluation = ask(engine_of(agent(), fleet(defaultDecision="Allow"), policy(FEW)))
    assert evaluation.decision == "Allow"
    assert evaluation.judgement.throttles == (POT,)


def test_what_is_denied_counts_nowhere() -> None:
    evaluation = ask(engine_of(agent(), policy(ALLOW, FEW, {"decision": "Deny"})))
    assert evaluation.decision == "Deny"
    assert evaluation.judgement.throttles == ()
    allowed = ask(engine_of(agent(), policy(ALLOW, FEW))).judgement
    assert allowed.refused("no").throttles == ()


def test_a_rule_that_always_throttles_still_decides() -> None:
    evaluation = ask(engine_of(agent(), policy(ALLOW, FEW, {"name": "always", "decision": "Throttle"})))
    assert evaluation.decision == "Throttle"
    assert evaluation.reason == "throttled by rule always of AgentPolicy reports/p"
    assert evaluation.judgement.throttles == (POT,)


@pytest.mark.parametrize("when", ["action.nothing == 1", "1 / 0 == 1"])
def test_an_expression_that_errs_denies_as_for_any_rule_that_restricts(when: str) -> None:
    evaluation = ask(engine_of(agent(), policy(ALLOW, {**FEW, "when": when})))
    assert evaluation.decision == "Deny"
    assert evaluation.reason.startswith("denied by rule few of AgentPolicy reports/p, whose expression could not be")
    assert evaluation.judgement.throttles == ()


def test_a_limit_counts_where_its_expression_holds_and_on_declared_facts_too() -> None:
    engine = engine_of(agent(), policy(ALLOW, {**FEW, "when": "action.arguments.n > 1"}))
    assert ask(engine, arguments={"n": 2}).judgement.throttles == (POT,)
    assert ask(engine, arguments={"n": 1}).judgement.throttles == ()
    engine = engine_of(agent(), policy(ALLOW, {**FEW, "match": {"riskTags": ["bulk"]}}))
    assert ask(engine).judgement.throttles == ()
    assert ask(engine, riskTags=["bulk"]).judgement.throttles == (POT,)
    engine = engine_of(agent(), catalog({"names": ["crm.**"], "riskTags": ["bulk"]}), policy(ALLOW, FEW))
    assert ask(engine, riskTags=["bulk"]).judgement.throttles == (POT,)


def test_in_an_audited_policy_it_is_listed_and_counts_nothing() -> None:
    engine = engine_of(agent(), policy(ALLOW, name="q"), policy(FEW, enforcement="Audit"))
    evaluation = ask(engine)
    assert evaluation.decision == "Allow"
    assert evaluation.judgement.throttles == ()
    assert [(ref.rule, ref.enforcement) for ref in evaluation.rules] == [("few", "Audit"), ("may", "Enforce")]


def test_a_durable_limit_is_recorded_durably() -> None:
    assert ask(engine_of(agent(), policy(ALLOW, {**FEW, "audit": "Durable"}))).judgement.durable


def test_several_are_told_once_each_in_one_order() -> None:
    more = {**FEW, "name": "also", "throttle": {"concurrency": 2, "scope": "Shared"}}
    for rules in ((FEW, more), (more, FEW)):
        engine = engine_of(agent(), policy(*rules), policy(ALLOW, name="q"))
        assert ask(engine, riskTags=["t"]).judgement.throttles == ("AgentPolicy/reports/p#also", POT)


A, C = "reports/a", "reports/c"
OF_A: Any = policy(FEW, subjects={"agents": ["a"]})
C_MAY = policy(ALLOW, name="c-may", subjects={"agents": ["c"]})


def under(engine: Engine, *path: str) -> Evaluation:
    return engine.decide(request(C), Situation(path=path))


def test_a_limit_of_whoever_handed_the_work_down_counts_and_says_whose_it_is() -> None:
    engine = engine_of(agent("a"), agent("c"), OF_A, C_MAY)
    assert under(engine).judgement.throttles == ()
    evaluation = under(engine, A)
    assert evaluation.judgement.throttles == (POT,)
    found = throttling(engine, evaluation, POT)
    assert found is not None
    assert found.inherited
    assert found.ref.principal == A
    judgement = found.hold(evaluation.judgement, "3 in 60 s are used", 7)
    assert judgement.reason == (
        "throttled by rule few of AgentPolicy reports/p, which binds reports/a, who handed the work down: "
        "3 in 60 s are used"
    )


def test_a_chain_that_each_must_be_allowed_in_counts_in_the_limits_of_each() -> None:
    may = policy(ALLOW, name="all-may")
    strict = fleet(delegation="Intersection")
    engine = engine_of(agent("a"), agent("c"), strict, OF_A, may)
    evaluation = under(engine, A)
    assert evaluation.decision == "Allow"
    assert evaluation.judgement.throttles == (POT,)


def test_what_it_comes_to_without_room() -> None:
    engine = engine_of(agent(), policy(ALLOW, {**FEW, "message": "Be gentle."}))
    evaluation = ask(engine)
    found = throttling(engine, evaluation, POT)
    assert found is not None
    judgement = found.hold(evaluation.judgement, "3 in 60 s are used", 7)
    assert judgement.decision == "Throttle"
    assert judgement.reason == "throttled by rule few of AgentPolicy reports/p: 3 in 60 s are used: Be gentle."
    assert judgement.retry_after_seconds == 7
    assert [(ref.rule, ref.decision, ref.principal) for ref in judgement.rules] == [
        ("few", "Throttle", "reports/worker"),
        ("may", "Allow", "reports/worker"),
    ]
    assert found.ref.hash == evaluation.rules[0].hash
    assert throttled(evaluation.judgement, found.ref, "why", 1).reason.endswith("reports/p: why")
    assert throttling(engine_of(agent(), policy(ALLOW)), evaluation, POT) is None


def test_limits_are_put_in_words() -> None:
    limits = {"rate": {"count": 3, "perSeconds": 60, "burst": 5}, "concurrency": 2, "scope": "Run"}
    engine = engine_of(agent(), policy(ALLOW, {**FEW, "throttle": limits}))
    [said] = limits_advice(engine, ask(engine))
    assert said == (
        "rule few of AgentPolicy reports/p throttles it beyond 3 in 60 s (5 at most after a rest), 2 at once, "
        "for each run"
    )


def test_an_outcome_is_not_judged_by_limits_on_what_begins() -> None:
    engine = engine_of(agent(), policy(ALLOW, FEW))
    opened = ask(engine).open("x-1")
    assert engine.review(opened, outcome()).decision == "Allow"
