"""Services on real spools, and the hub's side of budgets played by the real ledger."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from support.smallledger import SmallLedger
from support.webhook import agent, make_slice, names

from fleetward.audit import record
from fleetward.audit.spool import Spool
from fleetward.budget import calls
from fleetward.decision.replies import Failed
from fleetward.registry.slice import (
    Budget,
    BudgetLimits,
    BudgetWindow,
    CallLimit,
    Catalog,
    CatalogEntry,
    Estimate,
    ModelPrice,
    Rule,
    Slice,
    Throttle,
)
from fleetward.stream import messages
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.commit import GroupCommit
from fleetward_webhook.sidecar.metrics import Metrics
from fleetward_webhook.sidecar.questions import Questions
from fleetward_webhook.sidecar.service import Service

DAY = "AgentBudget/reports/day"
RULES = "AgentPolicy/reports/customer-data"
CRM = "calls crm.**"
READ = "crm.customers.read"


def budget(calls: int | None = None, name: str = "reports/day", **changes: Any) -> Budget:
    limits = BudgetLimits(calls=() if calls is None else (CallLimit(names=("crm.**",), max=calls),))
    given = {"limits": limits, "scope": "Shared", "window": BudgetWindow(), **changes}
    return Budget(kind="AgentBudget", name=name, uid=f"uid-{name}", generation=1, hash="ab", **given)


def slice_of(*budgets: Budget, rules: tuple[Rule, ...] = (), version: str = "1") -> Slice:
    served = msgspec.structs.replace(agent(policies=(RULES,)), budgets=tuple(one.key for one in budgets))
    allowing = (
        Rule(name="read", decision="Allow", match=names("crm.**", "llm.**", "pay.**")),
        *(msgspec.structs.replace(rule, decision="Throttle") for rule in rules),
    )
    base = make_slice(served, version=version, rules=allowing)
    catalog = Catalog(
        name="work",
        entries=(
            CatalogEntry(names=("crm.rows.*",), estimate=Estimate(records=10)),
            CatalogEntry(names=("llm.**",), estimate=Estimate(input_tokens=100)),
        ),
        models=(
            ModelPrice(
                models=("small-*",), input_micro_usd_per_million=1_000_000, output_micro_usd_per_million=2_000_000
            ),
        ),
    )
    items = msgspec.structs.replace(
        base.items,
        budgets={one.key: one for one in budgets},
        policies={RULES: base.items.policies["p"]},
        catalogs={"work": catalog},
    )
    return msgspec.structs.replace(base, items=items)


def throttling(name: str = "slow", **throttle: Any) -> Rule:
    return Rule(
        name=name, decision="Throttle", match=names("crm.**"), retry_after_seconds=1, throttle=Throttle(**throttle)
    )


class Side:
    """One webhook, and how the hub hears it."""

    def __init__(self, hub: "Hub", spool: Spool, commit: GroupCommit, slice_: Slice) -> None:
        self.hub = hub
        self.spool = spool
        self.authority = Authority()
        self.authority.renewed(self.authority.now(), 3600)
        self.metrics = Metrics()
        self.service = Service(spool=spool, authority=self.authority, commit=commit, metrics=self.metrics)
        self.questions = Questions()
        self.service.connect(lambda: None, self.questions)
        self.service.apply(slice_)
        self.asked: list[calls.Request] = []
        self.heard = asyncio.Event()
        """Set with every question."""
        self.answering = asyncio.Event()
        self.answering.set()
        self.failing = ""
        self._tasks = [asyncio.create_task(self._serve())]

    async def _serve(self) -> None:
        async with contextlib.aclosing(self.questions.frames()) as frames:
            async for frame in frames:
                request = frame.request
                assert isinstance(request, calls.Request)
                self.asked.append(request)
                self.heard.set()
                await self.answering.wait()
                reply = Failed(reason=self.failing) if self.failing else self.hub.answer(request, self.spool.writer)
                self.questions.take(messages.Reply(number=frame.number, reply=reply))

    def tend(self) -> None:
        self._tasks.append(asyncio.create_task(self.service.leases.run()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def disconnect(self) -> None:
        self._tasks[0].cancel()
        self.questions.unanswered("the connection ended")

    def reconnect(self) -> None:
        self._tasks[0] = asyncio.create_task(self._serve())

    async def decide(self, name: str = READ, **fields: Any) -> dict[str, Any]:
        body = {"action": {"kind": "ToolCall", "name": name} | fields}
        answer: dict[str, Any] = json.loads(await self.service.decide(json.dumps(body).encode()))
        return answer

    async def report(self, decision: dict[str, Any], **fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self.service.review(decision["id"], json.dumps(fields).encode()))
        return answer

    def deliver(self) -> None:
        """Have the hub settle by all that is spooled, and acknowledge it."""
        lines = self.spool.unacknowledged(10_000, 10**9)
        if lines:
            self.hub.ledger.fold(lines)
            self.spool.acknowledge(self.spool.next_seq - 1)

    def records(self) -> list[record.Record]:
        self.spool.rewind()
        lines = self.spool.unacknowledged(10_000, 10**9)
        self.spool.rewind()
        return [record.decode(line) for line in lines]

    def reserves(self) -> list[calls.Reserve]:
        return [each for each in self.asked if isinstance(each, calls.Reserve)]

    def metric(self, name: str) -> float:
        lines = self.metrics.render().decode().splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


class Hub:
    """The ledger, and the webhooks that ask it. Leases are recalled as the hub does."""

    def __init__(self, folder: Path, slice_: Slice) -> None:
        self.folder = folder
        self.slice = slice_
        self.ledger = SmallLedger(folder / "ledger.db", slice_)
        self.answer: Callable[[calls.Request, str], calls.Reply] = self.ledger.answer
        self.sides: list[Side] = []
        self._stack = contextlib.AsyncExitStack()

    async def side(self, name: str = "spool") -> Side:
        spool = self._stack.enter_context(Spool.open(self.folder / name))
        commit = await self._stack.enter_async_context(GroupCommit(spool))
        side = Side(self, spool, commit, self.slice)
        self._stack.push_async_callback(side.stop)
        self.sides.append(side)
        return side

    def publish(self, slice_: Slice) -> None:
        self.slice = self.ledger.slice = slice_
        for side in self.sides:
            side.service.apply(slice_)

    def leased(self, limit: str = CRM, budget: str = DAY) -> int:
        found = self.ledger.standing(budget, limit)
        return 0 if found is None else found.leased

    def stands(self, limit: str = CRM, budget: str = DAY, scope: str = "") -> tuple[int, int, int]:
        """Give what is spent, reserved and on lease."""
        found = self.ledger.standing(budget, limit, scope)
        return (0, 0, 0) if found is None else (found.spent, found.reserved, found.leased)

    async def close(self) -> None:
        await self._stack.aclose()
        self.ledger.ledger.close()


@contextlib.asynccontextmanager
async def hub_of(folder: Path, *budgets: Budget, rules: tuple[Rule, ...] = ()) -> AsyncIterator[Hub]:
    hub = Hub(folder, slice_of(*budgets, rules=rules))
    try:
        yield hub
    finally:
        await hub.close()


async def until(condition: Any, what: str, seconds: float = 20) -> None:
    """Wait on this loop for what other tasks bring about."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None
