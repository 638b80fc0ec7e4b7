"""`POST /v1/decisions/{id}/outcome`: may it go on, may its result be used?"""

from typing import Any
from urllib.parse import quote

import pytest
from support.webhook import AGENT, SmallHub, Webhook, agent, await_condition, make_slice

from fleetward.decision.canonical import digest
from fleetward.registry.slice import Mode


def allowed(webhook: Webhook, name: str, **fields: Any) -> str:
    status, answer = webhook.decide(name, **fields)
    assert status == 200
    assert answer["decision"] in ("Allow", "Constrain")
    return str(answer["id"])


def test_success_is_accepted_and_recorded(webhook: Webhook) -> None:
    decision = allowed(webhook, "crm.read")
    status, answer = webhook.report(
        decision, status="Succeeded", result=[1, 2], actual={"records": 2, "durationMs": 12}
    )
    assert (status, answer["decision"]) == (200, "Allow")
    record = webhook.spooled()[-1]
    assert (record["type"], record["id"], record["decisionId"]) == ("Outcome", answer["id"], decision)
    assert record["resultDigest"] == digest([1, 2])
    assert record["actual"] == {"records": 2, "durationMs": 12}
    assert record["agent"] == AGENT


def test_a_rule_for_outcomes_can_refuse_the_result(webhook: Webhook) -> None:
    decision = allowed(webhook, "crm.read")
    status, answer = webhook.report(decision, status="Succeeded", actual={"records": 1001})
    assert (status, answer["decision"]) == (200, "Deny")
    assert "More than a thousand records" in answer["reason"]


def test_progress_can_be_stopped_and_is_recorded_each_time(webhook: Webhook) -> None:
    decision = allowed(webhook, "crm.read")
    before = len(webhook.spooled())
    answers = [webhook.report(decision, status="Running", actual={"records": n})[1] for n in (5, 10, 11)]
    assert [answer["decision"] for answer in answers] == ["Allow", "Allow", "Deny"]
    assert len(webhook.spooled()) == before + 3
    assert webhook.report(decision, status="Failed", error="told to stop")[0] == 200


def test_an_agent_paused_meanwhile_is_told_to_stop(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    decision = allowed(webhook, "crm.read")
    mode = Mode(operating_mode="Paused", reason="stop", source=f"Agent {AGENT}")
    hub.publish(make_slice(agent(mode=mode), version="2"))
    answer = await_condition(
        lambda: (a := webhook.report(decision, status="Running")[1])["decision"] == "Deny" and a, "the pause"
    )
    assert "Paused" in answer["reason"]


def test_constrained_arguments_must_be_those_that_were_used(webhook: Webhook) -> None:
    fields = {"arguments": {"limit": 500, "of": "x"}}
    good = allowed(webhook, "list.orders", **fields)
    report = {"status": "Succeeded", "argumentsDigest": digest({"limit": 100, "of": "x"})}
    assert webhook.report(good, **report)[1]["decision"] == "Allow"
    for bad in ({}, {"argumentsDigest": digest({"limit": 500, "of": "x"})}):
        answer = webhook.report(allowed(webhook, "list.orders", **fields), status="Succeeded", **bad)[1]
        assert answer["decision"] == "Deny"
        assert "arguments.limit" in answer["reason"]


def test_a_result_that_had_to_be_redacted_is_checked(webhook: Webhook) -> None:
    def report(**fields: Any) -> tuple[str, str]:
        answer = webhook.report(allowed(webhook, "masked.read"), status="Succeeded", **fields)[1]
        return answer["decision"], answer["reason"]

    assert report(result=[{"email": "[REDACTED]", "id": 1}])[0] == "Allow"
    decision, reason = report(result=[{"email": "a@example.com"}])
    assert decision == "Deny"
    assert "result.*.email" in reason
    decision, reason = report()
    assert decision == "Deny"
    assert "result must be sent" in reason


def test_obligations_that_the_outcome_brings_are_asked_for_once(webhook: Webhook) -> None:
    decision = allowed(webhook, "later.read")
    first = webhook.report(decision, status="Succeeded", result={"email": "a@example.com"})[1]
    assert first["decision"] == "Constrain"
    assert first["obligations"] == [{"type": "Redact", "field": "result.email"}]
    second = webhook.report(decision, status="Succeeded", result={"email": "[REDACTED]"})[1]
    assert second["decision"] == "Allow"
    stubborn = allowed(webhook, "later.read")
    for expected in ("Constrain", "Deny"):
        answer = webhook.report(stubborn, status="Succeeded", result={"email": "a@example.com"})[1]
        assert answer["decision"] == expected


def test_a_final_outcome_is_accepted_once_and_its_repetition_answered_alike(webhook: Webhook) -> None:
    decision = allowed(webhook, "crm.read")
    outcome = {"status": "Failed", "error": "timeout", "actual": {"calls": 1}}
    first = webhook.report(decision, **outcome)
    records = len(webhook.spooled())
    assert webhook.report(decision, **dict(reversed(outcome.items()))) == first
    assert len(webhook.spooled()) == records
    status, problem = webhook.report(decision, status="Succeeded")
    assert (status, problem["type"]) == (409, "urn:fleetward:problem:outcome-conflict")
    status, problem = webhook.report(decision, status="Running")
    assert status == 409


@pytest.mark.parametrize("name", ["mail.send", "slow.report", "crm.all.export"])
def test_what_was_not_allowed_has_no_outcome(webhook: Webhook, name: str) -> None:
    answer = webhook.decide(name)[1]
    status, problem = webhook.report(answer["id"], status="Succeeded")
    assert (status, problem["type"]) == (409, "urn:fleetward:problem:action-not-allowed")
    assert answer["decision"] in problem["detail"]


@pytest.mark.parametrize("number", ["0", "999999", "01", "-1", "1e3", "\u0661"])
def test_an_unknown_decision_has_no_outcome(webhook: Webhook, number: str) -> None:
    writer = webhook.decide()[1]["id"].split("-")[0]
    for decision in (f"{writer}-{number}", f"other-{number}", number):
        status, problem = webhook.report(quote(decision), status="Succeeded")
        assert (status, problem["type"]) == (404, "urn:fleetward:problem:unknown-decision")


def test_what_cannot_be_an_outcome_is_refused_with_the_field(webhook: Webhook) -> None:
    decision = allowed(webhook, "crm.read")
    for fields, field in (
        ({"status": "Done"}, "status"),
        ({"status": "Succeeded", "result": [0] * 10_001}, "result"),
        ({"status": "Succeeded", "actual": {"records": -1}}, "actual.records"),
        ({"status": "Succeeded", "extra": 1}, "extra"),
    ):
        status, problem = webhook.report(decision, **fields)
        assert (status, problem.get("field")) == (400, field)
    assert webhook.report(decision, status="Succeeded", result={"id": 2**60})[0] == 200
