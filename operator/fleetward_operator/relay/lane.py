"""One lane for each other replica: questions go out in order, one request at a time, many questions in each.

A question is never asked twice. Where its answer is lost, the keeper may have counted what was asked for; that stays
counted, and the webhook that asked denies.
"""

import asyncio
import logging
import time
from collections import deque
from typing import Any, NamedTuple, Protocol, Self

import aiohttp
import msgspec

from fleetward.decision.replies import Failed
from fleetward.run import calls
from fleetward_operator.hub.asks import RunAnswer
from fleetward_operator.relay import wire
from fleetward_operator.relay.client import Client, RelayError, Trust

MAX_WAITING = 5_000
"""Questions to other replicas that wait to be sent, all together."""

MAX_WAITING_BYTES = 64 * 2**20

PATIENCE_SECONDS = 1.0
"""A question that waited longer is not sent any more: who asked would be gone before it is answered."""

_log = logging.getLogger(__name__)


class Keepers(Trust, Protocol):
    """Where the other replicas are; see `cluster.peers.Peers`."""

    def keeper(self, tag: str) -> str:
        """Give the base URL of the replica that keeps the runs of a tag. Raises LookupError, in words."""


class Waiting(NamedTuple):
    """A question that is to be sent."""

    webhook: str
    agent: str | None
    request: calls.Request
    body: bytes
    """The request, encoded."""
    answer: RunAnswer
    since: float


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
                self._pop(lane).answer(Failed(reason="the hub stops"))
        if session is not None:
            await session.close()

    def put(
        self,
        tag: str,
        request: calls.Request,
        *,
        webhook: str,
        agent: str | None,
        answer: RunAnswer,
    ) -> None:
        """Have a question answered by whoever keeps the runs of `tag`, in the order of asking."""
        body = msgspec.json.encode(request)
        full = self._count >= MAX_WAITING or self._bytes + len(body) > MAX_WAITING_BYTES
        if full or self._session is None:
            why = "too many questions to other replicas wait already" if full else "the hub stops"
            answer(Failed(reason=why))
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
        except RelayError as error:
            why = str(error)
        except Exception:  # noqa: BLE001 - whatever it is, somebody waits for each answer, and others come after
            _log.exception("Questions about runs could not be sent on")
            why = "an internal error; the hub's log has it"
        finally:
            failed = Failed(reason=f"this run is kept by another replica: {why}")
            for waiting, reply in zip(batch, replies or [failed] * len(batch), strict=True):
                waiting.answer(reply)

    async def _ask(self, tag: str, batch: list[Waiting]) -> tuple[calls.Reply, ...]:
        """Make the request. Raises RelayError."""
        try:
            url = self._keepers.keeper(tag)
        except LookupError as error:
            raise RelayError(str(error.args[0])) from None
        assert self._session is not None  # noqa: S101 - there is one while there are tasks
        data = await Client(self._session, self._keepers).post(url, wire.PATH, _encoded(tag, batch))
        try:
            replies = wire.decode_answers(data).replies
        except msgspec.MsgspecError as error:
            raise RelayError(f"{url} answered what is not understood here: {error}") from None
        if len(replies) != len(batch):
            raise RelayError(f"{url} gave {len(replies)} answers to {len(batch)} questions")
        return replies

    def _batch(self, lane: deque[Waiting]) -> list[Waiting]:
        """Take what goes into one request. What waited too long is answered, save what gives something back."""
        batch: list[Waiting] = []
        size, now = 0, time.monotonic()
        while lane and len(batch) < wire.MAX_QUESTIONS:
            first = lane[0]
            if now - first.since > self._patience and not isinstance(first.request, calls.Settle):
                why = f"this run is kept by another replica, which was not asked within {self._patience:g} s"
                self._pop(lane).answer(Failed(reason=why))
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
