"""Budgets of several replicas on SQLite: kept by one, asked for and settled through any, by nobody else."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.keptbudgets import ALPHA, BETA, DAY, ask, budget, entry, governed, granted, keeping, refused, reserve, wish
from support.relaying import OURS, Known, Names
from support.streams import until

from fleetward.audit.store import Store
from fleetward.budget import calls
from fleetward.budget.store import LedgerError
from fleetward.decision.replies import Failed
from fleetward_operator.hub.binding import WorkloadBinding
from fleetward_operator.hub.budgets import Budgets
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.server import HubServer
from fleetward_operator.records.routes import routes
from fleetward_operator.relay import budgetwire as wire
from fleetward_operator.relay.budgetroutes import budget_routes
from fleetward_operator.relay.budgets import RemoteBudgets
from fleetward_operator.relay.client import Client

REGISTRY = governed(budget(thresholds=[{"percent": 100, "action": "Pause"}]))


class Keepers(Known):
    """Knows where the ledger is, or not."""

    url = ""

    def budget_keeper(self) -> str:
        if not self.url:
            raise LookupError("none of the other replicas keeps the ledger")
        return self.url


@contextlib.asynccontextmanager
async def serving(directory: Path, budgets: Budgets, records: Store) -> AsyncIterator[str]:
    """Serve the replica that keeps the ledger, and give its URL."""
    binding = WorkloadBinding(lambda _: {})
    async with Hub(records, binding, budgets=budgets) as hub:
        hub.publish(REGISTRY)
        paths = [
            *routes(records, hub, Names(), None, lambda: budgets.report),
            *budget_routes(budgets, Names(), OURS),
        ]
        async with HubServer(hub, "http://127.0.0.1:0", routes=paths) as server:
            assert hub.status().keeps_budgets
            yield server.address


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Budgets, RemoteBudgets, Keepers]]:
    """The one that keeps the ledger, and another one."""
    keepers = Keepers()
    async with (
        keeping(tmp_path, REGISTRY) as (budgets, records),
        serving(tmp_path, budgets, records) as url,
        aiohttp.ClientSession() as session,
        RemoteBudgets(keepers, Client(session, keepers), lambda: REGISTRY) as remote,
    ):
        keepers.url = url
        yield budgets, remote, keepers


async def test_a_limit_is_one_limit_through_all_replicas(pair: tuple[Budgets, RemoteBudgets, Keepers]) -> None:
    near, far, _ = pair
    assert granted(await ask(near, "w1", reserve(wish(60)))).amounts == {"records": 60}
    assert refused(await ask(far, "w2", reserve(wish(41)))).shortfall.left == 40
    lease = granted(await ask(far, "w2", reserve(wish(40))))
    await far.fold([entry("w2", 1, lease, 40)])
    await far.fold([entry("w2", 1, lease, 40), entry("w2", 2, lease, 10, of=1)])
    await until(lambda: bool(near.pots_of(DAY)) and near.pots_of(DAY)[0].limits[0].spent == 10)
    assert granted(await ask(far, "w3", reserve(wish(30)))).amounts == {"records": 30}


async def test_many_ask_at_once_and_each_gets_its_own_answer(pair: tuple[Budgets, RemoteBudgets, Keepers]) -> None:
    _, far, _ = pair
    answers = await asyncio.gather(*(ask(far, f"w{n}", reserve(wish(n))) for n in range(1, 14)))
    got = [reply.answers[0] for reply in answers if isinstance(reply, calls.Reserved)]
    assert [isinstance(one, calls.Lease) and one.grants[0].amounts["records"] for one in got] == list(range(1, 14))


async def test_what_is_paused_is_known_to_every_replica(pair: tuple[Budgets, RemoteBudgets, Keepers]) -> None:
    near, far, _ = pair
    modes: list[object] = []
    far.paused = lambda said: modes.append({key: mode.operating_mode for key, mode in said.items()})
    lease = granted(await ask(near, "w", reserve(wish(60))))
    await near.fold([entry("w", 1, lease, 60)])
    refused(await ask(far, "w", reserve(wish(60))))
    await until(lambda: modes == [{ALPHA: "Paused", BETA: "Paused"}])
    assert far.report.pots[0].paused


async def test_while_the_keeper_is_away_nothing_is_granted_or_acknowledged(
    pair: tuple[Budgets, RemoteBudgets, Keepers],
) -> None:
    near, far, keepers = pair
    lease = granted(await ask(near, "w", reserve(wish(10))))
    url, keepers.url = keepers.url, ""
    reply = await ask(far, "w", reserve(wish(1)))
    assert isinstance(reply, Failed)
    assert "none of the other replicas keeps the ledger" in reply.reason
    assert far.problem
    with pytest.raises(LedgerError, match="none of the other replicas"):
        await far.fold([entry("w", 1, lease, 10)])
    keepers.url = url
    await far.fold([entry("w", 1, lease, 10)])
    assert far.problem == ""


async def test_only_replicas_may_ask(pair: tuple[Budgets, RemoteBudgets, Keepers]) -> None:
    _, _, keepers = pair
    asked = wire.Asked(webhook="w", agents=(ALPHA,), request=reserve(wish(1)))
    body = wire.encode(wire.Questions(asked=(asked,)))
    for token, status in ((None, 401), ("system:serviceaccount:fleetward-system:fleetward-auditor", 403), (OURS, 200)):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(keepers.url + wire.PATH, data=io.BytesIO(body), headers=headers) as answer,
        ):
            assert answer.status == status, await answer.text()


async def test_what_is_no_question_is_refused(pair: tuple[Budgets, RemoteBudgets, Keepers]) -> None:
    _, _, keepers = pair
    headers = {"Authorization": f"Bearer {OURS}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(keepers.url + wire.PATH, data=io.BytesIO(b'{"asked": 3}'), headers=headers) as answer,
    ):
        assert answer.status == 400
        assert "these are no questions about budgets" in await answer.text()
