"""How the pots of a ledger stand, for whoever looks."""

from collections.abc import Collection, Iterable

from fleetward.budget.pages import Pages, step_seconds
from fleetward.budget.pot import Pot, PotKey
from fleetward.budget.report import LimitReport, Point, PotReport, Spender
from fleetward.budget.reserving import TermsOf
from fleetward.budget.store import RESERVED_STEP, HistoryRow
from fleetward.budget.terms import Terms
from fleetward.budget.windows import WindowError, window_at

_POINTS = 120
"""Steps in one report."""

_LATE_SECONDS = 900.0
"""A forecast looks at the last quarter of what there is, and no further back than this."""


def report(
    pages: Pages, terms: TermsOf, now: float, budgets: Collection[str] | None, *, history: bool
) -> tuple[PotReport, ...]:
    """Report the pots whose windows are open now. Raises LedgerError where the store cannot be read."""
    pages.flush()
    shown = list(_shown(pages, terms, now, budgets))
    rows: dict[PotKey, list[HistoryRow]] = {key: [] for key, _, _ in shown}
    if history:
        for row in pages.store.history(rows):
            rows[row.key].append(row)
    return tuple(_pot(key, pot, known, rows[key], now) for key, pot, known in shown)


def _shown(
    pages: Pages, terms: TermsOf, now: float, budgets: Collection[str] | None
) -> Iterable[tuple[PotKey, Pot, Terms]]:
    for key, pot in pages.known(pages.store.all_pots()):
        known = terms(key.budget) if budgets is None or key.budget in budgets else None
        if known is None:
            continue
        try:
            is_open = window_at(known.window, now).id == key.window
        except (WindowError, ValueError, OverflowError):
            continue
        if is_open:
            pot.roll(known.window, now)  # not to be written: whoever looks may have the store for reading only
            yield key, pot, known


def _pot(key: PotKey, pot: Pot, terms: Terms, rows: list[HistoryRow], now: float) -> PotReport:
    began_at, until = pot.began_at, pot.ends_at
    if terms.window.kind == "Rolling":
        lasts = terms.window.duration_seconds or 0
        # What takes longer than the window to be used up never is: by then all that counts now is free again.
        began_at, until = max(0.0, now - lasts), now + lasts
        rows = [row for row in rows if row.step == RESERVED_STEP or row.step >= began_at - step_seconds(pot)]
    steps = [row for row in rows if row.step != RESERVED_STEP]
    return PotReport(
        budget=key.budget,
        scope=key.scope,
        window=key.window,
        began_at=began_at,
        resets_at=pot.ends_at,
        limits=tuple(
            _limit(limit, most, pot, _empty_at(most - pot.used(limit), _of(limit, steps), began_at, now), until)
            for limit, most in terms.limits.items()
        ),
        paused=pot.pause.reason if pot.pause else "",
        spenders=_spenders(rows),
        series=_series(steps, step_seconds(pot), began_at, now),
    )


def _limit(limit: str, most: int, pot: Pot, empty_at: float | None, until: float | None) -> LimitReport:
    return LimitReport(
        limit=limit,
        max=most,
        spent=pot.settled.get(limit, 0),
        reserved=pot.reserved.get(limit, 0),
        leased=pot.leased.get(limit, 0),
        remaining=most - pot.committed(limit),
        overshoot=pot.overshoot.get(limit, 0),
        empty_at=empty_at if empty_at is None or until is None or empty_at < until else None,
    )


def _of(limit: str, rows: list[HistoryRow]) -> list[HistoryRow]:
    return [row for row in rows if row.limit == limit]


def _empty_at(left: int, steps: list[HistoryRow], began_at: float, now: float) -> float | None:
    """Forecast when nothing is left at the rate of late; None where nobody can say."""
    if left <= 0:
        return now
    starts = sorted({row.step for row in steps})
    if len(starts) < 2:
        return None
    since = now - min(_LATE_SECONDS, (now - began_at) / 4)
    first = min(starts[-2], max(starts[0], int(since)))
    spent = sum(row.amount for row in steps if row.step >= first)
    lasted = now - max(first, began_at)
    return now + left * lasted / spent if spent > 0 and lasted > 0 else None


def _spenders(rows: list[HistoryRow]) -> tuple[Spender, ...]:
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        amounts = totals.setdefault(row.agent, {})
        amounts[row.limit] = amounts.get(row.limit, 0) + row.amount
    found = [
        Spender(agent=agent, amounts={limit: amount for limit, amount in amounts.items() if amount > 0})
        for agent, amounts in totals.items()
    ]
    some = [spender for spender in found if spender.amounts]
    return tuple(sorted(some, key=lambda spender: (-sum(spender.amounts.values()), spender.agent)))


def _series(steps: list[HistoryRow], seconds: int, began_at: float, now: float) -> tuple[Point, ...]:
    """Give what was settled, step by step; steps are put together where there would be too many."""
    if not steps:
        return ()
    first = min(row.step for row in steps)
    lasted = max(now - min(first, began_at) if began_at else now - first, seconds)
    seconds *= -(-int(lasted) // (seconds * _POINTS))
    sums: dict[int, dict[str, int]] = {}
    for row in steps:
        amounts = sums.setdefault(row.step // seconds, {})
        amounts[row.limit] = amounts.get(row.limit, 0) + row.amount
    return tuple(Point(at=float((step + 1) * seconds), amounts=amounts) for step, amounts in sorted(sums.items()))
