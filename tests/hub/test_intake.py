"""Records: acknowledged once committed, never lost, never doubled."""

import asyncio
import sqlite3

import pytest
from support import make
from support.streams import World, until

from fleetward.registry.registry import Upsert


async def test_records_reach_the_store_in_order_and_are_then_acknowledged(world: World) -> None:
    told = 0

    def committed() -> None:
        nonlocal told
        told += 1

    await world.hub_up(make.registry(), committed=committed)
    sidecar = await world.connected()
    sidecar.write(3000)
    await until(lambda: sidecar.spool.pending.records == 0)
    assert world.stored(sidecar.spool.writer) == list(range(1, 3001))
    assert told > 0
    (link,) = world.hub.status().links
    assert (link.spooled, link.stored) == (3000, 3000)


async def test_what_was_written_while_the_hub_was_down_is_handed_over_once(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    sidecar = await world.connected()
    sidecar.write(10)
    await until(lambda: sidecar.spool.pending.records == 0)
    await world.hub_down()
    sidecar.write(700)
    await world.hub_up(registry)
    await until(lambda: sidecar.spool.pending.records == 0)
    assert world.stored(sidecar.spool.writer) == list(range(1, 711))
    await world.hub_down()
    await world.hub_up(registry)
    await until(lambda: world.hub.status().links)
    (link,) = world.hub.status().links
    assert (link.spooled, link.stored) == (710, 710)
    assert world.store.gaps() == []


async def test_a_sidecar_can_wait_until_all_is_delivered(world: World) -> None:
    await world.hub_up(make.registry())
    sidecar = await world.connected()
    sidecar.write(600)
    await sidecar.link.delivered()
    assert sidecar.spool.pending.records == 0
    await sidecar.link.delivered()  # and comes back at once when it is
    await world.hub_down()
    sidecar.write(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sidecar.link.delivered(), 0.1)


async def test_records_sent_again_after_a_cut_are_not_doubled(world: World) -> None:
    await world.hub_up(make.registry())
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    for _ in range(5):
        world.proxy.hold_down()  # the store commits, and the acknowledgement does not arrive
        sidecar.write(100)
        await until(lambda: world.store.last_seq(sidecar.spool.writer) == sidecar.spool.next_seq - 1)
        assert sidecar.spool.pending.records == 100
        world.proxy.cut()
        world.proxy.release()
        await until(lambda: sidecar.spool.pending.records == 0)
    assert world.stored(sidecar.spool.writer) == list(range(1, 501))


async def test_a_full_store_acknowledges_nothing_says_so_and_recovers(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    first, second = await world.connected(), await world.connected()
    limit = world.store_connection.execute("PRAGMA page_count").fetchone()[0]
    world.store_connection.execute(f"PRAGMA max_page_count = {limit}")
    for sidecar in (first, second):
        sidecar.write(800)
    await until(lambda: world.hub.status().store_problem)
    assert "full" in world.hub.status().store_problem
    assert first.spool.pending.records + second.spool.pending.records > 1000
    # Authority does not hang on the store: deciding goes on until the spool itself is full.
    registry = registry.apply([Upsert(make.policy("new"))])
    world.hub.publish(registry)
    await first.reaches(registry)
    assert first.authority.live()

    world.store_connection.execute("PRAGMA max_page_count = 100000")
    await until(lambda: not first.spool.pending.records and not second.spool.pending.records)
    await until(lambda: not world.hub.status().store_problem)
    for sidecar in (first, second):
        assert world.stored(sidecar.spool.writer) == list(range(1, 801))


async def test_a_record_that_contradicts_the_store_ends_only_its_own_link(world: World) -> None:
    await world.hub_up(make.registry())
    good, bad = await world.connected(), await world.connected()
    world.store.append([make.record(bad.spool.writer, 1, reason="another story")])
    bad.write(2)
    good.write(200)
    await until(lambda: "another body" in bad.link.problem)
    good.write(200)
    await until(lambda: good.spool.pending.records == 0)
    assert world.stored(good.spool.writer) == list(range(1, 401))
    assert bad.spool.pending.records == 2


async def test_the_store_learns_of_records_that_a_sidecar_took_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sidecar says how far it has come; what has not arrived when its link ends is awaited by name and number."""
    await world.hub_up(make.registry())
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    await sidecar.stop()
    sidecar.spool.append(make.record(sidecar.spool.writer, 1))
    monkeypatch.setattr(sidecar.link._handover, "_next", list)  # as if it died before it sent its record
    sidecar.start()
    await until(lambda: any(link.spooled == 1 for link in world.hub.status().links))
    await sidecar.stop()
    await until(world.store.gaps)
    (gap,) = world.store.gaps()
    assert (gap.writer, gap.workload, gap.first, gap.last, gap.state) == (
        sidecar.spool.writer,
        "alpha",
        1,
        1,
        "Awaited",
    )


async def test_records_of_many_links_share_transactions(world: World) -> None:
    names = [f"agent-{number}" for number in range(10)]
    await world.hub_up(make.registry(names))
    sidecars = [await world.connected(name) for name in names]
    transactions = 0

    def trace(statement: str) -> None:
        nonlocal transactions
        transactions += statement == "COMMIT"

    world.store_connection.set_trace_callback(trace)
    for sidecar in sidecars:
        sidecar.write(100)
    await until(lambda: not any(sidecar.spool.pending.records for sidecar in sidecars))
    world.store_connection.set_trace_callback(None)
    assert 0 < transactions < 10


async def test_a_locked_store_is_waited_for(world: World) -> None:
    await world.hub_up(make.registry())
    sidecar = await world.connected()
    other = sqlite3.connect(world.directory / "audit.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        sidecar.write(5)
        await until(lambda: world.hub.status().records_waiting == 5)
        assert sidecar.spool.pending.records == 5
        other.execute("ROLLBACK")
        await until(lambda: sidecar.spool.pending.records == 0)
    finally:
        other.close()
