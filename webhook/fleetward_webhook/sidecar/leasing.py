"""Leases from the hub's budgets: asked for many actions at a time, and given back when idle, recalled, or at the end.

One question for leases is under way at a time; what is asked for meanwhile goes into the next. So the hub can trust
what this webhook says it holds, and a busy webhook asks no more often than answers come.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from fleetward.audit.spool import Pending, SpoolError
from fleetward.budget.calls import (
    MAX_WISHES,
    Disown,
    Grant,
    Holding,
    Lease,
    Need,
    PotRef,
    Release,
    Reserved,
    Short,
    Wish,
)
from fleetward.budget.purse import Purse
from fleetward.decision.action import Spend
from fleetward.decision.replies import Done, Failed
from fleetward_webhook.sidecar.authority import boottime
from fleetward_webhook.sidecar.questions import Questions

TEND_SECONDS = 0.25
"""How often idle leases are looked for."""

MAX_TRIES = 3
"""How often an action is asked for whose lease had ended before it came."""

_log = logging.getLogger(__name__)


class Records(Protocol):
    """What is needed of `fleetward.audit.spool.Spool`."""

    @property
    def next_seq(self) -> int:
        """The number that the next record gets."""

    @property
    def acknowledged_seq(self) -> int:
        """Every record up to this number is in the hub's store."""

    @property
    def pending(self) -> Pending:
        """How many records, of how many bytes, are not acknowledged."""

    @property
    def lost(self) -> bool:
        """Whether records of earlier processes may be lost."""

    def accounted(self) -> None:
        """Take note that what was lost is accounted for. Raises SpoolError."""


class _Asked:
    __slots__ = ("future", "tries", "wish")

    def __init__(self, wish: Wish, future: "asyncio.Future[Answer]") -> None:
        self.wish, self.future, self.tries = wish, future, 0

    def answer(self, answer: "Answer") -> None:
        if not self.future.done():
            self.future.set_result(answer)


Answer = tuple[Spend, ...] | Short | Failed


class Leases:
    """What this process holds on lease. Lives on the service's loop; `run` tends it."""

    def __init__(self, questions: Questions, records: Records, clock: Callable[[], float] = boottime) -> None:
        self._questions = questions
        self._records = records
        self._clock = clock
        self._purse = Purse(born=secrets.token_hex(8))
        self._waiting: list[_Asked] = []
        self._asking: asyncio.Task[None] | None = None
        self._returning: set[asyncio.Task[bool]] = set()
        self._earlier = records.next_seq - 1
        """The last record from before this process; 0 where there is none."""
        self._disowned = False
        self._unsure: dict[tuple[str, str], Wish] = {}
        """Pots that were asked about without an answer, each with what only says what is held of it."""
        self.asked = 0
        """Questions for leases that were put to the hub."""
        questions.recalled = self._recalled

    @property
    def born(self) -> str:
        """Identifies this process to the ledger."""
        return self._purse.born

    def __len__(self) -> int:
        return len(self._purse)

    def take(self, needs: Sequence[Need]) -> tuple[Spend, ...] | None:
        """Take what an action needs from the leases held; None, with nothing taken, where they do not suffice."""
        return self._purse.take(needs, self._clock())

    def put_back(self, spends: Sequence[Spend]) -> None:
        """Take back what an action will not use after all, and that is on no record."""
        self._purse.put_back(spends)

    async def ask(self, wish: Wish) -> Answer:
        """Ask the hub for what an action needs, and take it; Failed where it cannot say."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(wish, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and isinstance(spends := future.result(), tuple):
                self.put_back(spends)
            raise

    async def run(self) -> None:
        """Give back what lies idle, and have the leases of earlier processes taken back. Ends by cancellation."""
        while True:
            await asyncio.sleep(TEND_SECONDS)
            try:
                await self._tend()
            except Exception:  # noqa: BLE001 - what is on lease would stay there
                _log.exception("Leases could not be tended")

    async def _tend(self) -> None:
        if (release := self._purse.release(self._clock())) is not None:
            await self._return(release)
        if self._asking is None and not self._records.pending.records:
            self._purse.forget(self._clock())
        if not self._disowned and self._delivered():
            await self._disown()
        if self._unsure and self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())

    async def close(self) -> None:
        """Give everything back. Give it a time limit, for there may be no hub."""
        while (release := self._purse.release(self._clock(), everything=True)) is not None:
            if not await self._return(release):
                await asyncio.sleep(TEND_SECONDS)

    # Asking

    async def _ask_all(self) -> None:
        batch: list[_Asked] = []
        try:
            if self._unsure and not self._waiting:
                await self._make_sure()
            while batch := self._next():
                await self._ask(batch)
        except Exception:  # noqa: BLE001 - those who wait would wait for ever
            _log.exception("Leases could not be asked for")
            for asked in (*batch, *self._waiting):
                asked.answer(Failed(reason="the webhook failed while it asked for leases"))
            self._waiting.clear()
        finally:
            self._asking = None

    def _next(self) -> list[_Asked]:
        """Give those to be asked for next; whoever can be served from what the last answer brought is."""
        batch: list[_Asked] = []
        while self._waiting and len(batch) < MAX_WISHES:
            asked = self._waiting.pop(0)
            if asked.future.done():
                continue
            spends = None if batch else self.take(asked.wish.needs)
            if spends is None:
                batch.append(asked)
            else:
                asked.answer(spends)
        return batch

    async def _ask(self, batch: Sequence[_Asked]) -> None:
        asked_at = self._clock()
        question = self._purse.question([asked.wish for asked in batch], asked_at)
        self.asked += 1
        reply = await self._questions.ask(question)
        if not isinstance(reply, Reserved) or len(reply.answers) != len(batch):
            failed = reply if isinstance(reply, Failed) else Failed(reason="the hub answered something else")
            for asked in batch:
                self._unsure |= _said_only(asked.wish)
                asked.answer(failed)
            return
        for need in (need for asked in batch for need in asked.wish.needs):
            self._unsure.pop((need.budget, need.scope), None)
        # Of a window that is over by now the hub heard nothing; that is told by a release.
        open_ = {_window_of(grant) for each in reply.answers if isinstance(each, Lease) for grant in each.grants}
        self._purse.heard(holding for holding in question.holdings if _window_of(holding) in open_)
        for asked, answer in zip(batch, reply.answers, strict=True):
            self._take_answer(asked, answer, asked_at)

    async def _make_sure(self) -> None:
        """Tell the hub what is held of pots that it may have granted from in an answer that never came."""
        unsure = dict(list(self._unsure.items())[:MAX_WISHES])
        wishes = tuple(unsure.values())
        question = self._purse.question(wishes, self._clock())
        reply = await self._questions.ask(msgspec.structs.replace(question, wishes=wishes))  # it wants nothing besides
        if isinstance(reply, Reserved):
            for pot in unsure:
                del self._unsure[pot]

    def _take_answer(self, asked: _Asked, answer: Lease | Short, asked_at: float) -> None:
        if isinstance(answer, Short):
            asked.answer(answer)
            return
        self._purse.granted(answer, asked_at)
        if asked.future.done():
            return  # nobody waits for it any more; what came is for others
        spends = self.take(asked.wish.needs)
        asked.tries += 1
        if spends is not None:
            asked.answer(spends)
        elif asked.tries < MAX_TRIES:
            self._waiting.append(asked)
        else:
            asked.answer(Failed(reason="what the hub granted had ended before it came"))

    # Giving back

    def _recalled(self, pots: Sequence[PotRef]) -> None:
        # An answer that came just before is still on its way to the purse.
        asyncio.get_running_loop().call_soon(self._give_back, pots)

    def _give_back(self, pots: Sequence[PotRef]) -> None:
        # Said also where there is nothing to give back: the hub waits for a word.
        release = self._purse.release(self._clock(), pots=pots) or Release(born=self.born, holdings=())
        task = asyncio.create_task(self._return(release))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _return(self, release: Release) -> bool:
        """Tell the hub what was given back; say whether it knows. What it does not know is told again."""
        known = isinstance(await self._questions.ask(release), Done)
        if known:
            self._purse.heard(release.holdings)
        return known

    def _delivered(self) -> bool:
        """Say whether the hub has every record from before this process; numbers may have been left out."""
        return self._records.acknowledged_seq >= self._earlier or not self._records.pending.records

    async def _disown(self) -> None:
        reply = await self._questions.ask(Disown(born=self.born, lost=self._records.lost))
        if isinstance(reply, Done):
            self._disowned = True
            try:
                self._records.accounted()
            except SpoolError as error:  # the next process says so once more
                _log.error("%s", error)


def _window_of(part: Grant | Holding) -> tuple[str, str, str]:
    return part.budget, part.scope, part.window


def _said_only(wish: Wish) -> dict[tuple[str, str], Wish]:
    """Give, for each pot that an action needs, what asks for nothing of it: the question says what is held of it."""
    return {
        (need.budget, need.scope): Wish(
            agent=wish.agent,
            needs=(Need(budget=need.budget, scope=need.scope, amounts=dict.fromkeys(need.amounts, 0)),),
            run=wish.run,
        )
        for need in wish.needs
    }
