"""Budgets, kept by the hub: what webhooks ask of the ledger, and what their records settle, many in one commit."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, Self

from fleetward.audit.query import utc
from fleetward.audit.record import BudgetRecord, Record
from fleetward.audit.store import StoreError
from fleetward.budget import calls
from fleetward.budget.ledger import Entry, Ledger
from fleetward.budget.news import News, Pause
from fleetward.budget.report import BudgetsReport, PotReport
from fleetward.budget.store import LedgerError
from fleetward.decision.replies import Failed
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Mode
from fleetward_operator.hub.asks import BudgetAnswer
from fleetward_operator.hub.budgetterms import Paused, TermsOf, modes_of
from fleetward_operator.hub.own import OwnRecords
from fleetward_operator.hub.recalls import Recalls
from fleetward_operator.hub.secondtry import NewestQuestions, second_try, short_of

LOOKING_SHARE = 20
"""Looking at all pots takes no more than one part in so many of the ledger's time; with few pots, each sweep does."""

MAX_WAITING = 10_000
"""Questions that wait for an answer, of all webhooks together."""

MAX_BATCH = 256
"""Questions answered in one commit."""

SWEEP_SECONDS = 1.0
"""How often deadlines, ends of windows and pauses are looked at."""

_log = logging.getLogger(__name__)


class _Asked(NamedTuple):
    request: calls.Request
    webhook: str
    answer: BudgetAnswer
    again: bool = False
    """Whether it was asked before, and leases of others were recalled since."""


class _Folding(NamedTuple):
    entries: Sequence[Entry]
    done: asyncio.Future[None]


class Budgets:
    """The ledger on an event loop. An asynchronous context manager; its thread owns the ledger's store.

    `registry` gives what governs now; None before it is known, and then nothing is granted.
    """

    def __init__(self, ledger: Ledger, records: OwnRecords, registry: Callable[[], Registry | None]) -> None:
        self._ledger = ledger
        self._records = records
        self._registry = registry
        self._terms = TermsOf()
        self.paused: Callable[[Mapping[str, Mode]], None] = _nothing
        """Called on the loop with the agents that budgets pause, whenever these are others."""
        self.told: Callable[[News], None] = _nothing
        """Called on the loop with what happened to a budget, after it is on record."""
        self.recalls = Recalls()
        self.filled: Callable[[], bool] = lambda: True
        """Whether all that was on record when the hub started is in the ledger; before that, nothing is granted."""
        self._look_at = 0.0
        """When all pots are looked at next, in seconds since the epoch."""
        self._modes: Mapping[str, Mode] = {}
        self._newest = NewestQuestions()
        self._waiting: deque[_Asked] = deque()
        self._folding: deque[_Folding] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleetward-budgets")
        self._task: asyncio.Task[None] | None = None
        self.report = BudgetsReport(at=0.0, pots=())
        """What every pot held at the last sweep."""
        self.problem = ""
        """Why nothing is kept, in words; empty while it is."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.recalls.close()
        while self._waiting:
            self._waiting.popleft().answer(Failed(reason="the hub stops"))
        while self._folding:
            _fail(self._folding.popleft().done, LedgerError("the hub stops"))
        await asyncio.to_thread(self._thread.shutdown)

    def pots_of(self, budget: str) -> Sequence[PotReport]:
        """Give what the pots of a budget held at the last sweep."""
        return [pot for pot in self.report.pots if pot.budget == budget]

    @property
    def keeps(self) -> bool:
        """Whether the ledger is kept here, and not asked elsewhere."""
        return True

    def ask(self, request: calls.Request, *, webhook: str, agents: Collection[str], answer: BudgetAnswer) -> None:
        """Have a question of a webhook that serves `agents` answered, in the order of asking."""
        foreign = {w.agent for w in request.wishes} - set(agents) if isinstance(request, calls.Reserve) else set()
        if foreign:
            answer(Failed(reason=f"agent {min(foreign)} is not one that this webhook serves"))
        elif isinstance(request, calls.Reserve) and not self.filled():
            answer(Failed(reason="what is on record is being entered into the ledger of budgets"))
        elif len(self._waiting) >= MAX_WAITING:
            answer(Failed(reason=f"{MAX_WAITING} questions about budgets wait already"))
        else:
            if isinstance(request, calls.Reserve):
                self._newest.note(webhook, request)
            self._put(_Asked(request, webhook, answer))

    async def fold(self, entries: Sequence[Entry]) -> None:
        """Settle by records that are in the audit store; return when that is kept. Raises LedgerError."""
        if self._registry() is None:  # what holds for the pots is not known, such as whether their windows roll
            raise LedgerError("the hub has not read the resources yet")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._folding.append(_Folding(entries, done))
        self._wake.set()
        await done

    async def folded(self, writer: str) -> int:
        """Give the number of the last record of a writer that was settled. Raises LedgerError."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.folded, writer)

    def _put(self, asked: _Asked) -> None:
        self._waiting.append(asked)
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_sweep = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_sweep):
                    await self._wake.wait()
            if sweep := loop.time() >= next_sweep:
                next_sweep = loop.time() + SWEEP_SECONDS
            self._wake.clear()
            foldings = [self._folding.popleft() for _ in range(len(self._folding))]
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            if self._waiting:
                self._wake.set()
            await self._work(foldings, batch, sweep=sweep)

    async def _work(self, foldings: Sequence[_Folding], batch: Sequence[_Asked], *, sweep: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._terms = terms = self._terms.under(self._registry())
            work = partial(self._keep, foldings, batch, terms, sweep=sweep)
            kept = await loop.run_in_executor(self._thread, work)
        except LedgerError as error:
            self._fail_all(foldings, batch, error)
            return
        except Exception:  # noqa: BLE001 - were this task to end, nobody would ever be answered again
            _log.exception("Budgets could not be kept")
            self._fail_all(foldings, batch, LedgerError("an internal error; the hub's log has it"))
            return
        self._note("")
        for folding in foldings:
            if not folding.done.done():
                folding.done.set_result(None)
        for asked, reply in zip(batch, kept.replies, strict=True):
            self._give(asked, reply, kept.lessees)
        self._follow(kept)

    def _fail_all(self, foldings: Sequence[_Folding], batch: Sequence[_Asked], error: LedgerError) -> None:
        self._note(str(error))
        for folding in foldings:
            _fail(folding.done, error)
        for asked in batch:
            asked.answer(Failed(reason=str(error)))

    def _keep(self, foldings: Sequence[_Folding], batch: Sequence[_Asked], terms: TermsOf, *, sweep: bool) -> "_Kept":
        """Work in the thread. No reply is given before what it says is kept. Raises LedgerError."""
        now, ledger = time.time(), self._ledger
        with ledger.batch():
            for folding in foldings:
                ledger.fold(folding.entries, terms, now)
            replies = [self._reply(asked, terms, now) for asked in batch]
            if sweep:
                ledger.sweep(terms, now)
        lessees = {}
        for asked, reply in zip(batch, replies, strict=True):
            if isinstance(reply, calls.Reserved) and not asked.again and (pots := short_of(reply)):
                lessees[id(asked)] = ledger.lessees(pots, but=asked.webhook)
        report, crowded = None, {}
        if sweep and now >= self._look_at:
            report = BudgetsReport(at=now, pots=ledger.report(terms, now))
            crowded = ledger.lessees(ledger.crowded(terms, now), but="")
            self._look_at = now + LOOKING_SHARE * (time.time() - now)
        return _Kept(replies, lessees, crowded, ledger.paused(now), self._record(), report, terms)

    def _reply(self, asked: _Asked, terms: TermsOf, now: float) -> calls.Reply:
        match asked.request:
            case calls.Reserve() as reserve:
                if not terms.known:
                    return Failed(reason="the hub has not read the resources yet")
                return self._ledger.reserve(reserve, asked.webhook, terms, now)
            case calls.Release() as release:
                return self._ledger.release(release, asked.webhook, now)
            case calls.Disown() as disown:
                return self._ledger.disown(disown, asked.webhook, now, terms)

    def _record(self) -> list[News]:
        """Put on record what happened; what cannot be recorded now stays with the ledger, and is tried again."""
        recorded: list[News] = []
        try:
            for news in self._ledger.news(time.time()):
                self._records.append_own(partial(_record_of, news, self._terms.version))
                self._ledger.told((news,))
                recorded.append(news)
        except StoreError as error:
            _log.error("What happened to a budget cannot be recorded: %s", error)
        return recorded

    def _give(self, asked: _Asked, reply: calls.Reply, lessees: "_Lessees") -> None:
        """Give an answer; where there is no room and others hold leases, these are recalled first."""
        if isinstance(asked.request, calls.Release):
            self.recalls.released(asked.webhook)
        holders = lessees.get(id(asked), {})
        if not isinstance(reply, calls.Reserved) or not isinstance(asked.request, calls.Reserve) or not holders:
            asked.answer(reply)
            return
        second, merge = second_try(asked.request, reply)
        again = _Asked(second, asked.webhook, lambda more: asked.answer(merge(more)), again=True)
        if not self.recalls.recall(holders, lambda: self._try_again(again, reply)):
            asked.answer(reply)

    def _try_again(self, again: _Asked, reply: calls.Reply) -> None:
        """Ask once more, unless the webhook has given the question up: it would never know what it was granted."""
        if self._newest.is_newest(again.webhook, again.request):
            self._put(again)
        else:
            again.answer(reply)

    def _follow(self, kept: "_Kept") -> None:
        for news in kept.recorded:
            self.told(news)
        if kept.report is not None:
            self.report = kept.report
        for writer, pots in kept.crowded.items():
            self.recalls.send(writer, pots)
        pauses = [Paused(pause.budget, pause.scope, pause.reason) for pause in kept.pauses]
        modes = modes_of(pauses, kept.terms.registry)
        if modes != self._modes:
            self._modes = modes
            self.paused(modes)

    def _note(self, problem: str) -> None:
        if problem and not self.problem:
            _log.error("Budgets are not kept: %s", problem)
        elif self.problem and not problem:
            _log.warning("Budgets are kept again")
        self.problem = problem


_Lessees = Mapping[int, Mapping[str, Sequence[calls.PotRef]]]
"""Who holds leases of what had no room, by the identity of the question, then by writer."""


class _Kept(NamedTuple):
    """What came of one commit."""

    replies: Sequence[calls.Reply]
    lessees: "_Lessees"
    crowded: Mapping[str, Sequence[calls.PotRef]]
    """Who holds leases of pots whose limits were lowered below what is taken."""
    pauses: Sequence[Pause]
    recorded: Sequence[News]
    report: BudgetsReport | None
    terms: TermsOf


def _record_of(news: News, version: str, id_: str, writer: str, seq: int) -> Record:
    return BudgetRecord(
        id=id_,
        writer=writer,
        seq=seq,
        time=utc(datetime.fromtimestamp(news.at, UTC)),
        event=news.event,
        budget=news.budget,
        scope=news.scope,
        window=news.window,
        limit=news.limit,
        percent=news.percent,
        amounts=news.amounts,
        agent=news.agent,
        decision_id=news.decision_id,
        reason=news.reason,
        registry_version=version,
    )


def _fail(done: asyncio.Future[None], error: LedgerError) -> None:
    if not done.done():
        done.set_exception(error)


def _nothing(_: object) -> None:
    pass
