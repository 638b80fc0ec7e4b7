"""Folding: what records say of budgets is booked, each record once.

A batch is added up first, so that one that many actions of one pot are in costs little more than one action; what was
reserved and settled within a batch is never written as a reservation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from fleetward.budget.amounts import ACTIONS, CONCURRENCY, add, in_words, some, subtract
from fleetward.budget.news import Event, News
from fleetward.budget.pages import Pages, Reservation
from fleetward.budget.pot import PotKey
from fleetward.budget.reserving import TermsOf
from fleetward.budget.terms import SETTLE_AFTER_SECONDS, Terms, named
from fleetward.budget.thresholds import roll, watch
from fleetward.budget.windows import Window, WindowError, window_at
from fleetward.decision.action import Spend

_MOMENT_SECONDS = 10
BEYOND = "was used beyond what was reserved"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What one record says of budgets: a decision's, or an outcome's."""

    writer: str
    """Whose record it is; also the holder of the leases that it was spent from."""
    seq: int
    agent: str
    decision_id: str
    spends: tuple[Spend, ...]
    """Of a decision: what it reserved. Of the final outcome: what was really used."""
    at: float
    """In seconds since the epoch, by the writer's clock."""
    ends: bool
    """Whether it is the final outcome."""


@dataclass(slots=True)
class _Tally:
    """What a batch says of one pot."""

    taken: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """What came off the leases, by holder and process."""
    reserved: dict[str, dict[str, int]] = field(default_factory=dict)
    """What is reserved from now on, by agent."""
    freed: dict[str, dict[str, int]] = field(default_factory=dict)
    """What is not reserved any more, by agent."""
    used: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    """What was really used, by agent and moment."""
    beyond: dict[str, dict[str, int]] = field(default_factory=dict)
    """What was used beyond what was reserved, by agent."""
    reserves: list[tuple[str, Reservation]] = field(default_factory=list)
    """The actions that are under way after the batch, by decision."""
    corrected: list[tuple[Reservation, dict[str, int]]] = field(default_factory=list)
    """What was settled at an estimate, with what was really used."""
    decisions: dict[str, str | None] = field(default_factory=dict)
    """The decision whose outcome went beyond; None where there are several of one agent."""


def fold(pages: Pages, entries: Sequence[Entry], terms: TermsOf, now: float) -> None:
    """Book a batch of records. Raises LedgerError where the store cannot be read or written."""
    fresh = _fresh(pages, entries)
    if fresh:
        _Folding(pages, terms, now).fold(fresh)


def _fresh(pages: Pages, entries: Sequence[Entry]) -> list[Entry]:
    """Give the entries that were not folded before, and note that they were."""
    last = pages.store.writers({entry.writer for entry in entries})
    fresh = []
    moved: dict[str, int] = {}
    for entry in entries:
        if entry.seq > last.get(entry.writer, 0):
            last[entry.writer] = moved[entry.writer] = entry.seq
            fresh.append(entry)
    if moved:
        pages.store.save_writers(moved)
    return fresh


class _Folding:
    def __init__(self, pages: Pages, terms: TermsOf, now: float) -> None:
        self._pages, self._terms, self._now = pages, terms, now
        self._tallies: dict[PotKey, _Tally] = {}
        self._ended: list[tuple[str, PotKey]] = []

    def fold(self, entries: list[Entry]) -> None:
        opened: dict[str, Entry] = {}
        ended: list[tuple[Entry, Entry | None]] = []
        for entry in entries:
            if entry.ends:
                ended.append((entry, opened.pop(entry.decision_id, None)))
            elif entry.spends:
                opened[entry.decision_id] = entry
        reserved = self._pages.reservations([entry.decision_id for entry, decision in ended if decision is None])
        for entry, decision in ended:
            if decision is not None:
                self._at_once(decision, entry)
            else:
                self._settle(entry, reserved.pop(entry.decision_id, {}))
        for decision in opened.values():
            self._reserve(decision)
        self._pages.load(self._tallies)
        for key, tally in self._tallies.items():
            self._book(key, tally)
        if self._ended:
            self._pages.store.drop_reservations(self._ended)

    # Entries are added up

    def _tally(self, key: PotKey) -> _Tally:
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally()
        return tally

    def _reserve(self, decision: Entry) -> None:
        for key, amounts in _by_pot(decision.spends).items():
            tally = self._tally(key)
            add(tally.taken.setdefault(_lessee(decision), {}), amounts)
            add(tally.reserved.setdefault(decision.agent, {}), amounts)
            tally.reserves.append((decision.decision_id, Reservation(decision.agent, amounts, self._now)))

    def _at_once(self, decision: Entry, outcome: Entry) -> None:
        """Settle an action whose decision and outcome came together."""
        estimates = _by_pot(decision.spends)
        used = _by_pot(outcome.spends)
        for key, estimate in estimates.items():
            tally = self._tally(key)
            add(tally.taken.setdefault(_lessee(decision), {}), estimate)
            self._use(tally, outcome, estimate, used.pop(key, None))
        for key, amounts in used.items():
            self._use_unreserved(self._tally(key), outcome, amounts)

    def _settle(self, outcome: Entry, reserved: dict[PotKey, Reservation]) -> None:
        """Settle an action whose decision came earlier; or was lost, so that nothing is reserved for it."""
        used = _by_pot(outcome.spends)
        for key, reservation in reserved.items():
            tally = self._tally(key)
            self._ended.append((outcome.decision_id, key))
            if reservation.estimated:
                actual = used.pop(key, None)
                if actual is not None:
                    tally.corrected.append((reservation, actual))
                continue
            add(tally.freed.setdefault(reservation.agent, {}), reservation.amounts)
            self._use(tally, outcome, reservation.amounts, used.pop(key, None))
        for key, amounts in used.items():
            self._use_unreserved(self._tally(key), outcome, amounts)

    def _use(self, tally: _Tally, outcome: Entry, estimate: dict[str, int], actual: dict[str, int] | None) -> None:
        """Count what was used; of what the outcome does not speak, the estimate stands."""
        amounts = estimate if actual is None else actual
        if CONCURRENCY in amounts:
            amounts = {limit: amount for limit, amount in amounts.items() if limit != CONCURRENCY}
        if actual is not None:
            beyond = {
                limit: amount - estimate.get(limit, 0)
                for limit, amount in amounts.items()
                if amount > estimate.get(limit, 0)
            }
            if beyond:
                self._go_beyond(tally, outcome, beyond)
            for limit, amount in estimate.items():
                if limit not in amounts and limit != CONCURRENCY:
                    amounts = {**amounts, limit: amount}
        name = (outcome.agent, self._moment(outcome))
        total = tally.used.get(name)
        if total is None:
            tally.used[name] = dict(amounts)
        else:
            add(total, amounts)

    def _moment(self, outcome: Entry) -> int:
        """Give when something was used, roughly. Clocks of webhooks may say anything."""
        at = outcome.at if 0 <= outcome.at <= self._now else self._now
        return int(at) // _MOMENT_SECONDS * _MOMENT_SECONDS

    def _use_unreserved(self, tally: _Tally, outcome: Entry, amounts: dict[str, int]) -> None:
        """Count what nothing was reserved for: it comes on top of whatever is on lease."""
        self._use(tally, outcome, {}, amounts)

    def _go_beyond(self, tally: _Tally, outcome: Entry, amounts: dict[str, int]) -> None:
        known = outcome.agent in tally.decisions
        tally.decisions[outcome.agent] = None if known else outcome.decision_id
        add(tally.beyond.setdefault(outcome.agent, {}), amounts)

    # Sums are booked

    def _book(self, key: PotKey, tally: _Tally) -> None:
        terms = self._terms(key.budget)
        pot = self._pages.get_or_make(key, _window(key, terms, tally, self._now), self._now)
        if terms is not None:
            roll(self._pages, key, pot, terms, self._now)
        for (holder, born), amounts in tally.taken.items():
            lacking = pot.consume(holder, amounts, born)
            if some(lacking):
                self._overshoot(key, lacking, "was spent without a lease")
        for agent, amounts in tally.freed.items():
            subtract(pot.reserved, amounts)
            self._pages.freed(key, agent, amounts)
        for agent, amounts in tally.reserved.items():
            add(pot.reserved, amounts)
            self._pages.reserved(key, agent, amounts)
        for (agent, at), amounts in tally.used.items():
            pot.settle(amounts, terms.window if terms else None, self._now)
            self._pages.used(key, float(at), agent, amounts)
        for agent, amounts in tally.beyond.items():
            self._overshoot(key, amounts, BEYOND, agent=agent, decision=tally.decisions[agent])
        for reservation, actual in tally.corrected:
            self._correct(key, terms, reservation, actual)
        self._keep(key, terms, tally)
        self._pages.changed(key)
        if terms is not None:
            watch(self._pages, key, pot, terms, self._now)

    def _keep(self, key: PotKey, terms: Terms | None, tally: _Tally) -> None:
        due = self._now + (terms.settle_after_seconds if terms else SETTLE_AFTER_SECONDS)
        self._pages.save_reservations((decision, key, due, one) for decision, one in tally.reserves)

    def _correct(self, key: PotKey, terms: Terms | None, reservation: Reservation, actual: dict[str, int]) -> None:
        """Put what was really used in place of an estimate that was settled."""
        pot = self._pages.get_or_make(key, None, self._now)
        more: dict[str, int] = {}
        less: dict[str, int] = {}
        for limit, amount in actual.items():
            if limit == CONCURRENCY:
                continue
            difference = amount - reservation.amounts.get(limit, 0)
            if difference > 0:
                more[limit] = difference
            elif difference < 0:
                less[limit] = -difference
        if less:
            pot.unsettle(less, reservation.slot)
            self._pages.used(key, self._now, reservation.agent, {limit: -amount for limit, amount in less.items()})
        if more:
            pot.settle(more, terms.window if terms else None, self._now)
            self._pages.used(key, self._now, reservation.agent, more)
            self._overshoot(key, more, BEYOND, agent=reservation.agent)

    def _overshoot(
        self, key: PotKey, amounts: dict[str, int], what: str, *, agent: str | None = None, decision: str | None = None
    ) -> None:
        pot = self._pages.get(key)
        if pot is not None:
            add(pot.overshoot, amounts)
        reason = f"{in_words(amounts)} of {named(key.budget)} {what}"
        self._pages.tell(news("Overshoot", key, reason, self._now, amounts=amounts, agent=agent, decision=decision))


def news(
    event: Event,
    key: PotKey,
    reason: str,
    now: float,
    *,
    amounts: dict[str, int],
    agent: str | None = None,
    decision: str | None = None,
) -> News:
    """Make news of a pot."""
    return News(
        event=event,
        budget=key.budget,
        scope=key.scope,
        window=key.window,
        amounts=amounts,
        agent=agent,
        decision_id=decision,
        reason=reason,
        at=now,
    )


def _lessee(entry: Entry) -> tuple[str, str]:
    """Give whose lease an action was spent from: one process of the writer took all of it."""
    return entry.writer, entry.spends[0].born if entry.spends else ""


def _by_pot(spends: Iterable[Spend]) -> dict[PotKey, dict[str, int]]:
    """Give what an entry says, by pot. Tokens of a rate are gone already, and no store keeps a NUL."""
    found: dict[PotKey, dict[str, int]] = {}
    for spend in spends:
        key = PotKey(spend.budget, spend.scope, spend.window)
        if "\0" in spend.budget or "\0" in spend.scope or "\0" in spend.window:
            key = PotKey(*(part.replace("\0", "\ufffd") for part in key))
        amounts = spend.amounts
        if ACTIONS in amounts or any(amount < 0 for amount in amounts.values()):
            amounts = {limit: amount for limit, amount in amounts.items() if limit != ACTIONS and amount >= 0}
        if key in found:
            amounts = dict(amounts)
            add(amounts, found[key])
        if amounts:
            found[key] = amounts
    return found


def _window(key: PotKey, terms: Terms | None, tally: _Tally, now: float) -> Window | None:
    """Find out when the window of a pot was that is not known here: from when it was spent."""
    if terms is None:
        return None
    moments = [now, *(float(at) for _, at in tally.used)]
    for moment in moments:
        try:
            window = window_at(terms.window, moment)
        except (WindowError, ValueError, OverflowError):
            return None
        if window.id == key.window:
            return window
    return None
