"""From a decision to the end of its action: constrained arguments, reviews, what is asked for once."""

from typing import Any

import pytest
from decision.build import AGENT, agent, ask, catalog, engine_of, outcome, policy, slice_of

from fleetward.decision.action import Facts
from fleetward.decision.canonical import digest
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import OpenDecision
from fleetward.decision.obligations import REDACTED

ALLOW = {"decision": "Allow"}


def constrain(*obligations: dict[str, Any], **rule: Any) -> dict[str, Any]:
    return {"decision": "Constrain", "obligations": list(obligations), **rule}


def clamp(field: str, maximum: int) -> dict[str, Any]:
    return {"type": "Clamp", "field": f"arguments.{field}", "maximum": maximum}


def redact(field: str) -> dict[str, Any]:
    return {"type": "Redact", "field": field}


def opened(engine: Engine, **action: Any) -> OpenDecision:
    evaluation = ask(engine, **action)
    assert evaluation.allowed, evaluation.reason
    return evaluation.open("d-1")


LIMITED = constrain(clamp("limit", 10))


class TestConstrainedArguments:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"limit": 99, "q": "x"}, {"limit": 10, "q": "x"}),
            ({"limit": 5}, {"limit": 5}),
            ({}, {"limit": 10}),
            (None, {"limit": 10}),
        ],
    )
    def test_the_digest_expected_is_that_of_the_constrained_arguments(self, arguments: Any, expected: Any) -> None:
        given = {} if arguments is None else {"arguments": arguments}
        engine = engine_of(agent(), policy(LIMITED))
        evaluation = ask(engine, **given)
        assert evaluation.decision == "Constrain"
        assert evaluation.arguments_digest == (None if arguments is None else digest(arguments))
        assert evaluation.expected_digest == digest(expected)
        open_ = evaluation.open("d-1")
        assert engine.review(open_, outcome(argumentsDigest=digest(expected))).decision == "Allow"
        wrong = engine.review(open_, outcome(argumentsDigest=digest({"limit": 99})))
        assert wrong.decision == "Deny"
        assert wrong.reason == (
            "the action had to be run with arguments.limit constrained "
            f"(digest {digest(expected)}), found {digest({'limit': 99})}"
        )
        assert engine.review(open_, outcome()).reason.endswith("found no argumentsDigest")

    def test_a_digest_alone_cannot_be_constrained(self) -> None:
        evaluation = ask(engine_of(agent(), policy(LIMITED)), argumentsDigest="sha256:" + "0" * 64)
        assert evaluation.decision == "Deny"
        assert evaluation.judgement.obligations == ()
        assert evaluation.reason == (
            "the action is allowed only with arguments.limit constrained, which needs the arguments, "
            "not just their digest"
        )

    def test_arguments_that_cannot_be_constrained(self) -> None:
        evaluation = ask(engine_of(agent(), policy(LIMITED)), arguments={"limit": "many"})
        assert evaluation.decision == "Deny"
        assert evaluation.reason == (
            "an obligation cannot be carried out: arguments.limit: must be a number to be clamped, found 'many'"
        )

    def test_an_obligation_that_would_nest_too_deep(self) -> None:
        deep = ".".join("a" * 40)
        evaluation = ask(engine_of(agent(), policy(constrain(clamp(deep, 1)))), arguments={})
        assert evaluation.decision == "Deny"
        assert evaluation.reason.endswith("nested deeper than 32 levels")

    def test_redacted_arguments_are_checked_by_digest_too(self) -> None:
        engine = engine_of(agent(), policy(constrain(redact("arguments.ssn"))))
        open_ = opened(engine, arguments={"ssn": "1", "a": 2})
        assert engine.review(open_, outcome(argumentsDigest=digest({"ssn": REDACTED, "a": 2}))).decision == "Allow"
        assert engine.review(open_, outcome(argumentsDigest=digest({"ssn": "1", "a": 2}))).decision == "Deny"

    def test_an_obligation_about_the_result_expects_no_digest(self) -> None:
        evaluation = ask(
            engine_of(agent(), policy(constrain(redact("result.a")))), argumentsDigest="sha256:" + "0" * 64
        )
        assert evaluation.decision == "Constrain"
        assert evaluation.expected_digest is None

    def test_a_held_action_whose_arguments_cannot_be_constrained_is_denied(self) -> None:
        rules = (LIMITED, {"decision": "RequireApproval"})
        assert ask(engine_of(agent(), policy(*rules)), arguments={"limit": 1}).decision == "RequireApproval"
        assert ask(engine_of(agent(), policy(*rules)), arguments={"limit": "x"}).decision == "Deny"


class TestRedactedResult:
    engine = engine_of(agent(), policy(constrain(redact("result.rows.email"), redact("result.token"))))

    @pytest.mark.parametrize(
        ("said", "decision", "reason"),
        [
            ({"result": {"rows": [{"email": REDACTED}], "token": REDACTED}}, "Allow", "no rule for outcomes"),
            ({"result": {"rows": []}}, "Allow", "no rule for outcomes"),
            ({"result": None}, "Allow", "no rule for outcomes"),
            (
                {"result": {"rows": [{"email": "a@b"}], "token": 1}},
                "Deny",
                "the result still holds what had to be redacted: result.rows.email, result.token",
            ),
            ({"result": "a@b"}, "Deny", "the result still holds what had to be redacted"),
            ({}, "Deny", "the result must be sent, as obligations concern it"),
        ],
    )
    def test_what_is_reported_is_checked(self, said: Any, decision: str, reason: str) -> None:
        judgement = self.engine.review(opened(self.engine), outcome(**said))
        assert judgement.decision == decision
        assert judgement.reason.startswith(reason)

    def test_a_failed_action_has_no_result_to_check(self) -> None:
        assert self.engine.review(opened(self.engine), outcome("Failed", error="timeout")).decision == "Allow"


class TestAfter:
    def test_a_rule_may_deny_the_use_of_a_result(self) -> None:
        after = {"phase": "After", "decision": "Deny", "when": "size(outcome.result) > 2", "message": "Too many."}
        engine = engine_of(agent(), policy(ALLOW, after))
        assert ask(engine).decision == "Allow"
        assert engine.review(opened(engine), outcome(result=[1, 2])).decision == "Allow"
        judgement = engine.review(opened(engine), outcome(result=[1, 2, 3]))
        assert judgement.decision == "Deny"
        assert judgement.reason == "denied by rule r1 of AgentPolicy reports/p: Too many."

    def test_an_expression_that_errs_denies(self) -> None:
        after = {"phase": "After", "decision": "RequireApproval", "when": "outcome.result.rows > 2"}
        engine = engine_of(agent(), policy(ALLOW, after))
        assert engine.review(opened(engine), outcome()).decision == "Deny"

    @pytest.mark.parametrize(
        ("when", "said", "holds"),
        [
            ("outcome.status == 'Failed'", {"status": "Failed"}, True),
            ("outcome.status == 'Failed'", {"status": "Succeeded"}, False),
            ("outcome.actual.records > 5", {"actual": {"records": 6}}, True),
            ("outcome.actual.records > 5", {"actual": {"records": 5}}, False),
            ("has(outcome.actual.durationMs)", {"actual": {"durationMs": 0}}, True),
            ("has(outcome.actual.durationMs)", {"actual": {"records": 0}}, False),
            ("'web' in outcome.labels", {"labels": ["web"]}, True),
            ("'web' in outcome.labels", {}, False),
            ("has(outcome.result)", {"result": None}, True),
            ("has(outcome.result)", {}, False),
            ("outcome.error.contains('secret')", {"status": "Failed", "error": "a secret"}, True),
            ("has(outcome.error)", {}, False),
            ("action.argumentsDigest == 'sha256:" + "0" * 64 + "'", {"argumentsDigest": "sha256:" + "0" * 64}, True),
            ("action.name == 'crm.read' && agent.name == 'worker'", {}, True),
        ],
    )
    def test_what_an_expression_reads_of_the_outcome(self, when: str, said: Any, holds: bool) -> None:  # noqa: FBT001
        engine = engine_of(agent(), policy(ALLOW, {"phase": "After", "decision": "Deny", "when": when}))
        judgement = engine.review(opened(engine), outcome(**said))
        assert judgement.decision == ("Deny" if holds else "Allow")

    def test_arguments_are_kept_for_the_outcome_only_where_a_rule_reads_them(self) -> None:
        reads = {"phase": "After", "decision": "Deny", "when": "action.arguments.n > 1"}
        engine = engine_of(agent(), policy(ALLOW, reads))
        assert opened(engine, arguments={"n": 2}).action.arguments == {"n": 2}
        assert engine.review(opened(engine, arguments={"n": 2}), outcome()).decision == "Deny"
        assert engine.review(opened(engine, arguments={"n": 1}), outcome()).decision == "Allow"
        plain = engine_of(
            agent(), policy(ALLOW, {"phase": "After", "decision": "Deny", "when": "'x' in outcome.labels"})
        )
        kept = opened(plain, arguments={"n": 2}, riskTags=["t"]).action
        assert kept.arguments is None
        assert kept.risk_tags == ("t",)

    def test_declared_facts_hold_for_the_outcome_as_they_did_before(self) -> None:
        after = {"phase": "After", "decision": "Deny", "match": {"labels": ["web"]}}
        engine = engine_of(agent(), policy(ALLOW, after))
        assert engine.review(opened(engine, labels=["web"]), outcome()).decision == "Deny"
        assert engine.review(opened(engine), outcome()).decision == "Allow"

    def test_an_audited_rule_is_listed_and_changes_nothing(self) -> None:
        audited = policy({"phase": "After", "decision": "Deny"}, name="q", enforcement="Audit")
        engine = engine_of(agent(), policy(ALLOW), audited)
        judgement = engine.review(opened(engine), outcome())
        assert judgement.decision == "Allow"
        assert [(r.policy, r.enforcement) for r in judgement.rules] == [("reports/q", "Audit")]


class TestObligationsOfTheOutcome:
    after = constrain(redact("result.email"), phase="After", when="has(outcome.result.email)")

    def test_they_are_asked_for_once(self) -> None:
        engine = engine_of(agent(), policy(ALLOW, self.after))
        open_ = opened(engine)
        first = engine.review(open_, outcome(result={"email": "a@b"}))
        assert first.decision == "Constrain"
        assert [o.field for o in first.obligations] == ["result.email"]
        again = engine.review(open_, outcome(result={"email": "a@b"}))
        assert again.decision == "Deny"
        assert again.reason == "the result still holds what had to be redacted: result.email"
        assert again.obligations == ()
        done = engine.review(open_, outcome(result={"email": REDACTED}))
        assert done.decision == "Allow"
        assert done.obligations == ()

    def test_a_result_that_already_meets_them_may_be_used_at_once(self) -> None:
        engine = engine_of(agent(), policy(ALLOW, self.after))
        judgement = engine.review(opened(engine), outcome(result={"email": REDACTED}))
        assert (judgement.decision, judgement.obligations) == ("Allow", ())
        assert [r.rule for r in judgement.rules] == ["r1"]

    def test_without_the_result_they_cannot_be_met(self) -> None:
        engine = engine_of(agent(), policy(ALLOW, constrain(redact("result.email"), phase="After")))
        judgement = engine.review(opened(engine), outcome())
        assert judgement.decision == "Deny"
        assert judgement.reason == "the result must be sent, as obligations concern it"

    def test_those_of_the_decision_come_first(self) -> None:
        engine = engine_of(agent(), policy(constrain(redact("result.token")), self.after))
        open_ = opened(engine)
        both = {"email": "a@b", "token": "t"}
        assert engine.review(open_, outcome(result=both)).decision == "Deny"
        assert engine.review(open_, outcome(result={**both, "token": REDACTED})).decision == "Constrain"
        assert engine.review(open_, outcome(result={"email": REDACTED, "token": REDACTED})).decision == "Allow"

    def test_a_stricter_rule_wins_over_them(self) -> None:
        engine = engine_of(agent(), policy(ALLOW, self.after, {"phase": "After", "decision": "Deny"}))
        judgement = engine.review(opened(engine), outcome(result={"email": "a@b"}))
        assert (judgement.decision, judgement.obligations) == ("Deny", ())


class TestDuring:
    rule = {"phase": "During", "decision": "Deny", "when": "outcome.actual.calls > 3"}  # noqa: RUF012

    def test_progress_asks_the_rules_of_its_own_phase(self) -> None:
        engine = engine_of(agent(), policy(ALLOW, self.rule))
        open_ = opened(engine)
        assert engine.review(open_, outcome("Running", actual={"calls": 3})).decision == "Allow"
        assert engine.review(open_, outcome("Running", actual={"calls": 4})).decision == "Deny"
        assert engine.review(open_, outcome("Succeeded", actual={"calls": 4})).decision == "Allow"

    def test_obligations_are_not_yet_due(self) -> None:
        engine = engine_of(agent(), policy(constrain(redact("result.a")), self.rule))
        assert engine.review(opened(engine), outcome("Running", actual={"calls": 1})).decision == "Allow"

    def test_before_and_after_do_not_ask_it(self) -> None:
        engine = engine_of(agent(), policy(ALLOW, {"phase": "During", "decision": "Deny"}))
        assert ask(engine).decision == "Allow"
        assert engine.review(opened(engine), outcome()).decision == "Allow"


class TestWhileItRuns:
    def test_a_pause_reaches_an_action_under_way(self) -> None:
        engine = engine_of(agent(), policy(ALLOW))
        open_ = opened(engine)
        engine.apply(slice_of(agent(operatingMode="Paused", operatingReason="incident 7"), policy(ALLOW)))
        for status in ("Running", "Succeeded", "Failed"):
            judgement = engine.review(open_, outcome(status))
            assert judgement.decision == "Deny"
            assert judgement.reason == f"{AGENT} is Paused, set on Agent {AGENT}: incident 7"
        engine.apply(slice_of(agent(), policy(ALLOW)))
        assert engine.review(open_, outcome()).decision == "Allow"

    def test_so_does_a_removal(self) -> None:
        engine = engine_of(agent(), policy(ALLOW))
        open_ = opened(engine)
        engine.apply(slice_of(agent("other"), policy(ALLOW)))
        judgement = engine.review(open_, outcome())
        assert judgement.reason == f"agent {AGENT} is not governed here any more"
        assert judgement.decision == "Deny"

    def test_and_a_policy_that_came_meanwhile(self) -> None:
        engine = engine_of(agent(), policy(ALLOW))
        open_ = opened(engine)
        engine.apply(slice_of(agent(), policy(ALLOW, {"phase": "After", "decision": "Deny"})))
        assert engine.review(open_, outcome()).decision == "Deny"


def test_what_is_recorded_keeps_trusted_and_declared_apart() -> None:
    facts = catalog({"names": ["crm.*"], "riskTags": ["pii"], "target": "crm", "estimate": {"records": 9}})
    evaluation = ask(
        engine_of(agent(), facts, policy(ALLOW)),
        riskTags=["web", "a"],
        estimate={"records": 1},
        arguments={"a": 1},
        target="crm",
    )
    recorded = evaluation.recorded_action()
    assert recorded.trusted.risk_tags == ("pii",)
    assert recorded.trusted.target == "crm"
    assert recorded.trusted.estimate is not None
    assert recorded.trusted.estimate.records == 9
    assert recorded.declared is not None
    assert recorded.declared.risk_tags == ("web", "a")
    assert recorded.declared.estimate is not None
    assert recorded.declared.estimate.records == 1
    assert recorded.arguments_digest == digest({"a": 1})
    silent = ask(engine_of(agent(), policy(ALLOW))).recorded_action()
    assert silent.declared is None
    assert silent.trusted == Facts()
