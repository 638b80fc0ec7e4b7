"""The last decision of each agent, from a real audit store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support import make
from support.streams import until

from fleetward.audit.store import Store
from fleetward_operator.status import decisions
from fleetward_operator.status.decisions import LastDecisions


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "audit.db") as store:
        yield store


@contextlib.asynccontextmanager
async def reading(store: Store, *agents: str) -> AsyncIterator[LastDecisions]:
    last = LastDecisions(store, lambda: agents, every=0.02)
    task = asyncio.create_task(last.run())
    try:
        yield last
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_stored_is_found_and_what_is_added_replaces_it(store: Store) -> None:
    store.append([make.record("w", seq) for seq in range(1, 6)])
    store.append([make.record("v", 1, agent="reports/beta", decision="Deny", time="2026-03-02T10:00:00.123456Z")])
    async with reading(store, "reports/alpha", "reports/beta", "reports/gamma") as last:
        await until(lambda: last.get("reports/beta"))
        found = last.get("reports/alpha")
        assert found == {"id": "w-5", "time": "2026-03-01T10:00:00Z", "decision": "Allow", "action": "crm.read"}
        assert last.get("reports/beta") == {
            "id": "v-1",
            "time": "2026-03-02T10:00:00Z",
            "decision": "Deny",
            "action": "crm.read",
        }
        assert last.get("reports/gamma") is None
        store.append([make.record("w", 6, decision="Deny"), make.record("v", 2, agent="reports/gamma")])
        await until(lambda: (last.get("reports/alpha") or {}).get("id") == "w-6")
        await until(lambda: last.get("reports/gamma"))


async def test_more_than_a_page_is_read_to_its_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "PAGE", 3)
    async with reading(store) as last:
        await until(lambda: last._position is not None)
        store.append([make.record("w", seq) for seq in range(1, 12)])
        await until(lambda: (last.get("reports/alpha") or {}).get("id") == "w-11")


async def test_a_store_that_fails_is_said_to_and_comes_back(store: Store) -> None:
    store._reader.close()
    async with reading(store, "reports/alpha") as last:
        await until(lambda: last.problem)
        assert "audit.db" in last.problem
