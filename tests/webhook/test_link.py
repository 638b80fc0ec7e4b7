"""The sidecar's link against a hub that is played by the test, so that it can say what no real hub would.

How it works together with the real hub is tested in tests/hub.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from support.streams import until

from fleetward.audit.spool import Spool
from fleetward.budget import calls
from fleetward.registry.slice import Agent, Change, Items, Slice
from fleetward.stream import messages
from fleetward_webhook.sidecar import link as link_module
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.credentials import Credentials
from fleetward_webhook.sidecar.leasing import Leases
from fleetward_webhook.sidecar.link import Link
from fleetward_webhook.sidecar.settings import parse_host_port

M = TypeVar("M", messages.Hello, messages.Renew, messages.Records, messages.Applied, messages.Question)


class Connection:
    """One stream, seen from the hub."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws

    async def receive(self) -> messages.ToHub:
        frame = await self.ws.receive(timeout=20)
        assert frame.type is aiohttp.WSMsgType.TEXT, frame
        message: messages.ToHub = messages.decode_to_hub(frame.data)
        return message

    async def expect(self, kind: type[M]) -> M:
        """Receive until a message of this kind comes."""
        while True:
            if isinstance(message := await self.receive(), kind):
                return message

    async def send(self, *answers: messages.ToSidecar) -> None:
        for answer in answers:
            await self.ws.send_str(messages.encode(answer).decode())

    async def ended(self) -> None:
        while (await self.ws.receive(timeout=20)).type is aiohttp.WSMsgType.TEXT:
            pass


class PlayedHub:
    """Accepts streams and leaves it to the test what to say on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: asyncio.Queue[Connection] = asyncio.Queue()
        app = web.Application()
        app.router.add_get(messages.PATH, self._stream)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._done = asyncio.Event()
        self.headers: list[str | None] = []

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        self.headers.append(request.headers.get("Authorization"))
        ws = web.WebSocketResponse(max_msg_size=0, timeout=0.2)
        await ws.prepare(request)
        await self.connections.put(Connection(ws))
        await self._done.wait()
        return ws

    async def next(self) -> Connection:
        return await asyncio.wait_for(self.connections.get(), 20)

    async def start(self) -> None:
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    async def stop(self) -> None:
        self._done.set()
        await self._runner.cleanup()


class Side:
    """The link under test and what belongs to it."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool.open(directory / "spool")
        self.authority = Authority()
        self.slices: list[Slice] = []
        self.fail: Exception | None = None
        self.link = Link(
            f"unix://{directory}/hub.sock",
            workload="crew",
            spool=self.spool,
            on_slice=self._on_slice,
            authority=self.authority,
        )
        self.task = asyncio.create_task(self.link.run())

    def _on_slice(self, slice_: Slice) -> None:
        if self.fail is not None:
            raise self.fail
        self.slices.append(slice_)

    def write(self, count: int) -> None:
        for _ in range(count):
            seq = self.spool.next_seq
            self.spool.append(b'{"writer":"%s","seq":%d}' % (self.spool.writer.encode(), seq))
        self.link.wake()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[PlayedHub]:
    played = PlayedHub(tmp_path / "hub.sock")
    await played.start()
    yield played
    await played.stop()


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    opened = Side(tmp_path)
    yield opened
    opened.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await opened.task
    opened.spool.close()


def agent(name: str) -> Agent:
    return Agent(name=name, namespace="crew", role="Worker", owner="", risk_tier="Low")


FIRST = Slice(version="v1", items=Items(agents={"crew/one": agent("one")}))
SECOND = Change(version="v2", changed=Items(agents={"crew/two": agent("two")}))


async def lease(connection: Connection, version: str = "v1", ttl: float = 5.0) -> None:
    renew = await connection.expect(messages.Renew)
    await connection.send(messages.Renewed(token=renew.token, ttl=ttl, version=version))


async def test_hello_says_who_it_is_and_renew_follows(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    hello = await connection.receive()
    assert hello == messages.Hello(
        protocol=messages.PROTOCOL, workload="crew", writer=side.spool.writer, spooled=0, held=None
    )
    assert hub.headers == [None], "a token would not be protected here"
    renew = await connection.receive()
    assert isinstance(renew, messages.Renew)
    assert 0 <= side.authority.now() - renew.token < 10


async def test_each_slice_is_answered_once_it_is_in_force(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    await connection.send(messages.Snapshot(slice=FIRST), messages.Update(base="v1", change=SECOND))
    assert (await connection.expect(messages.Applied)).version == "v1"
    assert [slice_.version for slice_ in side.slices] in (["v1"], ["v1", "v2"])
    assert (await connection.expect(messages.Applied)).version == "v2"
    side.fail = RuntimeError("no")
    await connection.send(messages.Update(base="v2", change=Change(version="v3")))
    with pytest.raises(AssertionError):  # the connection ends, and nothing says that v3 is in force
        assert (await connection.expect(messages.Applied)).version == ""


async def test_asked_to_come_again_it_does_so_at_once_and_keeps_its_lease(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    await connection.send(messages.Snapshot(slice=FIRST))
    await lease(connection, ttl=30.0)
    await until(side.authority.live)
    began = side.authority.now()
    await until(lambda: side.authority.now() - began > link_module.RENEW_EAGERLY)
    remaining = side.authority.remaining
    await connection.send(messages.Reconnect(reason="the hub stops"))
    hello = await (await hub.next()).expect(messages.Hello)
    assert hello.held == messages.held(FIRST)
    assert side.authority.live()
    assert side.authority.remaining < remaining
    assert side.link.problem == ""


async def test_a_recall_is_answered_by_a_release_after_the_grant_that_came_before_it(
    hub: PlayedHub, side: Side
) -> None:
    """Both frames may be read in one go: what the grant brought must be in the purse before it is asked back."""
    leases = Leases(side.link.questions, side.spool)
    connection = await hub.next()
    need = calls.Need(budget="AgentBudget/crew/day", amounts={"records": 1})
    asking = asyncio.create_task(leases.ask(calls.Wish(agent="crew/one", needs=(need,))))
    asked = await connection.expect(messages.Question)
    grant = calls.Grant(budget=need.budget, window="total", amounts={"records": 9}, seconds=5.0)
    reply = calls.Reserved(answers=(calls.Lease(grants=(grant,)),))
    recall = messages.Recall(pots=(calls.PotRef(budget=need.budget),))
    await connection.send(messages.Reply(number=asked.number, reply=reply), recall)
    release = (await connection.expect(messages.Question)).request
    assert isinstance(release, calls.Release)
    assert [(each.got, each.returned) for each in release.holdings] == [({"records": 9}, {"records": 8})]
    assert isinstance(await asking, tuple)


async def test_it_tells_a_new_connection_what_it_holds(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    await connection.send(messages.Snapshot(slice=FIRST))
    await until(lambda: side.slices)
    await connection.ws.close()
    hello = await (await hub.next()).expect(messages.Hello)
    assert hello.held == messages.held(FIRST)


async def test_a_change_of_another_version_than_the_one_held_starts_over_from_scratch(
    hub: PlayedHub, side: Side
) -> None:
    connection = await hub.next()
    await connection.send(messages.Snapshot(slice=FIRST), messages.Update(base="v0", change=SECOND))
    await connection.ended()
    assert side.slices == [FIRST]
    connection = await hub.next()
    assert (await connection.expect(messages.Hello)).held is None
    await until(lambda: "a change of version v0, and this sidecar holds version v1" in side.link.problem)
    await connection.send(messages.Snapshot(slice=FIRST), messages.Update(base="v1", change=SECOND))
    await until(lambda: len(side.slices) == 3)
    assert sorted(side.slices[-1].items.agents) == ["crew/one", "crew/two"]


async def test_a_change_before_any_slice_is_refused(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    await connection.send(messages.Update(base="v1", change=SECOND))
    await connection.ended()
    assert not side.slices
    await until(lambda: "this sidecar holds nothing" in side.link.problem)


@pytest.mark.parametrize("version", ["v0", "v2"])
async def test_a_lease_under_a_version_it_does_not_hold_is_not_taken(hub: PlayedHub, side: Side, version: str) -> None:
    connection = await hub.next()
    await connection.send(messages.Snapshot(slice=FIRST))
    await lease(connection, version=version)
    await connection.ended()
    assert not side.authority.live()
    await until(lambda: f"authority under version {version}" in side.link.problem)


async def test_a_lease_from_the_future_is_not_taken(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    await connection.send(
        messages.Snapshot(slice=FIRST),
        messages.Renewed(token=side.authority.now() + 1000, ttl=5, version="v1"),
    )
    await connection.ended()
    assert not side.authority.live()


async def test_a_slice_that_cannot_be_put_in_force_ends_in_no_authority(hub: PlayedHub, side: Side) -> None:
    side.fail = RuntimeError("no such function: frobnicate")
    connection = await hub.next()
    await connection.send(messages.Snapshot(slice=FIRST))
    await connection.ended()
    await until(lambda: "version v1 cannot be put in force: no such function: frobnicate" in side.link.problem)
    side.fail = None
    connection = await hub.next()
    assert (await connection.expect(messages.Hello)).held is None
    await connection.send(messages.Snapshot(slice=FIRST))
    await lease(connection)
    await until(side.authority.live)


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        '{"type":"Renew","token":1,"spooled":0}',
        '{"type":"Acknowledged","seq":1,"more":1}',
        '{"type":"Snapshot"}',
    ],
)
async def test_what_it_does_not_understand_ends_the_connection(hub: PlayedHub, side: Side, frame: str) -> None:
    connection = await hub.next()
    await connection.ws.send_str(frame)
    await connection.ended()
    await until(lambda: "does not understand" in side.link.problem)
    await (await hub.next()).expect(messages.Hello)


async def test_a_binary_frame_ends_the_connection(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    await connection.ws.send_bytes(b"{}")
    await connection.ended()
    await until(lambda: "binary" in side.link.problem)


async def test_a_refusal_is_repeated_in_words_and_not_hurried(
    hub: PlayedHub, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "RETRY_REFUSED", 0.3)
    connection = await hub.next()
    began = time.monotonic()
    await connection.send(messages.Refused(reason="no such workload"))
    await connection.ended()
    await until(lambda: side.link.problem == "the hub refuses this sidecar: no such workload")
    assert side.authority.lost_reason().startswith("the hub refuses this sidecar: no such workload")
    await hub.next()
    assert time.monotonic() - began >= 0.3


async def test_records_go_out_in_order_a_bounded_number_at_a_time(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    side.write(1200)
    got: list[int] = []

    async def take(count: int) -> None:
        while len(got) < count:
            batch = await connection.expect(messages.Records)
            assert len(batch.records) <= messages.MAX_BATCH_RECORDS
            got.extend(msgspec.json.decode(record)["seq"] for record in batch.records)

    await take(messages.MAX_IN_FLIGHT_RECORDS)
    assert got == list(range(1, messages.MAX_IN_FLIGHT_RECORDS + 1))
    for _ in range(2):  # nothing but renewals comes until something is acknowledged
        assert isinstance(await connection.receive(), messages.Renew)
    await connection.send(messages.Acknowledged(seq=got[-1]))
    await take(1024)
    await connection.send(messages.Acknowledged(seq=1024))
    await take(1200)
    assert got == list(range(1, 1201))
    assert side.spool.pending.records == 1200 - 1024


async def test_what_was_not_acknowledged_is_sent_again(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    side.write(3)
    await connection.expect(messages.Records)
    await connection.send(messages.Acknowledged(seq=2))
    await until(lambda: side.spool.pending.records == 1)
    await connection.ws.close()
    batch = await (await hub.next()).expect(messages.Records)
    assert [msgspec.json.decode(record)["seq"] for record in batch.records] == [3]


async def test_what_was_in_flight_when_the_connection_ended_does_not_block_the_next(hub: PlayedHub, side: Side) -> None:
    side.write(messages.MAX_IN_FLIGHT_RECORDS + 10)
    connection = await hub.next()
    for _ in range(messages.MAX_IN_FLIGHT_RECORDS // messages.MAX_BATCH_RECORDS):
        await connection.expect(messages.Records)
    await connection.ws.close()
    batch = await (await hub.next()).expect(messages.Records)
    assert msgspec.json.decode(batch.records[0])["seq"] == 1


async def test_an_acknowledgement_of_what_was_never_written_is_not_believed(hub: PlayedHub, side: Side) -> None:
    connection = await hub.next()
    side.write(1)
    await connection.send(messages.Acknowledged(seq=99))
    await until(lambda: "was acknowledged, but the last one is 1" in side.link.problem)
    assert side.spool.pending.records == 1


async def test_it_keeps_trying_while_there_is_no_hub(tmp_path: Path, side: Side) -> None:
    await until(lambda: "cannot reach unix://" in side.link.problem)
    assert "cannot reach" in side.authority.lost_reason()
    played = PlayedHub(tmp_path / "hub.sock")
    await played.start()
    try:
        connection = await played.next()
        await connection.send(messages.Snapshot(slice=FIRST))
        await lease(connection)
        await until(side.authority.live)
        assert side.link.problem == ""
    finally:
        await played.stop()


async def test_a_hub_that_accepts_and_says_nothing_is_left(hub: PlayedHub, side: Side) -> None:
    side.link._ttl = 0.3
    first = await hub.next()
    await hub.next()
    await until(lambda: "was silent for" in side.link.problem)
    await first.ws.close()


async def test_an_unexpected_failure_does_not_end_the_link(
    hub: PlayedHub, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side.link, "_take", lambda _message: 1 / 0)
    connection = await hub.next()
    await connection.send(messages.Snapshot(slice=FIRST))
    await connection.ended()
    await until(lambda: "the link failed: division by zero" in side.link.problem)
    monkeypatch.undo()
    connection = await hub.next()
    await connection.send(messages.Snapshot(slice=FIRST))
    await until(lambda: side.slices == [FIRST])


async def test_cancelling_ends_it_at_once_even_when_the_hub_does_not_answer(hub: PlayedHub, side: Side) -> None:
    await hub.next()
    began = time.monotonic()
    side.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await side.task
    assert side.task.cancelled()
    assert time.monotonic() - began < 5
    assert not side.link.connected


@pytest.mark.parametrize("address", ["http://192.0.2.1:80", "unix://relative/path", "hub"])
def test_an_address_off_this_machine_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Link(address, workload="crew", spool=None, on_slice=print, authority=Authority())  # type: ignore[arg-type]


def test_credentials_go_with_https_and_with_nothing_else(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path / "ca.crt", tmp_path / "token")
    for address, presented in (("https://hub.example:8443", None), ("http://127.0.0.1:1", credentials)):
        with pytest.raises(ValueError, match="a CA and a token go with https, and with nothing else"):
            Link(
                address,
                workload="crew",
                spool=None,  # type: ignore[arg-type]
                on_slice=print,
                authority=Authority(),
                credentials=presented,
            )


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8182", "http://0.0.0.0:8182"),
        ("[::]:8182", "http://[::]:8182"),
        ("localhost:0", "http://localhost:0"),
    ],
)
def test_where_health_is_served(text: str, address: str) -> None:
    assert str(parse_host_port(text)) == address


@given(st.text(max_size=30))
def test_whatever_is_no_host_and_port_is_refused_in_words(text: str) -> None:
    try:
        address = parse_host_port(text)
    except ValueError as error:
        assert "not of the form HOST:PORT" in str(error)  # noqa: PT017 - either may happen
    else:
        assert address.host
        assert 0 <= address.port <= 65535
