"""Windows: from when to when a pot holds what it holds, before it begins anew.

Calendar windows follow the clock of a time zone. A day begins at the first moment at which the clock there shows its
midnight or later, so a day has 23 or 25 hours where the clocks change, and one whose midnight does not exist begins
after the gap. An hour is an hour of real time; only where clocks change by less than an hour is one cut short. A
rolling window is always open: what was used in one of its slots is free again when the slot is past by its duration.
"""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleetward.registry.slice import BudgetWindow

SLOTS = 60
"""Into how many parts a rolling window is divided, at most; each has whole seconds."""

_HOUR = 3600
_KNOWN_WINDOWS = 4096
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of naive local time


class WindowError(ValueError):
    """A window cannot be worked out; the message says why."""


class Window(NamedTuple):
    """One window of a pot, in seconds since the epoch."""

    id: str
    """Names it among all windows of any kind, unit, zone or duration."""
    began_at: float
    """When it began; 0 for one without a beginning."""
    ends_at: float | None
    """The first moment after it; None: it does not end."""

    def holds(self, now: float) -> bool:
        """Say whether `now` is in it."""
        return self.began_at <= now and (self.ends_at is None or now < self.ends_at)


_last: dict[BudgetWindow, Window] = {}


def window_at(window: BudgetWindow, now: float) -> Window:
    """Give the window in which `now` is, in seconds since the epoch. Raises WindowError for an unknown time zone."""
    known = _last.get(window)
    if known is not None and known.holds(now):
        return known
    found = _window_at(window, now)
    if len(_last) >= _KNOWN_WINDOWS:
        _last.clear()
    _last[window] = found
    return found


def slot_at(window: BudgetWindow, now: float) -> int:
    """Give the number of the slot of a rolling window that `now` is in. Numbers grow with time."""
    return int(now // slot_seconds(window))


def free_at(window: BudgetWindow, slot: int) -> float:
    """Say from when on what was used in a slot counts no more: no stretch of the duration touches the slot then."""
    return (slot + 1) * slot_seconds(window) + _duration(window)


def expired(slot: int, window: BudgetWindow, now: float) -> bool:
    """Say whether what was used in a slot is free again."""
    return now >= free_at(window, slot)


def slot_seconds(window: BudgetWindow) -> int:
    """Give the length of a rolling window's slots."""
    return -(-_duration(window) // SLOTS)


def _window_at(window: BudgetWindow, now: float) -> Window:
    if window.kind == "Total":
        return Window("total", 0.0, None)
    if window.kind == "Rolling":
        return Window(f"rolling-{_duration(window)}", 0.0, None)
    zone = _zone(window.time_zone)
    began, ends = _hour(zone, now) if window.unit == "Hour" else _dates(zone, window.unit or "Day", now)
    return Window(f"{(window.unit or 'Day').lower()}-{_name(zone, began)}", float(began), float(ends))


def _duration(window: BudgetWindow) -> int:
    if window.duration_seconds is None or window.duration_seconds <= 0:
        raise WindowError("a rolling window needs a duration")
    return window.duration_seconds


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise WindowError(f"the time zone {name!r} is not known here") from error


# Hours


def _hour(zone: ZoneInfo, now: float) -> tuple[int, int]:
    """Give the hour by the local clock, cut short where the clock's minutes change."""
    second = int(now // 1)
    offset = _offset(zone, second)
    began = second - (second + offset) % _HOUR
    ends = began + _HOUR
    if (before := _offset(zone, began)) != offset and (offset - before) % _HOUR:
        began = _change(zone, began, second)
    if (after := _offset(zone, ends - 1)) != offset and (after - offset) % _HOUR:
        ends = _change(zone, second, ends - 1)
    return began, ends


# Days, weeks and months


def _dates(zone: ZoneInfo, unit: str, now: float) -> tuple[int, int]:
    first = _first_day(unit, datetime.fromtimestamp(int(now // 1), zone).date())
    following = _next(unit, first)
    # The clock may have been set back over a midnight: the day that had begun goes on.
    while (ends := _beginning(zone, following)) <= now:
        first, following = following, _next(unit, following)
    return _beginning(zone, first), ends


def _first_day(unit: str, day: date) -> date:
    match unit:
        case "Week":
            return day - timedelta(days=day.weekday())
        case "Month":
            return day.replace(day=1)
    return day


def _next(unit: str, first: date) -> date:
    match unit:
        case "Week":
            return first + timedelta(days=7)
        case "Month":
            return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=1)


def _beginning(zone: ZoneInfo, day: date) -> int:
    """Give the first moment at which the clock shows `day` or later."""
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - the zone comes next
    naive = round((midnight - _EPOCH).total_seconds())
    earlier = naive - _seconds(midnight.replace(tzinfo=zone).utcoffset())
    if earlier + _offset(zone, earlier) == naive:
        return earlier
    # Midnight is in a gap: fold 1 takes the offset after the gap, which gives a moment before it.
    before = naive - _seconds(midnight.replace(tzinfo=zone, fold=1).utcoffset())
    return _change(zone, before, earlier)


# The clock of a zone


def _change(zone: ZoneInfo, before: int, after: int) -> int:
    """Give the first second that has another offset than `before`, up to `after`, which has another."""
    offset = _offset(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(zone, middle) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(zone: ZoneInfo, second: int) -> int:
    """Give by how many seconds the clock there is ahead of UTC."""
    return _seconds(datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset())


def _seconds(offset: timedelta | None) -> int:
    return 0 if offset is None else round(offset.total_seconds())


def _name(zone: ZoneInfo, began: int) -> str:
    """Name a moment as RFC 9557 does, such as `2026-11-21T00:00+01:00[Europe/Berlin]`; without the zone for UTC."""
    local = datetime.fromtimestamp(began, zone)
    text = local.isoformat(timespec="seconds" if local.second else "minutes")
    return text if zone.key == "UTC" else f"{text}[{zone.key}]"
