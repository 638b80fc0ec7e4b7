"""Budgets of the hub: exact for many webhooks, leases called back, records settled before they are acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import make
from support.keptbudgets import (
    ALPHA,
    BETA,
    DAY,
    ask,
    budget,
    entry,
    governed,
    granted,
    keeping,
    refused,
    reserve,
    wish,
)
from support.rawstream import stream
from support.streams import World, until

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import BudgetRecord, encode
from fleetward.audit.store import Store
from fleetward.budget import calls
from fleetward.budget.ledger import Entry
from fleetward.budget.store import LedgerError
from fleetward.decision.action import Spend
from fleetward.decision.replies import Done, Failed
from fleetward.registry.slice import Mode
from fleetward.stream import messages
from fleetward_operator.hub.budgets import Budgets

Kept = tuple[Budgets, Store]


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with keeping(tmp_path, governed()) as both:
        yield both


async def pot(budgets: Budgets, what: str = DAY) -> tuple[int, int, int]:
    """Give what is spent, reserved and leased of records, once a sweep has seen it."""
    before = budgets.report.at
    await until(lambda: budgets.report.at > before and bool(budgets.pots_of(what)))
    (limit,) = budgets.pots_of(what)[0].limits
    return limit.spent, limit.reserved, limit.leased


async def test_two_webhooks_never_get_more_than_there_is(kept: Kept) -> None:
    budgets, _ = kept
    asked = [ask(budgets, f"w{n % 2}", reserve(wish(9), holdings=())) for n in range(2)]
    got = [granted(reply).amounts["records"] for reply in await asyncio.gather(*asked)]
    assert got == [9, 9]
    short = refused(await ask(budgets, "w2", reserve(wish(83))))
    assert (short.decision, short.shortfall.left) == ("Deny", 82)
    assert granted(await ask(budgets, "w2", reserve(wish(82)))).amounts == {"records": 82}
    assert await pot(budgets) == (0, 0, 100)


async def test_leases_of_others_are_called_back_for_the_last_of_a_limit(kept: Kept) -> None:
    budgets, _ = kept
    lease = granted(await ask(budgets, "rich", reserve(wish(60))))
    called: list[str] = []

    def send(writer: str, pots: Sequence[calls.PotRef]) -> bool:
        called.append(writer)
        assert pots == (calls.PotRef(budget=DAY),)
        held = calls.Holding(budget=DAY, window=lease.window, got={"records": 60}, returned={"records": 60})
        budgets.ask(calls.Release(born="b1", holdings=(held,)), webhook="rich", agents=(ALPHA,), answer=lambda _: None)
        return True

    budgets.recalls.send = send
    assert granted(await ask(budgets, "poor", reserve(wish(100)))).amounts == {"records": 100}
    assert called == ["rich"]


async def test_whoever_holds_on_to_a_lease_holds_nobody_up_for_long(kept: Kept) -> None:
    budgets, _ = kept
    granted(await ask(budgets, "rich", reserve(wish(60))))
    budgets.recalls.send = lambda _writer, _pots: True
    short = refused(await ask(budgets, "poor", reserve(wish(41))))
    assert short.shortfall.left == 40
    assert granted(await ask(budgets, "poor", reserve(wish(40)))).amounts == {"records": 40}


async def test_what_was_granted_at_the_first_try_stays_when_the_rest_is_tried_again(kept: Kept) -> None:
    budgets, _ = kept
    granted(await ask(budgets, "rich", reserve(wish(60))))
    budgets.recalls.send = lambda _writer, _pots: True
    reply = await ask(budgets, "poor", reserve(wish(30), wish(30)))
    assert isinstance(reply, calls.Reserved)
    assert [type(answer).__name__ for answer in reply.answers] == ["Lease", "Short"]
    assert await pot(budgets) == (0, 0, 90)


async def test_records_are_settled_once(kept: Kept) -> None:
    budgets, _ = kept
    lease = granted(await ask(budgets, "w", reserve(wish(10))))
    await budgets.fold([entry("w", 1, lease, 10)])
    assert await pot(budgets) == (0, 10, 0)
    for _ in range(3):
        await budgets.fold([entry("w", 1, lease, 10), entry("w", 2, lease, 4, of=1)])
    assert await pot(budgets) == (4, 0, 0)


async def test_an_unknown_budget_and_a_foreign_agent_get_nothing(kept: Kept) -> None:
    budgets, _ = kept
    short = refused(await ask(budgets, "w", reserve(wish(1, budget="AgentBudget/reports/none"))))
    assert short.decision == "Deny"
    reply = await ask(budgets, "w", reserve(wish(1, BETA)), agents=(ALPHA,))
    assert reply == Failed(reason="agent reports/beta is not one that this webhook serves")


async def test_before_the_resources_are_known_nothing_is_granted(kept: Kept) -> None:
    budgets, _ = kept
    budgets.governing[0] = None  # type: ignore[attr-defined]
    reply = await ask(budgets, "w", reserve(wish(1)))
    assert reply == Failed(reason="the hub has not read the resources yet")


async def test_a_fault_costs_one_batch_and_not_all_that_follow(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets, _ = kept

    def broken() -> None:
        raise AttributeError("no such thing")

    with monkeypatch.context() as patch:
        patch.setattr(budgets, "_registry", broken)
        reply = await ask(budgets, "w", reserve(wish(1)))
        assert reply == Failed(reason="an internal error; the hub's log has it")
    granted(await ask(budgets, "w", reserve(wish(1))))


async def test_a_limit_that_is_lowered_calls_leases_back(kept: Kept) -> None:
    budgets, _ = kept
    granted(await ask(budgets, "rich", reserve(wish(60))))
    called: set[str] = set()

    def send(writer: str, _pots: Sequence[calls.PotRef]) -> bool:
        called.add(writer)
        return True

    budgets.recalls.send = send
    budgets.governing[0] = governed(budget(limits={"records": 50}))  # type: ignore[attr-defined]
    await until(lambda: "rich" in called)
    assert (
        "of 50, 0 is used or reserved and 60 on lease" in refused(await ask(budgets, "poor", reserve(wish(1)))).reason
    )


async def test_what_happens_to_a_budget_is_on_record_and_told(tmp_path: Path) -> None:
    spec: dict[str, Any] = {"thresholds": [{"percent": 50, "action": "Event"}, {"percent": 100, "action": "Pause"}]}
    async with keeping(tmp_path, governed(budget(**spec))) as (budgets, records):
        told: list[str] = []
        paused: list[Mapping[str, Mode]] = []
        budgets.told = lambda news: told.append(news.event)
        budgets.paused = paused.append
        lease = granted(await ask(budgets, "w", reserve(wish(60))))
        await budgets.fold([entry("w", 1, lease, 60)])
        assert refused(await ask(budgets, "w", reserve(wish(41)))).decision == "Deny"
        await until(lambda: told == ["Threshold", "Paused"])
        modes = paused[-1]
        assert {key: (mode.operating_mode, mode.source) for key, mode in modes.items()} == {
            ALPHA: ("Paused", "AgentBudget reports/day"),
            BETA: ("Paused", "AgentBudget reports/day"),
        }
        budgets.governing[0] = governed(budget(limits={"records": 500}, **spec))  # type: ignore[attr-defined]
        await until(lambda: paused[-1] == {})
        stored = [one.record for one in records.read(RecordQuery())]
        events = [(one.event, one.budget, one.percent) for one in stored if isinstance(one, BudgetRecord)]
        assert events[:2] == [("Threshold", DAY, 50), ("Paused", DAY, 100)]
        assert events[2][0] == "Resumed"


# Over a stream


async def test_a_webhook_is_called_back_over_its_stream_and_its_records_settle(world: World) -> None:
    async with keeping(world.directory / "kept", governed()) as (budgets, _):
        await world.hub_up(governed(), budgets=budgets)
        async with stream(world) as raw:
            await raw.hello(workload="alpha", writer="raw")
            await raw.send(messages.Question(number=1, request=reserve(wish(60))))
            lease = granted((await raw.until(messages.Reply)).reply)
            other = asyncio.create_task(ask(budgets, "other", reserve(wish(60))))
            assert (await raw.until(messages.Recall)).pots == (calls.PotRef(budget=DAY),)
            spend = Spend(budget=DAY, window=lease.window, born="b1", amounts={"records": 10})
            await raw.records(make.record("raw", 1, spends=(spend,)))
            await raw.until(messages.Acknowledged)
            held = calls.Holding(budget=DAY, window=lease.window, got={"records": 60}, returned={"records": 50})
            await raw.send(messages.Question(number=2, request=calls.Release(born="b1", holdings=(held,))))
            while (said := await raw.until(messages.Reply)).number != 2:
                pass
            assert isinstance(said.reply, Done)
            refused(await other) if other.done() else granted(await other)
            assert granted(await ask(budgets, "third", reserve(wish(30)))).amounts == {"records": 30}
        await world.hub_down()


async def test_a_record_is_acknowledged_only_once_it_is_settled(world: World) -> None:
    class Failing(Budgets):
        failing = True

        async def fold(self, entries: Sequence[Entry]) -> None:
            if self.failing:
                raise LedgerError("the ledger's disk is full")
            await super().fold(entries)

    async with keeping(world.directory / "kept", governed()) as (budgets, _):
        budgets.__class__ = Failing
        hub = await world.hub_up(governed(), budgets=budgets)
        async with stream(world) as raw:
            await raw.hello(workload="alpha", writer="raw")
            spend = Spend(budget=DAY, window="whatever", born="b1", amounts={"records": 10})
            await raw.records(make.record("raw", 1, spends=(spend,)))
            await until(lambda: hub.status().store_problem == "the ledger's disk is full")
            assert world.store.last_seq("raw") == 1, "it is stored, and comes again until it is settled"
            assert hub.status().links[0].stored == 0
            Failing.failing = False
            assert (await raw.until(messages.Acknowledged)).seq == 1
        await world.hub_down()


async def test_without_a_ledger_nothing_that_speaks_of_budgets_is_taken(world: World) -> None:
    hub = await world.hub_up(governed())
    async with stream(world) as raw:
        await raw.hello(workload="alpha", writer="raw")
        await raw.send(messages.Question(number=1, request=reserve(wish(1))))
        assert (await raw.until(messages.Reply)).reply == Failed(reason="this hub keeps no budgets")
        spend = Spend(budget=DAY, window="w", born="b1", amounts={"records": 1})
        await raw.records(make.record("raw", 1, spends=(spend,)))
        await until(lambda: "keeps no budgets" in hub.status().store_problem)
    await world.hub_down()


async def test_a_budget_that_pauses_reaches_the_webhook_as_a_pause(world: World) -> None:
    registry = governed(budget(thresholds=[{"percent": 100, "action": "Pause"}]))
    async with keeping(world.directory / "kept", registry) as (budgets, _):
        await world.hub_up(registry, budgets=budgets)
        alpha = await world.connected("alpha")
        lease = granted(await ask(budgets, "w", reserve(wish(60))))
        refused(await ask(budgets, "w2", reserve(wish(60))))
        assert alpha.slices[-1].items.agents[ALPHA].mode.operating_mode == "Running", "a lease may yet come back"
        await budgets.fold([entry("w", 1, lease, 60)])
        refused(await ask(budgets, "w2", reserve(wish(60))))
        await until(lambda: alpha.slices[-1].items.agents[ALPHA].mode.operating_mode == "Paused")
        assert alpha.slices[-1].items.agents[ALPHA].mode.source == "AgentBudget reports/day"
        assert world.hub.resources is registry, "what the resources say is not touched"
        await world.hub_down()


def test_a_budget_record_survives_being_written() -> None:
    record = BudgetRecord(
        id="h-1",
        writer="h",
        seq=1,
        time="2026-03-01T10:00:00.000000Z",
        event="Paused",
        budget=DAY,
        reason="r",
        registry_version="v",
    )
    assert b'"type":"Budget"' in encode(record)
