"""Whether there is room in a pot for what an action needs, and what is said where there is none."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fleetward.budget.amounts import ACTIONS, CONCURRENCY
from fleetward.budget.bucket import Bucket, enough, seconds_until
from fleetward.budget.pot import PauseState, Pot
from fleetward.budget.terms import Terms
from fleetward.budget.thresholds import mark_of
from fleetward.budget.waiting import ahead
from fleetward.budget.windows import Window
from fleetward.registry.slice import Decision, Rate, Threshold

CONCURRENCY_RETRY_SECONDS = 1
"""After how long an action that waits for a slot is to ask again."""

_LONGEST_RETRY_SECONDS = 3600
_RANKS: dict[str, int] = {"Throttle": 1, "RequireApproval": 2, "Deny": 3, "Pause": 4}
_ANSWERS: dict[str, Decision] = {
    "Throttle": "Throttle",
    "RequireApproval": "RequireApproval",
    "Deny": "Deny",
    "Pause": "Deny",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """There is no room in one pot."""

    decision: Decision
    reason: str
    limit: str
    needed: int
    left: int
    retry_after_seconds: int | None = None
    pause: PauseState | None = None
    """What the pot is to be paused for."""
    waits: bool = False
    """Whether the agent is to keep a place in the queue."""

    @property
    def rank(self) -> int:
        """How hard it is."""
        return _RANKS[self.decision]


@dataclass(frozen=True, slots=True)
class Room:
    """One pot at one moment."""

    pot: Pot
    terms: Terms
    window: Window
    now: float
    asker: tuple[str, str] = ("", "")
    """Holder and process that ask: they have nothing left to give back, so what they have on lease is spent."""

    def refusal(self, amounts: Mapping[str, int], agent: str) -> Refusal | None:
        """Say why there is no room for all of some amounts; None where there is."""
        if self.pot.pause is not None:
            state = self.pot.pause
            anew = self._anew()
            reason = f"{self.terms.name} is paused: {state.reason.removesuffix(anew)}{anew}"
            return Refusal("Deny", reason, state.limit, amounts.get(state.limit, 0), self.left(state.limit))
        found = [refusal for limit, need in amounts.items() if (refusal := self._limit(limit, need, agent))]
        return max(found, key=lambda refusal: refusal.rank, default=None)

    def take(self, amounts: Mapping[str, int], agent: str) -> None:
        """Take tokens out of buckets, and the agent out of the queue; the amounts themselves go on lease."""
        if amounts.get(ACTIONS) and self.terms.rate is not None:
            self._bucket(ACTIONS, self.terms.rate).take(amounts[ACTIONS], self.terms.rate, self.now)
        if CONCURRENCY in amounts:
            self.pot.queue.pop(agent, None)
        for limit, need in amounts.items():
            throttle = self._throttle(limit, need)
            if throttle is not None:
                rate = _rate(throttle)
                self._bucket(_bucket_name(limit, throttle), rate).take(1, rate, self.now)

    def spare(self, limit: str, granted: int, wanted: int, others: int) -> int:
        """Say how much more than was granted just now may go on lease, for the holder to spend later.

        It shrinks towards nothing as the limit, or the next threshold that is more than an event, comes near.
        """
        if limit == CONCURRENCY or wanted <= granted:
            return 0
        if limit == ACTIONS:
            rate = self.terms.rate
            if rate is None:
                return 0
            tokens = self._bucket(ACTIONS, rate).filled(rate, self.now)
            return max(0, min(wanted - granted, int(tokens // 2)))
        most = self.terms.limits.get(limit)
        if most is None:
            return 0
        marks = [mark_of(most, one.percent) for one in self.terms.thresholds if one.action != "Event"]
        committed = self.pot.committed(limit)
        available = min([most, *marks]) - committed + granted
        share = available // (2 * (others + 1))
        return max(0, min(wanted, share) - granted)

    def left(self, limit: str) -> int:
        """Say what nobody has of a limit."""
        if limit == ACTIONS:
            rate = self.terms.rate
            return int(max(0.0, self._bucket(ACTIONS, rate).filled(rate, self.now))) if rate else 0
        return max(0, self.terms.limits.get(limit, 0) - self.pot.committed(limit))

    # One limit

    def _limit(self, limit: str, need: int, agent: str) -> Refusal | None:
        if limit == ACTIONS and self.terms.rate is not None:
            return self._rate(need, self.terms.rate)
        most = self.terms.limits.get(limit)
        if most is None:
            reason = f"{self.terms.name} does not limit {limit} as far as is known here; it was changed just now"
            return Refusal("Throttle", reason, limit, need, 0, retry_after_seconds=1)
        if limit == CONCURRENCY:
            return self._concurrency(need, most, agent)
        if need == 0:
            return None
        return self._amount(limit, need, most)

    def _amount(self, limit: str, need: int, most: int) -> Refusal | None:
        after = self.pot.committed(limit) + need
        passed = self._passed(limit, need)
        actions = [one.action for one in passed]
        if after > most and not any(one.percent >= 100 for one in passed):
            hardest = max([*actions, "Deny"], key=lambda action: _RANKS[action])
        elif passed:
            hardest = max(actions, key=lambda action: _RANKS[action])
        else:
            return None
        if hardest == "Throttle" and after <= most:
            return self._slowed(limit, need, most, passed[-1])
        reason = self._no_room(limit, need, most, passed if after <= most else [])
        left = self.left(limit)
        retry = self._until_reset() if hardest == "Throttle" else None
        pause = self._pause(limit, need, most, passed, reason) if hardest == "Pause" else None
        return Refusal(_ANSWERS[hardest], reason, limit, need, left, retry, pause)

    def _passed(self, limit: str, need: int) -> list[Threshold]:
        """Give the thresholds, by percent, that an action would go past, or is past already; events aside."""
        most = self.terms.limits[limit]
        after = self.pot.committed(limit) + need
        return [one for one in self.terms.thresholds if one.action != "Event" and after > mark_of(most, one.percent)]

    def _throttle(self, limit: str, need: int) -> Threshold | None:
        """Give the threshold whose bucket an action that has room takes from."""
        if limit not in self.terms.limits or limit == CONCURRENCY or need == 0:
            return None
        passed = self._passed(limit, need)
        return passed[-1] if passed else None

    def _slowed(self, limit: str, need: int, most: int, threshold: Threshold) -> Refusal | None:
        rate = _rate(threshold)
        tokens = self._bucket(_bucket_name(limit, threshold), rate).filled(rate, self.now)
        if enough(tokens, 1):
            return None
        wait = seconds_until(tokens, 1, rate)
        committed = self.pot.committed(limit)
        reason = (
            f"{self.terms.name} slows down from {threshold.percent} % of {limit} on, to {threshold.per_minute} actions"
            f" a minute: {committed} of {most} is used, reserved or on lease{self._anew()}"
        )
        return Refusal("Throttle", reason, limit, need, self.left(limit), wait)

    def _pause(self, limit: str, need: int, most: int, passed: list[Threshold], reason: str) -> PauseState | None:
        """Say whether the pot is to be paused.

        Not for an action that would never fit, nor for want of what is only on lease, as that may come back.
        """
        threshold = next(one for one in passed if one.action == "Pause")
        mark = mark_of(most, threshold.percent)
        if need > mark or self._spent(limit) + need <= mark:
            return None
        return PauseState(limit, threshold.percent, need, mark, self.now, reason)

    def _no_room(self, limit: str, need: int, most: int, passed: list[Threshold]) -> str:
        used = self._spent(limit)
        leased = self.pot.committed(limit) - used
        if used > most:
            return (
                f"{used} {limit} is used or reserved, more than the {most} that {self.terms.name} now"
                f" allows{self._anew()}"
            )
        state = f"of {most}, {used} is used or reserved" + (f" and {leased} on lease" if leased else "")
        where = f" before its threshold at {passed[-1].percent} %" if passed else ""
        return f"{self.terms.name} has no room for {need} {limit}{where}: {state}{self._anew()}"

    def _spent(self, limit: str) -> int:
        """Say what is settled or reserved, with what the asker has spent and the ledger has no record of yet."""
        lease = self.pot.lease_of(*self.asker)
        return self.pot.used(limit) + (lease.left().get(limit, 0) if lease is not None else 0)

    def _rate(self, need: int, rate: Rate) -> Refusal | None:
        tokens = self._bucket(ACTIONS, rate).filled(rate, self.now)
        if need > rate.burst:
            reason = f"{need} actions at once are more than the {rate.burst} that {self.terms.name} ever allows"
            return Refusal("Deny", reason, ACTIONS, need, self.left(ACTIONS))
        if enough(tokens, need):
            return None
        wait = seconds_until(tokens, need, rate)
        often = f"{rate.count} in {rate.per_seconds} s" + (
            f", {rate.burst} at once" if rate.burst != rate.count else ""
        )
        return Refusal("Throttle", f"more actions than {often}", ACTIONS, need, self.left(ACTIONS), wait)

    def _concurrency(self, need: int, most: int, agent: str) -> Refusal | None:
        committed = self.pot.committed(CONCURRENCY)
        if need != 1:
            return Refusal("Deny", f"one action takes 1 {CONCURRENCY}, not {need}", CONCURRENCY, need, 0)
        before = ahead(self.pot.queue, agent, self.now)
        if before < most - committed:
            return None
        reason = f"{committed} of {most} actions are under way"
        if before:
            reason += f", and {before} other agent{'s wait' if before > 1 else ' waits'} before this one"
        return Refusal(
            "Throttle", reason, CONCURRENCY, need, self.left(CONCURRENCY), CONCURRENCY_RETRY_SECONDS, waits=True
        )

    # Words and buckets

    def _bucket(self, name: str, rate: Rate) -> Bucket:
        return self.pot.buckets.setdefault(name, Bucket(float(rate.burst), self.now))

    def _anew(self) -> str:
        """Say when the pot begins anew, as the end of a sentence."""
        if self.window.ends_at is not None:
            return f"; it begins anew at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(self.window.ends_at))}"
        if self.terms.window.kind == "Rolling":
            return f"; what was used is free again after {self.terms.window.duration_seconds} s"
        return "; it does not begin anew by itself"

    def _until_reset(self) -> int:
        if self.window.ends_at is None:
            return 60 if self.terms.window.kind == "Rolling" else _LONGEST_RETRY_SECONDS
        return min(max(1, math.ceil(self.window.ends_at - self.now)), _LONGEST_RETRY_SECONDS)


def _rate(threshold: Threshold) -> Rate:
    """Give the rate at which actions go ahead beyond a threshold: evenly, one at a time."""
    return Rate(count=threshold.per_minute, per_seconds=60, burst=1)


def _bucket_name(limit: str, threshold: Threshold) -> str:
    return f"{limit} {threshold.percent}"
