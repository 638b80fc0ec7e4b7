"""How an SQLite file of Fleetward's own is opened: for its owner only, marked as ours, of the version known here."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of file."""

    name: str
    """What messages call it, such as `audit store`."""
    mark: str
    """What a foreign file is not, such as `an audit store of Fleetward`."""
    application_id: int
    """Marks the file as one of this kind (`PRAGMA application_id`)."""
    schema_version: int
    """`PRAGMA user_version`."""
    error: type[Exception]
    """What is raised, with a message that says which file, why, and what to do."""

    def make(self, path: Path) -> None:
        """Make the file and its folder, readable by their owner only, where they are missing. Raises `error`."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise self.error(f"cannot open the {self.name} {path}: {error.strerror}") from error

    def be_durable(self, connection: sqlite3.Connection, path: Path) -> None:
        """See to it that what is committed is on the disk, and that others can read meanwhile. Raises `error`."""
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise self.without_wal(path)
        connection.execute("PRAGMA synchronous = FULL")

    def without_wal(self, path: Path) -> Exception:
        """Give what to raise where the file system cannot do WAL."""
        return self.error(f"{self.name} {path}: its file system cannot do WAL; put it on a local disk")

    def create(self, connection: sqlite3.Connection, statements: Iterable[str]) -> None:
        """Lay out a fresh file by these statements, and mark it; any other is left as it is."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been first.
            if is_fresh(connection):
                self.lay_out(connection, statements)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def lay_out(self, connection: sqlite3.Connection, statements: Iterable[str]) -> None:
        """Run the statements and mark the file, within a transaction that has begun."""
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {self.application_id}")
        connection.execute(f"PRAGMA user_version = {self.schema_version}")

    def check(self, connection: sqlite3.Connection, path: Path) -> None:
        """Refuse a file of another program, or of another version. Raises `error`."""
        if pragma(connection, "application_id") != self.application_id:
            raise self.error(f"{path} is an SQLite file, but not {self.mark}; use another path")
        version = pragma(connection, "user_version")
        if version != self.schema_version:
            raise self.error(
                f"the {self.name} {path} has schema version {version}, and this Fleetward knows version"
                f" {self.schema_version}: use the Fleetward that wrote it, or a newer one"
            )

    def connect_read_only(self, path: Path, busy_seconds: float) -> sqlite3.Connection:
        """Open the file to read, while the hub may be writing. Raises `error`, and SQLite's own."""
        if not path.exists():
            raise self.error(f"there is no {self.name} at {path}; `fleetward serve` writes one")
        options = "mode=ro"
        if not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
            # Nobody is writing, and SQLite could not make the files it shares with a writer.
            options += "&immutable=1"
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{options}",
            uri=True,
            timeout=busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        with closing_on_error(connection):
            if is_fresh(connection):
                raise self.error(f"the {self.name} {path} is empty: no hub has written to it yet")
            self.check(connection, path)
        return connection


@contextlib.contextmanager
def closing_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    """Close the connection where the block fails."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def is_fresh(connection: sqlite3.Connection) -> bool:
    """Say whether nothing was ever made in the file."""
    objects = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return not objects and not pragma(connection, "application_id")


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Give a number that SQLite keeps with the file."""
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
