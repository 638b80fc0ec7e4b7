"""A folder with budgets, and what its hub would keep: a real ledger and a real audit store, filled as it fills them."""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fleetward.audit.query import utc
from fleetward.audit.record import BudgetRecord, DecisionRecord, OutcomeRecord, encode
from fleetward.audit.store import Store
from fleetward.budget.calls import Disown, Lease, Need, Reserve, Short, Wish
from fleetward.budget.ledger import Ledger
from fleetward.budget.report import BudgetsReport
from fleetward.budget.store import open_ledger_store
from fleetward.budget.terms import terms_in
from fleetward.cli.folder import open_folder
from fleetward.decision.action import Facts, RecordedAction, Spend
from fleetward_operator.hub.settling import entry_of

RESOURCES = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: data-worker, namespace: reports}
spec: {role: Worker}
---
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: writer, namespace: reports}
spec: {role: Worker}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata: {name: all, namespace: reports}
spec:
  limits: {costMicroUsd: 1000000, records: 100}
  thresholds: [{percent: 80, action: Event}]
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata: {name: rolling, namespace: reports}
spec:
  window: {kind: Rolling, duration: 4h}
  limits: {costMicroUsd: 1000000}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata: {name: each, namespace: reports}
spec:
  scope: Agent
  limits: {calls: [{names: ["crm.**"], max: 10}]}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata: {name: untouched, namespace: reports}
spec:
  limits: {inputTokens: 1000}
"""

ALL, ROLLING, EACH = "AgentBudget/reports/all", "AgentBudget/reports/rolling", "AgentBudget/reports/each"
TOTAL, HOURS = "total", "rolling-14400"
WINDOWS = {ALL: TOTAL, ROLLING: HOURS, EACH: TOTAL}


class World:
    """Writes records as one webhook, and settles by them as the hub does. Times are given as how long ago."""

    def __init__(self, folder: Path, ledger: Ledger, store: Store) -> None:
        self.folder = folder
        self.ledger = ledger
        self.store = store
        self.now = time.time()
        self.denied = ""
        """The id of a decision that a budget stopped."""
        self._terms = partial(terms_in, open_folder(folder).registry)
        self._seq = 0

    def decide(self, agent: str, amounts: dict[str, dict[str, int]], ago: float = 0, **fields: Any) -> str:
        """Reserve amounts by budget, and record the decision; give its id. Where there is no room it is a denial."""
        at = self.now - ago
        scopes = {EACH: agent}
        needs = tuple(Need(budget=key, scope=scopes.get(key, ""), amounts=its) for key, its in amounts.items())
        answer = self.ledger.reserve(
            Reserve(born="b", wishes=(Wish(agent=agent, needs=needs),)), "webhook", self._terms, at
        ).answers[0]
        verdict: dict[str, Any]
        if isinstance(answer, Short):
            verdict = {"decision": answer.decision, "reason": answer.reason, "shortfall": answer.shortfall}
        else:
            assert isinstance(answer, Lease)
            spends = tuple(
                Spend(budget=need.budget, scope=need.scope, window=WINDOWS[need.budget], born="b", amounts=need.amounts)
                for need in needs
            )
            verdict = {"decision": "Allow", "reason": "allowed by rule read", "spends": spends}
        action = RecordedAction(kind="ToolCall", name="crm.read", trusted=Facts())
        return self._keep(DecisionRecord(**self._head(at), agent=agent, action=action, **verdict, **fields), at)

    def end(self, decision_id: str, agent: str, amounts: dict[str, dict[str, int]], ago: float = 0) -> str:
        """Record an outcome that says what was used."""
        at = self.now - ago
        spends = tuple(
            Spend(budget=key, scope=agent if key == EACH else "", window=WINDOWS[key], born="b", amounts=its)
            for key, its in amounts.items()
        )
        outcome: dict[str, Any] = {
            "decision_id": decision_id,
            "status": "Succeeded",
            "decision": "Allow",
            "reason": "fine",
        }
        return self._keep(OutcomeRecord(**self._head(at), agent=agent, spends=spends, **outcome), at)

    def spend(self, agent: str, micro_usd: int, ago: float, budget: str = ALL, **fields: Any) -> str:
        """Let an agent use an amount of money, from its decision to its outcome."""
        decision_id = self.decide(agent, {budget: {"costMicroUsd": micro_usd}}, ago, **fields)
        self.end(decision_id, agent, {budget: {"costMicroUsd": micro_usd}}, ago)
        return decision_id

    def settle_all_news(self) -> None:
        """Record what the ledger found by itself, as the hub does."""
        for news in self.ledger.news(self.now):
            fields = {name: getattr(news, name) for name in news.__struct_fields__ if name not in {"at", "number"}}
            self.store.append_own(
                lambda id_, writer, seq, fields=fields: BudgetRecord(  # type: ignore[misc]
                    id=id_, writer=writer, seq=seq, time=_time(self.now), registry_version="v1", **fields
                )
            )
            self.ledger.told([news])

    def lose_the_webhook(self) -> None:
        """Let the webhook come back on a machine that lost its records."""
        self.ledger.disown(Disown(born="c", lost=True), "webhook", self.now, self._terms)
        self.settle_all_news()

    def sweep(self, later: float) -> None:
        """Let time pass in the ledger."""
        self.ledger.sweep(self._terms, self.now + later)
        self.settle_all_news()

    def report(self) -> BudgetsReport:
        """Say how the pots stand, as the hub does."""
        return BudgetsReport(at=self.now, pots=self.ledger.report(self._terms, self.now))

    def _head(self, at: float) -> dict[str, Any]:
        self._seq += 1
        return {
            "id": f"webhook-{self._seq}",
            "writer": "webhook",
            "seq": self._seq,
            "time": _time(at),
            "registry_version": "v1",
        }

    def _keep(self, record: DecisionRecord | OutcomeRecord, at: float) -> str:
        self.store.append([encode(record)])
        entry = entry_of(record)
        if entry is not None:
            self.ledger.fold([entry], self._terms, at)
        return record.id


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """A world in a new folder, as it is while fleetward serve runs."""
    folder.mkdir()
    (folder / "resources.yaml").write_text(RESOURCES)
    data = folder / ".fleetward"
    with (
        Store.open(data / "audit.db") as store,
        contextlib.closing(open_ledger_store(data / "budgets.db")) as ledger,
    ):
        yield World(folder, Ledger(ledger), store)


def _time(at: float) -> str:
    return utc(datetime.fromtimestamp(at, UTC))
