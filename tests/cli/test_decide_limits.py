"""`fleetward decide` and `policy test` where rules have limits and agents have budgets: told, and not counted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]

LIMITS = """\
apiVersion: fleetward.dev/v1alpha1
kind: ClusterAgentPolicy
metadata: {name: gently}
spec:
  rules:
  - name: few
    match: {names: ["crm.**"]}
    decision: Throttle
    throttle: {rate: {count: 3, perSeconds: 60}, concurrency: 2, scope: Shared}
"""

BUDGET = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata: {name: day, namespace: reports}
spec:
  window: {kind: Calendar, unit: Day}
  limits: {outputTokens: 10000, records: 100, calls: [{names: ["crm.**"], max: 50}]}
  defaultEstimate: {outputTokens: 300}
"""

CASE = """\
apiVersion: fleetward.dev/v1alpha1
kind: PolicyTest
metadata: {name: limits}
cases:
- name: read
  request: {agent: reports/data-worker, action: {kind: ToolCall, name: crm.customers.read}}
  expect: {decision: Allow, rules: [few, read]}
"""


@pytest.fixture
def decide(run: Run, folder: Path) -> Callable[..., Result]:
    def decided(kind: str, name: str, *options: str, **action: Any) -> Result:
        asked = {"agent": "reports/data-worker", "action": {"kind": kind, "name": name, **action}}
        return run("decide", "--dir", folder, "-f", "-", *options, stdin=json.dumps(asked))

    return decided


def test_a_rule_with_a_limit_lets_the_action_go_and_is_told(folder: Path, decide: Callable[..., Result]) -> None:
    (folder / "limits.yaml").write_text(LIMITS)
    answer = json.loads(decide("ToolCall", "crm.customers.read", "-o", "json").stdout)
    assert answer["decision"] == "Allow"
    assert answer["advice"] == [
        "rule few of ClusterAgentPolicy gently throttles it beyond 3 in 60 s, 2 at once, for all together"
    ]
    assert "advice\n    rule few of" in decide("ToolCall", "crm.customers.read").stdout


def test_what_an_action_would_take_is_told(folder: Path, decide: Callable[..., Result]) -> None:
    (folder / "budget.yaml").write_text(BUDGET)
    result = decide("ToolCall", "crm.customers.read", estimate={"records": 4})
    assert result.exit_code == 0
    assert (
        "it takes calls crm.** 1, records 4 out of AgentBudget reports/day; only a hub knows what is left of it"
        in result.stdout
    )


def test_what_a_budget_asks_of_every_action_holds_offline_too(folder: Path, decide: Callable[..., Result]) -> None:
    (folder / "budget.yaml").write_text(BUDGET)
    denied = decide("ToolCall", "crm.customers.read")
    assert denied.exit_code == 12
    assert "AgentBudget reports/day limits records, and nothing says how much of it" in denied.stdout
    call = json.loads(decide("ModelCall", "llm.chat", "-o", "json", arguments={"limit": 3}).stdout)
    assert call["decision"] == "Constrain"
    assert {"type": "Clamp", "field": "arguments.max_tokens", "maximum": 300} in call["obligations"]


def test_a_rule_with_a_limit_counts_as_reached(run: Run, folder: Path) -> None:
    (folder / "limits.yaml").write_text(LIMITS)
    (folder / "tests.yaml").write_text(CASE)
    result = run("policy", "test", folder)
    assert result.exit_code == 0, result.stdout
    assert "gently" not in result.stdout
    (folder / "tests.yaml").write_text(CASE.replace("[few, read]", "[read]"))
    assert "expected the rules read to count, found few, read" in run("policy", "test", folder).stdout
