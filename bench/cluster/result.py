"""What a bench found: figures with their goals, the distributions behind them, and raw facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.stats import Samples

KEPT = 2_000
"""How many samples of each measurement are kept as raw data."""


@dataclass(frozen=True)
class Figure:
    """One figure; `goal` is what it should be at most, in the same unit, where there is a goal."""

    name: str
    value: float
    unit: str
    goal: float | None = None

    @property
    def ratio(self) -> float | None:
        """How much of the goal it takes: up to 1 is within it."""
        return self.value / self.goal if self.goal else None

    def data(self) -> dict[str, Any]:
        """Give it as it is kept."""
        kept: dict[str, Any] = {"name": self.name, "value": round(self.value, 3), "unit": self.unit}
        if self.ratio is not None:
            kept |= {"goal": self.goal, "ratio": round(self.ratio, 3)}
        return kept


@dataclass
class Result:
    """All that one bench found. Samples are times."""

    figures: list[Figure] = field(default_factory=list)
    samples: list[Samples] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """Raw data of other kinds; `curves` are drawn: points of seconds and count by name."""

    def add_others(self, processors: float) -> None:
        """Add how much of the machine something else had meanwhile: with much of it, times say little."""
        self.add("processors that other programs had meanwhile", processors, "processors")

    def add(self, name: str, value: float, unit: str, goal: float | None = None) -> None:
        """Add a figure."""
        self.figures.append(Figure(name, value, unit, goal))

    def data(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        """Give it as it is kept."""
        return {
            "machine": machine,
            "figures": [figure.data() for figure in self.figures],
            "micros": {sample.name: sample.summary() for sample in self.samples},
            "samples": {sample.name: [round(m, 1) for m in sample.micros[:KEPT]] for sample in self.samples},
            "facts": self.facts,
        }


def millis(name: str, seconds: Sequence[float]) -> Samples:
    """Give samples of times in seconds as `Samples`, which counts in microseconds."""
    return Samples(name, [each * 1e6 for each in seconds])


def percentile_ms(samples: Samples, percent: float) -> float:
    """Give a percentile in milliseconds."""
    return samples.percentile(percent) / 1000
