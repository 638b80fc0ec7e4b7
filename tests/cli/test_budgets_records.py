"""What budgets leave in the audit trail: shown by `audit` and `trace`, and summed up by agent and run."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import BudgetRecord, DecisionRecord, OutcomeRecord, Record, RunRecord, decode, encode
from fleetward.audit.sinks.cloudevents import event_message
from fleetward.audit.store import Store
from fleetward.cli.budgets.spent import LOST, by_agent, by_run, totals, uses
from fleetward.decision.action import Actual, Facts, RecordedAction, Shortfall, Spend

Run = Callable[..., Result]

DAY = "AgentBudget/reports/day"
BEGAN = datetime(2026, 11, 21, 9, tzinfo=UTC)


class Trail:
    """Records of one writer, numbered as they are made, a second apart."""

    def __init__(self, writer: str = "aaaa") -> None:
        self.records: list[Record] = []
        self._writer = writer
        self._numbers = itertools.count(1)

    def _head(self) -> dict[str, Any]:
        seq = next(self._numbers)
        time_ = (BEGAN + timedelta(seconds=seq)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "id": f"{self._writer}-{seq}",
            "writer": self._writer,
            "seq": seq,
            "time": time_,
            "registry_version": "v1",
        }

    def _add(self, record: Record) -> str:
        self.records.append(record)
        return record.id

    def decision(self, agent: str, amounts: dict[str, int], **fields: Any) -> str:
        spends = (Spend(budget=DAY, window="w", amounts=amounts),) if amounts else ()
        known = {"decision": "Allow", "reason": "allowed by rule read", "spends": spends} | fields
        action = RecordedAction(kind="ModelCall", name="llm.chat", trusted=Facts())
        return self._add(DecisionRecord(**self._head(), agent=agent, action=action, **known))

    def outcome(self, decision_id: str, agent: str, amounts: dict[str, int] | None, **fields: Any) -> str:
        spends = () if amounts is None else (Spend(budget=DAY, window="w", amounts=amounts),)
        known = {"status": "Succeeded", "decision": "Allow", "reason": "nothing speaks against it"} | fields
        return self._add(OutcomeRecord(**self._head(), agent=agent, decision_id=decision_id, spends=spends, **known))

    def budget(self, event: str, **fields: Any) -> str:
        known: dict[str, Any] = {"budget": DAY, "window": "w", "reason": "so it is", "event": event} | fields
        return self._add(BudgetRecord(**self._head(), **known))


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
def stored(trail: Trail, tmp_path: Path) -> Callable[[], Path]:
    def write() -> Path:
        with Store.open(tmp_path / ".fleetward" / "audit.db") as store:
            store.append([encode(record) for record in trail.records])
        return tmp_path / ".fleetward"

    return write


def found(trail: Trail, tmp_path: Path) -> list[Any]:
    with Store.open(tmp_path / "audit.db") as store:
        store.append([encode(record) for record in reversed(trail.records)])
        return uses(store.read(RecordQuery()))


def test_an_outcome_takes_the_place_of_what_was_reserved(trail: Trail, tmp_path: Path) -> None:
    first = trail.decision("r/a", {"records": 10, "costMicroUsd": 500})
    trail.decision("r/b", {"records": 5})
    trail.outcome(first, "r/a", {"records": 4, "costMicroUsd": 700})
    its = found(trail, tmp_path)
    assert totals(its) == {(DAY, "", "w"): {"records": 9, "costMicroUsd": 700}}
    assert [(s.who, s.spent, s.reserved, s.actions) for s in by_agent(its, "records")] == [
        ("r/b", 0, 5, 1),
        ("r/a", 4, 0, 1),
    ]


def test_an_outcome_that_says_nothing_of_budgets_changes_nothing(trail: Trail, tmp_path: Path) -> None:
    trail.outcome(trail.decision("r/a", {"records": 10}), "r/a", None, status="Running")
    (use,) = found(trail, tmp_path)
    assert (use.amounts, use.settled) == ({"records": 10}, False)


def test_a_place_among_those_at_once_is_free_with_the_outcome(trail: Trail, tmp_path: Path) -> None:
    trail.outcome(trail.decision("r/a", {"concurrency": 1}), "r/a", {"concurrency": 1})
    trail.decision("r/b", {"concurrency": 1})
    assert totals(found(trail, tmp_path)) == {(DAY, "", "w"): {"concurrency": 1}}


def test_what_settled_at_the_estimate_is_spent_and_a_late_outcome_corrects_it(trail: Trail, tmp_path: Path) -> None:
    lost, late = trail.decision("r/a", {"records": 10}), trail.decision("r/b", {"records": 20})
    for decision_id, amount in ((lost, 10), (late, 20)):
        trail.budget("SettledAtEstimate", decision_id=decision_id, amounts={"records": amount})
    trail.outcome(late, "r/b", {"records": 3})
    assert {(use.agent, use.amounts["records"], use.settled) for use in found(trail, tmp_path)} == {
        ("r/a", 10, True),
        ("r/b", 3, True),
    }


def test_what_was_lost_with_a_machine_is_nobodys(trail: Trail, tmp_path: Path) -> None:
    trail.budget("Forfeited", amounts={"records": 7})
    trail.budget("Overshoot", amounts={"records": 2}, agent="r/a")
    assert [(use.agent, use.amounts) for use in found(trail, tmp_path)] == [(LOST, {"records": 7})]


def test_sums_by_run(trail: Trail, tmp_path: Path) -> None:
    for agent, run_, amount in (("r/a", "r-1", 3), ("r/b", "r-1", 4), ("r/a", "r-2", 9), ("r/a", None, 50)):
        trail.decision(agent, {"records": amount}, run=run_)
    its = found(trail, tmp_path)
    assert [(s.who, s.amount, s.others) for s in by_run(its, "records")] == [
        ("r-2", 9, ("r/a",)),
        ("r-1", 7, ("r/a", "r/b")),
    ]


SHORT = Shortfall(budget=DAY, limit="costMicroUsd", needed=54_000, left=12_000, resets_at=1_795_302_000)


def test_audit_shows_what_had_no_room(run: Run, trail: Trail, stored: Callable[[], Path]) -> None:
    id_ = trail.decision("r/a", {}, decision="Deny", reason="AgentBudget reports/day has no room", shortfall=SHORT)
    result = run("audit", "show", id_, "--data", stored())
    assert result.exit_code == 0
    assert "  had no room\n    AgentBudget reports/day: cost: needed $0.054, left $0.012, begins anew" in result.stdout
    assert "reserved in budgets" not in result.stdout


def test_audit_shows_what_was_reserved_and_counted(run: Run, trail: Trail, stored: Callable[[], Path]) -> None:
    id_ = trail.decision("r/a", {"records": 10})
    outcome = trail.outcome(
        id_, "r/a", {"records": 4}, actual=Actual(records=4, cached_input_tokens=1, reasoning_tokens=2)
    )
    data = stored()
    reserved = run("audit", "show", id_, "--data", data).stdout
    assert "  reserved in budgets\n    records 10 from AgentBudget reports/day, window w\n" in reserved
    counted = run("audit", "show", outcome, "--data", data).stdout
    assert "  counted in budgets\n    records 4 from AgentBudget reports/day, window w\n" in counted
    assert "    1 cached input token\n    2 reasoning tokens\n" in counted


def test_audit_lists_and_shows_what_happened_to_a_budget(run: Run, trail: Trail, stored: Callable[[], Path]) -> None:
    trail.decision("r/a", {"records": 10})
    id_ = trail.budget("Threshold", limit="records", percent=80, reason="80 % of 12 records is used or reserved")
    over = trail.budget("Overshoot", amounts={"records": 3}, agent="r/a", decision_id="aaaa-1")
    data = stored()
    result = run("audit", "list", "--data", data, "--type", "budget")
    rows = result.stdout.splitlines()
    assert rows[1].split()[1:] == [
        "-",
        "AgentBudget",
        "reports/day,",
        "records",
        "at",
        "80",
        "%",
        "Threshold",
        "-",
        "-",
        id_,
    ]
    assert rows[2].split()[1:5] == ["r/a", "AgentBudget", "reports/day", "Overshoot"]
    shown = run("audit", "show", over, "--data", data).stdout
    assert "  amounts\n    records 3\n" in shown
    assert "    agent r/a\n    decision aaaa-1\n" in shown
    listed = run("audit", "list", "--data", data, "--agent", "r/a", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["type"] for line in listed] == ["Decision", "Budget"]


def test_trace_shows_spending(run: Run, trail: Trail, stored: Callable[[], Path]) -> None:
    trail.records.append(RunRecord(**trail._head(), run="r-1", agent="r/a", state="Opened"))
    allowed = trail.decision("r/a", {"records": 10}, run="r-1", cause="aaaa-1")
    trail.outcome(allowed, "r/a", {"records": 4}, run="r-1")
    denied = trail.decision("r/a", {}, run="r-1", cause="aaaa-1", decision="Deny", reason="no room", shortfall=SHORT)
    data = stored()
    tree = run("trace", "r-1", "--data", data).stdout
    assert "reserved records 10" in tree
    assert "counted records 4" in tree
    assert "no room: AgentBudget reports/day: cost: needed $0.054, left $0.012" in tree
    why = run("trace", "--why", denied, "--data", data).stdout
    assert "no room: AgentBudget reports/day: cost" in why
    assert (
        "reserved records 10 from AgentBudget reports/day, window w"
        in run("trace", "--why", allowed, "--data", data).stdout
    )
    page = run("trace", "r-1", "--data", data, "-o", "html").stdout
    assert "no room: AgentBudget reports/day" in page


def test_a_budget_record_as_an_event(trail: Trail, tmp_path: Path) -> None:
    trail.budget("Paused")
    with Store.open(tmp_path / "audit.db") as store:
        store.append([encode(record) for record in trail.records])
        (record,) = store.read()
    assert record.type == "Budget"
    assert decode(record.body) == trail.records[0]
    body = json.loads(event_message(record).body or b"")
    assert (body["type"], body["subject"]) == ("dev.fleetward.audit.budget.v1", DAY)
