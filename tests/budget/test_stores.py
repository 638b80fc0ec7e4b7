"""What each store does that the other does not: files that are foreign, databases that go away, who reads only."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from budget.pots import BUDGET, COST, World, budget, granted, threshold
from support.postgres import Postgres

from fleetward.budget.ledger import Ledger
from fleetward.budget.sql import CLAIM_SECONDS, LedgerStore
from fleetward.budget.store import LedgerError, open_ledger_store


def test_a_reader_beside_the_hub(open_store: Callable[..., LedgerStore]) -> None:
    world = World(open_store(), budget(cost=100))
    granted(world.holder().cost(30))
    reader = Ledger(open_store(read_only=True))
    assert reader.report(world.terms, world.now)[0].limits[0].leased == 30
    world.holder().spent(30, 20)
    (pot,) = reader.report(world.terms, world.now)
    assert (pot.limits[0].spent, pot.limits[0].remaining) == (20, 80)


def test_a_reader_makes_no_ledger(open_store: Callable[..., LedgerStore]) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        open_store(read_only=True).begin()


def test_a_newer_schema(open_store: Callable[..., LedgerStore], place: str) -> None:
    Ledger(open_store()).paused(0)
    if place.startswith("postgresql"):
        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute("UPDATE budget_head SET version = 7")
    else:
        connection_ = sqlite3.connect(place)
        connection_.execute("PRAGMA user_version = 7")
        connection_.close()
    with pytest.raises(LedgerError, match="schema version 7, and this Fleetward knows version 1"):
        Ledger(open_store()).paused(0)


def test_a_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine(x)")
    connection.close()
    with pytest.raises(LedgerError, match="not a ledger of Fleetward"):
        open_ledger_store(path)
    path.write_text("not a database at all, and long enough to be read as one" * 20)
    with pytest.raises(LedgerError, match="not a database"):
        open_ledger_store(path)


def test_another_address() -> None:
    with pytest.raises(LedgerError, match="mysql://"):
        open_ledger_store("mysql://host/database")


def test_passwords_are_not_said(tmp_path: Path) -> None:
    store = open_ledger_store(f"postgresql://me:hushhush@/none?host={tmp_path}")
    with pytest.raises(LedgerError) as caught:
        Ledger(store).paused(0)
    assert "hushhush" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_lost_connection_is_made_again(postgres: Postgres) -> None:
    place = postgres.new_schema()
    world = World(open_ledger_store(place), budget(cost=100))
    granted(world.holder().cost(10))
    with psycopg.connect(place, autocommit=True) as other:
        others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%budget_head%'"
        other.execute(f"SELECT pg_terminate_backend(pid) {others}")
    with pytest.raises(LedgerError, match="PostgreSQL"):
        world.holder().cost(10)
    granted(world.holder().cost(90))
    assert world.stands() == (0, 0, 100)
    world.store.close()


def test_a_hub_that_hangs_in_the_middle_keeps_others_waiting_and_no_longer(postgres: Postgres) -> None:
    place = postgres.new_schema()
    hangs, other = (World(open_ledger_store(place), budget(cost=100)) for _ in range(2))
    granted(other.holder("w2").cost(1))
    other.store._query("SELECT set_config('lock_timeout', '50ms', false)")

    def hang() -> None:
        with hangs.ledger.batch():
            granted(hangs.holder("w1").cost(50))
            with pytest.raises(LedgerError, match="lock timeout"):
                other.holder("w2").cost(1)
            with psycopg.connect(place, autocommit=True) as connection:
                pids = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
                connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({pids}) AS held")  # noqa: S608 - ours

    with pytest.raises(LedgerError, match="PostgreSQL"):
        hang()
    assert other.stands() == (0, 0, 1)
    granted(other.holder("w2").cost(99))
    for world in (hangs, other):
        world.store.close()


def test_news_go_to_one_hub(postgres: Postgres) -> None:
    place = postgres.new_schema()
    terms = budget(cost=100, thresholds=(threshold(10, "Event"),))
    one, other = (World(open_ledger_store(place), terms) for _ in range(2))
    granted(one.holder().cost(50))
    one.holder().spent(50)
    news = other.ledger.news(one.now)
    assert [(item.event, item.limit) for item in news] == [("Threshold", COST)]
    assert one.ledger.news(one.now + CLAIM_SECONDS - 1) == []
    assert other.ledger.news(one.now + CLAIM_SECONDS - 1) == news
    assert one.ledger.news(one.now + 2 * CLAIM_SECONDS) == news, "the other hub may have died before it recorded them"
    one.ledger.told(news)
    for world in (one, other):
        assert world.ledger.news(one.now + 1000) == []
        world.store.close()


def test_what_a_report_says(open_store: Callable[..., LedgerStore]) -> None:
    world = World(open_store(), budget(cost=1000))
    holder = world.holder()
    for agent in ("reports/a", "reports/b", "reports/a"):
        granted(holder.cost(100))
        holder.spent(100, 90, agent=agent)
        world.now += 800
    granted(holder.cost(50))
    holder.spent(40, agent="reports/b")
    (pot,) = world.ledger.report(world.terms, world.now, [BUDGET])
    (limit,) = pot.limits
    assert (limit.spent, limit.reserved, limit.leased, limit.remaining) == (270, 40, 10, 680)
    assert [(one.agent, one.amounts[COST]) for one in pot.spenders] == [("reports/a", 180), ("reports/b", 130)]
    assert sum(point.amounts[COST] for point in pot.series) == 270
    assert len(pot.series) == 3
    assert limit.empty_at is not None
    assert world.now < limit.empty_at < (pot.resets_at or 0)
    assert world.ledger.report(world.terms, world.now, ["AgentBudget/reports/other"]) == ()
    (bare,) = world.ledger.report(world.terms, world.now, history=False)
    assert (bare.series, bare.spenders, bare.limits[0].spent) == ((), (), 270)
    world.now += 86_400
    assert world.ledger.report(world.terms, world.now) == ()
