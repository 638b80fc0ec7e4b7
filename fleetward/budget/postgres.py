"""A ledger in PostgreSQL, for hubs that run replicated.

A transaction of a ledger takes pots in an order that nobody can know before, so rows locked one by one could lock each
other up. Each transaction takes one advisory lock instead, for a few milliseconds: the hubs of one database take turns,
and each sees all that the others have committed. A hub whose turn follows its own last one knows what it read before.
"""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from fleetward.budget.sql import TABLES, LedgerStore
from fleetward.budget.store import SCHEMA_VERSION, LedgerError

LOCK = 0x46574247
"""The advisory lock that a transaction holds (the letters FWBG)."""

CONNECT_SECONDS = 5
TURN_SECONDS = 10
"""How long a transaction waits for its turn."""
HELD_SECONDS = 15
"""How long a hub that stopped in the middle of a transaction may keep the others from theirs."""

_TYPES = {
    # Not the database's language, but the bytes, say what is equal and what comes first.
    "text": 'TEXT COLLATE "C"',
    "real": "DOUBLE PRECISION",
    "blob": "BYTEA",
    "counter": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "options": "",
}

_SETTINGS = {
    "client_min_messages": "warning",
    "synchronous_commit": "on",
    "lock_timeout": f"{TURN_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{HELD_SECONDS}s",
}


class PostgresLedgerStore(LedgerStore):
    """Keeps a ledger in a database. It connects when it is first used, and again after the connection was lost."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.author = uuid.uuid4().hex
        self._url = url
        self._read_only = read_only
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._turn = -1
        self._wrote = False
        with self._explained():
            self._name = _public_name(url)

    def begin(self) -> bool:
        """Begin a transaction; see LedgerStore."""
        with self._explained():
            connection = self._connection or self._connect()
            lock = "pg_advisory_xact_lock_shared" if self._read_only else "pg_advisory_xact_lock"
            cursor = connection.execute(
                f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT {lock}({LOCK}); SELECT turn, author FROM budget_head"  # noqa: S608 - ours
            )
            while cursor.nextset():
                pass
            found = cursor.fetchone()
        if found is None:
            raise LedgerError(f"the ledger of budgets in {self._name} has lost its head: keep the database for inquiry")
        turn, author = found
        same: bool = turn == self._turn and author == self.author
        self._turn, self._wrote = turn, False
        return same

    def commit(self) -> None:
        """End the transaction. Raises LedgerError."""
        with self._explained():
            if self._wrote:
                self._turn += 1
                # In one message with the commit, so that it costs no time of its own.
                self._live().execute(
                    f"UPDATE budget_head SET turn = {self._turn}, author = '{self.author}'; COMMIT"  # noqa: S608 - ours
                )
            else:
                self._live().execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction as if it had not been."""
        self._turn = -1
        if self._connection is None:
            return
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self._drop()

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self._wrote = self._wrote or not statement.startswith("SELECT")
        with self._explained():
            return self._live().execute(statement.replace("?", "%s"), parameters).fetchall()

    def _many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        self._wrote = True
        with self._explained(), self._live().cursor() as cursor:
            cursor.executemany(statement.replace("?", "%s"), rows)

    def _listed(self, width: int) -> str:
        columns = ", ".join(f"one ->> {index}" for index in range(width))
        return f"SELECT {columns} FROM json_array_elements(?::json) AS one"  # noqa: S608 - numbers

    def _live(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            raise LedgerError(f"ledger of budgets in {self._name}: the connection was lost")
        return self._connection

    def _drop(self) -> None:
        self._turn = -1
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors into LedgerError, and let go of a connection that is lost, or in a state nobody knows."""
        try:
            yield
        except psycopg.Error as error:
            self._turn = -1
            if self._connection is not None and self._connection.broken:
                self._drop()
            raise LedgerError(f"ledger of budgets in {self._name}: {' '.join(str(error).split())}") from error

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(
            self._url, autocommit=True, connect_timeout=CONNECT_SECONDS
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        for name, value in _SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            there = connection.execute("SELECT to_regclass('budget_head')").fetchone()
            if there == (None,):
                if self._read_only:
                    raise LedgerError(f"there is no ledger of budgets in {self._name}: no hub has written to it yet")
                for statement in TABLES.format(**_TYPES).split(";"):
                    connection.execute(statement)
                connection.execute("CREATE TABLE budget_head(version INT, turn BIGINT, author TEXT)")
                connection.execute("INSERT INTO budget_head VALUES (%s, 0, '')", (SCHEMA_VERSION,))
            found = connection.execute("SELECT version FROM budget_head").fetchone()
        version = found[0] if found else None
        if version != SCHEMA_VERSION:
            raise LedgerError(
                f"the ledger of budgets in {self._name} has schema version {version}, and this Fleetward knows version"
                f" {SCHEMA_VERSION}: use the Fleetward that wrote it, or a newer one"
            )


def _public_name(url: str) -> str:
    """Name a database without what its address says of passwords."""
    parts = conninfo_to_dict(url)
    return f"PostgreSQL {parts.get('host') or 'localhost'}/{parts.get('dbname') or ''}"
