"""A sidecar's link to its hub: keeps the slice current and the authority lease alive, hands the records over.

It never gives up. Whatever goes wrong ends the connection, the reason is kept in words, and a new connection
resumes from what the sidecar still holds. The sidecar decides alone meanwhile, for as long as its lease lasts.
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Callable

import aiohttp
import msgspec

from fleetward.registry.slice import Slice, apply
from fleetward.stream import messages
from fleetward.stream.address import Address, parse_address
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.credentials import Credentials, CredentialsError
from fleetward_webhook.sidecar.handover import Handover, RecordSpool
from fleetward_webhook.sidecar.questions import Questions

RENEWALS_A_LEASE = 3
"""A lease is renewed this many times before it would lapse, so that one lost moment costs nothing."""

RENEW_EAGERLY = 0.25
"""Seconds between requests while there is no lease."""

FIRST_TTL = 5.0
"""Seconds; taken for the lease's length until the hub has said it."""

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection and its handshake."""

RETRY_FIRST = 0.05
RETRY_LAST = 2.0
"""Seconds before a connection is tried again: at first, and at most. Up to half of it is taken off at random."""

RETRY_REFUSED = 1.0
"""Seconds, at least, after the hub refused this sidecar: asking again at once would not change its mind."""

MOVE_SPREAD = 0.3
"""Seconds, at most, chosen at random, before a connection that the hub asked for: it may ask a thousand sidecars at
once. Little of a lease, so that authority has no gap."""

CLOSE_TIMEOUT = 0.2
"""Seconds for the hub to answer a goodbye."""

_log = logging.getLogger(__name__)


class LinkError(Exception):
    """Why a connection to the hub was given up: a clause in words."""


class _RefusedError(LinkError):
    """The hub refused this sidecar."""


class _MovedError(LinkError):
    """The hub asked for a new connection."""


class Link:
    """The link of one sidecar. `run` keeps it up until it is cancelled.

    `on_slice` is called with every slice as it comes into force, before any lease that builds on it is taken;
    where it raises, the lease is not renewed. `credentials` go with an https address, and with no other.
    Raises ValueError for an address that is not allowed (see `parse_address`), or credentials missing or out of place.
    """

    def __init__(
        self,
        address: str,
        *,
        workload: str,
        spool: RecordSpool,
        on_slice: Callable[[Slice], None],
        authority: Authority,
        credentials: Credentials | None = None,
    ) -> None:
        self._address = parse_address(address, tls=True)
        if self._address.tls != (credentials is not None):
            raise ValueError(f"the hub's address is {address}: a CA and a token go with https, and with nothing else")
        self._workload = workload
        self._spool = spool
        self._handover = Handover(spool)
        self._on_slice = on_slice
        self._authority = authority
        self._credentials = credentials
        self._slice: Slice | None = None
        self.questions = Questions()
        """About runs and budgets, to the hub."""
        self._ttl = FIRST_TTL
        self._connected = False
        self._heard = 0.0
        self._problem = ""

    @property
    def address(self) -> Address:
        """Where the hub is sought."""
        return self._address

    @property
    def slice(self) -> Slice | None:
        """The slice in force."""
        return self._slice

    @property
    def connected(self) -> bool:
        """Whether the stream is open."""
        return self._connected

    @property
    def problem(self) -> str:
        """What is wrong with the link, in words; empty while all is well."""
        return self._problem or self._handover.problem

    def wake(self) -> None:
        """Say that a record was spooled. Costs next to nothing; call it on the link's loop."""
        self._handover.wake()

    async def delivered(self) -> None:
        """Wait until the hub's store has every record; give it a time limit, for there may be no hub."""
        await self._handover.delivered()

    async def run(self) -> None:
        """Connect, resume, follow, and start over whenever the connection ends. Ends only by cancellation."""
        failures = 0
        async with self._session() as session:
            while True:
                began, least = self._authority.now(), 0.0
                try:
                    await self._connection(session)
                except _MovedError as error:
                    _log.info("%s", error)
                    if self._authority.now() - began > RENEW_EAGERLY:  # else it asks too often
                        failures = 0
                        await asyncio.sleep(random.uniform(0, MOVE_SPREAD))  # noqa: S311 - guards nothing
                        continue
                except (aiohttp.ClientError, OSError, TimeoutError, LinkError) as error:
                    least = RETRY_REFUSED if isinstance(error, _RefusedError) else 0.0
                    self._lost(error)
                except Exception as error:  # noqa: BLE001 - a link that died would end the sidecar's authority for good
                    _log.exception("The link to the hub failed unexpectedly")
                    self._lost(LinkError(f"the link failed: {_words(error)}"))
                failures = 1 if self._authority.now() - began > RETRY_LAST else failures + 1
                await asyncio.sleep(max(least, _pause(failures)))

    def _session(self) -> aiohttp.ClientSession:
        path = self._address.path
        connector = aiohttp.UnixConnector(path) if path is not None else aiohttp.TCPConnector()
        return aiohttp.ClientSession(connector=connector)

    def _lost(self, error: Exception) -> None:
        said = isinstance(error, _RefusedError)
        problem = str(error) if isinstance(error, LinkError) else f"cannot reach {self._address}: {self._why(error)}"
        if problem != self._problem:
            _log.warning("%s", problem)
        self._problem = problem
        if said:
            self._authority.said(problem.removeprefix("the hub "))
        else:
            self._authority.trouble(problem)

    def _why(self, error: Exception) -> str:
        # aiohttp's own words would name the TLS context by its place in memory.
        cause: BaseException = error
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            cause = error.certificate_error
        elif isinstance(error, aiohttp.ClientConnectorError):
            cause = error.os_error
        if isinstance(cause, ssl.SSLCertVerificationError) and self._credentials is not None:
            return f"its certificate is not accepted, by {self._credentials.ca_file}: {cause.verify_message}"
        return _words(cause)

    def _security(self) -> tuple[ssl.SSLContext | bool, dict[str, str]]:
        """Read afresh what the connection is made with: the TLS context, and the headers."""
        if self._credentials is None:
            return True, {}
        try:
            return self._credentials.tls(), {"Authorization": f"Bearer {self._credentials.token()}"}
        except CredentialsError as error:
            raise LinkError(str(error)) from None

    async def _connection(self, session: aiohttp.ClientSession) -> None:
        context, headers = self._security()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            ws = await session.ws_connect(
                f"{self._address.base_url}{messages.PATH}",
                max_msg_size=messages.MAX_FRAME_TO_SIDECAR,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                ssl=context,
                headers=headers,
            )
        tasks: list[asyncio.Task[None]] = []
        try:
            await _send(ws, self._hello())
            self._connected = True
            self._heard = self._authority.now()
            works = (
                self._receive(ws),
                self._watch(),
                self._renew(ws),
                self._hand_over_records(ws),
                self._ask(ws),
            )
            tasks = [asyncio.create_task(work) for work in works]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Of several that ended, the reader knows best why.
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            self._connected = False
            self.questions.unanswered(f"the connection to {self._address} ended")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _close(ws)

    def _hello(self) -> messages.Hello:
        hello = messages.Hello(
            protocol=messages.PROTOCOL,
            workload=self._workload,
            writer=self._spool.writer,
            spooled=self._spool.next_seq - 1,
            held=messages.held(self._slice) if self._slice is not None else None,
        )
        if len(messages.encode(hello)) > messages.MAX_FRAME_TO_HUB:
            return msgspec.structs.replace(hello, held=None)
        return hello

    # What the hub sends

    async def _receive(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            frame = await ws.receive()
            if frame.type is not aiohttp.WSMsgType.TEXT:
                raise LinkError(_end(frame, ws))
            self._heard = self._authority.now()
            self._authority.heard()
            try:
                message = messages.decode_to_sidecar(frame.data)
            except msgspec.DecodeError as error:
                raise LinkError(f"the hub sent a message this sidecar does not understand: {error}") from None
            self._take(message)
            if isinstance(message, messages.Snapshot | messages.Update) and self._slice is not None:
                await _send(ws, messages.Applied(version=self._slice.version))

    def _take(self, message: messages.ToSidecar) -> None:
        match message:
            case messages.Snapshot(slice=slice_):
                self._put_in_force(slice_)
            case messages.Update(base=base, change=change):
                if self._slice is None or self._slice.version != base:
                    mine = f"version {self._slice.version}" if self._slice else "nothing"
                    self._slice = None
                    raise LinkError(f"the hub sent a change of version {base}, and this sidecar holds {mine}")
                self._put_in_force(apply(self._slice, change))
            case messages.Renewed(token=token, ttl=ttl, version=version):
                self._take_lease(token, ttl, version)
            case messages.Withheld(reason=reason):
                self._authority.said(f"withholds authority: {reason}")
                self._problem = f"the hub withholds authority: {reason}"
            case messages.Acknowledged(seq=seq):
                self._handover.acknowledged(seq)
            case messages.Reply() | messages.Keys() | messages.Recall():
                self.questions.take(message)
            case messages.Refused(reason=reason):
                raise _RefusedError(f"the hub refuses this sidecar: {reason}")
            case messages.Reconnect(reason=reason):
                raise _MovedError(f"the hub asks for a new connection: {reason}")

    def _put_in_force(self, slice_: Slice) -> None:
        try:
            self._on_slice(slice_)
        except Exception as error:
            _log.exception("Version %s cannot be put in force", slice_.version)
            raise LinkError(f"version {slice_.version} cannot be put in force: {_words(error)}") from error
        self._slice = slice_

    def _take_lease(self, token: float, ttl: float, version: str) -> None:
        if self._slice is None or self._slice.version != version:
            self._slice = None
            raise LinkError(f"the hub granted authority under version {version}, which this sidecar does not hold")
        try:
            self._authority.renewed(token, ttl)
        except ValueError as error:
            raise LinkError(str(error)) from None
        self._ttl = ttl
        self._problem = ""

    # What the sidecar sends

    async def _watch(self) -> None:
        """End a connection on which nothing comes any more; the hub answers every Renew in one way or another."""
        while True:
            silence = self._authority.now() - self._heard
            if silence > self._ttl:
                raise LinkError(f"the connection to {self._address} was silent for {silence:.1f} s")
            await asyncio.sleep(self._ttl / RENEWALS_A_LEASE)

    async def _renew(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await _send(ws, messages.Renew(token=self._authority.now(), spooled=self._spool.next_seq - 1))
            pause = self._ttl / RENEWALS_A_LEASE
            await asyncio.sleep(pause if self._authority.live() else min(pause, RENEW_EAGERLY))

    async def _ask(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async with contextlib.aclosing(self.questions.frames()) as frames:
            async for frame in frames:
                await _send(ws, frame)

    async def _hand_over_records(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async with contextlib.aclosing(self._handover.batches()) as batches:
            async for batch in batches:
                await _send(ws, batch)


async def _send(ws: aiohttp.ClientWebSocketResponse, message: messages.ToHub) -> None:
    await ws.send_frame(messages.encode(message), aiohttp.WSMsgType.TEXT)


async def _close(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Say goodbye if the hub still listens; then let go of the socket, whatever it still holds back."""
    socket_ = ws.get_extra_info("socket")
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await ws.close()
    if socket_ is None:
        return  # closed from the other side
    with contextlib.suppress(OSError):
        socket_.shutdown(socket.SHUT_RDWR)


def _pause(failures: int) -> float:
    longest = min(RETRY_LAST, RETRY_FIRST * 2.0 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads reconnections, guards nothing


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _end(frame: aiohttp.WSMessage, ws: aiohttp.ClientWebSocketResponse) -> str:
    """Say how the stream ended."""
    if frame.type is aiohttp.WSMsgType.BINARY:
        return "the hub sent a binary frame, which the stream has no use for"
    if frame.type is aiohttp.WSMsgType.ERROR and frame.data is not None:
        return f"the connection to the hub broke: {_words(frame.data)}"
    extra = f": {frame.extra}" if isinstance(frame.extra, str) and frame.extra else ""
    return f"the hub closed the connection (code {ws.close_code}){extra}"
