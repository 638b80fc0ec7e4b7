"""What a ledger is kept in. All that is done happens in transactions, one after another, also those of several hubs.

The stores know rows and nothing of budgets: what may be granted is decided in `ledger` alone, and one suite of tests
holds for all of them (`tests/budget/test_contract.py`).
"""

import os
from typing import TYPE_CHECKING, NamedTuple

from fleetward.budget.pot import PotKey

if TYPE_CHECKING:
    from fleetward.budget.sql import LedgerStore

SCHEMA_VERSION = 1
"""Raise it whenever a table changes, or what its rows mean."""


class LedgerError(Exception):
    """The ledger cannot be read or written, or what was asked of it makes no sense; the message says which and why."""


class PotRow(NamedTuple):
    """One window of a pot."""

    key: PotKey
    ends_at: float | None
    paused: bool
    leased: bool
    """Whether a holder has a lease of it."""
    body: bytes


class ReservationRow(NamedTuple):
    """What one action reserved in one pot."""

    decision: str
    key: PotKey
    due: float
    """When it is settled at the estimate; or, where it was, when it is forgotten. In seconds since the epoch."""
    body: bytes


class HistoryRow(NamedTuple):
    """What an agent used of one limit of a pot in one step of time. Rows of the same names are added up."""

    key: PotKey
    step: int
    """When the step began, in seconds since the epoch; -1: what is reserved now."""
    agent: str
    limit: str
    amount: int


RESERVED_STEP = -1


def open_ledger_store(place: str | os.PathLike[str], *, read_only: bool = False) -> "LedgerStore":
    """Open the store of a ledger: `postgresql://...`, or the path of an SQLite file; made if need be.

    `read_only` works beside a hub that writes, and never makes one. Raises LedgerError when it cannot be opened, is
    foreign, or of another schema version; a PostgreSQL server that is away now is asked again with each transaction.
    """
    text = os.fspath(place)
    if text.startswith(("postgresql://", "postgres://")):
        try:
            from fleetward.budget.postgres import PostgresLedgerStore  # noqa: PLC0415 - an extra, where it is asked for
        except ImportError as error:
            raise LedgerError(
                "the ledger is to be kept in PostgreSQL, and psycopg is not installed: install fleetward[postgres]"
            ) from error
        return PostgresLedgerStore(text, read_only=read_only)
    if "://" in text:
        raise LedgerError(f"the ledger cannot be kept in {text.partition('://')[0]}://: give postgresql:// or a path")
    from fleetward.budget.sqlite import SqliteLedgerStore  # noqa: PLC0415 - as the other one

    return SqliteLedgerStore(text, read_only=read_only)
