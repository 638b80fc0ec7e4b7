"""The synchronous client against a real webhook."""

import multiprocessing
import threading
from typing import Any

import pytest
from support.webhook import AGENT, SmallHub, Webhook, make_slice

from fleetward.sdk import (
    ApprovalRequired,
    Client,
    Denied,
    InvalidAction,
    OutcomeRefused,
    Refused,
    Throttled,
    context,
)

RUN = "crm.customers.read"


def records(webhook: Webhook) -> list[dict[str, Any]]:
    return webhook.spooled()


def test_a_permit_says_what_was_decided(client: Client, webhook: Webhook) -> None:
    permit = client.decide(
        "ToolCall",
        RUN,
        arguments={"limit": 5, "where": {"a": (1, 2.5, None, True, "\u00e9")}},
        risk_tags=["pii"],
        data_classes=["customer"],
        target="crm",
        estimate={"records": 5, "input_tokens": 7},
        labels=["web"],
        agent=AGENT,
        parent="p",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert permit.answer.decision == "Allow"
    assert permit.arguments == {"limit": 5, "where": {"a": [1, 2.5, None, True, "\u00e9"]}}
    record = records(webhook)[-1]
    assert (record["id"], record["agent"], record["parent"]) == (permit.id, AGENT, "p")
    assert record["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    declared = record["action"]["declared"]
    assert declared["estimate"] == {"records": 5, "inputTokens": 7}
    assert (declared["riskTags"], declared["labels"], declared["target"]) == (["pii"], ["web"], "crm")


@pytest.mark.parametrize(
    ("name", "kind", "decision", "words"),
    [
        ("crm.all.export", Denied, "Deny", "No bulk export"),
        ("mail.send", ApprovalRequired, "RequireApproval", "Sending needs approval"),
        ("slow.report", Throttled, "Throttle", "throttled by rule slow"),
        ("nobody.knows", Denied, "Deny", "no rule matches"),
    ],
)
def test_a_refusal_says_why(client: Client, name: str, kind: type[Refused], decision: str, words: str) -> None:
    with pytest.raises(kind) as caught:
        client.decide("ToolCall", name)
    refusal = caught.value
    assert refusal.decision == decision
    assert words in refusal.reason
    assert str(refusal) == f"{decision}: {refusal.reason}"
    assert refusal.answer is not None
    assert len(refusal.rules) == (0 if name == "nobody.knows" else len(refusal.answer.rules))
    if isinstance(refusal, Throttled):
        assert refusal.retry_after_seconds == 7


def test_a_throttled_action_is_asked_for_again_when_so_told(
    own: tuple[SmallHub, Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, webhook = own
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            rules = tuple(rule for rule in make_slice().items.policies["p"].rules if rule.name != "slow")
            allow = type(rules[0])(name="now", decision="Allow", match=type(rules[0].match)(names=("slow.**",)))
            hub.publish(make_slice(version="2", rules=(*rules, allow)))

    monkeypatch.setattr("fleetward.sdk.client.time.sleep", sleep)
    with Client(webhook.address) as client:
        assert client.decide("ToolCall", "slow.report", wait=True).answer.decision == "Allow"
    assert waits[:2] == [7, 7]


def test_waiting_has_an_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("fleetward.sdk.client.time.sleep", waits.append)
    with pytest.raises(Throttled):
        client.decide("ToolCall", "slow.report", wait=True)
    assert waits == [7, 7, 7]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"when": object()}, "arguments.when"),
        ({"a": {"b": [1, {2}]}}, "arguments.a.b[1]"),
        ({"n": float("nan")}, "arguments.n"),
        ({"n": 2**60}, "arguments.n"),
        ({"t": "\ud800"}, "arguments.t"),
        ({"d": {1: 2}}, "arguments.d"),
        ({"b": b"x"}, "arguments.b"),
    ],
)
def test_arguments_that_are_not_json_are_named(client: Client, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidAction) as caught:
        client.decide("ToolCall", RUN, arguments=arguments)
    assert caught.value.field == field
    assert field in str(caught.value)


def test_arguments_nested_without_end_are_refused(client: Client) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(InvalidAction, match="nested deeper than 32"):
        client.decide("ToolCall", RUN, arguments=loop)


def test_what_is_misspelt_is_said(client: Client) -> None:
    with pytest.raises(InvalidAction, match="name"):
        client.decide("ToolCall", "crm read")
    with pytest.raises(InvalidAction, match="riskTags"):
        client.decide("ToolCall", RUN, risk_tags=["a b"])
    with pytest.raises(TypeError, match="unknown facts: risktags"):
        client.decide("ToolCall", RUN, risktags=["pii"])  # type: ignore[call-arg]
    with pytest.raises(InvalidAction):
        client.decide("Toolcall", RUN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not on this machine"):
        Client("http://198.51.100.1:80")


def test_settings_come_from_the_environment(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETWARD_URL", webhook.address)
    monkeypatch.setenv("FLEETWARD_AGENT", "reports/other")
    with Client() as client, pytest.raises(Denied, match="reports/other is not governed here"):
        client.decide("ToolCall", RUN)
    with Client(agent=AGENT) as client:
        assert client.decide("ToolCall", RUN).answer.decision == "Allow"


def test_what_led_here_can_be_said_once(client: Client, webhook: Webhook) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with context(parent="outer", traceparent=trace):
        with context(parent="inner"):
            client.decide("ToolCall", RUN)
            assert (records(webhook)[-1]["parent"], records(webhook)[-1]["traceparent"]) == ("inner", trace)
            client.decide("ToolCall", RUN, parent="own")
            assert records(webhook)[-1]["parent"] == "own"
        client.decide("ToolCall", RUN)
        assert records(webhook)[-1]["parent"] == "outer"
    client.decide("ToolCall", RUN)
    assert records(webhook)[-1].keys().isdisjoint({"parent", "traceparent", "run", "grant"})


def test_an_action_in_a_block_is_reported(client: Client, webhook: Webhook) -> None:
    with client.action("ToolCall", RUN, arguments={"limit": 2}) as permit:
        assert permit.succeed([1, 2], records=2, cost_micro_usd=10) == [1, 2]
    record = records(webhook)[-1]
    assert (record["decisionId"], record["status"]) == (permit.id, "Succeeded")
    assert record["actual"]["records"] == 2
    assert record["actual"]["durationMs"] >= 0
    assert record["resultDigest"].startswith("sha256:")


def test_a_block_that_just_ends_succeeded_without_a_result(client: Client, webhook: Webhook) -> None:
    with client.action("ToolCall", RUN) as permit:
        pass
    record = records(webhook)[-1]
    assert (record["decisionId"], record["status"]) == (permit.id, "Succeeded")
    assert "resultDigest" not in record


def test_an_exception_in_a_block_is_reported_as_failure_and_goes_on(client: Client, webhook: Webhook) -> None:
    with pytest.raises(KeyboardInterrupt), client.action("ToolCall", RUN):
        raise KeyboardInterrupt
    assert records(webhook)[-1]["error"] == "KeyboardInterrupt"
    with pytest.raises(ZeroDivisionError), client.action("ToolCall", RUN):
        1 / 0  # noqa: B018
    record = records(webhook)[-1]
    assert (record["status"], record["error"]) == ("Failed", "ZeroDivisionError: division by zero")
    with pytest.raises(RuntimeError), client.action("ToolCall", RUN):
        raise RuntimeError("\ud800" + "x" * 10_000)
    assert len(records(webhook)[-1]["error"]) == 4096


def test_a_block_that_is_refused_never_begins(client: Client) -> None:
    with pytest.raises(Denied), client.action("ToolCall", "crm.all.export"):
        pytest.fail("the block ran")


def test_progress_stops_what_must_stop(client: Client, webhook: Webhook) -> None:
    steps = 0
    with (  # noqa: PT012 - it is the block that is stopped
        pytest.raises(OutcomeRefused, match="Stop at ten records"),
        client.action("ToolCall", RUN) as permit,
    ):
        for records_so_far in range(1, 100):
            permit.progress(records=records_so_far)
            steps += 1
    assert steps == 10
    assert [r["status"] for r in records(webhook)[-2:]] == ["Running", "Failed"]


def test_a_result_may_be_refused(client: Client) -> None:
    with pytest.raises(OutcomeRefused, match="More than a thousand records") as caught:
        client.decide("ToolCall", RUN).succeed([1], records=1001)
    assert caught.value.decision == "Deny"
    assert caught.value.rules[0].rule == "too-much"


def test_constrained_arguments_are_handed_out_and_their_digest_reported(client: Client) -> None:
    permit = client.decide("ToolCall", "list.orders", arguments={"limit": 500})
    assert permit.arguments == {"limit": 100}
    assert permit.succeed("done") == "done"
    absent = client.decide("ToolCall", "list.orders")
    assert absent.arguments == {"limit": 100}
    assert absent.succeed() is None


def test_results_are_redacted_before_they_are_shown_to_anyone(client: Client, webhook: Webhook) -> None:
    rows = [{"email": "a@example.com", "id": 1}]
    for name, result, expected in (
        ("masked.read", rows, [{"email": "[REDACTED]", "id": 1}]),
        ("later.read", rows[0], {"email": "[REDACTED]", "id": 1}),
    ):
        assert client.decide("ToolCall", name).succeed(result) == expected
    assert rows == [{"email": "a@example.com", "id": 1}]
    assert "a@example.com" not in "".join(map(str, records(webhook)))


def test_a_result_that_must_be_checked_and_cannot_be_is_refused(client: Client) -> None:
    with pytest.raises(OutcomeRefused, match=r"result must be sent.*result\[0\]: found object"):
        client.decide("ToolCall", "masked.read").succeed([object()])
    with pytest.raises(OutcomeRefused, match="result must be sent"):
        client.decide("ToolCall", "later.read").succeed(object())


def test_large_results_are_sent_only_where_they_must_be(client: Client, webhook: Webhook) -> None:
    large = {"email": "a", "text": "x" * 100_000}
    assert client.decide("ToolCall", RUN).succeed(large) is large
    snowflake = {"id": 1_234_567_890_123_456_789}
    assert client.decide("ToolCall", RUN).succeed(snowflake) is snowflake
    many = [1] * 20_000  # few bytes, but more values than the webhook takes
    assert client.decide("ToolCall", RUN).succeed(many) is many
    assert "resultDigest" not in records(webhook)[-1]
    assert client.decide("ToolCall", "masked.read").succeed([large])[0]["email"] == "[REDACTED]"
    assert "resultDigest" in records(webhook)[-1]
    with pytest.raises(OutcomeRefused, match="1048576 bytes"):
        client.decide("ToolCall", "masked.read").succeed([large | {"text": "x" * 2**20}])


def test_any_result_may_be_handed_over_where_nothing_concerns_it(client: Client) -> None:
    thing = object()
    assert client.decide("ToolCall", RUN).succeed(thing) is thing


def test_one_client_serves_many_threads(client: Client) -> None:
    ids: list[str] = []

    def ask() -> None:
        ids.extend(client.decide("ToolCall", RUN).id for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(ids)) == 400


def test_a_restarted_webhook_is_asked_over_a_new_connection(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    with Client(webhook.address) as client:
        client.decide("ToolCall", RUN)
        webhook.kill()
        with Webhook(hub.address, webhook.spool.parent, listen=webhook.address) as again:
            again.await_ready()
            assert client.decide("ToolCall", RUN).answer.decision == "Allow"


def _ask_in_child(client: Client, box: Any) -> None:
    box.put([client.decide("ToolCall", RUN).id for _ in range(20)])


def test_a_forked_child_does_not_share_the_connection(client: Client) -> None:
    client.decide("ToolCall", RUN)
    forking = multiprocessing.get_context("fork")
    box = forking.SimpleQueue()
    child = forking.Process(target=_ask_in_child, args=(client, box))
    child.start()
    mine = [client.decide("ToolCall", RUN).id for _ in range(20)]
    theirs = box.get()
    child.join(10)
    assert len({*mine, *theirs}) == 40


def test_it_speaks_over_a_unix_socket(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    path = webhook.spool.parent / "w.sock"
    (webhook.spool.parent / "second").mkdir()
    with (
        Webhook(hub.address, webhook.spool.parent / "second", listen=f"unix://{path}") as second,
        Client(second.address) as client,
    ):
        for _ in range(200):
            try:
                client.decide("ToolCall", RUN)
                break
            except Refused:
                continue
        assert client.decide("ToolCall", RUN).succeed(1) == 1
