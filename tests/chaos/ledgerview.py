"""What the ledger holds, read from its store beside the hubs, and what must be true of it at any moment."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.world import SHORT, Amounts, Limit, Pot

from fleetward.budget.store import open_ledger_store

LIMITLESS = 10**6


@dataclass(frozen=True)
class Held:
    """What one pot holds."""

    settled: Amounts
    reserved: Amounts
    leased: Amounts
    overshoot: Amounts
    leases: Mapping[str, Amounts] = field(default_factory=dict)
    """What is left of each holder's leases."""
    booked: Amounts | None = None
    """Of a rolling window: what is settled, added up over its slots."""

    def committed(self, limit: str) -> int:
        return self.settled.get(limit, 0) + self.reserved.get(limit, 0) + self.leased.get(limit, 0)

    @property
    def limits(self) -> set[str]:
        return {*self.settled, *self.reserved, *self.leased}


NOTHING = Held({}, {}, {}, {})

Snapshot = Mapping[Pot, Held]


def read(place: str) -> Snapshot:
    """Read all pots, as they were at one moment. Raises LedgerError."""
    store = open_ledger_store(place, read_only=True)
    try:
        store.begin()
        rows = store.all_pots()
        store.rollback()
    finally:
        store.close()
    pots = {Pot(*row.key): json.loads(row.body) for row in rows}
    return {pot: _held(body, rolling=pot.window.startswith("rolling-")) for pot, body in pots.items()}


def open_reservations(place: str) -> dict[tuple[str, Pot], Amounts]:
    """Give what actions without an outcome have reserved, by decision and pot. Raises LedgerError."""
    store = open_ledger_store(place, read_only=True)
    try:
        store.begin()
        rows = store.due_reservations(math.inf, LIMITLESS)
        store.rollback()
    finally:
        store.close()
    bodies = {(row.decision, Pot(*row.key)): json.loads(row.body) for row in rows}
    return {name: body["amounts"] for name, body in bodies.items() if not body.get("estimated")}


def _held(body: dict[str, Any], *, rolling: bool) -> Held:
    leases = {}
    for holder, each in body.get("leases", {}).items():
        left: Amounts = {}
        for lease in each:
            for limit, got in lease.get("got", {}).items():
                amount = got - lease.get("consumed", {}).get(limit, 0) - lease.get("returned", {}).get(limit, 0)
                left[limit] = left.get(limit, 0) + amount
        leases[holder] = {limit: amount for limit, amount in left.items() if amount}
    settled, reserved, leased, over = (body.get(name, {}) for name in ("settled", "reserved", "leased", "overshoot"))
    booked: Amounts = {}
    for amounts in body.get("slots", {}).values():
        for limit, amount in amounts.items():
            booked[limit] = booked.get(limit, 0) + amount
    leases = {holder: left for holder, left in leases.items() if left}
    return Held(settled, reserved, leased, over, leases, booked if rolling else None)


class Watch:
    """Checks each snapshot against the limits, against the one before it, and against what agents were told.

    `most` gives the highest that a limit may be at this moment anywhere.
    """

    def __init__(self, most: Callable[[Limit], int], violated: Callable[[str], None]) -> None:
        self._most = most
        self._violated = violated
        self._before: Snapshot = {}
        self._allowed: dict[Limit, int] = {}
        self.snapshots = 0
        self.highest: dict[Limit, float] = {}
        """How full a pot of each limit ever was."""

    def check(self, snapshot: Snapshot, told: Mapping[tuple[Pot, str], int]) -> None:
        """Check one; `told` is what agents knew before it was read that they may use, and do not say they did not."""
        self.snapshots += 1
        for pot, held in snapshot.items():
            for limit in held.limits:
                self._check_limit(pot, limit, held)
            self._check_leases(pot, held)
        for (pot, limit), amount in told.items():
            held = snapshot.get(pot, NOTHING)
            if amount > held.committed(limit) and pot.budget not in SHORT:
                self._violated(
                    f"agents were told they may use {amount} {limit} of {pot}, and the ledger knows of"
                    f" {held.committed(limit)} only: {held}"
                )
        self._before = snapshot

    def _check_limit(self, pot: Pot, limit: str, held: Held) -> None:
        now = self._most((pot.budget, limit))
        most = max(now, self._allowed.get((pot.budget, limit), now))
        self._allowed[pot.budget, limit] = now
        before = self._before.get(pot, NOTHING)
        overshot_before = before.overshoot.get(limit, 0)
        granted = held.committed(limit) - held.overshoot.get(limit, 0)
        granted_before = before.committed(limit) - overshot_before
        # What was granted since the last look was granted while there was room; overshoot may have come after it.
        if granted > max(granted_before, most - overshot_before):
            self._violated(f"{granted} {limit} of {pot} are granted, {most} are allowed: {held}, before: {before}")
        full = granted / most
        self.highest[pot.budget, limit] = max(full, self.highest.get((pot.budget, limit), 0.0))

    def _check_leases(self, pot: Pot, held: Held) -> None:
        left: Amounts = {}
        for holder, amounts in held.leases.items():
            for limit, amount in amounts.items():
                left[limit] = left.get(limit, 0) + amount
                if amount < 0:
                    self._violated(f"{holder} has {amount} {limit} of {pot} on lease: less than nothing")
        if left != {limit: amount for limit, amount in held.leased.items() if amount}:
            self._violated(f"the leases of {pot} come to {left}, and it says {held.leased}")
        if held.booked is not None and held.booked != {limit: most for limit, most in held.settled.items() if most}:
            self._violated(f"{pot} has {held.settled} settled, and in its slots {held.booked}")
        for part in (held.settled, held.reserved, held.leased):
            if any(amount < 0 for amount in part.values()):
                self._violated(f"{pot} holds less than nothing: {held}")
