"""The budgets of one replica: a ledger that it keeps, alone or with others, or a desk that asks whoever keeps it."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import aiohttp

from fleetward.budget.ledger import Ledger
from fleetward.budget.store import open_ledger_store
from fleetward.registry.registry import Registry
from fleetward_operator.hub.budgets import Budgets
from fleetward_operator.hub.own import OwnRecords
from fleetward_operator.relay.budgets import Keepers, RemoteBudgets
from fleetward_operator.relay.client import Client, Trust


class Others(Keepers, Trust, Protocol):
    """The other replicas."""


LEDGER_FILE = "budgets.db"
"""In the data directory, where no database is given."""


@contextlib.asynccontextmanager
async def kept_budgets(
    where: str | Path, records: OwnRecords, registry: Callable[[], Registry | None]
) -> AsyncIterator[Budgets]:
    """Keep the ledger while the block lasts: in a file, or in a database that other replicas use, too.

    Raises LedgerError.
    """
    with contextlib.closing(open_ledger_store(where)) as store:
        async with Budgets(Ledger(store), records, registry) as budgets:
            yield budgets


@contextlib.asynccontextmanager
async def asked_budgets(others: Others, registry: Callable[[], Registry | None]) -> AsyncIterator[RemoteBudgets]:
    """Ask another replica, which keeps the ledger, while the block lasts."""
    async with aiohttp.ClientSession() as session, RemoteBudgets(others, Client(session, others), registry) as budgets:
        yield budgets
