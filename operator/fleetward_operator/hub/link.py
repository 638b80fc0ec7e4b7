"""The hub's end of one sidecar's stream.

Nothing is queued for a sidecar: it is owed the latest slice, the answer to its latest request for authority and the
latest acknowledgement, and what it has missed in between is of no interest. So a slow sidecar costs the hub one slice.
"""

import asyncio
import contextlib
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from fleetward.audit.query import utc
from fleetward.audit.store import StoreError
from fleetward.budget.calls import PotRef
from fleetward.decision.replies import Failed
from fleetward.registry.slice import Slice
from fleetward.stream import messages
from fleetward_operator.hub.asks import Asks
from fleetward_operator.hub.binding import Binding
from fleetward_operator.hub.frames import ReconnectError, RefusedError, decode, end_in_words, receive_hello, words
from fleetward_operator.hub.intake import Intake
from fleetward_operator.hub.lane import BadRecordsError, ForeignAgentError, Lane
from fleetward_operator.hub.view import View

HELLO_TIMEOUT = 5.0
"""Seconds for a sidecar to say who it is, and for the binding to find out whether that is true."""

SILENT_LEASES = 2
"""A sidecar that neither sends nor takes anything for this many leases is gone: it renews several times in each."""

GOODBYE_TIMEOUT = 1.0
"""Seconds for a sidecar to take a last message."""

MAX_QUESTIONS = 2048
"""Questions of one sidecar that are not answered yet; a sidecar asks no more than half of that at once."""

MAX_PRINCIPALS = 1000
"""Agents above those of one sidecar that it is sent; the one not heard of for longest is let go, and may come back."""

AGE_SPREAD = 0.1
"""Up to this part of a stream's greatest age is taken off at random, so that not all streams end together."""

_log = logging.getLogger(__name__)


class Center(Asks, Protocol):
    """What a link needs of its hub."""

    binding: Binding
    intake: Intake
    ttl: float
    max_link_age: float | None
    proves: bool
    """Whether the binding proves the workload, so that its writer and records are held to it."""

    @property
    def view(self) -> View | None:
        """The registry in force."""

    def withheld(self) -> str:
        """Say why no authority is given; empty where it is."""

    def join(self, link: "SidecarLink") -> None:
        """Take in a link that said hello. Raises RefusedError."""

    def leave(self, link: "SidecarLink") -> None:
        """Let a link go."""

    def keys(self) -> dict[str, str]:
        """Give the public keys that grants may be signed with."""

    def applied(self, link: "SidecarLink") -> None:
        """Take note of what is in force at a link now."""

    def refused(self, link: "SidecarLink", reason: str) -> None:
        """Take note of a link that asked for what is not its to ask."""


class SidecarLink:
    """One connected sidecar. `serve` runs it from hello to goodbye. `peer` is the address it came from, if known."""

    def __init__(self, hub: Center, ws: web.WebSocketResponse, *, token: str | None, peer: str = "") -> None:
        self._hub = hub
        self._ws = ws
        self._token = token
        self.peer = peer
        self.since = utc(datetime.now(UTC))
        self.hello = messages.Hello(protocol=0, workload="", writer="", spooled=0)
        self.lane = Lane("", "", acknowledge=self._acknowledge, refuse=self.refuse)
        self.sent: Slice | None = None
        """The slice that the sidecar has once it has read everything sent to it."""
        self.running = ""
        """The version that the sidecar says is in force there; empty before it said so."""
        self.applied = 0
        """The number of the newest view that is in force there; 0 for none."""
        self._unapplied: deque[tuple[int, str]] = deque()
        """Number and version of each view that was sent and is not in force there yet."""
        self._held: messages.Held | None = None
        """What it came with, until the first slice is sent."""
        self._seen: View | None = None
        self._agents: Collection[str] = ()
        self._agents_in: View | None = None
        """The view for which the agents were looked up last."""
        self._renew: messages.Renew | None = None
        self._acknowledged = 0
        self._replies: deque[messages.Reply] = deque()
        self._recalled: dict[PotRef, None] = {}
        """Pots that are to be given back."""
        self._asked = 0
        """Questions whose answers were not sent yet."""
        self._keys: dict[str, str] = {}
        """The keys that were sent."""
        self.principals: OrderedDict[str, None] = OrderedDict()
        """Agents that handed work down to those of the sidecar, the one heard of last at the end."""
        self._wake = asyncio.Event()
        self._end: asyncio.Future[RefusedError | ReconnectError] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Say that there is something to send."""
        self._wake.set()

    def recall(self, pots: Iterable[PotRef]) -> None:
        """Ask the sidecar to give back what it does not need of these pots."""
        self._recalled |= dict.fromkeys(pots)
        self._wake.set()

    def refuse(self, reason: str, *, access: bool = False) -> None:
        """End the stream, and tell the sidecar why. With `access`, have it recorded."""
        if not self._end.done():
            self._end.set_result(RefusedError(reason, access=access))

    def reconnect(self, reason: str) -> None:
        """End the stream, and ask the sidecar to open another at once."""
        if not self._end.done():
            self._end.set_result(ReconnectError(reason))

    def look_up_agents(self, view: View) -> Collection[str]:
        """Give the agents that the sidecar serves under `view`; where it may serve none any more, end the stream."""
        if self._agents_in is not view:
            try:
                self._agents = self._hub.binding.agents(self.hello.workload, view.registry)
            except PermissionError as error:
                self._agents = ()
                self.refuse(words(error), access=True)
            except LookupError as error:
                self._agents = ()
                self.refuse(words(error))
            self._agents_in = view
            if self.lane.agents is not None:
                self.lane.agents.update(self._agents)
        return self._agents

    def recheck(self) -> None:
        """Look up the agents anew, and send what that changes."""
        self._agents_in = self._seen = None
        self.wake()

    async def serve(self) -> None:
        """Serve the sidecar until one side ends the stream. Raises nothing but cancellation."""
        try:
            await self._greet()
            self._hub.join(self)
            try:
                with self._aging():
                    await self._follow()
            finally:
                self._hub.leave(self)
        except RefusedError as error:
            if error.access:
                self._hub.refused(self, str(error))
            else:
                _log.warning("Refused sidecar %s of workload %r: %s", self.hello.writer, self.hello.workload, error)
            await self._say_goodbye(messages.Refused(reason=str(error)))
        except ReconnectError as error:
            await self._say_goodbye(messages.Reconnect(reason=str(error)))
        except OSError as error:
            _log.info("Sidecar %s is gone: %s", self.hello.writer, str(error) or "it fell silent")
        except Exception:  # noqa: BLE001 - no sidecar's link may take others down with it
            _log.exception("The link of sidecar %s failed", self.hello.writer)

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                self.hello = hello = await receive_hello(self._ws)
                await self._authenticate(hello)
        except TimeoutError:
            said = "the token could not be checked" if self.hello.protocol else "no Hello"
            raise RefusedError(f"{said} within {HELLO_TIMEOUT:.0f} s") from None
        self._held = hello.held
        self.running = hello.held.version if hello.held else ""
        self.lane.writer, self.lane.workload, self.lane.spooled = hello.writer, hello.workload, hello.spooled
        self.lane.stored = await self._hub.intake.last_seq(hello.writer)

    async def _authenticate(self, hello: messages.Hello) -> None:
        try:
            await self._hub.binding.authenticate(hello.workload, self._token)
            if not self._hub.proves:
                return
            if self._hub.view is None:
                raise RefusedError("the hub has not read the resources yet")
            await self._hub.intake.claim(hello.writer, hello.workload)
        except PermissionError as error:
            raise RefusedError(words(error), access=True) from None
        except TimeoutError:
            raise
        except (OSError, StoreError) as error:
            raise RefusedError(f"the hub cannot check who this is: {words(error)}") from None
        self.lane.agents = set()
        self.look_up_agents(self._hub.view)
        if self._end.done():
            raise self._end.result()

    @contextlib.contextmanager
    def _aging(self) -> Iterator[None]:
        if (age := self._hub.max_link_age) is None:
            yield
            return
        age *= 1 - AGE_SPREAD * random.random()  # noqa: S311 - spreads reconnections, guards nothing
        timer = asyncio.get_running_loop().call_later(
            age, self.reconnect, f"the stream is {age:.0f} s old, and who speaks for the workload is checked anew"
        )
        try:
            yield
        finally:
            timer.cancel()

    async def _follow(self) -> None:
        self._wake.set()
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._send_all())]
        try:
            ends: list[asyncio.Future[Any]] = [*tasks, self._end]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._end.done():
                raise self._end.result()
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
                raise RefusedError(end_in_words(frame))
            match decode(frame):
                case messages.Renew() as renew:
                    self._renew = renew
                    self._hub.intake.spooled(self.lane, renew.spooled)
                    self._wake.set()
                case messages.Records(records=records):
                    await self._take([bytes(record) for record in records])
                case messages.Applied(version=version):
                    self._take_applied(version)
                case messages.Question(number=number, request=request):
                    self._ask(number, request)
                case messages.Hello():
                    raise RefusedError("Hello came a second time")

    def _ask(self, number: int, request: messages.Request) -> None:
        self._asked += 1
        if self._asked > MAX_QUESTIONS:
            raise RefusedError(f"more than {MAX_QUESTIONS} questions were asked before they were answered")
        view = self._hub.view
        if view is None:
            self._reply(number, Failed(reason="the hub has not read the resources yet"))
            return
        self._hub.ask(
            request,
            webhook=self.hello.writer,
            agents=self.look_up_agents(view),
            registry=view.registry,
            answer=lambda reply: self._reply(number, reply),
        )

    def _reply(self, number: int, reply: messages.AnyReply) -> None:
        self._know(reply)
        if number == 0:
            self._asked -= 1
            return
        self._replies.append(messages.Reply(number=number, reply=reply))
        self._wake.set()

    def _know(self, reply: messages.AnyReply) -> None:
        """Have the sidecar sent whoever handed the work down: their policies count, and come before the reply."""
        said = getattr(reply, "view", None)
        for principal in () if said is None else said.path:
            if principal not in self.principals:
                self._seen = None
            self.principals[principal] = None
            self.principals.move_to_end(principal)
        while len(self.principals) > MAX_PRINCIPALS:
            self.principals.popitem(last=False)

    async def _take(self, lines: Sequence[bytes]) -> None:
        while True:
            try:
                self._hub.intake.put(self.lane, lines)
            except ForeignAgentError as error:
                # It may be one that the sidecar served before this stream was opened.
                if self.lane.agents is None or not await self._has_recorded(error.agent):
                    raise RefusedError(str(error), access=True) from None
                self.lane.agents.add(error.agent)
            except BadRecordsError as error:
                raise RefusedError(str(error)) from None
            else:
                return

    async def _has_recorded(self, agent: str) -> bool:
        try:
            return await self._hub.intake.has_recorded(self.lane.writer, agent)
        except StoreError as error:
            raise RefusedError(f"the hub cannot look up what the sidecar recorded before: {error}") from None

    def _take_applied(self, version: str) -> None:
        expected = self._unapplied[0][1] if self._unapplied else "none"
        if version != expected:
            raise RefusedError(f"the sidecar says that version {version} is in force, and {expected} is due")
        self._in_force(*self._unapplied.popleft())

    def _in_force(self, number: int, version: str) -> None:
        self.applied, self.running = number, version
        self._hub.applied(self)

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
            if (keys := self._hub.keys()) != self._keys:
                self._keys = keys
                yield messages.encode(messages.Keys(keys=keys))
            if renew is not None:
                yield self._answer(renew)
            seq, self._acknowledged = self._acknowledged, 0
            if seq:
                yield messages.encode(messages.Acknowledged(seq=seq))
            if self._recalled:
                pots, self._recalled = tuple(self._recalled), {}
                yield messages.encode(messages.Recall(pots=pots))
            while self._replies and self._hub.view is self._seen:  # what a reply builds on goes first
                yield messages.encode(self._replies.popleft())
                self._asked -= 1
            if view is None and renew is None and not seq and not self._replies:
                return

    def _change(self, view: View) -> bytes | None:
        new = view.slice(self.look_up_agents(view), self.principals)
        try:
            if self.sent is None and self._held is not None:
                frame = view.resume(self._held, new)
            else:
                frame = view.frame(self.sent, new)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        self.sent, self._seen, self._held = new, view, None
        if frame:
            self._unapplied.append((view.number, new.version))
        elif self._unapplied:  # what is under way is the same
            self._unapplied[-1] = (view.number, new.version)
        else:
            self._in_force(view.number, new.version)
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

    async def _say_goodbye(self, message: messages.Refused | messages.Reconnect) -> None:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(GOODBYE_TIMEOUT):
                await self._ws.send_frame(messages.encode(message), WSMsgType.TEXT)
                await self._ws.close()
