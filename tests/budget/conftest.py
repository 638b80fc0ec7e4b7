"""Ledger stores of both kinds, and a budget in them, for tests that hold for either."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from budget.pots import World, budget
from support.postgres import Postgres, postgres

from fleetward.budget.sql import LedgerStore
from fleetward.budget.store import open_ledger_store

__all__ = ["open_store", "place", "postgres"]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give where a new ledger may be kept."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_schema()


@pytest.fixture
def open_store(place: str) -> Iterator[Callable[..., LedgerStore]]:
    """Give what opens the store at `place`, each time anew; all are closed after the test."""
    opened: list[LedgerStore] = []

    def open_one(**options: Any) -> LedgerStore:
        opened.append(open_ledger_store(place, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def world(open_store: Callable[..., LedgerStore]) -> World:
    """Give a ledger of one budget, with a limit of 100."""
    return World(open_store(), budget(cost=100))
