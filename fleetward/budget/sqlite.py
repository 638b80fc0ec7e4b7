"""A ledger in one SQLite file. What is committed is on the disk: a ledger that forgot would grant twice."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fleetward.budget.sql import TABLES, LedgerStore
from fleetward.budget.store import SCHEMA_VERSION, LedgerError

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


class SqliteLedgerStore(LedgerStore):
    """Keeps a ledger in a file. One thread uses it; other processes may have the same file open."""

    author = "owner"

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        """Open the file, made if need be. Raises LedgerError when it is missing, foreign, or of another version."""
        self.path = Path(path)
        self._read_only = read_only
        self._seen = -1
        with self._explained():
            self._connection = self._connect_read_only() if read_only else self._connect()

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
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise LedgerError(f"cannot open the ledger of budgets {self.path}: {error.strerror}") from error
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            if not _is_fresh(connection):
                self._check(connection)
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise LedgerError(  # noqa: TRY301 - the connection is closed below, whatever is wrong
                    f"ledger of budgets {self.path}: its file system cannot do WAL; put it on a local disk"
                )
            connection.execute("PRAGMA synchronous = FULL")
            _create(connection)
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_read_only(self) -> sqlite3.Connection:
        if not self.path.exists():
            raise LedgerError(f"there is no ledger of budgets at {self.path}; `fleetward serve` writes one")
        options = "mode=ro"
        if not os.access(self.path.parent, os.W_OK) and not Path(f"{self.path}-wal").exists():
            # Nobody is writing, and SQLite could not make the files it shares with a writer.
            options += "&immutable=1"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{options}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if _is_fresh(connection):
                raise LedgerError(  # noqa: TRY301 - as above
                    f"the ledger of budgets {self.path} is empty: no hub has written to it yet"
                )
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        if _pragma(connection, "application_id") != APPLICATION_ID:
            raise LedgerError(f"{self.path} is an SQLite file, but not a ledger of Fleetward; use another path")
        version = _pragma(connection, "user_version")
        if version != SCHEMA_VERSION:
            raise LedgerError(
                f"the ledger of budgets {self.path} has schema version {version}, and this Fleetward knows version"
                f" {SCHEMA_VERSION}: use the Fleetward that wrote it, or a newer one"
            )


def _is_fresh(connection: sqlite3.Connection) -> bool:
    objects = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return not objects and not _pragma(connection, "application_id")


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been first.
        if _is_fresh(connection):
            for statement in TABLES.format(**_TYPES).split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
