"""Runs, kept by the hub: what webhooks ask about them, answered in order, many in one commit."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, Protocol, Self

import msgspec

from fleetward.audit.query import utc
from fleetward.audit.record import Record, RunRecord
from fleetward.audit.store import StoreError
from fleetward.decision.replies import Failed
from fleetward.delegation.keys import KeyRing
from fleetward.delegation.token import sign
from fleetward.registry.registry import Registry
from fleetward.run import calls
from fleetward.run.book import Book
from fleetward.run.journal import JournalError, RunStore
from fleetward.run.standing import Refusal, standing
from fleetward.run.state import EndedRun
from fleetward_operator.hub.asks import RunAnswer
from fleetward_operator.hub.kept import KeptRuns
from fleetward_operator.hub.own import OwnRecords
from fleetward_operator.hub.planjudge import History, PlanJudge

MAX_WAITING = 10_000
"""Questions that wait for an answer, of all webhooks together."""

MAX_BATCH = 256
"""Questions answered in one commit."""

SWEEP_SECONDS = 5.0
"""How often runs whose time is over are ended."""

_log = logging.getLogger(__name__)


class Keys(Protocol):
    """Where the keys that sign grants come from."""

    def ring(self) -> KeyRing | None:
        """Give the keys to sign with; None while there are none."""

    def public(self) -> dict[str, str]:
        """Give the public keys that grants may be signed with, also those that will only sign soon."""

    def renew(self, now: int) -> bool:
        """Do what is due to the keys; say whether they are others now. Raises OSError."""


class _Asked(NamedTuple):
    request: calls.Request
    webhook: str
    registry: Registry
    answer: RunAnswer


class Runs:
    """Answers questions about runs. An asynchronous context manager, of one event loop; its thread owns the store."""

    def __init__(self, store: RunStore, keys: Keys, records: OwnRecords) -> None:
        self._store = store
        self._records = records
        self._ended: list[EndedRun] = []
        """Runs that their time ended, and that are not on record yet."""
        self._keys = keys
        self.keys_changed: Callable[[], None] = _nothing
        """Called on the loop when grants are signed with other keys than before."""
        self._judge = PlanJudge()
        self._waiting: deque[_Asked] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleetward-runs")
        self._task: asyncio.Task[None] | None = None
        self.problem = ""
        """Why nothing is kept, in words; empty while it is."""
        self.kept: KeptRuns | None = None
        """What the other replicas are told; None where there are none."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for asked in self._waiting:
            asked.answer(Failed(reason="the hub stops"))
        self._waiting.clear()
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def open_runs(self) -> int:
        """How many runs are open."""
        return len(self._store.book.ledger.runs)

    def public_keys(self) -> dict[str, str]:
        """Give the public keys that grants may be signed with."""
        return self._keys.public()

    def ask(
        self, request: calls.Request, *, webhook: str, agents: Collection[str], registry: Registry, answer: RunAnswer
    ) -> None:
        """Have a question of a webhook that serves `agents` answered, in the order of asking."""
        if (refused := check_served(request, agents)) is not None:
            answer(refused)
        elif len(self._waiting) >= MAX_WAITING:
            answer(Failed(reason=f"{MAX_WAITING} questions about runs wait already"))
        else:
            self._waiting.append(_Asked(request, webhook, registry, answer))
            self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_sweep = loop.time() + SWEEP_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_sweep):
                    await self._wake.wait()
            if sweep := loop.time() >= next_sweep:
                next_sweep = loop.time() + SWEEP_SECONDS
                await self._renew_keys()
            self._wake.clear()
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            if self._waiting:
                self._wake.set()
            replies = await loop.run_in_executor(self._thread, partial(self._answer_all, batch, sweep=sweep))
            for asked, reply in zip(batch, replies, strict=True):
                asked.answer(reply)

    async def _renew_keys(self) -> None:
        try:
            if await asyncio.to_thread(self._keys.renew, int(time.time())):
                self.keys_changed()
        except OSError as error:
            _log.error("The key that signs grants cannot be replaced: %s", error)

    def _answer_all(self, batch: list[_Asked], *, sweep: bool) -> list[calls.Reply]:
        """Answer in the thread. No reply is given before what it says is kept."""
        now = time.time()
        try:
            with self._store.batch() as book:
                if sweep:
                    self._ended += book.sweep(now)
                replies = [self._answer(book, asked, now) for asked in batch]
        except JournalError as error:
            if not self.problem:
                _log.error("%s", error)
            self.problem = str(error)
            return [Failed(reason=str(error)) for _ in batch]
        self.problem = ""
        self._record_ended()
        return replies

    def _record_ended(self) -> None:
        """Record the runs that their time ended; what cannot be recorded now is tried again."""
        try:
            while self._ended:
                self._records.append_own(partial(_expired, self._ended[0]))
                self._ended.pop(0)
        except StoreError as error:
            _log.error("The end of run %s cannot be recorded: %s", self._ended[0].id, error)

    def _answer(self, book: Book, asked: _Asked, now: float) -> calls.Reply:
        try:
            return self._reply(book, asked, now)
        except Exception:  # noqa: BLE001 - one question that cannot be answered must not cost the others theirs
            _log.exception("A question about a run failed")
            return Failed(reason="an internal error; the hub's log has it")

    def _reply(self, book: Book, asked: _Asked, now: float) -> calls.Reply:  # noqa: PLR0911 - one a kind
        webhook = asked.webhook
        match asked.request:
            case calls.Step() as step:
                return _addressed(book.step(step, now, webhook), step, asked.registry)
            case calls.Settle() as settle:
                return book.settle(settle, now, webhook)
            case calls.Learn() as learn:
                return book.learn(learn, now, webhook)
            case calls.Propose() as propose:
                return book.propose(propose, asked.registry.agents.get(propose.to), now, webhook)
            case calls.Issue() as issue:
                return self._issue(book, issue, now, webhook)
            case calls.CheckPlan() as plan:
                judge = self._judge.judge(asked.registry, plan, *_standing(book, plan, now))
                return book.check_plan(plan, judge, now, webhook)
            case calls.OpenRun() as opening:
                return book.open(opening, now)
            case calls.Recorded() as recorded:
                return book.recorded(recorded, now)
            case calls.CloseRun() as closing:
                return book.close(closing, now)

    def _issue(self, book: Book, issue: calls.Issue, now: float, webhook: str) -> calls.Reply:
        ring = self._keys.ring()
        if ring is None:
            return Failed(reason="the hub has no key to sign grants with yet")
        grant = book.issue(issue, now, webhook)
        return grant if isinstance(grant, calls.NotAllowed) else calls.Issued(token=sign(grant, ring))


def check_served(request: calls.Request, agents: Collection[str]) -> calls.NotAllowed | None:
    """Refuse a question in the name of an agent that the webhook does not serve."""
    agent = getattr(request, "agent", None)
    if agent is None or agent in agents:
        return None
    return calls.NotAllowed(reason=f"agent {agent} is not one that this webhook serves")


def _expired(run: EndedRun, id_: str, writer: str, seq: int) -> Record:
    time_ = utc(datetime.fromtimestamp(run.at, UTC))
    return RunRecord(
        id=id_, writer=writer, seq=seq, time=time_, run=run.id, agent=run.opener, state="Expired", registry_version=""
    )


def _addressed(reply: calls.Reply, step: calls.Step, registry: Registry) -> calls.Reply:
    """Add whom a message goes to."""
    to = calls.recipient(step.kind, step.agent, step.target)
    if to is None or not isinstance(reply, calls.Taken):
        return reply
    return msgspec.structs.replace(reply, to=registry.agents.get(to))


def _standing(book: Book, plan: calls.CheckPlan, now: float) -> tuple[tuple[str, ...], History]:
    """Give who handed the planner its work, and who did what on which target so far.

    Nobody and nothing where the planner may not act in the run, which is refused later.
    """
    try:
        place = standing(book.ledger, plan.run, plan.agent, plan.grant, now)
    except Refusal:
        return (), lambda _: {}
    return place.run.path(place.holding), place.run.marks.on


def _nothing() -> None:
    pass
