"""What is stored is settled, also where hub, ledger and webhook went away in between."""

from collections.abc import Sequence
from pathlib import Path
from time import time

import pytest
from support import make
from support.keptbudgets import DAY, ask, governed, granted, keeping, reserve, wish
from support.rawstream import stream
from support.streams import World, until

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import DecisionRecord, decode
from fleetward.audit.store import Store, StoredRecord
from fleetward.budget.ledger import Entry, LedgerError
from fleetward.budget.windows import window_at
from fleetward.decision.action import Spend
from fleetward.decision.replies import Failed
from fleetward.registry.slice import BudgetWindow
from fleetward_operator.hub import settling
from fleetward_operator.hub.budgets import Budgets
from fleetward_operator.hub.settlement import Settlement


def spending(seq: int, records: int, writer: str = "gone") -> bytes:
    """Give the record of a decision that took records out of the budget of the day."""
    spend = Spend(budget=DAY, window=window(), born="b1", amounts={"records": records})
    return make.record(writer, seq, spends=(spend,))


def window() -> str:
    return window_at(BudgetWindow(kind="Calendar", unit="Day"), time()).id


async def reserved(budgets: Budgets, amount: int) -> None:
    await until(lambda: bool(budgets.pots_of(DAY)) and budgets.pots_of(DAY)[0].limits[0].reserved == amount)


async def test_what_a_hub_stored_and_did_not_settle_is_settled_by_the_next_one(world: World) -> None:
    world.store.append([spending(1, 7), spending(2, 5)])
    async with keeping(world.directory / "kept", governed()) as (budgets, _):
        await world.hub_up(governed(), budgets=budgets)
        await reserved(budgets, 12)
        await world.hub_down()
        await world.hub_up(governed(), budgets=budgets)
        async with stream(world) as raw:
            await raw.hello(workload="alpha", writer="raw")
            await raw.records(spending(1, 3, "raw"))
            await reserved(budgets, 15)
        await world.hub_down()


async def test_nothing_is_settled_before_it_is_known_what_holds(world: World) -> None:
    """Or what was used of a rolling window would never roll out of it."""
    world.store.append([spending(1, 7)])
    async with keeping(world.directory / "kept", governed()) as (budgets, _):
        (registry,) = budgets.governing  # type: ignore[attr-defined]
        budgets.governing[0] = None  # type: ignore[attr-defined]
        hub = await world.hub_up(budgets=budgets)
        with pytest.raises(LedgerError, match="has not read the resources"):
            await budgets.fold([])
        assert isinstance(await ask(budgets, "w", reserve(wish(1))), Failed)
        budgets.governing[0] = registry  # type: ignore[attr-defined]
        hub.publish(registry)
        await reserved(budgets, 7)
        await world.hub_down()


async def test_until_all_that_is_on_record_is_in_the_ledger_nothing_is_granted(tmp_path: Path) -> None:
    async with keeping(tmp_path, governed()) as (budgets, _):
        budgets.filled = lambda: False
        reply = await ask(budgets, "w", reserve(wish(1)))
        assert reply == Failed(reason="what is on record is being entered into the ledger of budgets")
        budgets.filled = lambda: True
        granted(await ask(budgets, "w", reserve(wish(1))))


async def test_a_ledger_that_was_lost_is_filled_anew(world: World) -> None:
    for directory in ("first", "second"):
        async with keeping(world.directory / directory, governed()) as (budgets, _):
            await world.hub_up(governed(), budgets=budgets)
            if directory == "first":
                async with stream(world) as raw:
                    await raw.hello(workload="alpha", writer="raw")
                    await raw.records(spending(1, 9, "raw"))
                    await reserved(budgets, 9)
            await reserved(budgets, 9)
            await world.hub_down()


class Desk:
    """A ledger that can be away, and counts."""

    def __init__(self) -> None:
        self.away = False
        self.last: dict[str, int] = {}
        self.taken: list[Entry] = []

    async def fold(self, entries: Sequence[Entry]) -> None:
        if self.away:
            raise LedgerError("away")
        for entry in entries:
            if entry.seq > self.last.get(entry.writer, 0):
                self.last[entry.writer] = entry.seq
                if entry.spends:
                    self.taken.append(entry)

    async def folded(self, writer: str) -> int:
        if self.away:
            raise LedgerError("away")
        return self.last.get(writer, 0)


class Watched(Store):
    """A store that says from where on it was read."""

    read_from: list[int]

    def read(self, query: RecordQuery | None = None, after_position: int = 0) -> list[StoredRecord]:
        self.read_from.append(after_position)
        return super().read(query, after_position)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    opened = Watched.open(tmp_path / "audit.db")
    opened.read_from = []
    return opened


async def test_what_is_settled_is_not_read_again(store: Watched) -> None:
    with store:
        desk, line = Desk(), spending(1, 4)
        first = Settlement(store, desk)
        await first.catch_up()
        assert not first.behind
        store.append([line])
        await first.settle([entry for entry in [entry_of(line)] if entry], 1)
        again = Settlement(store, desk)
        await again.catch_up()
        assert store.read_from == [0, 1]
        assert [entry.seq for entry in desk.taken] == [1]


async def test_while_the_ledger_is_away_nothing_passes_for_settled(store: Watched) -> None:
    with store:
        desk = Desk()
        settlement = Settlement(store, desk)
        desk.away = True
        store.append([spending(1, 4)])
        await settlement.catch_up()
        assert settlement.behind
        desk.away = False
        await settlement.catch_up()
        assert [entry.seq for entry in desk.taken] == [1]
        desk.away = True
        line = spending(2, 4)
        store.append([line])
        with pytest.raises(LedgerError):
            await settlement.settle([entry for entry in [entry_of(line)] if entry], 1)
        assert settlement.behind
        desk.away = False
        await settlement.catch_up()
        assert [entry.seq for entry in desk.taken] == [1, 2]


async def test_records_that_settle_nothing_do_not_pile_up_to_be_read(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetward_operator.hub.settlement.MARK_RECORDS", 3)
    with store:
        desk = Desk()
        settlement = Settlement(store, desk)
        await settlement.catch_up()
        for seq in range(1, 8):
            store.append([make.record("w", seq)])
            await settlement.settle([], 1)
        await Settlement(store, desk).catch_up()
        assert store.read_from == [0, 6, 7]


def entry_of(line: bytes) -> Entry | None:
    record = decode(line)
    assert isinstance(record, DecisionRecord)
    return settling.entry_of(record)
