"""Budgets in words: amounts in their units, lengths of time, points in time, and what a forecast says."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from fleetward.budget.amounts import ACTIONS, CONCURRENCY, COST, INPUT_TOKENS, OUTPUT_TOKENS, RECORDS, WALL
from fleetward.budget.report import LimitReport, PotReport
from fleetward.budget.terms import named
from fleetward.decision.action import Shortfall, Spend

_LABELS = {
    INPUT_TOKENS: "input tokens",
    OUTPUT_TOKENS: "output tokens",
    COST: "cost",
    RECORDS: "records",
    WALL: "wall time",
    ACTIONS: "actions",
    CONCURRENCY: "at once",
}
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def label(limit: str) -> str:
    """Name a limit; of calls, with their globs."""
    return _LABELS.get(limit, limit)


def amount(limit: str, value: int) -> str:
    """Write an amount of a limit, exactly: `$4.12`, `1,200,000`, `3 min 2.5 s`."""
    if limit == COST:
        return money(value)
    if limit == WALL:
        return f"-{_wall(-value)}" if value < 0 else _wall(value)
    return f"{value:,}"


def money(micro_usd: int) -> str:
    """Write millionths of a US dollar as dollars: with cents, and further digits where there are any."""
    whole, rest = divmod(abs(micro_usd), 1_000_000)
    digits = f"{rest:06d}"
    return f"{'-' if micro_usd < 0 else ''}${whole:,}.{digits[:2]}{digits[2:].rstrip('0')}"


def amounts(values: Mapping[str, int]) -> str:
    """Write amounts by limit, such as `cost $0.02, records 10`; `nothing` where there are none."""
    return ", ".join(f"{label(limit)} {amount(limit, value)}" for limit, value in values.items()) or "nothing"


def span(seconds: float) -> str:
    """Write a length of time in its two largest units: `2 h 10 min`, `3 h`, `45 s`."""
    left = max(0, round(seconds))
    if left >= 3600:
        left = round(seconds / 60) * 60
    parts: list[tuple[int, str]] = []
    for size, unit in (*_SPANS, (1, "s")):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


def clock(at: float, now: float) -> str:
    """Write a point in time by the user's own clock: `14:20`, with the date where that is not today's."""
    then, today = _local(at), _local(now)
    if then.date() == today.date():
        return f"{then:%H:%M}"
    return f"{then:%Y-%m-%d %H:%M}"


def clock_in_full(at: float, now: float) -> str:
    """Write a point in time as `clock` does, with the time zone."""
    return f"{clock(at, now)} {_local(at):%Z}"


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()


def forecast(limit: LimitReport, pot: PotReport, now: float) -> str:
    """Say when a limit will be empty at the rate of late; empty where it will not be before the pot begins anew."""
    if limit.remaining < 0:
        return f"{amount(limit.limit, -limit.remaining)} more is gone than the limit allows"
    if limit.spent + limit.reserved >= limit.max:
        return "empty"
    if limit.empty_at is None:
        return ""
    words = f"at this rate, empty at {clock(limit.empty_at, now)} (in {span(limit.empty_at - now)})"
    if pot.resets_at is not None:
        words += f", {span(pot.resets_at - limit.empty_at)} before the reset"
    return words


def resets(pot: PotReport, now: float) -> str:
    """Say when a pot begins anew."""
    if pot.resets_at is not None:
        return f"{clock_in_full(pot.resets_at, now)} (in {span(pot.resets_at - now)})"
    return f"bit by bit, over {span(rolling)}" if (rolling := rolling_seconds(pot.window)) else "never"


def begins_anew(window: str, resets_at: float | None, now: float) -> str:
    """Say when a window begins anew, or that it does bit by bit, or never."""
    if resets_at is not None:
        return clock_in_full(resets_at, now)
    rolling = rolling_seconds(window)
    return f"bit by bit: it holds the last {span(rolling)}" if rolling else "never by itself"


def rolling_seconds(window: str) -> int:
    """Give the length of a rolling window by its id, in seconds; 0 for any other."""
    kind, _, seconds = window.partition("-")
    return int(seconds) if kind == "rolling" and seconds.isdecimal() else 0


def whose(scope: str) -> str:
    """Name the pot of a budget."""
    return scope or "shared"


def used_percent(limit: LimitReport) -> int:
    """Give how much of a limit is committed: spent or reserved, in percent rounded down, so 100 means all of it."""
    if limit.max <= 0:
        return 100
    return (limit.spent + limit.reserved) * 100 // limit.max


def spend_in_words(spend: Spend) -> str:
    """Say what was taken out of a pot."""
    pot = f" of {spend.scope}" if spend.scope else ""
    return f"{amounts(spend.amounts)} from {named(spend.budget)}{pot}, window {spend.window or '-'}"


def spends_in_short(spends: Iterable[Spend]) -> str:
    """Say what was taken in all, each amount once however many pots it counts in; empty where it is nothing."""
    total: dict[str, int] = {}
    for spend in spends:
        for limit, value in spend.amounts.items():
            total[limit] = max(value, total.get(limit, 0))
    return amounts({limit: value for limit, value in total.items() if value}) if any(total.values()) else ""


def shortfall_in_words(shortfall: Shortfall) -> str:
    """Say what had no room for an action."""
    limit, pot = shortfall.limit, f" of {shortfall.scope}" if shortfall.scope else ""
    needed, left = amount(limit, shortfall.needed), amount(limit, shortfall.left)
    words = f"{named(shortfall.budget)}{pot}: {label(limit)}: needed {needed}, left {left}"
    if shortfall.resets_at is None:
        return words
    then = _local(shortfall.resets_at)
    return f"{words}, begins anew {then:%Y-%m-%d %H:%M %Z}"


def _wall(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    parts = []
    for size, unit in _SPANS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    if rest and not seconds and not parts:
        return f"{rest} ms"
    if seconds or rest or not parts:
        fraction = f".{rest:03d}".rstrip("0") if rest else ""
        parts.append(f"{seconds}{fraction} s")
    return " ".join(parts)
