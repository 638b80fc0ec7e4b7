"""`POST /v1/decisions`: what is answered is what is recorded, and what the hub says last is what holds."""

from pathlib import Path

import pytest
from support.webhook import AGENT, SmallHub, Webhook, agent, await_condition, make_slice, small_hub

from fleetward.audit.record import DecisionRecord, decode
from fleetward.registry.slice import Mode


@pytest.mark.parametrize(
    ("name", "decision", "rule"),
    [
        ("crm.customers.read", "Allow", "read"),
        ("list.orders", "Constrain", "some"),
        ("slow.report", "Throttle", "slow"),
        ("mail.send", "RequireApproval", "hold"),
        ("crm.customers.export", "Deny", "no-bulk"),
        ("nobody.knows", "Deny", None),
    ],
)
def test_says_what_the_rules_say(webhook: Webhook, name: str, decision: str, rule: str | None) -> None:
    status, answer = webhook.decide(name, arguments={"limit": 500})
    assert status == 200
    assert answer["decision"] == decision
    assert [ref["rule"] for ref in answer["rules"]][:1] == ([] if rule is None else [rule])
    assert answer["registryVersion"] == "1"
    assert answer.get("retryAfterSeconds") == (7 if decision == "Throttle" else None)
    assert [o["field"] for o in answer["obligations"]] == (["arguments.limit"] if decision == "Constrain" else [])


def test_the_record_is_on_file_when_the_answer_is_there_and_says_the_same(webhook: Webhook) -> None:
    mandate = {"requester": "ana", "purpose": "ticket 7"}
    run = webhook.call("POST", "/v1/runs", {"agent": AGENT, "mandate": mandate})[2]["run"]
    status, _, answer = webhook.call(
        "POST",
        "/v1/decisions",
        {
            "agent": AGENT,
            "action": {"kind": "ModelCall", "name": "crm.ask", "riskTags": ["pii"], "arguments": {"q": "\u00e9"}},
            "run": run,
            "parent": "p-1",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
    )
    assert status == 200
    line = [r for path in webhook.spool.glob("*.jsonl") for r in path.read_bytes().splitlines()][-1]
    record = decode(line)
    assert isinstance(record, DecisionRecord)
    assert (record.id, record.decision, record.reason) == (answer["id"], answer["decision"], answer["reason"])
    assert record.id == f"{record.writer}-{record.seq}"
    assert (record.agent, record.run, record.parent) == (AGENT, run, "p-1")
    assert record.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert (record.action.kind, record.action.name, record.action.trusted.target) == ("ModelCall", "crm.ask", "crm")
    assert record.action.declared is not None
    assert record.action.declared.risk_tags == ("pii",)
    assert record.action.arguments_digest is not None
    assert "\u00e9" not in line.decode()
    assert record.registry_version == "1"
    assert record.duration_micros is not None


def test_records_reach_the_hub_in_order(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    ids = [webhook.decide()[1]["id"] for _ in range(20)]
    await_condition(lambda: len(hub.records) >= 20, "the records")
    assert [record["id"] for record in hub.records] == ids


def test_an_edit_counts_from_the_next_call_on(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    assert webhook.decide()[1]["decision"] == "Allow"
    mode = Mode(operating_mode="Paused", reason="incident 42", set_by="jo", source=f"Agent {AGENT}")
    hub.publish(make_slice(agent(mode=mode), version="2"))
    answer = await_condition(lambda: (a := webhook.decide()[1])["registryVersion"] == "2" and a, "the pause")
    assert answer["decision"] == "Deny"
    assert answer["mode"] == {
        "operatingMode": "Paused",
        "reason": "incident 42",
        "setBy": "jo",
        "source": f"Agent {AGENT}",
    }
    assert "incident 42" in answer["reason"]
    hub.publish(make_slice(version="3"))
    await_condition(lambda: webhook.decide()[1]["decision"] == "Allow", "the resumption")


def test_an_agent_must_be_named_where_there_are_several(tmp_path: Path) -> None:
    with (
        small_hub(tmp_path, make_slice(agent(), agent("writer"))) as hub,
        Webhook(hub.address, tmp_path) as webhook,
    ):
        webhook.await_ready()
        status, problem = webhook.decide()
        assert (status, problem["field"]) == (400, "agent")
        assert "reports/data-worker, reports/writer" in problem["detail"]
        action = {"kind": "ToolCall", "name": "crm.read"}
        named = webhook.call("POST", "/v1/decisions", {"agent": "reports/writer", "action": action})
        assert named[2]["decision"] == "Allow"
        assert webhook.spooled()[-1]["agent"] == "reports/writer"


def test_an_agent_that_is_not_governed_here_is_denied(webhook: Webhook) -> None:
    action = {"kind": "ToolCall", "name": "crm.read"}
    status, _, answer = webhook.call("POST", "/v1/decisions", {"agent": "other/agent", "action": action})
    assert (status, answer["decision"]) == (200, "Deny")
    assert "other/agent is not governed here" in answer["reason"]


def test_a_durable_decision_is_answered(webhook: Webhook) -> None:
    assert webhook.decide("pay.invoice")[1]["decision"] == "Allow"


def test_agents_are_described_with_what_concerns_them(webhook: Webhook) -> None:
    status, _, view = webhook.call("GET", "/v1/agents")
    assert status == 200
    (one,) = view["agents"]
    assert (one["agent"], one["role"], one["operatingMode"], one["defaultDecision"]) == (
        AGENT,
        "Worker",
        "Running",
        "Deny",
    )
    assert {"read", "hold", "too-much"} <= {rule["rule"]["name"] for rule in one["rules"]}
