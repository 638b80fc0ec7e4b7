"""Budgets settled by what the audit store holds: each batch as it is stored, and whatever a crash left in between.

A record is stored first and settled then. A hub or a ledger that goes away in between leaves records that are stored
and not settled; mostly they come again, as they were not acknowledged. Where their webhook is gone for good, nobody
sends them again. So the ledger also notes how far into the store all is settled, and what lies beyond is read and
settled when the hub starts, and whenever settling has failed. A ledger that was lost is filled anew in the same way.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from fleetward.audit.query import RecordQuery, RecordType
from fleetward.audit.record import DecisionRecord, OutcomeRecord
from fleetward.audit.store import StoredRecord, StoreError
from fleetward.budget.ledger import Entry, LedgerError
from fleetward_operator.hub.settling import entry_of

PAGE = 1000
"""Records read at once."""

MARK_RECORDS = 10_000
"""After so many records that settle nothing it is noted all the same how far the store is settled."""

_log = logging.getLogger(__name__)


class SettledStore(Protocol):
    """What is needed of `fleetward.audit.store.Store`. All raise StoreError."""

    def identity(self) -> str:
        """Give what tells this store from others."""

    def last_position(self) -> int:
        """Give the position of the newest record; 0 where there is none."""

    def read(self, query: RecordQuery | None = None, after_position: int = 0) -> list[StoredRecord]:
        """Read records stored after a position."""


class Settles(Protocol):
    """What is needed of `budgets.Budgets`. All raise LedgerError."""

    async def fold(self, entries: Sequence[Entry]) -> None:
        """Settle by records; return when that is kept."""

    async def folded(self, writer: str) -> int:
        """Give the number of the last record of a writer that was settled."""


class Settlement:
    """Settles for one audit store. One intake uses it, which appends to the store between its calls."""

    def __init__(self, store: SettledStore, desk: Settles) -> None:
        self._store = store
        self._desk = desk
        self._writer = ""
        self._unmarked = 0
        self.behind = True
        """Whether the store may hold records that are not settled, beside those that are about to be."""
        self.begun = False
        """Whether all that was there at the start is settled: a ledger that was lost is filled by then."""

    async def settle(self, entries: Sequence[Entry], records: int) -> None:
        """Settle by a batch that was just stored, of so many records in all. Raises LedgerError."""
        if self.behind:
            if entries:
                await self._desk.fold(entries)
            return
        self._unmarked += records
        if not entries and self._unmarked < MARK_RECORDS:
            return
        try:
            await self._desk.fold((*entries, self._mark(await asyncio.to_thread(self._store.last_position))))
            self._unmarked = 0
        except LedgerError:
            self.behind = True
            if entries:
                raise

    async def catch_up(self) -> None:
        """Settle by whatever the store holds beyond what is settled; what fails is tried again when this is called."""
        if not self.behind:
            return
        try:
            self._writer = self._writer or f"store:{await asyncio.to_thread(self._store.identity)}"
            position = await self._desk.folded(self._writer)
            while page := await asyncio.to_thread(self._store.read, RecordQuery(types=_TYPES, limit=PAGE), position):
                position = page[-1].position
                entries = [entry for each in page if (entry := _entry(each)) is not None]
                await self._desk.fold((*entries, self._mark(position)))
        except (LedgerError, StoreError, OSError) as error:
            _log.debug("What is stored cannot be settled yet: %s", error)
        else:
            self.behind, self.begun = False, True

    def _mark(self, position: int) -> Entry:
        """Say how far the store is settled, in the way in which it is said of writers."""
        return Entry(writer=self._writer, seq=position, agent="", decision_id="", spends=(), at=0.0, ends=False)


_TYPES: tuple[RecordType, ...] = ("Decision", "Outcome")


def _entry(stored: StoredRecord) -> Entry | None:
    record = stored.record
    return entry_of(record) if isinstance(record, DecisionRecord | OutcomeRecord) else None
