"""The audit store: every record the hub has taken in, in SQLite, append-only by the schema itself.

`append` returns once the batch is committed and on the disk, and only then may the hub acknowledge it.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from fleetward.audit.query import RecordQuery, RecordType, utc
from fleetward.audit.record import (
    AccessRefusedRecord,
    BudgetRecord,
    DecisionRecord,
    ModeChangeRecord,
    Record,
    RunRecord,
    decode,
    encode,
)
from fleetward.audit.spoolstate import new_writer_id
from fleetward.audit.storeschema import StoreError, connect, connect_read_only, explained

__all__ = ["ConflictError", "Gap", "Store", "StoreError", "StoreWriter", "StoredRecord"]


class ConflictError(StoreError):
    """A record came in under an id whose record is another one; nothing of its batch was stored."""


class StoredRecord(msgspec.Struct, frozen=True):
    """A record, and where it stands in the store."""

    position: int
    """Counts up in the order of storing; the cursor of whoever reads on."""
    id: str
    type: RecordType
    body: bytes
    """The line as its writer wrote it."""

    @property
    def record(self) -> Record:
        """The record itself."""
        record: Record = decode(self.body)
        return record


class Gap(msgspec.Struct, frozen=True):
    """Numbers of a writer without a record."""

    writer: str
    workload: str
    """Where the writer said it runs; empty where it never said."""
    first: int
    last: int
    state: Literal["Missing", "Awaited"]
    """Missing: later records came in, so these were lost, or passed over by a writer that cannot know how many it lost.
    Awaited: the writer says it has them and has not delivered them so far."""

    @property
    def count(self) -> int:
        """How many numbers."""
        return self.last - self.first + 1


class Store:
    """The store in one SQLite file. Make one with `Store.open`; any thread may call it, and calls block.

    Every method raises StoreError when the file cannot be read or written.
    """

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: sqlite3.Connection | None) -> None:
        self.path = path
        self._reader = reader
        self._writer = writer
        self._reading = threading.Lock()
        self._writing = threading.Lock()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, read_only: bool = False) -> Self:
        """Open the store, made if need be; `read_only` works beside a hub that writes, and never makes one.

        Raises StoreError when the file is missing, foreign, damaged, altered or of another schema version.
        """
        path = Path(path)
        writer = None if read_only else connect(path)
        try:
            return cls(path, connect_read_only(path), writer)
        except BaseException:
            if writer:
                writer.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._writing, self._reading:
            self._reader.close()
            if self._writer:
                self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, lines: Sequence[bytes]) -> None:
        """Store a batch of records in one transaction; return when it is committed. Records already there are skipped.

        Raises ConflictError when a record there has the same id and another body, StoreError when a line is
        not a record or the commit fails. Nothing of the batch is stored then.
        """
        rows = [_row(line) for line in lines]
        with self._transaction() as connection:
            for row in rows:
                _insert(connection, row)

    def append_own(self, build: Callable[[str, str, int], Record]) -> Record:
        """Store a record of the store's own writer, made by `build(id, writer, seq)`; see StoreWriter."""
        with self._transaction() as connection:
            writer = _own_writer(connection)
            last = connection.execute("SELECT max(seq) FROM records WHERE writer = ?", (writer,)).fetchone()[0]
            seq = (last or 0) + 1
            record = build(f"{writer}-{seq}", writer, seq)
            _insert(connection, _row(encode(record)))
        return record

    def identity(self) -> str:
        """Give the id of the store's own writer, which tells it from other stores; made if need be."""
        with self._transaction() as connection:
            return _own_writer(connection)

    def report(self, writer: str, workload: str, seq: int) -> None:
        """Note that `writer`, running as `workload`, says it has spooled records up to `seq`. Never goes back."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO writers VALUES (?, ?, ?) ON CONFLICT (writer) DO UPDATE"
                " SET workload = excluded.workload, reported_seq = max(reported_seq, excluded.reported_seq)",
                (writer, workload, seq),
            )

    def last_seq(self, writer: str) -> int:
        """Give the highest number stored for `writer`; 0 where there is none."""
        row = self._fetch("SELECT max(seq) FROM records WHERE writer = ?", (writer,))[0]
        return row[0] or 0

    def workload_of(self, writer: str) -> str | None:
        """Give the workload that `writer` was last reported under; None for a writer never heard of."""
        rows = self._fetch("SELECT workload FROM writers WHERE writer = ?", (writer,))
        return rows[0][0] if rows else None

    def is_own(self, writer: str) -> bool:
        """Say whether `writer` is the store's own, under which `append_own` numbers."""
        return bool(self._fetch("SELECT 1 FROM own_writer WHERE writer = ?", (writer,)))

    def has_recorded(self, writer: str, agent: str) -> bool:
        """Say whether `writer` has a record about `agent`. Looks through that writer's records, newest first."""
        # The plus keeps SQLite off the index of agents, under which there may be many more.
        return bool(
            self._fetch(
                "SELECT 1 FROM records WHERE writer = ? AND +agent = ? ORDER BY seq DESC LIMIT 1", (writer, agent)
            )
        )

    def last_position(self) -> int:
        """Give the position of the newest record; 0 where there is none."""
        return self._fetch("SELECT max(position) FROM records")[0][0] or 0

    def gaps(self) -> list[Gap]:
        """Find all numbers that writers used, or say they used, and that are not stored."""
        rows = self._fetch(
            """
            WITH held(writer, count, last) AS (SELECT writer, count(*), max(seq) FROM records GROUP BY writer),
            gap(writer, first, last, state) AS (
              SELECT writer, before + 1, seq - 1, 'Missing' FROM (
                SELECT writer, seq, lag(seq, 1, 0) OVER (PARTITION BY writer ORDER BY seq) AS before
                FROM records WHERE writer IN (SELECT writer FROM held WHERE count < last)
              ) WHERE seq > before + 1
              UNION ALL
              SELECT writer, coalesce(last, 0) + 1, reported_seq, 'Awaited'
              FROM writers LEFT JOIN held USING (writer) WHERE reported_seq > coalesce(last, 0)
            )
            SELECT writer, coalesce(workload, ''), first, last, state
            FROM gap LEFT JOIN writers USING (writer) ORDER BY writer, first
            """
        )
        return [Gap(*row) for row in rows]

    def read(self, query: RecordQuery | None = None, after_position: int = 0) -> list[StoredRecord]:
        """Read the records that `query` selects (without one, the first 1000), stored after `after_position`."""
        rest, parameters = (query or RecordQuery()).sql(after_position)
        rows = self._fetch(f"SELECT position, id, type, body FROM {rest}", parameters)  # noqa: S608 - no value is in the text
        return [StoredRecord(position, id_, type_, body.encode()) for position, id_, type_, body in rows]

    def counts(self, after_position: int = 0) -> tuple[dict[tuple[str, str], int], int]:
        """Count the records after a position by type and verdict (empty where a type has none).

        Give the counts and the position up to which they go. Raises StoreError.
        """
        rows = self._fetch(
            "SELECT type, coalesce(decision, ''), count(*), max(position) FROM records"
            " WHERE position > ? GROUP BY 1, 2",
            (after_position,),
        )
        return {(row[0], row[1]): row[2] for row in rows}, max((row[3] for row in rows), default=after_position)

    def data_version(self) -> int:
        """Give a number that changes when another process has written to the store; asking costs next to nothing."""
        version: int = self._fetch("PRAGMA data_version")[0][0]
        return version

    def sink_position(self, name: str) -> int:
        """Give the position up to which sink `name` has everything; 0 for a new one."""
        rows = self._fetch("SELECT position FROM sinks WHERE name = ?", (name,))
        return rows[0][0] if rows else 0

    def set_sink_position(self, name: str, position: int) -> None:
        """Note that sink `name` has everything up to `position`. Never goes back."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO sinks VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position)",
                (name, position),
            )

    def _fetch(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._reading, explained(self.path):
            return self._reader.execute(statement, parameters).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._writer is None:
            raise StoreError(f"the audit store {self.path} is open for reading only")
        with self._writing, explained(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, such as a full disk.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise


class StoreWriter:
    """Writes the hub's own records straight into its store, under a writer's id that the store keeps."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def append_own(self, build: Callable[[str, str, int], Record]) -> Record:
        """Store the record that `build(id, writer, seq)` makes, and return it once committed. Raises StoreError."""
        return self._store.append_own(build)


_Row = tuple[str, str, int, str, RecordType, str | None, str | None, str | None, str | None, str]

_INSERT = (
    "INSERT INTO records(id, writer, seq, time, type, agent, run, decision, decision_id, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _insert(connection: sqlite3.Connection, row: _Row) -> None:
    there = connection.execute("SELECT body FROM records WHERE id = ?", (row[0],)).fetchone()
    if there is None:
        connection.execute(_INSERT, row)
    elif there[0] != row[-1]:
        raise ConflictError(
            f"record {row[0]} is in the store with another body: two writers share the id {row[1]},"
            " or a record was altered on its way"
        )


def _row(line: bytes) -> _Row:
    try:
        record = decode(line)
        time = utc(datetime.fromisoformat(record.time))
        body = line.decode()
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreError(f"not an audit record ({error}): {line[:200]!r}") from error
    if record.id != f"{record.writer}-{record.seq}" or record.seq < 1:
        raise StoreError(
            f"not an audit record: id {record.id} is not its writer and number, {record.writer}-{record.seq}"
        )
    head = (record.id, record.writer, record.seq, time)
    if isinstance(record, ModeChangeRecord):
        return (*head, "ModeChange", record.agent, None, None, None, body)
    if isinstance(record, BudgetRecord):
        return (*head, "Budget", record.agent, None, None, record.decision_id, body)
    if isinstance(record, AccessRefusedRecord):
        return (*head, "AccessRefused", None, None, None, None, body)
    if isinstance(record, RunRecord):
        return (*head, "Run", record.agent, record.run, None, None, body)
    if isinstance(record, DecisionRecord):
        return (*head, "Decision", record.agent, record.run, record.decision, record.id, body)
    return (*head, "Outcome", record.agent, record.run, record.decision, record.decision_id, body)


def _own_writer(connection: sqlite3.Connection) -> str:
    found = connection.execute("SELECT writer FROM own_writer").fetchone()
    if found:
        return str(found[0])
    writer = new_writer_id()
    connection.execute("INSERT INTO own_writer VALUES (?)", (writer,))
    return writer
