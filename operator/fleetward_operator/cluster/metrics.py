"""What the operator measures, for Prometheus. Labels take values from closed or small sets only."""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import Counter as EventCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from fleetward import __version__
from fleetward.budget.report import BudgetsReport
from fleetward_operator.hub.hub import Status

RECONCILE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
KILL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Figures(Protocol):
    """Where the figures of the moment come from."""

    def resources(self) -> Counter[str]:
        """Count the resources by kind."""

    def faulty(self) -> Counter[str]:
        """Count the resources that do not govern as they stand, by kind."""

    def pods(self) -> Counter[str]:
        """Count the pods of agents: `governed`, `without-webhook`, `held`."""

    def view_age_seconds(self) -> float:
        """Say how old the view of the cluster may be."""

    def hub_status(self) -> Status:
        """Give the hub's status."""

    def leading(self) -> bool:
        """Whether this replica writes."""

    def records(self) -> Counter[tuple[str, str]]:
        """Count the stored records, by type and verdict."""

    def open_runs(self) -> int:
        """Count the open runs that this replica keeps."""

    def run_answers(self) -> Counter[tuple[str, str, str]]:
        """Count questions about runs, by question, answer, and where the run is kept: `here`, `elsewhere`."""

    def budgets(self) -> BudgetsReport:
        """Say how the pots of budgets are."""

    def problems(self) -> dict[str, str]:
        """Say what does not work, by what."""


class Metrics(Collector):
    """The operator's own registry of metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._figures: Figures | None = None
        self.reconcile = Histogram(
            "fleetward_reconcile_duration_seconds",
            "From a change seen to the registry with it published to the hub.",
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.kill = Histogram(
            "fleetward_kill_latency_seconds",
            "From a stop seen to the last connected webhook of the agent applying it.",
            ["mode"],
            buckets=KILL_BUCKETS,
            registry=self.registry,
        )
        self.budget_events = EventCounter(
            "fleetward_budget_events",
            "What happened to budgets, as it was put on record by this replica.",
            ["event"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(self)

    def watch(self, figures: Figures) -> None:
        """Look these up at each scrape."""
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Make the families."""
        yield InfoMetricFamily("fleetward_operator", "This program.", value={"version": __version__})
        if (figures := self._figures) is None:
            return
        yield _by("fleetward_resources", "Custom resources.", "kind", figures.resources())
        yield _by("fleetward_resources_faulty", "Resources not in force as they stand.", "kind", figures.faulty())
        yield _by("fleetward_pods", "Pods that run agents, by what holds for them.", "state", figures.pods())
        yield GaugeMetricFamily(
            "fleetward_view_age_seconds",
            "For how long, at most, a change in the cluster may have gone unseen.",
            value=figures.view_age_seconds(),
        )
        yield GaugeMetricFamily("fleetward_leading", "1 on the replica that writes.", value=figures.leading())
        yield GaugeMetricFamily("fleetward_problems", "What does not work; see the log.", value=len(figures.problems()))
        yield from _of_hub(figures.hub_status())
        records = CounterMetricFamily(
            "fleetward_records", "Records in this replica's store.", labels=["type", "decision"]
        )
        for (kind, decision), count in figures.records().items():
            records.add_metric([kind, decision], count)
        yield records
        yield GaugeMetricFamily("fleetward_runs_open", "Open runs that this replica keeps.", value=figures.open_runs())
        questions = CounterMetricFamily(
            "fleetward_run_questions",
            "Questions about runs by the decision webhooks connected here, and what was answered.",
            labels=["question", "answer", "kept"],
        )
        for labels, count in figures.run_answers().items():
            questions.add_metric([*labels], count)
        yield questions
        yield from _of_budgets(figures.budgets())


_AMOUNTS = {
    "spent": "Settled in the windows that are open.",
    "reserved": "Reserved by actions under way.",
    "leased": "Held by decision webhooks, and not spent.",
    "overshoot": "Used beyond what was reserved, in the windows that are open; it is spent, too.",
}


def _of_budgets(report: BudgetsReport) -> Iterator[Metric]:
    """Add up the pots of each budget: a label for each agent or run would be too many."""
    yield GaugeMetricFamily("fleetward_budget_pots", "Pots in use.", value=len(report.pots))
    yield GaugeMetricFamily(
        "fleetward_budget_pots_paused", "Pots that stop.", value=sum(bool(p.paused) for p in report.pots)
    )
    for name, text in _AMOUNTS.items():
        sums: Counter[tuple[str, str]] = Counter()
        for pot in report.pots:
            for limit in pot.limits:
                sums[pot.budget, limit.limit] += getattr(limit, name)
        family = GaugeMetricFamily(f"fleetward_budget_{name}", text, labels=["budget", "limit"])
        for labels, amount in sorted(sums.items()):
            family.add_metric([*labels], amount)
        yield family


def _of_hub(status: Status) -> Iterator[Metric]:
    yield GaugeMetricFamily("fleetward_webhooks", "Decision webhooks connected here.", value=len(status.links))
    current = sum(link.running == status.version for link in status.links)
    yield GaugeMetricFamily("fleetward_webhooks_current", "Of these, how many run the last registry.", value=current)
    yield GaugeMetricFamily("fleetward_authority_withheld", "1 while none is given.", value=bool(status.withheld))
    yield GaugeMetricFamily("fleetward_records_waiting", "Not committed yet.", value=status.records_waiting)
    yield GaugeMetricFamily("fleetward_store_failing", "1 while it takes nothing.", value=bool(status.store_problem))


def _by(name: str, text: str, label: str, counts: Counter[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
