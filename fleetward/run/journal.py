"""The journal: the events of all runs in SQLite, so that a hub that was killed counts on where it stopped.

    with store.batch() as book:
        replies = [book.step(request, now) for request in waiting]
    # The batch is committed here; only now may a reply be given.

A commit is in the hands of the operating system when it returns, which is enough for a process that is killed at any
point. Where the machine itself stops, the last commits may be lost (`synchronous = NORMAL`), and never part of one.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import msgspec

from fleetward.run.book import Book, new_id
from fleetward.run.bounds import Bounds
from fleetward.run.events import RunForgotten, decode_event, encode_event
from fleetward.run.journalschema import JournalError, connect, explained

__all__ = ["JournalError", "RunStore"]

_DELETED_AT_ONCE = 500
"""How many events of forgotten runs a commit deletes beside its own work."""


class RunStore:
    """A book whose events are kept in one SQLite file. Make one with `RunStore.open`; one thread uses it.

    Where a commit fails, the book is ahead of the file: what was reserved stays counted, its events wait, and the next
    batch begins with them. Every reply of the batch that failed has to be "cannot be said now".
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, book: Book) -> None:
        self.path = path
        self.book = book
        self._connection = connection
        self._forgotten: list[int] = []

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], bounds: Bounds | None = None, *, ids: Callable[[str], str] = new_id
    ) -> Self:
        """Open the journal, made if need be, and replay it.

        Raises JournalError when the file cannot be opened, is foreign, damaged, of another schema version, or in use.
        """
        path = Path(path)
        connection = connect(path)
        try:
            store = cls(path, connection, Book(bounds, ids=ids))
            store._replay()
        except BaseException:
            connection.close()
            raise
        return store

    def close(self) -> None:
        """Close the file. What waits for a commit gets one more try. Raises JournalError."""
        try:
            self._commit()
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def batch(self) -> Iterator[Book]:
        """Give the book for some requests; what they changed is committed when the block ends, also by an exception.

        Raises JournalError before anything is done, where an earlier batch still waits and cannot be committed; or at
        the end, where this one cannot.
        """
        self._commit()
        try:
            yield self.book
        finally:
            self._commit()

    def _commit(self) -> None:
        """Write the events that wait, in one transaction. Raises JournalError; they wait on then."""
        events = self.book.unsaved
        if not events:
            return
        gone = [number for number, event in events if isinstance(event, RunForgotten)]
        with explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT INTO events(run, body) VALUES (?, ?)",
                    [(number, encode_event(event)) for number, event in events],
                )
                if gone:
                    self._connection.executemany("INSERT INTO forgotten VALUES (?)", [(number,) for number in gone])
                deleted = self._delete_some()
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, such as a full disk.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        events.clear()
        if deleted:
            self._forgotten.pop()
        self._forgotten += gone

    def _delete_some(self) -> bool:
        """Delete some of what is left of a forgotten run; say whether that was all of it."""
        if not self._forgotten:
            return False
        number = self._forgotten[-1]
        done = self._connection.execute(
            "DELETE FROM events WHERE position IN (SELECT position FROM events WHERE run = ? LIMIT ?)",
            (number, _DELETED_AT_ONCE),
        )
        if done.rowcount == _DELETED_AT_ONCE:
            return False
        self._connection.execute("DELETE FROM forgotten WHERE run = ?", (number,))
        return True

    def _replay(self) -> None:
        ledger = self.book.ledger
        with explained(self.path):
            self._forgotten = [row[0] for row in self._connection.execute("SELECT run FROM forgotten")]
            rows = self._connection.execute(
                "SELECT position, run, body FROM events WHERE run NOT IN (SELECT run FROM forgotten) ORDER BY position"
            )
            for position, number, body in rows:
                try:
                    ledger.apply(number, decode_event(body))
                except (msgspec.MsgspecError, KeyError) as error:
                    raise JournalError(
                        f"the journal of runs {self.path} is damaged at event {position} ({error!r}): keep the file for"
                        " inquiry, and move it aside to start a new one; the runs in it will be unknown"
                    ) from error
            # Numbers of runs whose events are still being deleted are not given again.
            ledger.last_number = max([ledger.last_number, *self._forgotten])
