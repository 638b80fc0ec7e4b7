"""The budgets of a replica that keeps no ledger: it asks the one that does, and settles there what its webhooks record.

A ledger in a file is one replica's. What is asked goes out in order, one request at a time, many questions in each. A
question is never asked twice: where its answer is lost, the holder's next question says that nothing arrived. Records
are settled again until they are, which counts once.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

import msgspec

from fleetward.budget import calls
from fleetward.budget.ledger import Entry
from fleetward.budget.report import BudgetsReport, PotReport
from fleetward.budget.store import LedgerError
from fleetward.decision.replies import Failed
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Mode
from fleetward_operator.hub.asks import BudgetAnswer
from fleetward_operator.hub.budgetterms import Paused, modes_of
from fleetward_operator.hub.recalls import Recalls
from fleetward_operator.relay import budgetwire as wire
from fleetward_operator.relay.client import Client, RelayError

LOOK_SECONDS = 1.0
"""How often it is looked which agents budgets pause, and how the pots are."""

_log = logging.getLogger(__name__)


class Keepers(Protocol):
    """Where the ledger is; see `cluster.peers.Peers`."""

    def budget_keeper(self) -> str:
        """Give the base URL of the replica that keeps the ledger. Raises LookupError, in words."""


class _Asked(NamedTuple):
    asked: wire.Asked
    answer: BudgetAnswer


class _Folding(NamedTuple):
    entries: Sequence[Entry]
    done: asyncio.Future[None]


class RemoteBudgets:
    """See `hub.hub.BudgetDesk`. An asynchronous context manager, of one event loop."""

    def __init__(self, keepers: Keepers, client: Client, registry: Callable[[], Registry | None]) -> None:
        self._keepers = keepers
        self._client = client
        self._registry = registry
        self.paused: Callable[[Mapping[str, Mode]], None] = lambda _: None
        self.recalls = Recalls()
        """Nothing is ever called back over two replicas: what is idle comes back by itself."""
        self.filled: Callable[[], bool] = lambda: True
        """Whether all that was on record when the hub started is in the ledger; before that, nothing is granted."""
        self.report = BudgetsReport(at=0.0, pots=())
        self.problem = ""
        self._modes: Mapping[str, Mode] = {}
        self._waiting: deque[_Asked] = deque()
        self._folding: deque[_Folding] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(work()) for work in (self._send_all, self._look)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _fail(self._waiting, self._folding, "the hub stops")

    @property
    def keeps(self) -> bool:
        """Whether the ledger is kept here, and not asked elsewhere."""
        return False

    def pots_of(self, budget: str) -> Sequence[PotReport]:
        """Give what the pots of a budget held when it was last looked."""
        return [pot for pot in self.report.pots if pot.budget == budget]

    def ask(self, request: calls.Request, *, webhook: str, agents: Collection[str], answer: BudgetAnswer) -> None:
        """Have a question answered by whoever keeps the ledger."""
        if isinstance(request, calls.Reserve) and not self.filled():
            answer(Failed(reason="what is on record here is being entered into the ledger of budgets"))
            return
        if len(self._waiting) >= wire.MAX_WAITING:
            answer(Failed(reason=f"{wire.MAX_WAITING} questions about budgets wait already"))
            return
        self._waiting.append(_Asked(wire.Asked(webhook=webhook, agents=tuple(agents), request=request), answer))
        self._wake.set()

    async def fold(self, entries: Sequence[Entry]) -> None:
        """Have records settled by whoever keeps the ledger. Raises LedgerError."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._folding.append(_Folding(entries, done))
        self._wake.set()
        await done

    async def folded(self, writer: str) -> int:
        """Give the number of the last record of a writer that was settled. Raises LedgerError."""
        question = wire.Questions(folded=writer)
        try:
            data = await self._client.post(self._keepers.budget_keeper(), wire.PATH, wire.encode(question))
            answers = wire.answers_to(question, data)
        except (LookupError, RelayError, msgspec.MsgspecError) as error:
            raise LedgerError(f"the ledger of budgets is kept by another replica: {_words(error)}") from None
        if answers.problem:
            raise LedgerError(answers.problem)
        return answers.folded

    async def _send_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self._folding:
                asked = [self._waiting.popleft() for _ in range(min(wire.MAX_QUESTIONS, len(self._waiting)))]
                foldings = [self._folding.popleft() for _ in range(len(self._folding))]
                try:
                    await self._send(asked, foldings)
                except asyncio.CancelledError:
                    _fail(asked, foldings, "the hub stops, and whether it was counted is not known")
                    raise

    async def _send(self, asked: Sequence[_Asked], foldings: Sequence[_Folding]) -> None:
        """Ask, and answer; what is wrong goes to whoever waits."""
        question = wire.Questions(
            asked=tuple(each.asked for each in asked),
            entries=tuple(entry for folding in foldings for entry in folding.entries),
        )
        try:
            data = await self._client.post(self._keepers.budget_keeper(), wire.PATH, wire.encode(question))
            answers = wire.answers_to(question, data)
        except (LookupError, RelayError, msgspec.MsgspecError) as error:
            self.problem = f"the ledger of budgets is kept by another replica: {_words(error)}"
            _fail(asked, foldings, self.problem)
            return
        self.problem = answers.problem
        for each, reply in zip(asked, answers.replies, strict=True):
            each.answer(reply)
        for folding in foldings:
            if answers.problem:
                _fail((), [folding], answers.problem)
            elif not folding.done.done():
                folding.done.set_result(None)

    async def _look(self) -> None:
        while True:
            try:
                self.report = wire.decode_report(
                    await self._client.get(self._keepers.budget_keeper(), wire.REPORT_PATH)
                )
                pauses = [Paused(pot.budget, pot.scope, pot.paused) for pot in self.report.pots if pot.paused]
                modes = modes_of(pauses, self._registry())
                if modes != self._modes:
                    self._modes = modes
                    self.paused(modes)
            except (LookupError, RelayError, msgspec.MsgspecError) as error:
                # What is paused stays so; nothing is granted meanwhile either.
                _log.debug("How budgets are cannot be looked at: %s", error)
            await asyncio.sleep(LOOK_SECONDS)


def _fail(asked: Sequence[_Asked] | deque[_Asked], foldings: Sequence[_Folding] | deque[_Folding], why: str) -> None:
    for each in asked:
        each.answer(Failed(reason=why))
    for folding in foldings:
        if not folding.done.done():
            folding.done.set_exception(LedgerError(why))


def _words(error: BaseException) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
