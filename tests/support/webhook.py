"""What the tests of the API and of the SDK share: a hub of a few lines, and webhooks as real processes."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from aiohttp import WSMsgType, web
from support.smallledger import SmallLedger

from fleetward.budget import calls as budget_calls
from fleetward.budget.report import LimitReport
from fleetward.delegation.keys import KeyRing
from fleetward.delegation.token import sign
from fleetward.registry.slice import (
    Agent,
    Catalog,
    CatalogEntry,
    Items,
    Match,
    Mode,
    Obligation,
    Policy,
    Rule,
    Slice,
)
from fleetward.run import calls
from fleetward.run.book import Book
from fleetward.run.plan import StepFacts
from fleetward.stream import messages

WEBHOOK = Path(sys.executable).with_name("fleetward-webhook")
AGENT = "reports/data-worker"


def await_condition(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Poll until `condition` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come within {seconds:g} s")


class SmallHub:
    """A hub in a thread of its own: hands out one slice, grants or withholds authority, acknowledges records."""

    def __init__(self, slice_: Slice, socket_path: Path) -> None:
        self.slice = slice_
        self.address = f"unix://{socket_path}"
        self.ttl = 2.0
        self.withheld = ""
        self.acknowledges = True
        self.records: list[dict[str, Any]] = []
        """What it acknowledged."""
        self.seen: set[str] = set()
        """The ids of all that came."""
        self._path = socket_path
        self._book = Book()
        self._ring = KeyRing.generate(int(time.time()))
        self._loop = asyncio.new_event_loop()
        self._sockets: dict[web.WebSocketResponse, str] = {}
        """With the writer of each webhook."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._up = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def publish(self, slice_: Slice) -> None:
        self.slice = slice_
        asyncio.run_coroutine_threadsafe(self._publish(), self._loop).result(10)

    def standing(self, budget: str, limit: str, scope: str = "") -> LimitReport | None:
        """Say how one limit of a pot of a budget stands; None where nothing was ever taken from it."""

        async def look() -> LimitReport | None:
            return self._ledger.standing(budget, limit, scope)

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result(10)

    def drop_all(self) -> None:
        asyncio.run_coroutine_threadsafe(self._drop_all(), self._loop).result(10)

    def _run(self) -> None:
        async def start() -> web.AppRunner:
            app = web.Application()
            app.router.add_get(messages.PATH, self._stream)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.UnixSite(runner, str(self._path)).start()
            self._up.set()
            return runner

        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(start())
        with SmallLedger(self._path.with_name("ledger.db"), self.slice) as self._ledger:
            self._loop.run_forever()
            self._loop.run_until_complete(self._drop_all())
            self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _publish(self) -> None:
        self._ledger.slice = self.slice
        for ws in list(self._sockets):
            await _send(ws, messages.Snapshot(slice=self.slice))

    async def _drop_all(self) -> None:
        for ws in list(self._sockets):
            await ws.close()

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=messages.MAX_FRAME_TO_HUB)
        await ws.prepare(request)
        self._sockets[ws] = ""
        with contextlib.suppress(ConnectionError):
            async for frame in ws:
                assert frame.type is WSMsgType.TEXT
                await self._take(ws, messages.decode_to_hub(frame.data))
        del self._sockets[ws]
        return ws

    async def _take(self, ws: web.WebSocketResponse, message: messages.ToHub) -> None:
        match message:
            case messages.Hello(writer=writer):
                self._sockets[ws] = writer
                await _send(ws, messages.Snapshot(slice=self.slice))
                await _send(ws, messages.Keys(keys=self._ring.public()))
            case messages.Renew(token=token) if self.withheld:
                await _send(ws, messages.Withheld(token=token, reason=self.withheld))
            case messages.Renew(token=token):
                await _send(ws, messages.Renewed(token=token, ttl=self.ttl, version=self.slice.version))
            case messages.Question(number=number, request=request):
                if isinstance(request, budget_calls.Request):
                    reply: messages.AnyReply = self._ledger.answer(request, self._sockets[ws])
                else:
                    reply = self._answer(request)
                if number:
                    await _send(ws, messages.Reply(number=number, reply=reply))
            case messages.Records(records=records):
                taken = [json.loads(bytes(record)) for record in records]
                self.seen.update(record["id"] for record in taken)
                if self.acknowledges:
                    self._ledger.fold(bytes(record) for record in records)
                    self.records += taken
                    await _send(ws, messages.Acknowledged(seq=taken[-1]["seq"]))

    def _answer(self, request: calls.Request) -> calls.Reply:  # noqa: PLR0911 - one a kind
        """Answer by a real book of runs, kept in memory."""
        now = time.time()
        match request:
            case calls.OpenRun():
                return self._book.open(request, now)
            case calls.CloseRun():
                return self._book.close(request, now)
            case calls.Step():
                return self._book.step(request, now)
            case calls.Settle():
                return self._book.settle(request, now)
            case calls.Learn():
                return self._book.learn(request, now)
            case calls.Propose():
                return self._book.propose(request, self.slice.items.agents.get(request.to), now)
            case calls.CheckPlan():
                return self._book.check_plan(request, lambda _: StepFacts(decision="Allow"), now)
            case calls.Recorded():
                return self._book.recorded(request, now)
            case calls.Issue():
                grant = self._book.issue(request, now)
                return grant if isinstance(grant, calls.NotAllowed) else calls.Issued(token=sign(grant, self._ring))


async def _send(ws: web.WebSocketResponse, message: messages.ToSidecar) -> None:
    await ws.send_str(messages.encode(message).decode())


class Webhook:
    """A running webhook process."""

    def __init__(self, hub: str, folder: Path, *options: str, listen: str = "http://127.0.0.1:0") -> None:
        self.spool = folder / "spool"
        self.log = folder / "webhook.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(WEBHOOK),
                    *("--listen", listen, "--hub", hub, "--workload", "reports"),
                    *("--spool", str(self.spool), "--exit-with-parent", *options),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("FLEETWARD_")},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            raise AssertionError(f"the webhook did not start: {self.log.read_text()}")
        said = json.loads(line)
        self.address: str = said["address"]
        self.health: str = said.get("health", "")

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def await_ready(self) -> Self:
        await_condition(lambda: self.call("GET", "/readyz")[0] == 200, f"readiness ({self.log})")
        return self

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        return code

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Send a request; `body` is sent as it is when it is bytes, and as JSON otherwise."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        named = {name.lower(): value for name, value in response.getheaders()}
        return response.status, named, _decoded(content, named.get("content-type", ""))

    def decide(self, name: str = "crm.customers.read", **fields: Any) -> tuple[int, Any]:
        action = {"kind": "ToolCall", "name": name} | fields
        status, _, answer = self.call("POST", "/v1/decisions", {"action": action})
        return status, answer

    def report(self, decision_id: str, **fields: Any) -> tuple[int, Any]:
        status, _, answer = self.call("POST", f"/v1/decisions/{decision_id}/outcome", fields)
        return status, answer

    def raw(self, data: bytes, seconds: float = 20.0) -> bytes:
        """Send bytes over a connection of their own, and read until the webhook closes it or says no more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            received = b""
            with contextlib.suppress(ConnectionError):
                while chunk := connection.recv(65536):
                    received += chunk
                    if _is_complete(received):
                        break
        return received

    def spooled(self) -> list[dict[str, Any]]:
        """Read the records in the spool's files; a torn last line is none."""
        lines = [line for path in sorted(self.spool.glob("*.jsonl")) for line in path.read_bytes().split(b"\n")[:-1]]
        return [json.loads(line) for line in lines]


def head(method: str = "POST", path: str = "/v1/decisions", **headers: Any) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _decoded(content: bytes, content_type: str) -> Any:
    return json.loads(content) if "json" in content_type else content.decode()


def _is_complete(received: bytes) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return False


def policy(*rules: Rule, name: str = "reports/customer-data", enforcement: Any = "Enforce") -> Policy:
    return Policy(
        kind="AgentPolicy",
        name=name,
        uid=f"uid-{name}",
        generation=3,
        hash="9b2f6c1d",
        rules=rules,
        enforcement=enforcement,
    )


def agent(name: str = "data-worker", *, mode: Mode | None = None, policies: tuple[str, ...] = ("p",)) -> Agent:
    return Agent(
        name=name,
        namespace="reports",
        role="Worker",
        owner="data@example.com",
        risk_tier="High",
        mode=Mode() if mode is None else mode,
        policies=policies,
    )


def names(*globs: str) -> Match:
    return Match(names=globs)


RULES = (
    Rule(name="read", decision="Allow", match=names("crm.**")),
    Rule(name="hold", decision="RequireApproval", match=names("mail.**"), message="Sending needs approval"),
    Rule(name="slow", decision="Throttle", match=names("slow.**"), retry_after_seconds=7),
    Rule(name="no-bulk", decision="Deny", match=names("crm.**.export"), message="No bulk export"),
    Rule(name="durable", decision="Allow", match=names("pay.**"), audit="Durable"),
    Rule(
        name="some",
        decision="Constrain",
        match=names("list.**"),
        obligations=(Obligation(type="Clamp", field="arguments.limit", maximum=100),),
    ),
    Rule(
        name="masked",
        decision="Constrain",
        match=names("masked.**"),
        obligations=(Obligation(type="Redact", field="result.*.email"),),
    ),
    Rule(name="later", decision="Allow", match=names("later.**")),
    Rule(
        name="mask-later",
        phase="After",
        decision="Constrain",
        match=names("later.**"),
        obligations=(Obligation(type="Redact", field="result.email"),),
    ),
    Rule(
        name="too-many",
        phase="During",
        decision="Deny",
        match=names("crm.**"),
        when="has(outcome.actual.records) && outcome.actual.records > 10",
        message="Stop at ten records",
    ),
    Rule(
        name="too-much",
        phase="After",
        decision="Deny",
        match=names("crm.**"),
        when="has(outcome.actual.records) && outcome.actual.records > 1000",
        message="More than a thousand records",
    ),
)
"""One rule for each thing an answer can say."""


def make_slice(*agents: Agent, version: str = "1", rules: tuple[Rule, ...] = RULES) -> Slice:
    served = agents or (agent(),)
    catalog = Catalog(name="crm", entries=(CatalogEntry(names=("crm.**",), target="crm", data_classes=("customer",)),))
    return Slice(
        version=version,
        items=Items(
            agents={one.key: one for one in served},
            policies={"p": policy(*rules)},
            catalogs={"crm": catalog},
        ),
    )


def small_hub(folder: Path, slice_: Slice | None = None) -> SmallHub:
    return SmallHub(make_slice() if slice_ is None else slice_, folder / "hub.sock")


def running(folder: Path, *options: str) -> Iterator[tuple[SmallHub, Webhook]]:
    """Give a hub and a webhook that decides, and stop both afterwards."""
    with small_hub(folder) as hub, Webhook(hub.address, folder, *options) as webhook:
        yield hub, webhook.await_ready()
