"""Budgets: what leased spending adds to a decision, and one hot budget that fifty webhooks share, to its last cent."""

import asyncio
import contextlib
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from bench.serving import Poster, served
from bench.stats import Samples, interleaved
from bench.world import manifest
from fleetward.audit.store import Store
from fleetward.budget import calls
from fleetward.budget.ledger import Entry, Ledger
from fleetward.budget.purse import Purse
from fleetward.budget.store import open_ledger_store
from fleetward.decision.action import Spend
from fleetward.registry.registry import Registry
from fleetward.resources import KINDS
from fleetward_operator.hub.budgets import Budgets

FREE = "decision, no budget"
LEASED = "decision under a budget, leased"
BLOCK = 50

WEBHOOKS = 50
BATCH = 256
"""Records that a webhook hands over at once, at most."""

SECONDS = 5.0
"""How long the hot budget is spent from."""

REFUSED_SECONDS = 0.05
REFUSED_AT_LAST = 20
"""How often in a row a webhook is refused before it gives up: others may still give back what they had on lease."""

LAST = 100_000
"""The limit that is spent to its end."""

LAST_SECONDS = 60.0

NAMESPACE = "bench"
HOT = "AgentBudget/bench/hot"


def measure(folder: Path, rounds: int) -> dict[str, Samples]:
    """Give the samples of a decision with and without a budget, over HTTP, of two agents beside the same webhook."""
    with served(folder, _world(), "--webhooks", "1") as serving:
        posters = {}
        for name, agent in ((FREE, "free"), (LEASED, "leased")):
            action = {"kind": "ToolCall", "name": "crm.read", "estimate": {"records": 1}}
            body = json.dumps({"agent": f"{NAMESPACE}/{agent}", "action": action}).encode()
            posters[name] = Poster(serving.port, body)
        try:
            for poster in posters.values():
                said = json.loads(poster())
                assert said["decision"] == "Allow", said
            return interleaved(posters, rounds, block=BLOCK)  # type: ignore[arg-type]
        finally:
            for poster in posters.values():
                poster.close()


def _world() -> list[dict[str, Any]]:
    budget = {
        "subjects": {"agents": ["leased"]},
        "window": {"kind": "Calendar", "unit": "Day"},
        "limits": {"records": 2**50, "calls": [{"names": ["crm.**"], "max": 2**50}]},
    }
    return [
        manifest("Agent", "free", {"role": "Worker", "owner": "bench"}, NAMESPACE),
        manifest("Agent", "leased", {"role": "Worker", "owner": "bench"}, NAMESPACE),
        manifest("AgentPolicy", "may", {"rules": [{"name": "may", "match": {}, "decision": "Allow"}]}, NAMESPACE),
        manifest("AgentBudget", "day", budget, NAMESPACE),
    ]


def measure_hot(folder: Path, ledger: str | None = None) -> dict[str, float]:
    """Give the spends a second of one pot that webhooks share, and what is left of it and overshot in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    rate, _, _ = asyncio.run(_spend(folder / "hot", ledger, limit=2**50, seconds=SECONDS))
    _, spent, overshoot = asyncio.run(_spend(folder / "last", ledger, limit=LAST, seconds=LAST_SECONDS))
    return {
        "spends a second, one hot budget, 50 webhooks": round(rate),
        f"of a limit of {LAST:,}, spent in the end": spent,
        "overshoot at the end": overshoot,
        "unspent at the end": LAST - spent,
    }


async def _spend(folder: Path, ledger: str | None, limit: int, seconds: float) -> tuple[float, int, int]:
    """Have all webhooks spend for a while, or to the end of the limit."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local disk
    registry = _registry(limit)
    with contextlib.ExitStack() as stack:
        records = stack.enter_context(contextlib.closing(Store.open(folder / "audit.db")))
        store = stack.enter_context(contextlib.closing(open_ledger_store(ledger or folder / "budgets.db")))
        async with Budgets(Ledger(store), records, lambda: registry) as budgets:
            began = time.monotonic()
            webhooks = {f"w{number:02}": _Webhook(f"w{number:02}", budgets) for number in range(WEBHOOKS)}
            budgets.recalls.send = lambda writer, _pots: webhooks[writer].recall()
            spends = sum(await asyncio.gather(*(webhook.spend(began + seconds) for webhook in webhooks.values())))
            took = time.monotonic() - began
            done = time.time()
            while budgets.report.at < done:  # noqa: ASYNC110 - a sweep tells nobody
                await asyncio.sleep(0.1)
            pots = budgets.pots_of(HOT)
            (limits,) = pots[0].limits
            return spends / took, limits.spent + limits.reserved, limits.overshoot


def _registry(limit: int) -> Registry:
    budget = {"window": {"kind": "Calendar", "unit": "Month"}, "limits": {"records": limit}}
    resources = [
        manifest("Agent", "worker", {"role": "Worker", "owner": "bench"}, NAMESPACE),
        manifest("AgentBudget", "hot", budget, NAMESPACE),
    ]
    return Registry.build(KINDS[each["kind"]].model_validate(each) for each in resources)


class _Webhook:
    """A webhook's purse and its records on their way, without the HTTP around it."""

    def __init__(self, writer: str, budgets: Budgets) -> None:
        self._writer = writer
        self._budgets = budgets
        self._purse = Purse(f"{writer}-1")
        self._entries: deque[Entry] = deque()
        self._seq = 0

    async def spend(self, until: float) -> int:
        """Spend one record at a time, settle each, and give how many it were."""
        need = calls.Need(budget=HOT, amounts={"records": 1})
        count = refused = 0
        while (now := time.monotonic()) < until:
            taken = self._purse.take((need,), now)
            if taken is None:
                refused = 0 if await self._ask(need) else refused + 1
                if refused:
                    await self._hand_over()
                if refused == REFUSED_AT_LAST:
                    break
                await asyncio.sleep(REFUSED_SECONDS if refused else 0)
                continue
            self._record(taken)
            count += 1
            if len(self._entries) >= BATCH:
                await self._hand_over()
        await self._hand_over()
        if (release := self._purse.release(time.monotonic(), everything=True)) is not None:
            await self._question(release)
        return count

    def recall(self) -> bool:
        """Give back at once what is not spent, as a webhook does."""
        held = self._purse.release(time.monotonic(), everything=True)
        release = held or calls.Release(born=self._purse.born, holdings=())
        self._budgets.ask(release, webhook=self._writer, agents=(), answer=lambda _: None)
        return True

    async def _ask(self, need: calls.Need) -> bool:
        asked_at = time.monotonic()
        wish = calls.Wish(agent=f"{NAMESPACE}/worker", needs=(need,))
        reply = await self._question(self._purse.question((wish,), asked_at))
        assert isinstance(reply, calls.Reserved), reply
        (answer,) = reply.answers
        if isinstance(answer, calls.Short):
            return False
        self._purse.granted(answer, asked_at)
        return True

    async def _question(self, request: calls.Request) -> calls.Reply:
        future: asyncio.Future[calls.Reply] = asyncio.get_running_loop().create_future()
        self._budgets.ask(
            request,
            webhook=self._writer,
            agents=(f"{NAMESPACE}/worker",),
            answer=future.set_result,
        )
        return await future

    def _record(self, spends: tuple[Spend, ...]) -> None:
        decision_id = f"{self._writer}-{self._seq + 1}"
        for ends in (False, True):
            self._seq += 1
            self._entries.append(
                Entry(
                    writer=self._writer,
                    seq=self._seq,
                    agent=f"{NAMESPACE}/worker",
                    decision_id=decision_id,
                    spends=spends,
                    at=time.time(),
                    ends=ends,
                )
            )

    async def _hand_over(self) -> None:
        if self._entries:
            entries, self._entries = tuple(self._entries), deque()
            await self._budgets.fold(entries)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        print(msgspec.json.format(msgspec.json.encode(measure_hot(Path(directory)))).decode())
