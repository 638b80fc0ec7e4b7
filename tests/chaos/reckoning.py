"""The end of a run: the ledger against the audit records of all hubs, and both against what agents were told."""

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from chaos.ledgerview import NOTHING, Snapshot
from chaos.tally import Tally
from chaos.world import SHORT, TREE, Limit, Pot

Record = dict[str, Any]
Sums = dict[tuple[Pot, str], int]

UNSETTLED = ("actions", "concurrency")
"""What is counted while it is under way only."""

ALLOWS = ("Allow", "Constrain")


def records_of(stores: Iterable[Path]) -> dict[str, Record]:
    """Read the records of all stores; one that two of them have counts once."""
    found: dict[str, Record] = {}
    for store in stores:
        with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            for (body,) in connection.execute("SELECT body FROM records ORDER BY position"):
                record = json.loads(body)
                found[record["id"]] = record
    return found


class Reckoning:
    """All that is on record."""

    def __init__(self, records: Mapping[str, Record], violated: Callable[[str], None]) -> None:
        self.records = records
        self._violated = violated
        self._decisions = {id_: one for id_, one in records.items() if one["type"] == "Decision"}
        self._ended: dict[str, Record] = {}
        for one in records.values():
            if one["type"] == "Outcome" and one.get("spends"):
                if one["decisionId"] in self._ended:
                    violated(f"{one['decisionId']} is settled twice, by {one['id']} and before it")
                self._ended[one["decisionId"]] = one

    def check_denials(self) -> None:
        """Check that what did not go ahead cost nothing."""
        for one in self._decisions.values():
            if one["decision"] not in ALLOWS and one.get("spends"):
                self._violated(f"{one['id']} was {one['decision']} and has spends: {one['spends']}")

    def check_told(self, tally: Tally, lost: Collection[str], cut: Collection[str]) -> None:
        """Check that what agents were told is on record, with what it takes.

        `lost` are writers whose spool is gone, `cut` are decisions of which something went with a machine.
        """
        for allowed in tally.all.values():
            record = self._decisions.get(allowed.id)
            if record is None:
                if allowed.writer not in lost and allowed.id not in cut:
                    self._violated(f"an agent was told that {allowed.id} is allowed, and that is on no record")
                continue
            if record["decision"] not in ALLOWS:
                self._violated(f"an agent was told that {allowed.id} is allowed, its record says {record['decision']}")
            spends = {(s["budget"], s.get("scope", "")): s["amounts"] for s in record.get("spends", ())}
            known = {name: amounts for name, amounts in spends.items() if not _of_a_grant(*name)}
            if known != allowed.action.pots():
                self._violated(f"{allowed.id} takes {allowed.action.pots()}, on record is {known}")
            gone = allowed.writer in lost or allowed.id in cut
            if allowed.confirmed and known and allowed.id not in self._ended and not gone:
                self._violated(f"the outcome of {allowed.id} was taken, and is on no record")

    def check_overshoot(self) -> None:
        """Check that all that was used beyond what was granted was reported so by an agent."""
        for one in self.records.values():
            if one["type"] == "Budget" and one["event"] == "Overshoot" and "without a lease" in one["reason"]:
                self._violated(f"{one['time']}: {one['reason']} ({one})")

    def sums(self) -> Sums:
        """Add up, by the records alone, what every pot must hold as settled or reserved."""
        total: Sums = defaultdict(int)
        for id_, one in self._decisions.items():
            for spend in (self._ended.get(id_) or one).get("spends", ()):
                _add(total, spend, spend["amounts"])
        for id_, one in self._ended.items():
            if id_ not in self._decisions:
                for spend in one["spends"]:
                    _add(total, spend, spend["amounts"])
        for one in self.records.values():
            if one["type"] == "Budget" and one["event"] == "Forfeited":
                _add(total, one, one.get("amounts", {}))
        return total

    def check_ledger(self, snapshot: Snapshot, current: Callable[[Pot], bool]) -> None:
        """Check that the ledger holds what the records say; pots for which `current` is false may be forgotten."""
        sums = self.sums()
        names = set(sums)
        for pot, held in snapshot.items():
            names |= {(pot, limit) for limit in (*held.settled, *held.reserved) if limit not in UNSETTLED}
        for pot, limit in sorted(names, key=str):
            held = snapshot.get(pot, NOTHING)
            found = held.settled.get(limit, 0) + held.reserved.get(limit, 0)
            recorded = sums.get((pot, limit), 0)
            if pot.budget in SHORT:
                if found > recorded:
                    self._violated(f"the ledger has {found} {limit} of {pot}, on record is {recorded} in all")
            elif found != recorded and current(pot):
                self._violated(f"the ledger has {found} {limit} of {pot}, the records say {recorded}: {held}")

    def check_leases(self, snapshot: Snapshot, lost: Collection[str], tally: Tally) -> dict[Limit, int]:
        """Check that only thrown-away spools keep leases, and that these cover what is lost; give what they keep."""
        left = {
            (holder, pot, limit): amount
            for pot, held in snapshot.items()
            for holder, amounts in held.leases.items()
            for limit, amount in amounts.items()
        }
        kept: dict[Limit, int] = defaultdict(int)
        for (holder, pot, limit), amount in left.items():
            kept[pot.budget, limit] += amount
            if holder not in lost:
                self._violated(f"{holder} still has {amount} {limit} of {pot} on lease")
        for (writer, pot, limit), amount in self._unrecorded(tally, lost).items():
            if amount > left.get((writer, pot, limit), 0) and pot.budget not in SHORT:
                self._violated(
                    f"{amount} {limit} of {pot} went with the spool of {writer}, which has"
                    f" {left.get((writer, pot, limit), 0)} on lease"
                )
        return kept

    def _unrecorded(self, tally: Tally, lost: Collection[str]) -> dict[tuple[str, Pot, str], int]:
        """Give what agents were told that went with thrown-away spools, by writer, pot and limit."""
        found: dict[tuple[str, Pot, str], int] = defaultdict(int)
        for allowed in tally.all.values():
            if allowed.id not in self._decisions and allowed.writer in lost:
                for (pot, limit), amount in allowed.parts.items():
                    found[allowed.writer, pot, limit] += amount
        return found


def _add(total: Sums, where: Mapping[str, Any], amounts: Mapping[str, int]) -> None:
    pot = Pot(where["budget"], where.get("scope", ""), where.get("window", ""))
    for limit, amount in amounts.items():
        if limit not in UNSETTLED and amount:
            total[pot, limit] += amount


def _of_a_grant(budget: str, scope: str) -> bool:
    return budget == TREE and "/" in scope and not scope.startswith("agent:")
