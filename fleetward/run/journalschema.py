"""The journal's file: its schema, and how it is opened."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fleetward.sqlitefile import FileKind, closing_on_error, pragma

APPLICATION_ID = 0x4657524A
"""Marks the file as a journal of runs of Fleetward (`PRAGMA application_id`; the letters FWRJ)."""

SCHEMA_VERSION = 1
"""`PRAGMA user_version`. Raise it whenever a statement below, or an event, changes its meaning."""

_TABLES = """
CREATE TABLE events(
  position INTEGER PRIMARY KEY,
  run INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE INDEX events_by_run ON events(run, position);
CREATE TABLE forgotten(
  run INTEGER PRIMARY KEY
) STRICT;
"""


class JournalError(Exception):
    """The journal of runs cannot be read or written; the message says which file, why, and what to do."""


_KIND = FileKind("journal of runs", "a journal of runs of Fleetward", APPLICATION_ID, SCHEMA_VERSION, JournalError)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into JournalError."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"journal of runs {path}: {error}") from error


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal for the one process that may, made if need be. Raises JournalError."""
    _KIND.make(path)
    with explained(path):
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        with closing_on_error(connection):
            _prepare(connection, path)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        # Two hubs that count the same runs apart would each allow what both together must not.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        fresh = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not fresh:
            _KIND.check(connection, path)
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        if fresh and not pragma(connection, "application_id"):
            _KIND.lay_out(connection, _TABLES.split(";"))
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise JournalError(f"the journal of runs {path} is in use: another hub keeps its runs there") from error
        raise
    if mode != "wal":
        raise _KIND.without_wal(path)
    _KIND.check(connection, path)
