"""Budgets kept by a hub, and webhooks that ask for them, with a real ledger on SQLite and a real audit store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Protocol

from support import make

from fleetward.audit.store import Store
from fleetward.budget import calls
from fleetward.budget.ledger import Entry, Ledger
from fleetward.budget.store import open_ledger_store
from fleetward.decision.action import Spend
from fleetward.registry.registry import Registry, Upsert
from fleetward.resources import AgentBudget
from fleetward_operator.hub.budgets import Budgets

ALPHA, BETA = "reports/alpha", "reports/beta"
DAY = "AgentBudget/reports/day"


def budget(name: str = "day", **spec: Any) -> AgentBudget:
    """Give a budget of 100 records a day for everybody in the namespace."""
    given = {"window": {"kind": "Calendar", "unit": "Day"}, "limits": {"records": 100}} | spec
    return AgentBudget.model_validate(
        {
            "apiVersion": make.API,
            "kind": "AgentBudget",
            "metadata": {"name": name, "namespace": "reports"},
            "spec": given,
        }
    )


def governed(*budgets: AgentBudget) -> Registry:
    """Give alpha and beta under budgets."""
    return make.registry(("alpha", "beta")).apply(map(Upsert, budgets or (budget(),)))


class Desk(Protocol):
    """What is asked."""

    def ask(self, request: calls.Request, *, webhook: str, agents: tuple[str, ...], answer: Any) -> None: ...


async def ask(desk: Desk, webhook: str, request: calls.Request, agents: tuple[str, ...] = (ALPHA, BETA)) -> calls.Reply:
    """Ask as a webhook does, and give the answer."""
    future: asyncio.Future[calls.Reply] = asyncio.get_running_loop().create_future()
    desk.ask(request, webhook=webhook, agents=agents, answer=future.set_result)
    return await asyncio.wait_for(future, 20)


def wish(records: int, agent: str = ALPHA, *, wanted: int = 0, budget: str = DAY) -> calls.Wish:
    """Wish for records."""
    need = calls.Need(budget=budget, amounts={"records": records}, wanted={"records": wanted} if wanted else {})
    return calls.Wish(agent=agent, needs=(need,))


def reserve(*wishes: calls.Wish, holdings: Iterable[calls.Holding] = ()) -> calls.Reserve:
    """Ask for wishes as the first process of a webhook."""
    return calls.Reserve(born="b1", wishes=wishes, holdings=tuple(holdings))


def granted(reply: calls.Reply) -> calls.Grant:
    """Give the one grant of the one lease."""
    assert isinstance(reply, calls.Reserved), reply
    (lease,) = reply.answers
    assert isinstance(lease, calls.Lease), lease
    (grant,) = lease.grants
    return grant


def refused(reply: calls.Reply) -> calls.Short:
    """Give why the one wish has no room."""
    assert isinstance(reply, calls.Reserved), reply
    (short,) = reply.answers
    assert isinstance(short, calls.Short), short
    return short


def entry(
    writer: str, seq: int, grant: calls.Grant, records: int, *, of: int | None = None, agent: str = ALPHA
) -> Entry:
    """Give what a decision of the writer reserved, or, with `of`, what came of its decision of that number."""
    spend = Spend(budget=grant.budget, scope=grant.scope, window=grant.window, born="b1", amounts={"records": records})
    return Entry(
        writer=writer,
        seq=seq,
        agent=agent,
        decision_id=f"{writer}-{seq if of is None else of}",
        spends=(spend,),
        at=0.0,
        ends=of is not None,
    )


@contextlib.asynccontextmanager
async def keeping(directory: Path, registry: Registry) -> AsyncIterator[tuple[Budgets, Store]]:
    """Keep budgets; what governs is `budgets.governing`, which a test may change."""
    directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local disk
    with (
        contextlib.closing(Store.open(directory / "audit.db")) as records,
        contextlib.closing(open_ledger_store(directory / "budgets.db")) as store,
    ):
        governing = [registry]
        budgets = Budgets(Ledger(store), records, lambda: governing[0])
        budgets.governing = governing  # type: ignore[attr-defined]
        async with budgets:
            yield budgets, records
