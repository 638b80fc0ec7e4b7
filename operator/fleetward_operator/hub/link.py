"""The hub's end of one sidecar's stream.

Nothing is queued for a sidecar: it is owed the latest slice, the answer to its latest request for authority and the
latest acknowledgement, and what it has missed in between is of no interest. So a slow sidecar costs the hub one slice.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from aiohttp import WSMessage, WSMsgType, web

from fleetward.registry.slice import Slice
from fleetward.stream import messages
from fleetward_operator.hub.binding import Binding
from fleetward_operator.hub.intake import Intake
from fleetward_operator.hub.lane import BadRecordsError, Lane
from fleetward_operator.hub.view import View

HELLO_TIMEOUT = 5.0
"""Seconds for a sidecar to say who it is, and for the binding to find out whether that is true."""

SILENT_LEASES = 2
"""A sidecar that neither sends nor takes anything for this many leases is gone: it renews several times in each."""

GOODBYE_TIMEOUT = 1.0
"""Seconds for a sidecar to take a last message."""

_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """Why the hub ends a stream: a clause in words, sent to the sidecar."""


class Center(Protocol):
    """What a link needs of its hub."""

    binding: Binding
    intake: Intake
    ttl: float

    @property
    def view(self) -> View | None:
        """The registry in force."""

    def withheld(self) -> str:
        """Say why no authority is given; empty where it is."""

    def join(self, link: "SidecarLink") -> None:
        """Take in a link that said hello."""

    def leave(self, link: "SidecarLink") -> None:
        """Let a link go."""


class SidecarLink:
    """One connected sidecar. `serve` runs it from hello to goodbye."""

    def __init__(self, hub: Center, ws: web.WebSocketResponse, *, token: str | None) -> None:
        self._hub = hub
        self._ws = ws
        self._token = token
        self.since = datetime.now(UTC)
        self.hello = messages.Hello(protocol=0, workload="", writer="", spooled=0)
        self.lane = Lane("", "", acknowledge=self._acknowledge, refuse=self.refuse)
        self.sent: Slice | None = None
        """The slice that the sidecar has once it has read everything sent to it."""
        self._held: messages.Held | None = None
        """What it came with, until the first slice is sent."""
        self._seen: View | None = None
        self._renew: messages.Renew | None = None
        self._acknowledged = 0
        self._wake = asyncio.Event()
        self._refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Say that there is something to send."""
        self._wake.set()

    def refuse(self, reason: str) -> None:
        """End the stream, and tell the sidecar why."""
        if not self._refused.done():
            self._refused.set_result(reason)

    def serves(self, view: View) -> Collection[str]:
        """Give the agents that the sidecar serves."""
        return self._hub.binding.agents(self.hello.workload, view.registry)

    async def serve(self) -> None:
        """Serve the sidecar until one side ends the stream. Raises nothing but cancellation."""
        try:
            await self._greet()
            self._hub.join(self)
            try:
                await self._follow()
            finally:
                self._hub.leave(self)
        except RefusedError as error:
            _log.warning("Refused sidecar %s of workload %r: %s", self.hello.writer, self.hello.workload, error)
            await self._say_goodbye(str(error))
        except OSError as error:
            _log.info("Sidecar %s is gone: %s", self.hello.writer, str(error) or "it fell silent")
        except Exception:  # noqa: BLE001 - no sidecar's link may take others down with it
            _log.exception("The link of sidecar %s failed", self.hello.writer)

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                frame = await self._ws.receive()
                if frame.type is not WSMsgType.TEXT:
                    raise RefusedError(_end(frame))
                message = _decode(frame)
                if not isinstance(message, messages.Hello):
                    raise RefusedError(f"the first message must be Hello, and was {type(message).__name__}")
                if message.protocol != messages.PROTOCOL:
                    raise RefusedError(
                        f"the sidecar speaks protocol {message.protocol} and the hub {messages.PROTOCOL}: run the same"
                        " version of Fleetward on both sides"
                    )
                await self._hub.binding.authenticate(message.workload, self._token)
        except TimeoutError:
            raise RefusedError(f"no Hello within {HELLO_TIMEOUT:.0f} s") from None
        except PermissionError as error:
            raise RefusedError(str(error)) from None
        self.hello, self._held = message, message.held
        self.lane.writer, self.lane.workload, self.lane.spooled = message.writer, message.workload, message.spooled
        self.lane.stored = await self._hub.intake.last_seq(message.writer)

    async def _follow(self) -> None:
        self._wake.set()
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._send_all())]
        try:
            ends: list[asyncio.Future[Any]] = [*tasks, self._refused]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._refused.done():
                raise RefusedError(self._refused.result())
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # What the sidecar sends

    async def _read(self) -> None:
        while True:
            frame = await self._ws.receive(timeout=SILENT_LEASES * self._hub.ttl)
            if frame.type in {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED}:
                return
            if frame.type is not WSMsgType.TEXT:
                raise RefusedError(_end(frame))
            match _decode(frame):
                case messages.Renew() as renew:
                    self._renew = renew
                    self._hub.intake.spooled(self.lane, renew.spooled)
                    self._wake.set()
                case messages.Records(records=records):
                    try:
                        self._hub.intake.put(self.lane, [bytes(record) for record in records])
                    except BadRecordsError as error:
                        raise RefusedError(str(error)) from None
                case messages.Hello():
                    raise RefusedError("Hello came a second time")

    # What the hub sends

    async def _send_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for frame in self._owed():
                async with asyncio.timeout(SILENT_LEASES * self._hub.ttl):
                    await self._ws.send_frame(frame, WSMsgType.TEXT)

    def _owed(self) -> Iterator[bytes]:
        """Give what the sidecar is owed now.

        An answer to Renew vouches for every change the hub had when it was asked, so the order counts: the request
        is taken up, the changes go out, then the answer.
        """
        while True:
            renew, self._renew = self._renew, None
            view = self._hub.view if self._hub.view is not self._seen else None
            if view is not None and (frame := self._change(view)):
                yield frame
            if renew is not None:
                yield self._answer(renew)
            seq, self._acknowledged = self._acknowledged, 0
            if seq:
                yield messages.encode(messages.Acknowledged(seq=seq))
            if view is None and renew is None and not seq:
                return

    def _change(self, view: View) -> bytes | None:
        new = view.slice(self.serves(view))
        try:
            if self.sent is None and self._held is not None:
                frame = view.resume(self._held, new)
            else:
                frame = view.frame(self.sent, new)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        self.sent, self._seen, self._held = new, view, None
        return frame

    def _answer(self, renew: messages.Renew) -> bytes:
        if reason := self._hub.withheld():
            return messages.encode(messages.Withheld(token=renew.token, reason=reason))
        if self.sent is None:  # cannot be: where nothing is published, authority is withheld
            raise RefusedError("the hub has no slice for this sidecar")
        return messages.encode(messages.Renewed(token=renew.token, ttl=self._hub.ttl, version=self.sent.version))

    def _acknowledge(self, seq: int) -> None:
        self._acknowledged = seq
        self._wake.set()

    async def _say_goodbye(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(GOODBYE_TIMEOUT):
                await self._ws.send_frame(messages.encode(messages.Refused(reason=reason)), WSMsgType.TEXT)
                await self._ws.close()


def _decode(frame: WSMessage) -> messages.ToHub:
    try:
        message: messages.ToHub = messages.decode_to_hub(frame.data)
    except msgspec.DecodeError as error:
        raise RefusedError(f"a message the hub (protocol {messages.PROTOCOL}) does not understand: {error}") from None
    return message


def _end(frame: WSMessage) -> str:
    if frame.type is WSMsgType.BINARY:
        return "a binary frame came, and the stream has text frames only"
    if frame.type is WSMsgType.ERROR and frame.data is not None:
        return f"the WebSocket failed: {frame.data}"
    return "the stream ended before Hello"
