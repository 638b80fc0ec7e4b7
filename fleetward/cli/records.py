"""Where `fleetward audit` reads: the store of a folder, or the hubs of a cluster."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from fleetward.audit.query import RecordQuery
from fleetward.audit.store import Gap, Store, StoredRecord, StoreError
from fleetward.cli.output import CliError

PAGE = 1000

EVERYTHING = 2**63 - 1


class Following(Protocol):
    """Records as they are stored."""

    newest: Sequence[StoredRecord]
    """What was there already, oldest first."""

    def more(self) -> Iterator[Sequence[StoredRecord]]:
        """Give what came since this was last asked, without waiting."""

    def lost(self) -> Sequence[Gap]:
        """Give the gaps that showed since this was last asked, without those whose records may be on their way."""


class Records(Protocol):
    """A trail of records. Every method raises CliError where it cannot be read."""

    where: str
    """What is read, in words."""

    def newest(self, query: RecordQuery, limit: int) -> tuple[list[StoredRecord], bool]:
        """Give the newest records that `query` selects, in the order of their times, and whether there are more.

        Without a limit (0), all.
        """

    def select(self, query: RecordQuery) -> list[StoredRecord]:
        """Give all the records that `query` selects."""

    def each(self, query: RecordQuery) -> Iterator[StoredRecord]:
        """Give them one by one, and hold no more than a page of them; a record may come before one that is older."""

    def gaps(self) -> list[Gap]:
        """Give the numbers that writers used and that are not stored."""

    def follow(self, query: RecordQuery, limit: int) -> AbstractContextManager[Following]:
        """Follow the records that `query` selects, from the newest `limit` on."""


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Records]:
    """Open a store for reading. CliError where it cannot be read."""
    try:
        with Store.open(path, read_only=True) as store:
            yield StoreRecords(store)
    except StoreError as error:
        raise CliError(str(error)) from None


class StoreRecords:
    """The records of one store, which another process may be writing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.where = str(store.path)

    def newest(self, query: RecordQuery, limit: int) -> tuple[list[StoredRecord], bool]:
        """Give the newest records and whether there are more."""
        wanted = limit + 1 if limit else EVERYTHING
        records = self._store.read(replace(query, limit=wanted, order="NewestFirst"))
        more = bool(limit) and len(records) > limit
        # The store has them as they came in; a reader wants to see what happened in the order it did.
        return sorted(records[: len(records) - more], key=lambda each: (each.record.time, each.position)), more

    def select(self, query: RecordQuery) -> list[StoredRecord]:
        """Give all the records that `query` selects."""
        return self._store.read(replace(query, limit=EVERYTHING))

    def each(self, query: RecordQuery) -> Iterator[StoredRecord]:
        """Give them page by page, in the order they came in."""
        position = 0
        while page := self._store.read(replace(query, limit=PAGE), position):
            yield from page
            position = page[-1].position

    def gaps(self) -> list[Gap]:
        """Give the numbers that are not stored."""
        return self._store.gaps()

    @contextlib.contextmanager
    def follow(self, query: RecordQuery, limit: int) -> Iterator[Following]:
        """Follow the store."""
        yield _FollowedStore(self, self._store, query, limit)


class _FollowedStore:
    def __init__(self, records: StoreRecords, store: Store, query: RecordQuery, limit: int) -> None:
        self._store = store
        self._query = replace(query, limit=PAGE)
        self._told = store.gaps()
        self._position, self._version = store.last_position(), store.data_version()
        self._stirred = False
        self.newest: Sequence[StoredRecord] = records.newest(query, limit)[0]
        self._position = max([self._position, *(stored.position for stored in self.newest)])

    def more(self) -> Iterator[Sequence[StoredRecord]]:
        """Give what came in, page by page."""
        version = self._store.data_version()
        self._stirred = version != self._version
        self._version = version
        while self._stirred and (page := self._store.read(self._query, self._position)):
            self._position = page[-1].position
            yield page

    def lost(self) -> Sequence[Gap]:
        """Give the new gaps."""
        if not self._stirred:
            return ()
        # What is awaited is on its way, most of the time.
        gaps = [gap for gap in self._store.gaps() if gap.state == "Missing"]
        told, self._told = self._told, gaps
        return [gap for gap in gaps if gap not in told]
