"""What time alone does to a ledger: estimates that stand, windows that end, pauses that end with them."""

from collections.abc import Iterable

from fleetward.budget.amounts import in_words, subtract
from fleetward.budget.folding import news
from fleetward.budget.news import News
from fleetward.budget.pages import Pages, Reservation, decode_reservation
from fleetward.budget.pot import Pot, PotKey
from fleetward.budget.reserving import TermsOf
from fleetward.budget.store import ReservationRow
from fleetward.budget.terms import Terms, named
from fleetward.budget.thresholds import may_resume, resume, roll, watch
from fleetward.budget.windows import slot_at

KEPT_SECONDS = 86_400.0
"""For how long an ended window is kept, and for how long an outcome may still correct an estimate."""

_AT_ONCE = 500
"""How many reservations and windows one sweep deals with."""


def sweep(pages: Pages, terms: TermsOf, now: float) -> None:
    """Do what is due by now. Raises LedgerError where the store cannot be read or written."""
    _settle_due(pages, pages.store.due_reservations(now, _AT_ONCE), terms, now)
    pages.flush()
    _resume(pages, terms, now)
    _drop_ended(pages, now)


def _settle_due(pages: Pages, rows: list[ReservationRow], terms: TermsOf, now: float) -> None:
    pages.load(row.key for row in rows)
    forgotten = []
    estimated: list[tuple[str, PotKey, float, Reservation]] = []
    for row in rows:
        reservation = decode_reservation(row.body)
        pot = pages.get(row.key)
        if reservation.estimated or pot is None:
            forgotten.append((row.decision, row.key))
            continue
        known = terms(row.key.budget)
        _settle(pot, reservation, known, now)
        pages.freed(row.key, reservation.agent, reservation.amounts)
        pages.used(row.key, now, reservation.agent, reservation.amounts)
        pages.changed(row.key)
        pages.tell(_told(row, reservation, now))
        if known is not None:
            watch(pages, row.key, pot, known, now)
        estimated.append((row.decision, row.key, now + KEPT_SECONDS, reservation))
    if forgotten:
        pages.store.drop_reservations(forgotten)
    pages.save_reservations(estimated)


def _settle(pot: Pot, reservation: Reservation, terms: Terms | None, now: float) -> None:
    """Settle an action at its estimate, as no outcome came."""
    window = terms.window if terms else None
    subtract(pot.reserved, reservation.amounts)
    pot.settle(reservation.amounts, window, now)
    reservation.estimated = True
    reservation.slot = slot_at(window, now) if window is not None and window.kind == "Rolling" else None


def _told(row: ReservationRow, reservation: Reservation, now: float) -> News:
    reason = (
        f"no outcome came in {now - reservation.at:.0f} s: {in_words(reservation.amounts)} of {named(row.key.budget)}"
        " counts as used, or is free again where it is a slot"
    )
    return news(
        "SettledAtEstimate",
        row.key,
        reason,
        now,
        amounts=reservation.amounts,
        agent=reservation.agent,
        decision=row.decision,
    )


def _resume(pages: Pages, terms: TermsOf, now: float) -> None:
    for key, pot in pages.known(pages.store.paused_pots()):
        if pot.ends_at is not None and pot.ends_at <= now:
            resume(pages, key, pot, "its window is over", now)
            continue
        known = terms(key.budget)
        if known is not None:
            roll(pages, key, pot, known, now)
        reason = may_resume(pot, known)
        if reason:
            resume(pages, key, pot, reason, now)


def _drop_ended(pages: Pages, now: float) -> None:
    over = list(_over(pages, now))
    if over:
        pages.drop(over)


def _over(pages: Pages, now: float) -> Iterable[PotKey]:
    """Give the windows that ended long ago, and in which no action is under way."""
    for key, pot in pages.known(pages.store.ended_pots(now - KEPT_SECONDS, _AT_ONCE)):
        if not pot.reserved:
            yield key
