"""What the agents were told they may spend, added up by themselves: no ledger and no record is asked."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.world import BURST, MINUTE, OFTEN, RATE, Action, Limit, Pot, window_id

TOKEN_SECONDS = 1.0
"""A token of a rate may be used that long after the hub gave it."""


@dataclass
class Allowed:
    """An action that an agent was told it may take."""

    id: str
    action: Action
    sent: float
    """When it asked, in seconds since the epoch."""
    told: float
    """When it had the answer."""
    parts: dict[tuple[Pot, str], int] = field(default_factory=dict)
    """What it may use of each limit of a pot."""
    used: dict[str, int] | None = None
    """What was reported as used, by limit; None: nothing was said so far."""
    confirmed: bool = False
    """Whether the report was answered."""

    @property
    def writer(self) -> str:
        return self.id.rpartition("-")[0]

    def least(self, limit: str, amount: int) -> int:
        """Give what it counts at least: less than what it may use only if less was reported."""
        return amount if self.used is None else min(amount, self.used.get(limit, amount))


class Tally:
    """All that agents were told, and what they said they used. `most` gives the highest a limit has ever been."""

    def __init__(self, most: Callable[[Limit], int], violated: Callable[[str], None]) -> None:
        self._most = most
        self._violated = violated
        self.all: dict[str, Allowed] = {}
        self.told: dict[tuple[Pot, str], int] = defaultdict(int)
        """All that may be used, ever."""
        self.freed: dict[tuple[Pot, str], int] = defaultdict(int)
        """Of that, what was reported as not used."""
        self.answers: dict[str, int] = defaultdict(int)
        """How often each decision, or each failure, was the answer."""

    def allow(self, allowed: Allowed) -> None:
        """Note an action that may go ahead."""
        if allowed.id in self.all:
            self._violated(f"decision {allowed.id} was given twice")
        self.all[allowed.id] = allowed
        for (budget, scope), amounts in allowed.action.pots().items():
            window = window_id(budget, allowed.sent)
            if window != window_id(budget, allowed.told):
                continue  # nobody can tell from here in which of the two it counts
            for limit, amount in amounts.items():
                allowed.parts[Pot(budget, scope, window), limit] = amount
        for (pot, limit), amount in allowed.parts.items():
            self.told[pot, limit] += amount
            self._check(pot, limit)

    def ending(self, allowed: Allowed, used: dict[str, int]) -> None:
        """Note that an action has ended, before its report is sent."""
        before = {key: allowed.least(key[1], amount) for key, amount in allowed.parts.items()}
        allowed.used = used | {"concurrency": 0}
        for key, amount in allowed.parts.items():
            self.freed[key] += before[key] - allowed.least(key[1], amount)

    def _check(self, pot: Pot, limit: str) -> None:
        if pot.budget == MINUTE:
            return  # see `minutes`
        level, most = self.told[pot, limit] - self.freed[pot, limit], self._most((pot.budget, limit))
        if level > most:
            self._violated(
                f"agents were told they may use {level} {limit} of {pot}, and {most} is the most it ever was"
            )

    def check_minutes(self) -> None:
        """Check that no minute held more of the rolling budget than its limits."""
        by_limit: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
        for allowed in self.all.values():
            for (pot, limit), amount in allowed.parts.items():
                if pot.budget == MINUTE:
                    by_limit[limit].append((allowed.sent, allowed.told, allowed.least(limit, amount)))
        for limit, times in by_limit.items():
            most = self._most((MINUTE, limit))
            found, where = densest(times, 60.0)
            if found > most:
                self._violated(f"{found} {limit} of {MINUTE} in the minute from {clock(where)} on, limit {most}")

    def check_rate(self) -> None:
        """Check that no stretch of time has more actions than the rate lets through."""
        times = sorted((one.sent, one.told, 1) for one in self.all.values() if one.action.name == "burst.ping")
        for seconds in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
            found, where = densest(times, seconds)
            most = BURST + RATE * (seconds + TOKEN_SECONDS)
            if found > most:
                self._violated(f"{found} actions within {seconds} s from {clock(where)} on, {OFTEN} allows {most:.0f}")


def densest(times: list[tuple[float, float, int]], seconds: float) -> tuple[int, float]:
    """Give the most that was asked for and answered within so many seconds, and when that began."""
    best = (0, 0.0)
    within: list[tuple[float, float, int]] = []
    for sent, told, amount in sorted(times, key=lambda each: each[1]):
        within = [each for each in within if each[0] >= told - seconds]
        if sent >= told - seconds:
            within.append((sent, told, amount))
        best = max(best, (sum(each[2] for each in within), told - seconds))
    return best


def clock(at: float) -> str:
    """Say a time."""
    return time.strftime("%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03}"
