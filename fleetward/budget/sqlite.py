"""A ledger in one SQLite file. What is committed is on the disk: a ledger that forgot would grant twice."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fleetward.budget.sql import TABLES, LedgerStore
from fleetward.budget.store import SCHEMA_VERSION, LedgerError
from fleetward.sqlitefile import FileKind, closing_on_error, is_fresh

APPLICATION_ID = 0x46574247
"""Marks the file as a ledger of Fleetward (`PRAGMA application_id`; the letters FWBG)."""

BUSY_SECONDS = 30.0
"""How long a transaction waits for another one."""

_TYPES = {
    "text": "TEXT",
    "real": "REAL",
    "blob": "BLOB",
    "counter": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "options": " WITHOUT ROWID",
}

_KIND = FileKind("ledger of budgets", "a ledger of Fleetward", APPLICATION_ID, SCHEMA_VERSION, LedgerError)


class SqliteLedgerStore(LedgerStore):
    """Keeps a ledger in a file. One thread uses it; other processes may have the same file open."""

    author = "owner"

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        """Open the file, made if need be. Raises LedgerError when it is missing, foreign, or of another version."""
        self.path = Path(path)
        self._read_only = read_only
        self._seen = -1
        with self._explained():
            self._connection = _KIND.connect_read_only(self.path, BUSY_SECONDS) if read_only else self._connect()

    def begin(self) -> bool:
        """Begin a transaction; see LedgerStore."""
        with self._explained():
            self._connection.execute("BEGIN" if self._read_only else "BEGIN IMMEDIATE")
            seen: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        same = seen == self._seen
        self._seen = seen
        return same

    def commit(self) -> None:
        """End the transaction. Raises LedgerError."""
        with self._explained():
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction as if it had not been."""
        # SQLite has rolled back by itself after some errors, such as a full disk.
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        with self._explained():
            self._connection.close()

    def _query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._connection.execute(statement, parameters).fetchall()

    def _many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._explained():
            self._connection.executemany(statement, rows)

    def _listed(self, width: int) -> str:
        columns = ", ".join(f"json_extract(value, '$[{index}]')" for index in range(width))
        return f"SELECT {columns} FROM json_each(?)"  # noqa: S608 - numbers

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            raise LedgerError(f"ledger of budgets {self.path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        _KIND.make(self.path)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        with closing_on_error(connection):
            if not is_fresh(connection):
                _KIND.check(connection, self.path)
            _KIND.be_durable(connection, self.path)
            _KIND.create(connection, TABLES.format(**_TYPES).split(";"))
            _KIND.check(connection, self.path)
        return connection
