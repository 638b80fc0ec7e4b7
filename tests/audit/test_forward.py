"""Forwarding: all records reach each sink, in order and at least once, whatever the target or the hub does."""

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event

from fleetward.audit.forward import BATCH_RECORDS, Forwarder, SinkStatus
from fleetward.audit.record import Record, RunRecord, encode
from fleetward.audit.store import Store
from fleetward.resources import AuditSink

Make = Callable[..., Record]


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for may be in a file or another process
            await asyncio.sleep(0.01)


def sink(name: str, **spec: Any) -> AuditSink:
    return AuditSink.model_validate(
        {"apiVersion": "fleetward.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": name}, "spec": spec}
    )


def lines_sink(name: str = "lines", path: str = "audit.jsonl", **more: Any) -> AuditSink:
    return sink(name, type="JsonLines", jsonLines={"path": path}, **more)


def events_sink(url: str, name: str = "events", timeout: int = 10) -> AuditSink:
    return sink(name, type="CloudEvents", cloudEvents={"url": url, "timeoutSeconds": timeout})


def fill(store: Store, make: Make, first: int, last: int) -> None:
    store.append([encode(make("aaa", seq)) for seq in range(first, last + 1)])


def numbers(path: Path) -> list[int]:
    """Of the lines that are there whole; the last may be being written."""
    return [json.loads(line)["seq"] for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def only(forwarder: Forwarder) -> SinkStatus:
    (status,) = forwarder.status()
    return status


class Target:
    """An HTTP endpoint that keeps what it is sent and answers as told."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.seen: list[str] = []
        self.answer: Callable[[str], Awaitable[web.StreamResponse]] = self.accept
        self.port = 0

        self.over = asyncio.Event()

    async def accept(self, _id: str) -> web.StreamResponse:
        return web.Response(status=202)

    async def hang(self, _id: str) -> web.StreamResponse:
        await self.over.wait()
        return web.Response(status=500)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        id_ = json.loads(body)["id"]
        self.seen.append(id_)
        response = await self.answer(id_)
        if response.status < 300:
            self.requests.append((dict(request.headers), body))
            self.taken.append(id_)
        return response

    @asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/events", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{self.port}/events"
        finally:
            self.over.set()
            await runner.cleanup()


def ids(first: int, last: int) -> list[str]:
    return [f"aaa-{seq}" for seq in range(first, last + 1)]


def firsts(seen: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(seen))


async def test_lines_follow_the_store(store: Store, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "sinks" / "audit.jsonl"
    fill(store, make, 1, 3)
    async with Forwarder(store) as forwarder:
        await forwarder.set_sinks([lines_sink()])
        await until(lambda: numbers(path) == [1, 2, 3])
        fill(store, make, 4, 5)
        forwarder.wake()
        await until(lambda: numbers(path) == [1, 2, 3, 4, 5])
        await until(lambda: only(forwarder) == SinkStatus("lines", "JsonLines", 5, 0))


async def test_more_than_one_batch(store: Store, make: Make, tmp_path: Path) -> None:
    count = 2 * BATCH_RECORDS
    fill(store, make, 1, count)
    async with Forwarder(store, tmp_path / "elsewhere") as forwarder:
        await forwarder.set_sinks([lines_sink()])
        await until(lambda: only(forwarder).lag == 0)
    assert numbers(tmp_path / "elsewhere" / "audit.jsonl") == list(range(1, count + 1))


async def test_only_the_records_asked_for(store: Store, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "sinks" / "audit.jsonl"
    types = itertools.cycle(("Decision", "Outcome", "ModeChange", "AccessRefused"))
    store.append([encode(make("aaa", seq, type_)) for seq, type_ in zip(range(1, 13), types, strict=False)])
    async with Forwarder(store) as forwarder:
        await forwarder.set_sinks([lines_sink(records=["Outcome", "AccessRefused"])])
        await until(lambda: only(forwarder).lag == 0)
        assert numbers(path) == [2, 4, 6, 8, 10, 12]
        fill(store, make, 13, 14)
        forwarder.wake()
        await until(lambda: only(forwarder).position == 14)
        assert numbers(path) == [2, 4, 6, 8, 10, 12]


async def test_a_new_sink_starts_at_the_beginning_and_a_known_one_where_it_stood(
    store: Store, make: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "sinks"
    fill(store, make, 1, 3)
    async with Forwarder(store) as forwarder:
        await forwarder.set_sinks([lines_sink("one", "one")])
        await until(lambda: numbers(folder / "one") == [1, 2, 3])
        await until(lambda: only(forwarder).lag == 0)
    fill(store, make, 4, 5)
    async with Forwarder(store) as forwarder:
        await forwarder.set_sinks([lines_sink("one", "one"), lines_sink("two", "two")])
        await until(lambda: [status.lag for status in forwarder.status()] == [0, 0])
        assert numbers(folder / "one") == numbers(folder / "two") == [1, 2, 3, 4, 5]
        # One goes and later comes back, the other gets another path.
        await forwarder.set_sinks([lines_sink("two", "three")])
        fill(store, make, 6, 7)
        await forwarder.set_sinks([lines_sink("one", "one"), lines_sink("two", "three")])
        await until(lambda: [status.lag for status in forwarder.status()] == [0, 0])
    assert numbers(folder / "one") == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(folder / "two") == [1, 2, 3, 4, 5]
    assert numbers(folder / "three") == [6, 7]


async def test_a_record_becomes_a_cloud_event(store: Store, make: Make) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    records = [
        make("aaa", 1, traceparent=traceparent, time="2026-03-01T10:00:00.123456Z"),
        make("aaa", 2, "Outcome"),
        make("aaa", 3, "ModeChange"),
        make("aaa", 4, "AccessRefused"),
        RunRecord(
            id="aaa-5",
            writer="aaa",
            seq=5,
            time="2026-03-01T10:00:00.123456Z",
            run="r-1",
            agent="reports/desk",
            state="Opened",
            traceparent=traceparent,
            registry_version="1",
        ),
    ]
    store.append([encode(record) for record in records])
    target = Target()
    async with target.up() as url, Forwarder(store) as forwarder:
        await forwarder.set_sinks([events_sink(url)])
        await until(lambda: len(target.taken) == 5)
    for headers, _ in target.requests:
        assert headers["Content-Type"] == "application/cloudevents+json"
    events = [from_structured_event(HTTPMessage(headers, body)) for headers, body in target.requests]
    assert [event.get_id() for event in events] == ["aaa-1", "aaa-2", "aaa-3", "aaa-4", "aaa-5"]
    assert {event.get_source() for event in events} == {"fleetward/aaa"}
    assert {event.get_specversion() for event in events} == {"1.0"}
    assert [event.get_type() for event in events] == [
        f"dev.fleetward.audit.{name}.v1" for name in ("decision", "outcome", "modechange", "accessrefused", "run")
    ]
    assert [event.get_subject() for event in events] == [
        "reports/data-worker",
        "reports/data-worker",
        "AgentFleet reporting",
        "reports/pod-x",
        "reports/desk",
    ]
    assert events[0].get_time() == datetime(2026, 3, 1, 10, 0, 0, 123456, UTC)
    assert [event.get_extension("traceparent") for event in events] == [traceparent, None, None, None, traceparent]
    assert [event.get_data() for event in events] == [json.loads(encode(record)) for record in records]


async def test_a_target_that_is_down_for_a_while_loses_nothing(store: Store, make: Make) -> None:
    target = Target()
    async with Forwarder(store) as forwarder:
        async with target.up() as url:
            fill(store, make, 1, 3)
            await forwarder.set_sinks([events_sink(url)])
            await until(lambda: only(forwarder).lag == 0)
        before = datetime.now(UTC)
        for seq in range(4, 20):
            fill(store, make, seq, seq)
            forwarder.wake()
        await until(lambda: only(forwarder).error)
        status = only(forwarder)
        assert f"127.0.0.1:{target.port}" in status.error
        assert status.lag == 16
        assert status.failing_since is not None
        assert before <= status.failing_since <= datetime.now(UTC)
        assert not status.rejected
        async with target.up():
            await until(lambda: len(target.taken) == 19)
            await until(lambda: only(forwarder) == SinkStatus("events", "CloudEvents", 19, 0))
    assert target.taken == ids(1, 19)


@pytest.mark.parametrize(
    ("status", "rejected", "words"),
    [
        (500, False, "answered 500: out of order"),
        (503, False, "answered 503"),
        (429, False, "answered 429"),
        (408, False, "answered 408"),
        (400, True, "answered 400 to record aaa-3, which holds up this sink: the record is kept and tried again"),
        (404, True, "answered 404 to record aaa-3"),
        (304, False, "answered 304: redirects are not followed"),
    ],
)
async def test_answers_that_are_no_success(
    store: Store, make: Make, caplog: pytest.LogCaptureFixture, *, status: int, rejected: bool, words: str
) -> None:
    target = Target()
    fill(store, make, 1, 5)

    async def fail_third(id_: str) -> web.StreamResponse:
        return web.Response(status=status, text="out of\n order") if id_ == "aaa-3" else web.Response()

    target.answer = fail_third
    async with target.up() as url, Forwarder(store) as forwarder:
        await forwarder.set_sinks([events_sink(url)])
        await until(lambda: target.seen.count("aaa-3") > 2)
        await until(lambda: only(forwarder).error)
        found = only(forwarder)
        assert words in found.error
        assert found.rejected == rejected
        # Those before it count as delivered, and those after it wait.
        assert (found.position, found.lag) == (2, 3)
        assert target.taken == ids(1, 2)
        assert [entry.levelname for entry in caplog.records] == ["ERROR" if rejected else "WARNING"]
        target.answer = target.accept
        await until(lambda: only(forwarder).lag == 0)
    assert target.taken == ids(1, 5)


async def test_redirects_are_not_followed(store: Store, make: Make) -> None:
    target, other = Target(), Target()
    fill(store, make, 1, 1)
    async with target.up() as url, other.up() as other_url, Forwarder(store) as forwarder:

        async def redirect(id_: str) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": other_url})

        target.answer = redirect
        await forwarder.set_sinks([events_sink(url)])
        await until(lambda: "answered 307: redirects are not followed" in only(forwarder).error)
    assert other.seen == []


async def test_a_target_that_hangs_is_tried_again(store: Store, make: Make) -> None:
    target = Target()
    fill(store, make, 1, 3)
    target.answer = target.hang
    async with target.up() as url, Forwarder(store) as forwarder:
        await forwarder.set_sinks([events_sink(url, timeout=1)])
        await until(lambda: "gave no answer within 1 seconds" in only(forwarder).error)
        target.answer = target.accept
        await until(lambda: only(forwarder).lag == 0)
    assert target.taken == ids(1, 3)


async def test_a_sink_that_is_down_holds_up_nobody(store: Store, make: Make, tmp_path: Path) -> None:
    target = Target()
    async with target.up() as url:
        pass
    async with Forwarder(store) as forwarder:
        await forwarder.set_sinks([events_sink(url), lines_sink()])
        for seq in range(1, 30):
            fill(store, make, seq, seq)
            forwarder.wake()
        await until(lambda: numbers(tmp_path / "sinks" / "audit.jsonl") == list(range(1, 30)))
        await until(lambda: forwarder.status()[0].error)
        await until(lambda: [status.lag for status in forwarder.status()] == [29, 0])


async def test_a_sink_that_cannot_be_written_recovers(store: Store, make: Make, tmp_path: Path) -> None:
    (tmp_path / "sinks").write_text("in the way")
    fill(store, make, 1, 2)
    async with Forwarder(store) as forwarder:
        await forwarder.set_sinks([lines_sink()])
        await until(lambda: "cannot write" in only(forwarder).error)
        (tmp_path / "sinks").unlink()
        await until(lambda: only(forwarder).lag == 0)
    assert numbers(tmp_path / "sinks" / "audit.jsonl") == [1, 2]


async def test_the_status_keeps_secrets(store: Store, make: Make) -> None:
    target = Target()
    async with target.up() as url:
        pass
    fill(store, make, 1, 1)
    secret = url.replace("http://", "http://user:hunter2@") + "?token=hunter3"
    async with Forwarder(store) as forwarder:
        await forwarder.set_sinks([events_sink(secret)])
        await until(lambda: only(forwarder).error)
        assert url in only(forwarder).error
        assert "hunter" not in only(forwarder).error


async def test_closing_in_the_midst_of_a_delivery(store: Store, make: Make) -> None:
    target = Target()
    fill(store, make, 1, 1)
    target.answer = target.hang
    async with target.up() as url, Forwarder(store) as forwarder:
        await forwarder.set_sinks([events_sink(url)])
        await until(lambda: target.seen)
        await forwarder.set_sinks([])
        assert forwarder.status() == []


HUB = """
import asyncio, sys
from pathlib import Path
from fleetward.audit.forward import Forwarder
from fleetward.audit.store import Store
from fleetward.resources import AuditSink

async def main():
    with Store.open(sys.argv[1]) as store:
        async with Forwarder(store) as forwarder:
            await forwarder.set_sinks([AuditSink.model_validate_json(text) for text in sys.argv[2:]])
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_hub_killed_between_delivery_and_note_delivers_again_under_the_same_id(
    store: Store, make: Make, tmp_path: Path
) -> None:
    fill(store, make, 1, 300)
    target = Target()
    path = tmp_path / "sinks" / "audit.jsonl"
    processes: list[asyncio.subprocess.Process] = []

    async def kill_sometimes(id_: str) -> web.StreamResponse:
        # Taken, and the sender dies before it hears so.
        if len(target.seen) in {7, 100, 250}:
            target.taken.append(id_)
            processes[-1].send_signal(signal.SIGKILL)
        return web.Response()

    target.answer = kill_sometimes
    async with target.up() as url:
        sinks = [text.model_dump_json(by_alias=True, exclude_none=True) for text in (events_sink(url), lines_sink())]
        while len(processes) < 4:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", HUB, str(store.path), *sinks)
            processes.append(process)
            try:
                if len(processes) < 4:
                    await asyncio.wait_for(process.wait(), 20)
                else:
                    await until(lambda: store.sink_position("events") == store.sink_position("lines") == 300)
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 4
    assert firsts(target.taken) == ids(1, 300)
    assert len(target.seen) > 300
    bodies: dict[str, bytes] = {}
    for _, body in target.requests:
        assert bodies.setdefault(json.loads(body)["id"], body) == body
    assert list(dict.fromkeys(numbers(path))) == list(range(1, 301))
