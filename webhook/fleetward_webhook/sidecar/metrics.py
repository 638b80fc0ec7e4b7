"""What the webhook counts and measures, for Prometheus. Labels take values from closed sets only.

Counting is on the path of every decision, so it is plain additions; the families are made of them at each scrape.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from fleetward import __version__
from fleetward.registry.slice import ActionKind, Decision
from fleetward_webhook.sidecar.problem import Kind

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
"""Seconds; a decision is expected between 10 and 100 microseconds."""

_REFUSALS: tuple[Decision, ...] = ("Deny", "Throttle", "RequireApproval")

Gauges = dict[str, tuple[str, float]]
"""Metric name to help text and value."""


class Metrics(Collector):
    """The webhook's counts, and the registry that shows them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = {(d, kind): 0 for d in get_args(Decision) for kind in get_args(ActionKind)}
        self._outcomes = {(d, s): 0 for d in get_args(Decision) for s in ("Running", "Succeeded", "Failed")}
        self._problems = dict.fromkeys(Kind, 0)
        self._spends = 0
        self._refusals: dict[Decision, int] = dict.fromkeys(_REFUSALS, 0)
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._gauges: Callable[[], Gauges] = dict
        self._registry_version: Callable[[], str] = str
        self._reserves: Callable[[], int] = int
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def watch(
        self, gauges: Callable[[], Gauges], registry_version: Callable[[], str], reserves: Callable[[], int] = int
    ) -> None:
        """Have these looked up at each scrape; `reserves` counts questions for leases."""
        self._reserves = reserves
        self._gauges = gauges
        self._registry_version = registry_version

    def decided(self, decision: str, kind: str, seconds: float) -> None:
        """Count a decision and the time it took."""
        self._decisions[decision, kind] += 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def judged(self, decision: str, status: str) -> None:
        """Count a judged outcome, or sign of progress."""
        self._outcomes[decision, status] += 1

    def spent(self, pots: int) -> None:
        """Count what an action took, out of so many pots of budgets."""
        self._spends += pots

    def refused_by_budget(self, decision: Decision) -> None:
        """Count an action that a budget, or a rule that throttles, had no room for."""
        self._refusals[decision] += 1

    def refused(self, kind: Kind) -> None:
        """Count a request answered with a problem."""
        self._problems[kind] += 1

    def render(self) -> bytes:
        """Give everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Make the families."""
        decisions = CounterMetricFamily("fleetward_decisions", "Decisions answered.", labels=["decision", "kind"])
        for labels, count in self._decisions.items():
            decisions.add_metric(labels, count)
        yield decisions
        yield self._histogram()
        outcomes = CounterMetricFamily(
            "fleetward_outcomes", "Outcomes and signs of progress judged.", labels=["decision", "status"]
        )
        for labels, count in self._outcomes.items():
            outcomes.add_metric(labels, count)
        yield outcomes
        problems = CounterMetricFamily("fleetward_problems", "Requests answered with a problem.", labels=["problem"])
        for kind, count in self._problems.items():
            problems.add_metric([kind.slug], count)
        yield problems
        yield CounterMetricFamily("fleetward_budget_spends", "Reserved in a pot of a budget.", value=self._spends)
        refusals = CounterMetricFamily(
            "fleetward_budget_refusals", "Allowed actions that no budget had room for.", labels=["decision"]
        )
        for decision, count in self._refusals.items():
            refusals.add_metric([decision], count)
        yield refusals
        yield CounterMetricFamily(
            "fleetward_budget_reserves", "Questions to the hub for leases.", value=self._reserves()
        )
        for name, (text, value) in self._gauges().items():
            yield GaugeMetricFamily(name, text, value=value)
        yield InfoMetricFamily(
            "fleetward_registry", "The policies decided by.", value={"version": self._registry_version()}
        )
        yield InfoMetricFamily("fleetward_webhook", "This program.", value={"version": __version__})

    def _histogram(self) -> HistogramMetricFamily:
        total, cumulative = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._buckets, strict=True):
            total += count
            cumulative.append((bound, total))
        return HistogramMetricFamily(
            "fleetward_decision_duration_seconds",
            "From the body read to the answer encoded, the record's write included.",
            buckets=cumulative,
            sum_value=self._seconds,
        )
