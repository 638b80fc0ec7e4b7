"""One lane for each other replica: questions go out in order, one request at a time, many questions in each.

A question is never asked twice. Where its answer is lost, the keeper may have counted what was asked for; that stays
counted, and the webhook that asked denies.
"""

import asyncio
import io
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

import aiohttp
import msgspec

from fleetward.run import calls
from fleetward_operator.relay import wire

MAX_WAITING = 5_000
"""Questions to other replicas that wait to be sent, all together."""

MAX_WAITING_BYTES = 64 * 2**20

PATIENCE_SECONDS = 1.0
"""A question that waited longer is not sent any more: who asked would be gone before it is answered."""

_log = logging.getLogger(__name__)


class Keepers(Protocol):
    """Where the other replicas are; see `cluster.peers.Peers`."""

    server_name: str
    """The name in their certificate."""

    def keeper(self, tag: str) -> str:
        """Give the base URL of the replica that keeps the runs of a tag. Raises LookupError, in words."""

    def token(self) -> str:
        """Give this replica's own token for the audience `fleetward`. Raises OSError."""

    def tls(self) -> ssl.SSLContext | None:
        """Say what to trust them by; None: what the system trusts."""


class Waiting(NamedTuple):
    """A question that is to be sent."""

    webhook: str
    agent: str | None
    request: calls.Request
    body: bytes
    """The request, encoded."""
    answer: Callable[[calls.Reply], None]
    since: float


class _RelayError(Exception):
    """Why questions were not answered, in words."""


class Lanes:
    """Sends questions on. An asynchronous context manager, of one event loop."""

    def __init__(self, keepers: Keepers, *, patience: float = PATIENCE_SECONDS) -> None:
        self._keepers = keepers
        self._patience = patience
        self._lanes: dict[str, deque[Waiting]] = {}
        """By tag; there is one as long as something waits or is under way."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._count = 0
        self._bytes = 0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks, session, self._session = tuple(self._tasks.values()), self._session, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            while lane:
                self._pop(lane).answer(calls.Failed(reason="the hub stops"))
        if session is not None:
            await session.close()

    def put(
        self,
        tag: str,
        request: calls.Request,
        *,
        webhook: str,
        agent: str | None,
        answer: Callable[[calls.Reply], None],
    ) -> None:
        """Have a question answered by whoever keeps the runs of `tag`, in the order of asking."""
        body = msgspec.json.encode(request)
        full = self._count >= MAX_WAITING or self._bytes + len(body) > MAX_WAITING_BYTES
        if full or self._session is None:
            why = "too many questions to other replicas wait already" if full else "the hub stops"
            answer(calls.Failed(reason=why))
            return
        self._count, self._bytes = self._count + 1, self._bytes + len(body)
        lane = self._lanes.setdefault(tag, deque())
        lane.append(Waiting(webhook, agent, request, body, answer, time.monotonic()))
        if tag not in self._tasks:
            self._tasks[tag] = asyncio.create_task(self._run(tag, lane))

    async def _run(self, tag: str, lane: deque[Waiting]) -> None:
        try:
            while lane:
                await self._send(tag, self._batch(lane))
        finally:
            del self._tasks[tag]
            if not lane:
                del self._lanes[tag]

    async def _send(self, tag: str, batch: list[Waiting]) -> None:
        if not batch:
            return
        replies: tuple[calls.Reply, ...] = ()
        why = "the hub stops, and whether it was counted is not known"
        try:
            replies = await self._ask(tag, batch)
        except _RelayError as error:
            why = str(error)
        except Exception:  # noqa: BLE001 - whatever it is, somebody waits for each answer, and others come after
            _log.exception("Questions about runs could not be sent on")
            why = "an internal error; the hub's log has it"
        finally:
            failed = calls.Failed(reason=f"this run is kept by another replica: {why}")
            for waiting, reply in zip(batch, replies or [failed] * len(batch), strict=True):
                waiting.answer(reply)

    async def _ask(self, tag: str, batch: list[Waiting]) -> tuple[calls.Reply, ...]:
        """Make the request. Raises _RelayError."""
        try:
            url = self._keepers.keeper(tag)
        except LookupError as error:
            raise _RelayError(str(error.args[0])) from None
        try:
            status, data = await self._post(url, _encoded(tag, batch))
        except TimeoutError:
            raise _RelayError(f"{url} gave no answer within {wire.ANSWER_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _RelayError(f"{url} cannot be asked: {str(error) or type(error).__name__}") from None
        if status != 200:
            raise _RelayError(f"{url} answered {status}: {data[:300].decode(errors='replace')}")
        try:
            replies = wire.decode_answers(data).replies
        except msgspec.MsgspecError as error:
            raise _RelayError(f"{url} answered what is not understood here: {error}") from None
        if len(replies) != len(batch):
            raise _RelayError(f"{url} gave {len(replies)} answers to {len(batch)} questions")
        return replies

    async def _post(self, url: str, body: bytes) -> tuple[int, bytes]:
        assert self._session is not None  # noqa: S101 - there is one while there are tasks
        keepers = self._keepers
        async with self._session.post(
            url + wire.PATH,
            data=io.BytesIO(body),
            headers={"Authorization": f"Bearer {keepers.token()}", "Content-Type": "application/json"},
            ssl=keepers.tls() or True,
            server_hostname=keepers.server_name if url.startswith("https") else None,
            timeout=aiohttp.ClientTimeout(total=wire.ANSWER_SECONDS),
            allow_redirects=False,
        ) as response:
            data = bytearray()
            async for part in response.content.iter_chunked(2**16):
                data += part
                if len(data) > wire.MAX_ANSWER:
                    message = f"its answer is longer than {wire.MAX_ANSWER} bytes"
                    raise ValueError(message)
            return response.status, bytes(data)

    def _batch(self, lane: deque[Waiting]) -> list[Waiting]:
        """Take what goes into one request. What waited too long is answered, save what gives something back."""
        batch: list[Waiting] = []
        size, now = 0, time.monotonic()
        while lane and len(batch) < wire.MAX_QUESTIONS:
            first = lane[0]
            if now - first.since > self._patience and not isinstance(first.request, calls.Settle):
                why = f"this run is kept by another replica, which was not asked within {self._patience:g} s"
                self._pop(lane).answer(calls.Failed(reason=why))
                continue
            size += len(first.body) + 256
            if batch and size > wire.MAX_BODY:
                break
            batch.append(self._pop(lane))
        return batch

    def _pop(self, lane: deque[Waiting]) -> Waiting:
        waiting = lane.popleft()
        self._count, self._bytes = self._count - 1, self._bytes - len(waiting.body)
        return waiting


def _encoded(tag: str, batch: list[Waiting]) -> bytes:
    asked: list[dict[str, Any]] = [
        {"webhook": one.webhook, "agent": one.agent, "request": msgspec.Raw(one.body)} for one in batch
    ]
    return wire.encode({"tag": tag, "asked": asked})
