"""Without policies or authority nothing is allowed, the reason is said, and all comes back by itself."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from support.webhook import SmallHub, Webhook, await_condition, small_hub


def samples(webhook: Webhook) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    _, headers, text = webhook.call("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_without_a_hub_the_webhook_is_alive_not_ready_and_denies(tmp_path: Path) -> None:
    with Webhook(f"unix://{tmp_path}/nobody.sock", tmp_path) as webhook:
        assert webhook.call("GET", "/healthz")[0] == 200
        for method, path, body in (
            ("GET", "/readyz", None),
            ("POST", "/v1/decisions", {"action": {"kind": "ToolCall", "name": "crm.read"}}),
        ):
            status, headers, problem = webhook.call(method, path, body)
            assert (status, headers["retry-after"]) == (503, "1")
            assert headers["content-type"] == "application/problem+json"
            assert problem["type"] == "urn:fleetward:problem:no-snapshot"
            assert problem["decision"] == "Deny"
            assert "nobody.sock" in problem["reason"]
        assert webhook.spooled() == []
        with small_hub(tmp_path) as hub:
            hub_path = Path(hub.address.removeprefix("unix://"))
            hub_path.rename(tmp_path / "nobody.sock")
            webhook.await_ready()
            assert webhook.decide()[1]["decision"] == "Allow"


def test_a_lease_that_lapses_denies_is_recorded_and_recovers(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    decision = webhook.decide()[1]["id"]
    hub.withheld = "the folder cannot be read"
    await_condition(lambda: webhook.call("GET", "/readyz")[0] == 503, "the lease's end")
    status, headers, problem = webhook.call(
        "POST", "/v1/decisions", {"action": {"kind": "ToolCall", "name": "crm.read"}, "run": "r"}
    )
    assert (status, headers["retry-after"]) == (503, "1")
    assert problem["type"] == "urn:fleetward:problem:no-authority"
    assert problem["decision"] == "Deny"
    assert "the folder cannot be read" in problem["reason"]
    record = webhook.spooled()[-1]
    assert (record["decision"], record["reason"], record["run"]) == ("Deny", problem["reason"], "r")

    status, problem = webhook.report(decision, status="Succeeded")
    assert (status, problem["decision"]) == (503, "Deny")
    record = webhook.spooled()[-1]
    assert (record["type"], record["decision"], record["decisionId"]) == ("Outcome", "Deny", decision)

    hub.withheld = ""
    webhook.await_ready()
    assert webhook.decide()[1]["decision"] == "Allow"
    assert webhook.report(decision, status="Succeeded")[1]["decision"] == "Allow"


def test_an_unknown_agent_without_authority_leaves_no_record(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    hub.withheld = "no"
    await_condition(lambda: webhook.call("GET", "/readyz")[0] == 503, "the lease's end")
    before = len(webhook.spooled())
    body = {"agent": "made/up", "action": {"kind": "ToolCall", "name": "crm.read"}}
    assert webhook.call("POST", "/v1/decisions", body)[0] == 503
    assert len(webhook.spooled()) == before


def test_metrics_count_what_happens(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    hub.acknowledges = False
    before = samples(webhook)
    for name in ("crm.read", "crm.read", "mail.send"):
        webhook.decide(name)
    webhook.report(webhook.decide()[1]["id"], status="Failed")
    webhook.decide("not a name")
    after = samples(webhook)

    def grown(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before[key]

    assert grown("fleetward_decisions_total", decision="Allow", kind="ToolCall") == 3
    assert grown("fleetward_decisions_total", decision="RequireApproval", kind="ToolCall") == 1
    assert grown("fleetward_outcomes_total", decision="Allow", status="Failed") == 1
    assert grown("fleetward_problems_total", problem="invalid-request") == 1
    assert grown("fleetward_decision_duration_seconds_count") == 4
    assert grown("fleetward_decision_duration_seconds_bucket", le="+Inf") == 4
    assert grown("fleetward_spool_pending_records") == 5
    assert grown("fleetward_spool_pending_bytes") > 500
    assert grown("fleetward_open_decisions") == 4
    assert after["fleetward_authority", ()] == 1
    assert after["fleetward_registry_info", (("version", "1"),)] == 1
    assert len(after) < 120
