"""The operator's figures of the moment, gathered for a scrape."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from fleetward.audit.store import Store, StoreError
from fleetward.budget.report import BudgetsReport
from fleetward_operator.hub.budgets import Budgets
from fleetward_operator.hub.hub import Hub, Status
from fleetward_operator.relay.budgets import RemoteBudgets
from fleetward_operator.relay.desk import RunDesk
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.pods import Pods

COUNT_SECONDS = 5.0
"""How often the store is asked for what was added; never on the event loop."""


class RecordCounts:
    """Counts the records of a store, by type and verdict, while `run` runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._position = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        self.problem = ""
        """Why they cannot be counted; empty while they can."""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                new, self._position = await asyncio.to_thread(self._store.counts, self._position)
                self.counts.update(new)
                self.problem = ""
            except (StoreError, OSError) as error:
                self.problem = str(error)
            await asyncio.sleep(COUNT_SECONDS)


class Center(Protocol):
    """What the figures are taken from."""

    hub: Hub
    counts: RecordCounts
    runs: RunDesk
    budgets: Budgets | RemoteBudgets

    @property
    def observed(self) -> Mapping[tuple[str, str], Observed]:
        """Every object of our kinds."""

    @property
    def pods(self) -> Pods:
        """All pods."""

    def agents_of(self, pod: str) -> Sequence[str]:
        """Give the agents that a pod runs."""

    def age_seconds(self) -> float:
        """Say how old the view of the cluster may be."""

    def leading(self) -> bool:
        """Whether this replica writes."""

    def problems(self) -> dict[str, str]:
        """Say what does not work, by what."""


class OperatorFigures:
    """See `metrics.Figures`."""

    def __init__(self, center: Center) -> None:
        self._center = center

    def resources(self) -> Counter[str]:
        """Count the resources by kind."""
        return Counter(observed.kind for observed in self._center.observed.values())

    def faulty(self) -> Counter[str]:
        """Count the resources that do not govern as they stand, by kind."""
        return Counter(observed.kind for observed in self._center.observed.values() if not observed.governs)

    def pods(self) -> Counter[str]:
        """Count the pods that run agents."""
        states: Counter[str] = Counter({"governed": 0, "without-webhook": 0, "held": 0})
        for pod in self._center.pods:
            if not pod.over and self._center.agents_of(pod.key):
                states["held" if pod.held else "governed" if pod.injected else "without-webhook"] += 1
        return states

    def view_age_seconds(self) -> float:
        """Say how old the view of the cluster may be."""
        return self._center.age_seconds()

    def hub_status(self) -> Status:
        """Give the hub's status."""
        return self._center.hub.status()

    def leading(self) -> bool:
        """Whether this replica writes."""
        return self._center.leading()

    def records(self) -> Counter[tuple[str, str]]:
        """Count the stored records, by type and verdict."""
        return self._center.counts.counts

    def open_runs(self) -> int:
        """Count the open runs that this replica keeps."""
        return self._center.runs.open_runs

    def run_answers(self) -> Counter[tuple[str, str, str]]:
        """Count questions about runs, by question, answer, and where the run is kept."""
        return self._center.runs.answers

    def budgets(self) -> BudgetsReport:
        """Say how the pots of budgets are."""
        return self._center.budgets.report

    def problems(self) -> dict[str, str]:
        """Say what does not work, by what."""
        return self._center.problems()
