"""What goes wrong when: a schedule that follows from a seed alone."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from chaos.world import LIMITS, Limit

WEBHOOKS = 4

FIRST_SECONDS = 2.0
"""Before the first fault: something shall be under way."""

LAST = 0.8
"""The part of the time after which nothing more goes wrong at random."""

_WEIGHTS: Mapping[str, int] = {
    "kill webhook": 12,
    "cut off webhook": 7,
    "cut off both": 1,
    "lose spool": 4,
    "lose machine": 3,
    "end webhook": 5,
    "freeze webhook": 8,
    "kill hub": 3,
    "end hub": 1,
    "freeze hub": 2,
    "raise limit": 20,
    "lower limit": 12,
}
_WITH_POSTGRES: Mapping[str, int] = {"kill postgres": 6, "move webhook": 7, "move killed webhook": 4}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    at: float
    """Seconds after the beginning."""
    kind: str
    target: int = 0
    """Of webhooks or hubs: which."""
    seconds: float = 0.0
    """For how long something is frozen, or is away. What is cut off spends for so long, and nobody hears of it; then
    it is killed."""
    limit: Limit | None = None
    value: int = 0
    """What the limit is from then on."""

    def __str__(self) -> str:
        what = {"webhook": f" {self.target}", "hub": f" {self.target}", "spool": f" of webhook {self.target}"}
        what |= {"machine": what["spool"], "both": f", webhook {self.target} and its hub"}
        words = self.kind + what.get(self.kind.rpartition(" ")[2], "")
        if self.limit is not None:
            words += f" {' '.join(self.limit)} to {self.value}"
        return f"{self.at:7.2f} s  {words}" + (f", {self.seconds:.2f} s" if self.seconds else "")


def schedule(seed: int, seconds: float, *, postgres: bool) -> tuple[Fault, ...]:
    """Give the faults of a run, in order."""
    chance = random.Random(f"{seed} {postgres}")  # noqa: S311 - guards nothing
    weights = {**_WEIGHTS, **(_WITH_POSTGRES if postgres else {})}
    limits, faults = dict(LIMITS), []
    at = FIRST_SECONDS
    while at < seconds * LAST:
        (kind,) = chance.choices(list(weights), list(weights.values()))
        faults.append(_fault(chance, at, kind, limits, hubs=2 if postgres else 1))
        at += chance.choice((0.02, 0.5, 1.0, 1.8, 2.6))
    # What is left of processes that died shows while others go on: half of the webhooks end, then all hubs.
    faults += [Fault(seconds * LAST, "kill webhook", target) for target in range(WEBHOOKS // 2)]
    faults += [Fault(seconds * LAST + 1, "kill hub", target) for target in range(2 if postgres else 1)]
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _fault(chance: random.Random, at: float, kind: str, limits: dict[Limit, int], *, hubs: int) -> Fault:
    if kind.endswith("limit"):
        limit = chance.choice(list(limits))
        limits[limit] = value = _changed(chance, limit, limits[limit], up=kind == "raise limit")
        return Fault(at, kind, limit=limit, value=value)
    if kind.startswith("freeze"):
        seconds = chance.uniform(1, 4)
    elif kind.startswith("cut off") or kind == "lose machine":
        seconds = chance.uniform(0.2, 1.2)
    else:
        seconds = chance.choice((0.0, 0.1, 0.5, 1.5))
    target = chance.randrange(hubs if kind.endswith("hub") else WEBHOOKS)
    return Fault(at, kind, target=0 if kind == "kill postgres" else target, seconds=seconds)


def _changed(chance: random.Random, limit: Limit, value: int, *, up: bool) -> int:
    if limit[1] == "concurrency":
        return min(value + chance.randint(1, 3), 40) if up else max(1, value - 1)
    if up:
        return value + round(LIMITS[limit] * chance.uniform(0.3, 1.2))
    return max(1, round(value * chance.uniform(0.3, 0.95)))
