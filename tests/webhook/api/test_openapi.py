"""The description that is served is true: schemathesis holds a running webhook to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support.webhook import Webhook, agent, make_slice, small_hub

from fleetward.registry.slice import Budget, BudgetLimits, BudgetWindow, DefaultEstimate, Slice
from fleetward_webhook.sidecar.problem import Kind


def budgeted() -> Slice:
    """The usual policies, under a budget that an action of many records has no room in."""
    day = Budget(
        kind="AgentBudget",
        name="reports/day",
        uid="uid-day",
        generation=1,
        hash="ab",
        scope="Agent",
        window=BudgetWindow(kind="Calendar", unit="Day", time_zone="Europe/Berlin"),
        limits=BudgetLimits(records=100_000),
        default_estimate=DefaultEstimate(records=1),
    )
    slice_ = make_slice(msgspec.structs.replace(agent(), budgets=(day.key,)))
    return msgspec.structs.replace(slice_, items=msgspec.structs.replace(slice_.items, budgets={day.key: day}))


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Every check there is, on examples, edge cases, generated input and sequences of decisions and outcomes.

    Some of what is generated is more than a budget has room for, so refusals are held to the description, too.
    """
    with (
        small_hub(tmp_path, budgeted()) as hub,
        Webhook(hub.address, tmp_path, "--rate", "100000", "--burst", "100000") as webhook,
    ):
        webhook.await_ready()
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{webhook.address}/openapi.json"]
        command += ["--checks", "all", "--max-examples", "40", "--no-color"]
        hooks = {"SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("schemathesis_hooks.py"))}
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | hooks, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
            assert f"✅ {phase}" in done.stdout
        assert "Traceback" not in webhook.log.read_text()
        assert any("shortfall" in record for record in hub.records)
        assert any(record.get("spends") for record in hub.records)


def test_every_problem_is_described(webhook: Webhook) -> None:
    document = webhook.call("GET", "/openapi.json")[2]
    described = {
        urn
        for path in document["paths"].values()
        for operation in path.values()
        for response in operation["responses"].values()
        for media in response["content"].values()
        for part in media["schema"].get("allOf", ())
        for urn in part.get("properties", {}).get("type", {}).get("enum", ())
    }
    assert described == {kind.urn for kind in Kind}


def test_its_patterns_are_of_json_schemas_dialect(webhook: Webhook) -> None:
    """Python's end of text is no part of ECMA-262, in which JSON Schema wants its patterns."""
    text = json.dumps(webhook.call("GET", "/openapi.json")[2])
    assert '"pattern": "^sha256:[0-9a-f]{64}$"' in text
    assert r"\Z" not in text


def test_the_examples_are_accepted_as_they_stand(webhook: Webhook) -> None:
    document = webhook.call("GET", "/openapi.json")[2]
    asked = document["paths"]["/v1/decisions"]["post"]["requestBody"]["content"]["application/json"]["example"]
    status, _, answer = webhook.call("POST", "/v1/decisions", asked)
    assert (status, answer["decision"]) == (200, "Allow")
    outcome = document["paths"]["/v1/decisions/{id}/outcome"]["post"]["requestBody"]
    assert webhook.report(answer["id"], **outcome["content"]["application/json"]["example"])[0] == 200
