"""The journal's file: its schema, and how it is opened."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

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


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into JournalError."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"journal of runs {path}: {error}") from error


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal for the one process that may, made if need be. Raises JournalError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise JournalError(f"cannot open the journal of runs {path}: {error.strerror}") from error
    with explained(path):
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        # Two hubs that count the same runs apart would each allow what both together must not.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        fresh = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not fresh:
            _check(connection, path)
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        if fresh and not _pragma(connection, "application_id"):
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise JournalError(f"the journal of runs {path} is in use: another hub keeps its runs there") from error
        raise
    if mode != "wal":
        raise JournalError(f"journal of runs {path}: its file system cannot do WAL; put it on a local disk")
    _check(connection, path)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise JournalError(f"{path} is an SQLite file, but not a journal of runs of Fleetward; use another path")
    version = _pragma(connection, "user_version")
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"the journal of runs {path} has schema version {version}, and this Fleetward knows version"
            f" {SCHEMA_VERSION}: use the Fleetward that wrote it, or a newer one"
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
