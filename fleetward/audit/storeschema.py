"""The audit store's file: its schema, which itself refuses to change or remove a record, and how it is opened.

The guard is made of triggers, so it holds for whatever program opens the file. It keeps mistakes out and it
keeps programs out; somebody who owns the file can still replace it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fleetward.sqlitefile import FileKind, closing_on_error, is_fresh

APPLICATION_ID = 0x46574155
"""Marks the file as an audit store of Fleetward (`PRAGMA application_id`; the letters FWAU)."""

SCHEMA_VERSION = 1
"""`PRAGMA user_version`. Raise it whenever a statement below changes its meaning."""

BUSY_SECONDS = 10.0
"""How long to wait for another process that is writing."""

_TABLES = """
CREATE TABLE records(
  position INTEGER PRIMARY KEY AUTOINCREMENT CHECK (position > 0),
  id TEXT NOT NULL UNIQUE,
  writer TEXT NOT NULL,
  seq INTEGER NOT NULL CHECK (seq > 0),
  time TEXT NOT NULL,
  type TEXT NOT NULL,
  agent TEXT,
  run TEXT,
  decision TEXT,
  decision_id TEXT,
  body TEXT NOT NULL,
  UNIQUE (writer, seq)
) STRICT;
CREATE INDEX records_by_agent ON records(agent, position) WHERE agent IS NOT NULL;
CREATE INDEX records_by_run ON records(run, position) WHERE run IS NOT NULL;
CREATE INDEX records_by_decision_id ON records(decision_id, position) WHERE decision_id IS NOT NULL;
CREATE INDEX records_by_time ON records(time);
CREATE INDEX records_of_modes ON records(position) WHERE type = 'ModeChange';
CREATE TABLE writers(
  writer TEXT PRIMARY KEY,
  workload TEXT NOT NULL,
  reported_seq INTEGER NOT NULL
) STRICT;
CREATE TABLE sinks(
  name TEXT PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT;
CREATE TABLE own_writer(
  writer TEXT PRIMARY KEY
) STRICT;
"""

# A replacing insert deletes without firing delete triggers (unless recursive_triggers is on), so it is caught before.
_TRIGGERS = {
    "records_never_change": """
        CREATE TRIGGER records_never_change BEFORE UPDATE ON records
        BEGIN SELECT RAISE(ABORT, 'the audit store is append-only: a record cannot be changed'); END""",
    "records_never_go": """
        CREATE TRIGGER records_never_go BEFORE DELETE ON records
        BEGIN SELECT RAISE(ABORT, 'the audit store is append-only: a record cannot be deleted'); END""",
    "records_never_replace": """
        CREATE TRIGGER records_never_replace BEFORE INSERT ON records
        WHEN EXISTS (SELECT 1 FROM records WHERE position = NEW.position)
          OR EXISTS (SELECT 1 FROM records WHERE id = NEW.id)
          OR EXISTS (SELECT 1 FROM records WHERE writer = NEW.writer AND seq = NEW.seq)
        BEGIN SELECT RAISE(ABORT, 'the audit store is append-only: a record cannot be replaced'); END""",
}


class StoreError(Exception):
    """The audit store cannot do what was asked; the message says which file, why, and what to do."""


_KIND = FileKind("audit store", "an audit store of Fleetward", APPLICATION_ID, SCHEMA_VERSION, StoreError)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"audit store {path}: {error}") from error


def connect(path: Path) -> sqlite3.Connection:
    """Open the store to write, made if need be. Raises StoreError."""
    _KIND.make(path)
    with explained(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        with closing_on_error(connection):
            fresh = is_fresh(connection)
            if not fresh:
                _check(connection, path)
            _KIND.be_durable(connection, path)
            if fresh:
                _KIND.create(connection, (*_TABLES.split(";"), *_TRIGGERS.values()))
                _check(connection, path)
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open the store to read, while the hub may be writing. Raises StoreError."""
    with explained(path):
        connection = _KIND.connect_read_only(path, BUSY_SECONDS)
        with closing_on_error(connection):
            _check_triggers(connection, path)
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    _KIND.check(connection, path)
    _check_triggers(connection, path)


def _check_triggers(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    if {name: sql.split() for name, sql in found} != {name: sql.split() for name, sql in _TRIGGERS.items()}:
        raise StoreError(
            f"the triggers that keep the audit store {path} append-only were altered: treat its records as"
            " suspect, keep the file for inquiry, and move it aside to start a new store"
        )
