"""One window of a pot: what is settled, reserved and on lease, and the arithmetic that keeps these apart.

Nothing here decides whether there is room; see `room`.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from fleetward.budget.amounts import ACTIONS, CONCURRENCY, add, some, subtract
from fleetward.budget.bucket import Bucket
from fleetward.budget.calls import Holding
from fleetward.budget.windows import expired, free_at, slot_at
from fleetward.registry.slice import BudgetWindow

LEASE_SECONDS = 5.0
"""For how long a lease may be spent."""

FORGET_LEASE_SECONDS = 3600.0
"""After how long a lease of which nothing is left is forgotten."""

FORGET_LATE_SECONDS = 30 * 86_400.0
"""The same, where what was left of it was kept aside, and may yet be spent on record or given back."""


class PotKey(NamedTuple):
    """Names one window of a pot."""

    budget: str
    scope: str
    window: str


class HeldLease(msgspec.Struct, omit_defaults=True):
    """What one process of a holder got, in totals that only grow, save for what never arrived."""

    born: str
    at: float
    """When something was last granted."""
    got: dict[str, int] = {}
    consumed: dict[str, int] = {}
    """By decisions that were recorded."""
    returned: dict[str, int] = {}
    late: dict[str, int] = {}
    """What was left when a rolling window had moved past it: no longer on lease, and part of `consumed`. Its records,
    or its return, may still come."""
    number: int = 0
    """Of the last question that told what the process has."""

    def forgettable(self, now: float) -> bool:
        """Say whether a lease of which nothing is left need not be known any more."""
        return self.at + (FORGET_LATE_SECONDS if some(self.late) else FORGET_LEASE_SECONDS) <= now

    def left(self) -> dict[str, int]:
        """Give what is outstanding: not known to be spent, nor given back."""
        left = {}
        for limit, got in self.got.items():
            amount = got - self.consumed.get(limit, 0) - self.returned.get(limit, 0)
            if amount > 0:
                left[limit] = amount
        return left


class PauseState(msgspec.Struct, omit_defaults=True):
    """Why a pot is paused."""

    limit: str
    percent: int
    need: int
    """What the action needed that there was no room for; 0: what was settled and reserved went beyond by itself."""
    mark: int
    """The amount that `percent` of the limit was."""
    at: float
    reason: str


class Pot(msgspec.Struct, omit_defaults=True):
    """One window of a pot. Amounts are by limit; what is 0 may be left out."""

    began_at: float
    ends_at: float | None = None
    settled: dict[str, int] = {}
    reserved: dict[str, int] = {}
    leased: dict[str, int] = {}
    """The sum of what is left of all leases."""
    overshoot: dict[str, int] = {}
    """What was used beyond what was reserved or on lease for it; it is in `settled` or `reserved`, too."""
    leases: dict[str, list[HeldLease]] = {}
    """By holder, the oldest process first."""
    slots: dict[int, dict[str, int]] = {}
    """What was settled in each slot of a rolling window."""
    told: list[str] = []
    """The thresholds that are reached and were told, as `LIMIT PERCENT`."""
    pause: PauseState | None = None
    buckets: dict[str, Bucket] = {}
    queue: dict[str, float] = {}
    """Agents that wait for a limit on concurrency, in order, and until when each keeps its place."""
    pruned_at: float = 0.0

    def used(self, limit: str) -> int:
        """Give what is settled or reserved."""
        return self.settled.get(limit, 0) + self.reserved.get(limit, 0)

    def committed(self, limit: str) -> int:
        """Give what is settled, reserved or on lease."""
        return self.settled.get(limit, 0) + self.reserved.get(limit, 0) + self.leased.get(limit, 0)

    # Leases

    def lease_of(self, holder: str, born: str) -> HeldLease | None:
        """Give the lease of one process of a holder."""
        return next((lease for lease in self.leases.get(holder, ()) if lease.born == born), None)

    def lessees(self) -> Iterator[str]:
        """Give the holders that something is left to."""
        return (holder for holder, leases in self.leases.items() if any(some(lease.left()) for lease in leases))

    def grant(self, holder: str, born: str, amounts: Mapping[str, int], now: float, number: int = 0) -> None:
        """Put amounts on lease. What is drawn from a token bucket is no lease: it is gone."""
        amounts = {limit: amount for limit, amount in amounts.items() if limit != ACTIONS and amount > 0}
        if not amounts:
            return
        lease = self.lease_of(holder, born)
        if lease is None:
            lease = HeldLease(born, now, number=number)
            self.leases.setdefault(holder, []).append(lease)
        lease.at = now
        add(lease.got, amounts)
        add(self.leased, amounts)

    def hear(self, holder: str, born: str, said: Holding | None, now: float) -> bool:
        """Take in what the holder says it got and gave back; say whether that changed anything.

        What was granted beyond what it got never arrived, and is free again.
        """
        lease = self.lease_of(holder, born)
        if said is None:
            # Nothing of it ever arrived. Or the holder forgot it, as it may once all that it spent is booked: then it
            # counts from 0 again, and so must be counted here.
            return self._drop(holder, lease)
        if lease is None:
            got = {limit: amount for limit, amount in said.got.items() if limit != ACTIONS and amount}
            if not got:
                return False
            # It was forgotten because nothing was left of it; the holder counts on from its totals.
            returned = {limit: min(amount, said.returned.get(limit, 0)) for limit, amount in got.items()}
            consumed = {limit: amount - returned[limit] for limit, amount in got.items()}
            lease = HeldLease(born, now, got, consumed, returned)
            self.leases.setdefault(holder, []).append(lease)
            return True
        changed = False
        for limit, granted in lease.got.items():
            late = lease.late.get(limit, 0)
            gone = lease.consumed.get(limit, 0) + lease.returned.get(limit, 0)
            arrived = max(gone - late, min(granted, said.got.get(limit, 0)))
            if arrived < granted:
                lease.got[limit] = arrived
                # What never arrived was granted last, so that is what is still on lease, before it was late.
                live = min(granted - arrived, granted - gone)
                never = {limit: granted - arrived - live}
                subtract(self.leased, {limit: live})
                subtract(lease.late, never)
                subtract(lease.consumed, never)
                changed = True
        return self._return(lease, said.returned) or changed

    def _drop(self, holder: str, lease: HeldLease | None) -> bool:
        if lease is None:
            return False
        subtract(self.leased, lease.left())
        leases = self.leases[holder]
        leases.remove(lease)
        if not leases:
            del self.leases[holder]
        return True

    def give_back(self, holder: str, born: str, returned: Mapping[str, int]) -> bool:
        """Take back what a holder gave back in all; say whether that changed anything."""
        lease = self.lease_of(holder, born)
        return lease is not None and self._return(lease, returned)

    def _return(self, lease: HeldLease, returned: Mapping[str, int]) -> bool:
        changed = False
        for limit, total in returned.items():
            before = lease.returned.get(limit, 0)
            late = min(max(0, total - before), lease.late.get(limit, 0))
            if late:  # it was not spent after all
                subtract(lease.late, {limit: late})
                subtract(lease.consumed, {limit: late})
            most = lease.got.get(limit, 0) - lease.consumed.get(limit, 0)
            after = max(before, min(total, most))
            if after > before:
                lease.returned[limit] = after
                subtract(self.leased, {limit: after - before - late})
                changed = True
        return changed

    def consume(self, holder: str, amounts: Mapping[str, int], born: str = "") -> dict[str, int]:
        """Take what was spent off the lease of the process that spent it; give what that lacks.

        Where it is not said which one that was, the oldest comes first. Another one's lease may still be spent.
        """
        leases = [lease for lease in self.leases.get(holder, ()) if born in {"", lease.born}]
        lacking: dict[str, int] = {}
        for limit, amount in amounts.items():
            left = amount
            for lease in leases:
                late = min(left, lease.late.get(limit, 0))
                if late:
                    subtract(lease.late, {limit: late})
                    left -= late
                    lacking[limit] = lacking.get(limit, 0) + late
                consumed = lease.consumed.get(limit, 0)
                part = min(left, lease.got.get(limit, 0) - consumed - lease.returned.get(limit, 0))
                if part > 0:
                    lease.consumed[limit] = consumed + part
                    left -= part
            if left:
                lacking[limit] = lacking.get(limit, 0) + left
            subtract(self.leased, {limit: amount - lacking.get(limit, 0)})
        return lacking

    def disown(self, holder: str, born: str) -> tuple[dict[str, int], bool]:
        """Drop the leases of the holder's other processes; give what was left of them, and whether there were any."""
        leases = self.leases.get(holder, [])
        kept = [lease for lease in leases if lease.born == born]
        left: dict[str, int] = {}
        for lease in leases:
            if lease.born != born:
                add(left, lease.left())
        subtract(self.leased, left)
        if kept:
            self.leases[holder] = kept
        else:
            self.leases.pop(holder, None)
        return left, len(kept) < len(leases)

    def prune(self, now: float) -> None:
        """Forget leases of which nothing is left, of holders that took nothing for long."""
        if now < self.pruned_at + FORGET_LEASE_SECONDS / 60:
            return
        self.pruned_at = now
        for holder, leases in list(self.leases.items()):
            kept = [lease for lease in leases if some(lease.left()) or not lease.forgettable(now)]
            if len(kept) == len(leases):
                continue
            if kept:
                self.leases[holder] = kept
            else:
                del self.leases[holder]

    # Settling

    def settle(self, amounts: Mapping[str, int], window: BudgetWindow | None, now: float) -> None:
        """Book what was really used. A slot on concurrency that was used is simply free."""
        amounts = {limit: amount for limit, amount in amounts.items() if limit not in (CONCURRENCY, ACTIONS) and amount}
        if not amounts:
            return
        add(self.settled, amounts)
        if window is not None and window.kind == "Rolling":
            add(self.slots.setdefault(slot_at(window, now), {}), amounts)

    def unsettle(self, amounts: Mapping[str, int], slot: int | None) -> None:
        """Take back what was settled too much; of a rolling window, off the slot that it was booked in."""
        if slot is not None:
            booked = self.slots.get(slot, {})
            amounts = {limit: min(amount, booked.get(limit, 0)) for limit, amount in amounts.items()}
            subtract(booked, amounts)
        subtract(self.settled, amounts)

    def roll(self, window: BudgetWindow, now: float) -> bool:
        """Free what a rolling window no longer holds; say whether there was anything."""
        if window.kind != "Rolling":
            return False
        past = [slot for slot in self.slots if expired(slot, window, now)]
        for slot in past:
            subtract(self.settled, self.slots.pop(slot))
        late = [
            lease
            for leases in self.leases.values()
            for lease in leases
            if free_at(window, slot_at(window, lease.at + LEASE_SECONDS)) <= now and some(lease.left())
        ]
        for lease in late:
            left = lease.left()
            add(lease.late, left)
            add(lease.consumed, left)
            subtract(self.leased, left)
        return bool(past or late)


encode_pot = msgspec.json.Encoder().encode
decode_pot = msgspec.json.Decoder(Pot).decode
