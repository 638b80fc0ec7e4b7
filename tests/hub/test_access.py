"""Who is not let in or is shown out, that it is recorded, and that nobody can fill the store so."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make
from support.gate import Gate
from support.rawstream import stream
from support.streams import World, until

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import AccessRefusedRecord, Record
from fleetward.audit.store import Store, StoreError
from fleetward.registry.registry import Remove, Upsert
from fleetward.stream import messages
from fleetward_operator.hub import access
from fleetward_operator.hub.access import AccessJournal, Refusal


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    gate.tokens = {"a": "alpha", "b": "beta"}
    return gate


def recorded(store: Store) -> list[AccessRefusedRecord]:
    found = [stored.record for stored in store.read(RecordQuery(types=("AccessRefused",)))]
    return [record for record in found if isinstance(record, AccessRefusedRecord)]


@pytest.mark.parametrize("token", [None, "", "b", "stolen"])
async def test_a_refused_token_is_recorded_with_who_asked_from_where(
    world: World, gate: Gate, token: str | None
) -> None:
    world.address = "http://127.0.0.1:0"
    await world.hub_up(make.registry(), binding=gate)
    async with stream(world, token) as raw:
        await raw.hello()
        assert await raw.refusal() == "the token is not workload alpha's"
    await until(lambda: recorded(world.store))
    (record,) = recorded(world.store)
    assert (record.workload, record.reason) == ("alpha", "the token is not workload alpha's")
    assert (record.peer, record.registry_version) == ("127.0.0.1", world.registry.version)
    assert (record.repeated, record.unrecorded) == (0, 0)
    assert not world.hub.status().links


async def test_a_hammering_stranger_leaves_one_record(world: World, gate: Gate) -> None:
    await world.hub_up(make.registry(), binding=gate)
    for _ in range(20):
        async with stream(world, "stolen") as raw:
            await raw.hello()
            await raw.refusal()
    await world.hub_down()
    assert [record.peer for record in recorded(world.store)] == [""]


async def test_what_is_no_question_of_access_is_not_recorded(world: World, gate: Gate) -> None:
    await world.hub_up(make.registry(), binding=gate)
    async with stream(world, "a") as raw:
        await raw.ws.send_str("nonsense")
        assert "does not understand" in await raw.refusal()
    gate.unavailable = ConnectionError("the API server does not answer")
    async with stream(world, "a") as raw:
        await raw.hello()
        assert await raw.refusal() == "the hub cannot check who this is: the API server does not answer"
    gate.unavailable = None
    gate.gone["alpha"] = LookupError("pod alpha is gone")
    async with stream(world, "a") as raw:
        await raw.hello()
        assert await raw.refusal() == "pod alpha is gone"
    await world.hub_down()
    assert recorded(world.store) == []


async def test_nobody_is_let_in_before_the_resources_are_known(world: World, gate: Gate) -> None:
    await world.hub_up(binding=gate)
    async with stream(world, "a") as raw:
        await raw.hello()
        assert await raw.refusal() == "the hub has not read the resources yet"
    world.hub.publish(make.registry())
    async with stream(world, "a") as raw:
        await raw.hello()
        await raw.until(messages.Snapshot)


async def test_a_writer_stays_with_the_workload_it_was_first_seen_with(world: World, gate: Gate) -> None:
    await world.hub_up(make.registry(("alpha", "beta")), binding=gate)
    async with stream(world, "a") as raw:
        await raw.hello("alpha", "raw")
        await raw.until(messages.Snapshot)
        async with stream(world, "b") as other:  # while the first is there, which stays
            await other.hello("beta", "raw")
            assert "the writer raw belongs to workload alpha" in await other.refusal()
        await raw.records(make.record("raw", 1))
        await raw.until(messages.Acknowledged)
    for _ in range(2):
        async with stream(world, "b") as other:
            await other.hello("beta", "raw")
            assert "the writer raw belongs to workload alpha, and this is beta" in await other.refusal()
        async with stream(world, "a") as raw:
            await raw.hello("alpha", "raw")
            await raw.until(messages.Snapshot)
        await world.hub_down()
        await world.hub_up(make.registry(("alpha", "beta")), binding=gate)
    assert {record.workload for record in recorded(world.store)} == {"beta"}


async def test_nobody_writes_as_the_hub(world: World, gate: Gate) -> None:
    own = world.store.append_own(
        lambda id_, writer, seq: AccessRefusedRecord(
            id=id_, writer=writer, seq=seq, time="2026-03-01T10:00:00Z", workload="w", reason="r", registry_version=""
        )
    ).writer
    await world.hub_up(make.registry(), binding=gate)
    async with stream(world, "a") as raw:
        await raw.hello("alpha", own)
        assert await raw.refusal() == f"the writer {own} is the hub itself"


async def test_a_store_that_cannot_say_whose_a_writer_is_lets_nobody_in(world: World, gate: Gate) -> None:
    class Unreadable(Store):
        def workload_of(self, writer: str) -> str | None:  # noqa: ARG002 - as the store has it
            raise StoreError("the disk is gone")

    store = Unreadable.open(world.directory / "audit.db")
    try:
        await world.hub_up(make.registry(), binding=gate, store=store)
        async with stream(world, "a") as raw:
            await raw.hello()
            assert await raw.refusal() == "the hub cannot check who this is: the disk is gone"
        await world.hub_down()
    finally:
        store.close()


async def test_a_record_that_allows_something_to_anothers_agent_is_refused(world: World, gate: Gate) -> None:
    await world.hub_up(make.registry(("alpha", "beta")), binding=gate)
    async with stream(world, "a") as raw:
        await raw.hello()
        await raw.records(make.record("raw", 1), make.record("raw", 2, agent="reports/beta"))
        assert "allows something to agent reports/beta, which workload alpha does not serve" in await raw.refusal()
    await until(lambda: recorded(world.store))
    assert recorded(world.store)[0].workload == "alpha"
    assert world.stored("raw") == []


async def test_that_an_agent_unknown_here_was_denied_may_be_recorded(world: World, gate: Gate) -> None:
    """Whoever names an agent that is not governed there is denied under that name; no typing mistake ends a stream."""
    await world.hub_up(make.registry(), binding=gate)
    async with stream(world, "a") as raw:
        await raw.hello()
        await raw.records(make.record("raw", 1, agent="reports/typo", decision="Deny", reason="not governed here"))
        assert (await raw.until(messages.Acknowledged)).seq == 1


async def test_an_agent_served_since_the_stream_opened_may_still_be_recorded(world: World, gate: Gate) -> None:
    registry = make.registry(("alpha", "beta"))
    await world.hub_up(registry, binding=gate)
    gate.serves["alpha"] = ["reports/alpha", "reports/beta"]
    async with stream(world, "a") as raw:
        await raw.hello()
        await raw.until(messages.Snapshot)
        world.hub.publish(registry.apply([Remove("Agent", "reports/beta")]))
        gate.serves["alpha"] = ["reports/alpha"]
        world.hub.recheck("alpha")
        await raw.until(messages.Update)
        await raw.records(make.record("raw", 1, agent="reports/beta"))
        assert (await raw.until(messages.Acknowledged)).seq == 1
    # Over another stream, what was recorded before says that it was served before.
    async with stream(world, "a") as raw:
        await raw.hello()
        await raw.records(make.record("raw", 2, agent="reports/beta"), make.record("raw", 3))
        assert (await raw.until(messages.Acknowledged)).seq == 3
    async with stream(world, "a") as raw:
        await raw.hello(writer="other")
        await raw.records(make.record("other", 1, agent="reports/beta"))
        assert "which workload alpha does not serve" in await raw.refusal()


async def test_agents_that_a_workload_may_not_serve_any_more_are_taken_from_it(world: World, gate: Gate) -> None:
    registry = make.registry()
    await world.hub_up(registry, binding=gate)
    async with stream(world, "a") as raw:
        await raw.hello()
        await raw.until(messages.Snapshot)
        gate.gone["alpha"] = PermissionError("pod alpha runs no agent")
        world.hub.publish(registry.apply([Upsert(make.agent("alpha", owner="x"))]))
        assert await raw.refusal() == "pod alpha runs no agent"
    await until(lambda: [record.reason for record in recorded(world.store)] == ["pod alpha runs no agent"])


# The journal by itself


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """A store that keeps what it is given, and fails when told to."""

    def __init__(self) -> None:
        self.records: list[AccessRefusedRecord] = []
        self.fails = False

    def append_own(self, build: Any) -> Record:
        if self.fails:
            raise StoreError("full")
        record = build(f"own-{len(self.records) + 1}", "own", len(self.records) + 1)
        assert isinstance(record, AccessRefusedRecord)
        self.records.append(record)
        return record


def refusal(workload: str = "w", reason: str = "r") -> Refusal:
    return Refusal(workload=workload, reason=reason, peer="", registry_version="")


async def drain(journal: AccessJournal) -> None:
    working = asyncio.create_task(journal.run())
    await asyncio.wait_for(journal.drained(), 20)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    journal.shut_down()


async def test_the_same_is_recorded_once_a_minute_and_counted_in_between() -> None:
    store, clock = Kept(), Clock()
    journal = AccessJournal(store, lambda: None, clock=clock)
    taken = []
    for second in range(150):
        clock.now = float(second)
        taken.append(journal.note(refusal()))
    assert [second for second, own in enumerate(taken) if own] == [0, 60, 120]
    await drain(journal)
    assert [record.repeated for record in store.records] == [0, 59, 59]


async def test_what_could_not_be_recorded_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "RETRY_SECONDS", 0.01)
    store = Kept()
    store.fails = True
    journal = AccessJournal(store, lambda: None)
    working = asyncio.create_task(journal.run())
    journal.note(refusal())
    await until(lambda: journal.problem == "full")
    for number in range(3 * access.MAX_WAITING):
        journal.note(refusal(f"w{number}"))
    assert len(journal._waiting) <= access.MAX_WAITING
    store.fails = False
    await asyncio.wait_for(journal.drained(), 20)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    journal.shut_down()
    assert journal.problem == ""


ATTEMPTS = st.lists(
    st.tuples(st.floats(0, 90), st.integers(0, 3), st.sampled_from(["no token", "expired"])), max_size=300
)


@settings(max_examples=60)
@given(ATTEMPTS, st.integers(1, 4))
async def test_whatever_comes_is_recorded_or_counted_and_bounded(
    attempts: list[tuple[float, int, str]], known: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "MAX_KNOWN", known)
        patch.setattr(access, "BURST", 5)
        store, clock = Kept(), Clock()
        journal = AccessJournal(store, lambda: None, clock=clock)
        for pause, workload, reason in attempts:
            clock.now += pause
            journal.note(refusal(f"w{workload}", reason))
            assert len(journal._known) <= known
        unwritten = journal._unrecorded + sum(entry.repeated for entry in journal._known.values())
        await drain(journal)
        counted = sum(1 + record.repeated + record.unrecorded for record in store.records)
        assert counted + unwritten == len(attempts)
        assert len(store.records) <= 5 + clock.now * access.RECORDS_A_MINUTE / 60 + 1


def test_the_store_keeps_it(tmp_path: Path) -> None:
    with Store.open(tmp_path / "audit.db") as store:
        record = store.append_own(
            lambda id_, writer, seq: AccessRefusedRecord(
                id=id_,
                writer=writer,
                seq=seq,
                time="2026-03-01T10:00:00Z",
                workload="w",
                reason="r",
                peer="10.0.0.1",
                repeated=2,
                registry_version="v",
            )
        )
        (stored,) = store.read(RecordQuery(types=("AccessRefused",)))
        assert (stored.type, stored.record) == ("AccessRefused", record)
        assert store.read(RecordQuery(types=("Decision",))) == []
