"""Records on their way into the store: gathered from all links into few transactions, acknowledged once committed."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol

from fleetward.audit.store import ConflictError, StoreError
from fleetward.budget.ledger import Entry
from fleetward.budget.store import LedgerError
from fleetward_operator.hub.lane import Lane
from fleetward_operator.hub.settlement import Settlement

MAX_TRANSACTION_RECORDS = 4096
"""How many records at most go into one transaction."""

MAX_FAILURES_A_ROUND = 3
"""After so many lanes failed one by one, the trouble is the store's and not theirs."""

RETRY_FIRST = 0.1
RETRY_LAST = 5.0
"""Seconds before a store that failed is tried again: at first, and at most."""

_log = logging.getLogger(__name__)


class RecordStore(Protocol):
    """What is needed of `fleetward.audit.store.Store`. All raise StoreError."""

    def append(self, lines: Sequence[bytes]) -> None:
        """Commit the records; those already there are skipped. Raises ConflictError where one is there and differs."""

    def report(self, writer: str, workload: str, seq: int) -> None:
        """Note how far the writer says it has come."""

    def last_seq(self, writer: str) -> int:
        """Give the last number stored for a writer; 0 for none."""

    def workload_of(self, writer: str) -> str | None:
        """Give the workload that a writer was last reported under; None for a writer never heard of."""

    def is_own(self, writer: str) -> bool:
        """Say whether the writer is the hub itself."""

    def has_recorded(self, writer: str, agent: str) -> bool:
        """Say whether there is a record of the writer about the agent."""


class Intake:
    """Takes records from all lanes to the store, in one thread. `committed` is called after each commit.

    A record is acknowledged once it is stored and what it says of budgets is settled.
    """

    def __init__(self, store: RecordStore, committed: Callable[[], None], settlement: Settlement | None = None) -> None:
        self._store = store
        self._committed = committed
        self._settlement = settlement
        self._lanes: dict[Lane, None] = {}
        """In the order in which they are served; one that fails goes to the end."""
        self._reports: dict[str, tuple[str, int]] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleetward-intake")
        self.problem = ""
        """Why the store takes nothing, in words; empty while it does."""

    @property
    def waiting(self) -> int:
        """How many records wait for the store."""
        return sum(len(lane.waiting) for lane in self._lanes)

    async def last_seq(self, writer: str) -> int:
        """Give the last number stored for a writer; 0 where the store cannot say."""
        try:
            return await asyncio.to_thread(self._store.last_seq, writer)
        except (StoreError, OSError):
            return 0

    async def claim(self, writer: str, workload: str) -> None:
        """Check that `writer` is not another workload's. Raises PermissionError where it is, StoreError."""
        if writer in self._reports:  # the store does not have it yet
            known: str | None = self._reports[writer][0]
        else:
            known = await asyncio.to_thread(self._store.workload_of, writer)
        if known not in {None, workload}:
            raise PermissionError(
                f"the writer {writer} belongs to workload {known}, and this is {workload}: a sidecar must have a spool"
                " of its own"
            )
        if await asyncio.to_thread(self._store.is_own, writer):
            raise PermissionError(f"the writer {writer} is the hub itself")

    async def has_recorded(self, writer: str, agent: str) -> bool:
        """Say whether the store has a record of `writer` about `agent`. Raises StoreError."""
        return await asyncio.to_thread(self._store.has_recorded, writer, agent)

    def open(self, lane: Lane) -> None:
        """Serve a lane from now on, and let the store know where its writer runs."""
        self._lanes[lane] = None
        self._report(lane)

    def close(self, lane: Lane) -> None:
        """Serve a lane to its end. While the store fails, drop what waits: the sidecar still has it."""
        lane.closed = True
        if self.problem or not lane.waiting:
            self._remove(lane)

    def put(self, lane: Lane, lines: Sequence[bytes]) -> None:
        """Take records that came over a link. Raises BadRecordsError, and then takes none."""
        lane.take(lines)
        self._idle.clear()
        self._wake.set()

    def spooled(self, lane: Lane, seq: int) -> None:
        """Take a sidecar's word for how far it has come.

        The store is told only of what has not arrived by the next time or the end of the link: that may yet be lost.
        """
        if lane.spooled > lane.stored:
            self._report(lane)
        lane.spooled = max(lane.spooled, seq)

    async def begin(self) -> None:
        """Settle by what is stored already, if that can be done now; else it is tried again as long as this runs."""
        await self._catch_up()

    def wake(self) -> None:
        """Say that what could not be settled may be tried again."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        pause = RETRY_FIRST
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._note(await self._work())
            if not self.problem:
                pause = RETRY_FIRST
                continue
            for lane in [lane for lane in self._lanes if lane.closed]:
                self._remove(lane)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_LAST)
            self._wake.set()

    async def drained(self) -> None:
        """Wait until nothing waits for the store."""
        await self._idle.wait()

    def shut_down(self) -> None:
        """Give the thread back; what it is committing is still committed."""
        self._thread.shutdown(wait=True)

    def _remove(self, lane: Lane) -> None:
        self._lanes.pop(lane, None)
        if lane.spooled > lane.stored:
            self._report(lane)
        if not self.waiting:
            self._idle.set()

    def _report(self, lane: Lane) -> None:
        self._reports[lane.writer] = (lane.workload, lane.spooled)
        self._wake.set()

    async def _work(self) -> str:
        """Commit all that waits; return what went wrong.

        After a failure, the lanes are tried one by one, so that what one sidecar sent holds up no other.
        """
        await self._catch_up()
        while lanes := [lane for lane in self._lanes if lane.waiting]:
            problem = await self._commit(lanes)
            if problem and len(lanes) > 1:
                problem = await self._commit_each(lanes)
            if problem:
                return problem
        self._idle.set()
        return await self._tell_reports()

    async def _commit_each(self, lanes: Sequence[Lane]) -> str:
        problems: list[str] = []
        for lane in lanes:
            if problem := await self._commit([lane]):
                problems.append(problem)
                if lane in self._lanes:
                    self._lanes[lane] = self._lanes.pop(lane)
            if len(problems) == MAX_FAILURES_A_ROUND:
                break
        return problems[0] if problems else ""

    async def _commit(self, lanes: Sequence[Lane]) -> str:
        """Commit what waits in the lanes, in one transaction; return what went wrong."""
        share = max(1, MAX_TRANSACTION_RECORDS // len(lanes))
        parts = [(lane, list(islice(lane.waiting, share))) for lane in lanes]
        lines = [waiting.line for _, part in parts for waiting in part]
        entries = [waiting.entry for _, part in parts for waiting in part if waiting.entry is not None]
        try:
            await self._in_thread(self._store.append, lines)
            await self._settle(entries, len(lines))
        except ConflictError as error:
            if len(lanes) > 1:
                return str(error)
            lanes[0].refuse(str(error))
            lanes[0].waiting.clear()
            self._remove(lanes[0])
            return ""
        except Exception as error:  # noqa: BLE001 - whatever a store refuses must not end the intake of the others
            return _words(error)
        for lane, part in parts:
            lane.committed(len(part))
            if lane.closed and not lane.waiting:
                self._remove(lane)
        self._committed()
        return ""

    async def _settle(self, entries: Sequence[Entry], records: int) -> None:
        if self._settlement is not None:
            await self._settlement.settle(entries, records)
        elif entries:
            raise LedgerError("this hub keeps no budgets, and these records say what was spent of them")

    async def _catch_up(self) -> None:
        if self._settlement is not None:
            await self._settlement.catch_up()
            if self._settlement.behind:
                asyncio.get_running_loop().call_later(RETRY_LAST, self._wake.set)

    async def _tell_reports(self) -> str:
        while self._reports:
            writer, (workload, seq) = next(iter(self._reports.items()))
            try:
                await self._in_thread(self._store.report, writer, workload, seq)
            except (StoreError, OSError) as error:
                return str(error)
            if self._reports[writer] == (workload, seq):
                del self._reports[writer]
        return ""

    async def _in_thread(self, call: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def _note(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.error("Records are not acknowledged, and the sidecars keep them: %s", problem)
        elif self.problem and not problem:
            _log.warning("Records are acknowledged again")
        self.problem = problem


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
