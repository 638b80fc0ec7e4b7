"""Budgets and runs together: a real webhook process, with the real book of runs and the real ledger as its hub."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from support.spending import RULES, budget, slice_of
from support.webhook import SmallHub, Webhook, await_condition, names, small_hub

from fleetward.budget.report import LimitReport
from fleetward.registry.slice import BudgetLimits, CallLimit, Delegates, Rule, Slice

DESK, OTHER = "reports/data-worker", "reports/other"
CRM = "calls crm.**"
DELEGATIONS = "calls delegate.**"


def two_agents(*budgets: Any) -> Slice:
    """The desk may hand work to the other; what both do counts in the same budgets."""
    slice_ = slice_of(*budgets)
    items = slice_.items
    desk = msgspec.structs.replace(items.agents[DESK], may_delegate_to=Delegates(roles=("Worker",)))
    other = msgspec.structs.replace(desk, name="other")
    policy = items.policies[RULES]
    hand_over = Rule(name="hand-over", decision="Allow", match=names("delegate.**"))
    policy = msgspec.structs.replace(policy, rules=(*policy.rules, hand_over))
    agents = {DESK: desk, OTHER: other}
    return msgspec.structs.replace(
        slice_, items=msgspec.structs.replace(items, agents=agents, policies={RULES: policy})
    )


def calls_budget(glob: str, most: int, **changes: Any) -> Any:
    limits = BudgetLimits(calls=(CallLimit(names=(glob,), max=most),))
    return budget(limits=limits, **changes)


@contextlib.contextmanager
def served(folder: Path, *budgets: Any) -> Iterator[tuple[SmallHub, Webhook]]:
    with small_hub(folder, two_agents(*budgets)) as hub, Webhook(hub.address, folder) as webhook:
        yield hub, webhook.await_ready()


def open_run(webhook: Webhook, **limits: int) -> str:
    mandate = {"requester": "ana", "purpose": "a test", "limits": limits}
    status, _, answer = webhook.call("POST", "/v1/runs", {"agent": DESK, "mandate": mandate})
    assert status == 200, answer
    run: str = answer["run"]
    return run


def decide(webhook: Webhook, name: str, agent: str = DESK, **fields: Any) -> dict[str, Any]:
    body = {"agent": agent, "action": {"kind": "ToolCall", "name": name}, **fields}
    status, _, answer = webhook.call("POST", "/v1/decisions", body)
    assert status == 200, answer
    return dict(answer)


def hand_over(webhook: Webhook, run: str) -> dict[str, Any]:
    body = {"agent": DESK, "to": OTHER, "run": run, "scope": {"actions": ["crm.**"]}}
    status, _, answer = webhook.call("POST", "/v1/delegations", body)
    assert status == 200, answer
    return dict(answer)


def standing(hub: SmallHub, limit: str, scope: str = "") -> LimitReport | None:
    return hub.standing("AgentBudget/reports/day", limit, scope)


def test_what_a_budget_refuses_does_not_count_in_the_run(tmp_path: Path) -> None:
    with served(tmp_path, calls_budget("crm.**", 1)) as (_, webhook):
        run = open_run(webhook, steps=3)
        assert decide(webhook, "crm.read", run=run)["decision"] == "Allow"
        for _ in range(5):
            refused = decide(webhook, "crm.read", run=run)
            assert (refused["decision"], refused["shortfall"]["limit"]) == ("Deny", CRM)
        assert [decide(webhook, "pay.invoice", run=run)["decision"] for _ in range(3)] == ["Allow", "Allow", "Deny"]
        records = webhook.spooled()
        assert [bool(each.get("spends")) for each in records if each["type"] == "Decision"] == [True] + [False] * 8


def test_delegations_count_like_other_actions(tmp_path: Path) -> None:
    with served(tmp_path, calls_budget("delegate.**", 1)) as (hub, webhook):
        run = open_run(webhook, steps=10)
        first, second = hand_over(webhook, run), hand_over(webhook, run)
        assert first["decision"] == "Allow", first
        assert first["grant"]
        assert (second["decision"], second["shortfall"]["limit"]) == ("Deny", DELEGATIONS)
        assert "grant" not in second
        handovers = [each["handover"] for each in webhook.spooled() if "handover" in each]
        assert handovers[0]["grant"]
        assert "grant" not in handovers[1]
        await_condition(lambda: (found := standing(hub, DELEGATIONS)) and found.reserved == 1, "the first one counts")


def test_a_plan_takes_nothing(tmp_path: Path) -> None:
    with served(tmp_path, calls_budget("**", 2)) as (_, webhook):
        run = open_run(webhook, steps=10)
        step = {"id": "read", "agent": DESK, "action": {"kind": "ToolCall", "name": "crm.read"}}
        for _ in range(3):
            webhook.call("POST", "/v1/plans", {"agent": DESK, "run": run, "steps": [step]})
        assert [decide(webhook, "crm.read", run=run)["decision"] for _ in range(3)] == ["Allow", "Allow", "Deny"]


def test_each_run_has_a_pot_of_its_own(tmp_path: Path) -> None:
    with served(tmp_path, calls_budget("crm.**", 1, scope="Run")) as (hub, webhook):
        one, other = open_run(webhook, steps=10), open_run(webhook, steps=10)
        for run in (one, other):
            assert [decide(webhook, "crm.read", run=run)["decision"] for _ in range(2)] == ["Allow", "Deny"]
        assert [decide(webhook, "crm.read")["decision"] for _ in range(2)] == ["Allow", "Deny"]
        scopes = {spend["scope"] for each in webhook.spooled() for spend in each.get("spends", ())}
        assert scopes == {one, other, f"agent:{DESK}"}
        await_condition(lambda: (found := standing(hub, CRM, one)) and found.reserved == 1, "the run's pot")


def test_work_handed_down_counts_in_every_subtree_it_came_through(tmp_path: Path) -> None:
    with served(tmp_path, calls_budget("crm.**", 2, scope="Subtree")) as (_, webhook):
        run = open_run(webhook, steps=10)
        grant = hand_over(webhook, run)["grant"]
        assert decide(webhook, "crm.read", OTHER, grant=grant)["decision"] == "Allow"
        spends = [each["spends"] for each in webhook.spooled() if each.get("spends")][-1]
        ids = [each["handover"]["grant"] for each in webhook.spooled() if "handover" in each]
        assert [spend["scope"] for spend in spends] == [run, f"{run}/{ids[0]}"]
        assert decide(webhook, "crm.read", run=run)["decision"] == "Allow"
        assert decide(webhook, "crm.read", OTHER, grant=grant)["decision"] == "Deny"
        fresh = hand_over(webhook, run)["grant"]
        assert decide(webhook, "crm.read", OTHER, grant=fresh)["decision"] == "Deny"  # the run's own pot is empty


def test_a_webhook_told_to_stop_gives_its_leases_back(tmp_path: Path) -> None:
    with served(tmp_path, calls_budget("crm.**", 1000)) as (hub, webhook):
        for _ in range(40):
            decide(webhook, "crm.read")
        assert webhook.stop() == 0
        found = standing(hub, CRM)
        assert found is not None
        assert (found.reserved, found.leased) == (40, 0)


def test_a_killed_webhook_costs_nothing_once_it_is_back(tmp_path: Path) -> None:
    with served(tmp_path, calls_budget("crm.**", 1000)) as (hub, webhook):
        for _ in range(40):
            decide(webhook, "crm.read")
        webhook.process.send_signal(signal.SIGKILL)
        webhook.process.wait(10)
        with Webhook(hub.address, tmp_path) as again:
            again.await_ready()

            def settled() -> bool:
                found = standing(hub, CRM)
                return found is not None and (found.reserved, found.leased) == (40, 0)

            await_condition(settled, "the dead process's leases are void")
            assert decide(again, "crm.read")["decision"] == "Allow"
