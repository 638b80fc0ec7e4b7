"""What a sidecar may not send, and that it harms nobody else."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from support import make
from support.streams import World, until

from fleetward.stream import messages
from fleetward_operator.hub import link as hub_link
from fleetward_operator.hub.binding import WorkloadBinding

SECRET = "of this test"  # noqa: S105 - guards nothing


@contextlib.asynccontextmanager
async def stream(world: World, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    connector = aiohttp.UnixConnector(f"{world.directory}/hub.sock")
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect("http://hub/v1/stream", **options) as ws,
    ):
        yield ws


def hello(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "protocol": messages.PROTOCOL,
        "workload": "alpha",
        "writer": "raw",
        "spooled": 0,
        **changes,
    }
    return messages.encode(messages.Hello(**fields)).decode()


async def refusal(ws: aiohttp.ClientWebSocketResponse) -> str:
    while True:
        frame = await ws.receive(timeout=20)
        assert frame.type is aiohttp.WSMsgType.TEXT, frame
        message = messages.decode_to_sidecar(frame.data)
        if isinstance(message, messages.Refused):
            assert (await ws.receive(timeout=20)).type is aiohttp.WSMsgType.CLOSE
            return message.reason


FIRST = {
    "not JSON": ("{", "does not understand"),
    "deep": ("[" * 10_000 + "]" * 10_000, "does not understand"),
    "unknown type": ('{"type": "Shutdown"}', "Shutdown"),
    "a type of the other direction": ('{"type": "Renewed", "token": 1, "ttl": 1, "version": ""}', "Renewed"),
    "unknown field": (hello().replace("{", '{"admin": true, ', 1), "admin"),
    "not Hello": ('{"type": "Renew", "token": 1, "spooled": 0}', "the first message must be Hello, and was Renew"),
    "another protocol": (hello(protocol=99), "speaks protocol 99"),
    "a writer with a path": (hello(writer="../../etc"), "writer"),
    "no workload": (hello(workload=""), "workload"),
    "a huge number": (hello(spooled=2**60), "spooled"),
    "infinity": (hello().replace('"spooled":0', '"spooled":1e999'), "spooled"),
}


@pytest.mark.parametrize("case", FIRST)
async def test_a_bad_first_message_is_refused_with_the_reason(world: World, case: str) -> None:
    await world.hub_up(make.registry())
    sent, expected = FIRST[case]
    async with stream(world) as ws:
        await ws.send_str(sent)
        assert expected in await refusal(ws)
    assert not world.hub.status().links


def record_frame(*lines: bytes) -> bytes:
    return b'{"type":"Records","records":[' + b",".join(lines) + b"]}"


LATER: dict[str, tuple[Callable[[], bytes], str]] = {
    "not JSON": (lambda: b"nonsense", "does not understand"),
    "Hello again": (lambda: hello().encode(), "Hello came a second time"),
    "no records": (record_frame, "records"),
    "not a record": (lambda: record_frame(b'{"type":"Decision"}'), "not a record of a decision"),
    "a change of mode": (
        lambda: record_frame(
            b'{"type":"ModeChange","id":"raw-1","writer":"raw","seq":1,"time":"2026-03-01T10:00:00Z","subject":"x",'
            b'"before":"Running","after":"Paused","registryVersion":""}'
        ),
        "ModeChange",
    ),
    "another's record": (lambda: record_frame(make.record("other", 1)), "not of the writer raw"),
    "another's number": (lambda: record_frame(make.record("raw", 1, id="raw-2")), "not of the writer raw"),
    "number 0": (lambda: record_frame(make.record("raw", 0)), "record 0 came after record 0"),
    "a number beyond SQLite's": (lambda: record_frame(make.record("raw", 2**63)), "numbers go up"),
    "the same number twice": (
        lambda: record_frame(make.record("raw", 1), make.record("raw", 1)),
        "record 1 came after record 1",
    ),
    "two lines": (lambda: record_frame(make.record("raw", 1).replace(b",", b",\n", 1)), "not one line"),
    "no time": (lambda: record_frame(make.record("raw", 1, time="yesterday")), "yesterday"),
    "a time before all time": (
        lambda: record_frame(make.record("raw", 1, time="0001-01-01T00:00:00+14:00")),
        "out of range",
    ),
    "too many at once": (lambda: record_frame(*(make.record("raw", n) for n in range(1, 200))), "records"),
}


@pytest.mark.parametrize("case", LATER)
async def test_a_bad_later_message_ends_that_link_only(world: World, case: str) -> None:
    await world.hub_up(make.registry())
    other = await world.connected()
    sent, expected = LATER[case]
    async with stream(world) as ws:
        await ws.send_str(hello())
        await ws.send_str(sent().decode())
        assert expected in await refusal(ws)
    other.write(5)
    await until(lambda: other.spool.pending.records == 0)
    assert world.stored("raw") == []
    assert [link.writer for link in world.hub.status().links] == [other.spool.writer]


async def test_records_sent_without_waiting_for_acknowledgements_are_refused(world: World) -> None:
    await world.hub_up(make.registry())
    blocked = world.store._writing
    with blocked:  # the store is busy for as long as this lasts
        async with stream(world) as ws:
            await ws.send_str(hello())
            for first in range(1, 1000, 20):
                frame = record_frame(*(make.record("raw", n) for n in range(first, first + 20)))
                with contextlib.suppress(ConnectionError):
                    await ws.send_str(frame.decode())
            assert "more than 512 records" in await refusal(ws)


async def test_what_a_link_left_behind_is_still_stored(world: World) -> None:
    await world.hub_up(make.registry())
    with world.store._writing:  # the store is busy for as long as this lasts
        async with stream(world) as ws:
            await ws.send_str(hello())
            await ws.send_str(record_frame(*(make.record("raw", number) for number in range(1, 4))).decode())
            await until(lambda: world.hub.status().records_waiting == 3)
        await until(lambda: not world.hub.status().links)
    await until(lambda: world.stored("raw") == [1, 2, 3])
    await until(lambda: not world.hub.intake._lanes)


async def test_what_a_sidecar_had_written_when_its_link_ended_is_awaited(world: World) -> None:
    await world.hub_up(make.registry())
    async with stream(world) as ws:
        await ws.send_str(hello(spooled=3))
        await ws.send_str(messages.encode(messages.Renew(token=1.0, spooled=5)).decode())
        await until(lambda: [link.spooled for link in world.hub.status().links] == [5])
    await until(lambda: [gap.last for gap in world.store.gaps()] == [5])
    (gap,) = world.store.gaps()
    assert (gap.writer, gap.workload, gap.first, gap.state) == ("raw", "alpha", 1, "Awaited")


async def test_binary_frames_are_refused(world: World) -> None:
    await world.hub_up(make.registry())
    async with stream(world) as ws:
        await ws.send_str(hello())
        await ws.send_bytes(b"\0\1\2")
        assert "binary" in await refusal(ws)


async def test_text_that_is_no_utf8_ends_the_link(world: World) -> None:
    await world.hub_up(make.registry())
    async with stream(world) as ws:
        await ws.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)
        frame = await ws.receive(timeout=20)
        assert frame.type is aiohttp.WSMsgType.CLOSE
    assert (await world.connected()).link.connected


async def test_an_oversized_frame_ends_the_link(world: World) -> None:
    await world.hub_up(make.registry())
    async with stream(world) as ws:
        with contextlib.suppress(ConnectionError):
            await ws.send_str(" " * (messages.MAX_FRAME_TO_HUB + 1))
        frame = await ws.receive(timeout=20)
        assert frame.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        if frame.type is aiohttp.WSMsgType.CLOSE:
            assert frame.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    assert (await world.connected()).link.connected


async def test_random_bytes_do_no_harm(world: World) -> None:
    await world.hub_up(make.registry())
    for _ in range(20):
        reader, writer = await asyncio.open_unix_connection(f"{world.directory}/hub.sock")
        writer.write(os.urandom(2000) + b"\r\n\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
    assert (await world.connected()).link.connected


async def test_who_says_nothing_is_shown_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_link, "HELLO_TIMEOUT", 0.2)
    await world.hub_up(make.registry())
    async with stream(world) as ws:
        assert "no Hello within" in await refusal(ws)


async def test_a_link_that_goes_silent_is_let_go(world: World) -> None:
    await world.hub_up(make.registry(), ttl=0.3)
    async with stream(world) as ws:
        await ws.send_str(hello())
        await until(lambda: world.hub.status().links)
        await until(lambda: not world.hub.status().links)


async def test_of_two_links_of_one_writer_the_newer_one_stays(world: World) -> None:
    await world.hub_up(make.registry())
    async with stream(world) as older:
        await older.send_str(hello())
        await until(lambda: len(world.hub.status().links) == 1)
        async with stream(world) as newer:
            await newer.send_str(hello())
            assert "another link of the writer raw was opened" in await refusal(older)
            await newer.send_str(messages.encode(messages.Renew(token=1.0, spooled=0)).decode())
            kinds = [type(messages.decode_to_sidecar((await newer.receive()).data)).__name__ for _ in range(2)]
            assert kinds == ["Snapshot", "Renewed"]
            assert len(world.hub.status().links) == 1


async def test_a_web_page_cannot_open_the_stream(world: World) -> None:
    await world.hub_up(make.registry())
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with stream(world, origin="http://somewhere.example"):
            pass
    assert refused.value.status == 403


async def test_a_token_is_asked_for_where_the_binding_has_one(world: World) -> None:
    await world.hub_up(make.registry(), binding=WorkloadBinding(lambda _: {}, token=SECRET))
    async with stream(world) as ws:
        await ws.send_str(hello())
        assert "bearer token" in await refusal(ws)
    async with stream(world, headers={"Authorization": f"Bearer {SECRET}"}) as ws:
        await ws.send_str(hello())
        await until(lambda: world.hub.status().links)


async def test_a_slice_that_no_sidecar_could_take_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_FRAME_TO_SIDECAR", 1000)
    await world.hub_up(make.registry(policies=20))
    async with stream(world) as ws:
        await ws.send_str(hello())
        assert "and a sidecar takes 1000" in await refusal(ws)
