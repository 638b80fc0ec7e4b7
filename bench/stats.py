"""Samples and what is said of them."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Samples:
    """Measured times in microseconds, in the order they were measured."""

    name: str
    micros: list[float]

    def percentile(self, percent: float) -> float:
        """Give a percentile by nearest rank."""
        ordered = sorted(self.micros)
        return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]

    def summary(self) -> dict[str, float]:
        """Give the figures that are quoted."""
        return {
            "n": len(self.micros),
            "p50": round(self.percentile(50), 2),
            "p90": round(self.percentile(90), 2),
            "p99": round(self.percentile(99), 2),
            "max": round(max(self.micros), 2),
            "mean": round(statistics.fmean(self.micros), 2),
        }


def timed(call: Callable[[], object]) -> float:
    """Give how many microseconds one call takes."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1000


def interleaved(
    calls: dict[str, Callable[[], object]], rounds: int, *, block: int = 1, warm_up: int = 200
) -> dict[str, Samples]:
    """Measure several calls in turn, so that whatever else the machine does meets all of them alike.

    `block` is how often each is called before the next one's turn: more than once where the other side of a call is a
    process that falls asleep meanwhile, which is not what one steady caller sees.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    micros: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds // block):
        for name, call in calls.items():
            micros[name].extend(timed(call) for _ in range(block))
    return {name: Samples(name, values) for name, values in micros.items()}
