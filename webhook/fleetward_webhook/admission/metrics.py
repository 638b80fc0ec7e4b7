"""What this webhook tells Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from fleetward import __version__

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Counts reviews by path and outcome, and how long they took."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, which nobody asks for
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._seconds = Histogram(
            "fleetward_admission_duration_seconds",
            "From the review read to the answer, reads from the API server included.",
            ["path"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._reviews = Counter(
            "fleetward_admission_reviews_total",
            "Reviews answered. `error`: the API server could not be read; `malformed`: it was no review.",
            ["path", "outcome"],
            registry=self._registry,
        )
        info = Gauge("fleetward_admission_info", "This program.", ["version"], registry=self._registry)
        info.labels(__version__).set(1)

    def reviewed(self, path: str, outcome: str, seconds: float) -> None:
        """Count one review."""
        self._reviews.labels(path, outcome).inc()
        self._seconds.labels(path).observe(seconds)

    def render(self) -> bytes:
        """Give everything in Prometheus' text format."""
        return generate_latest(self._registry)
