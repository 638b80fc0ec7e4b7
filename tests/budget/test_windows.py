"""Windows tile time, whatever the clocks of a zone do."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetward.budget.windows import SLOTS, WindowError, expired, free_at, slot_at, slot_seconds, window_at
from fleetward.registry.slice import BudgetWindow

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "America/Havana",
    "America/St_Johns",
    "Pacific/Apia",
)
UNITS = ("Hour", "Day", "Week", "Month")
HOUR = 3600
units = st.sampled_from(UNITS)
zones = st.sampled_from(ZONES)
# From 1980 to 2045; the days on which clocks change have tests of their own.
instants = st.floats(min_value=315_532_800, max_value=2_366_841_600, allow_nan=False)


def calendar(unit: str, zone: str = "UTC") -> BudgetWindow:
    return BudgetWindow(kind="Calendar", unit=unit, time_zone=zone)  # type: ignore[arg-type]


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def bounds(unit: str, zone: str, now: str) -> tuple[str, str]:
    window = window_at(calendar(unit, zone), at(now))
    assert window.ends_at is not None
    return shown(window.began_at, zone), shown(window.ends_at, zone)


def shown(moment: float, zone: str) -> str:
    return datetime.fromtimestamp(moment, ZoneInfo(zone)).isoformat(timespec="minutes")


@given(unit=units, zone=zones, now=instants)
@example(unit="Day", zone="America/St_Johns", now=at("2008-11-02T02:30:30+00:00"))  # set back at 00:01
@example(unit="Day", zone="Pacific/Apia", now=at("2011-12-30T10:00:00+00:00"))  # a day left out
@example(unit="Hour", zone="Australia/Lord_Howe", now=at("2026-04-04T14:45:00+00:00"))
def test_every_moment_is_in_its_window_and_windows_tile_time(unit: str, zone: str, now: float) -> None:
    kind = calendar(unit, zone)
    window = window_at(kind, now)
    assert window.ends_at is not None
    assert window.holds(now)
    assert not window.holds(window.ends_at)
    for moment in (window.began_at, (window.began_at + window.ends_at) / 2, window.ends_at - 0.001):
        assert window_at(kind, moment) == window
    following = window_at(kind, window.ends_at)
    assert following.began_at == window.ends_at
    earlier = window_at(kind, window.began_at - 0.001)
    assert earlier.ends_at == window.began_at
    assert len({earlier.id, window.id, following.id}) == 3


@given(unit=st.sampled_from(["Day", "Week", "Month"]), zone=zones, now=instants)
def test_windows_of_days_begin_when_the_local_clock_first_shows_the_date(unit: str, zone: str, now: float) -> None:
    began = window_at(calendar(unit, zone), now).began_at
    first = datetime.fromtimestamp(began, ZoneInfo(zone))
    earlier = datetime.fromtimestamp(began - 1, ZoneInfo(zone))
    assert earlier.date() < first.date()
    if unit == "Month":
        assert earlier.month != first.month
    if unit == "Week":
        assert first.weekday() == 0 or earlier.weekday() > first.weekday()


@given(zone=zones, now=instants)
def test_an_hour_is_never_longer_than_an_hour(zone: str, now: float) -> None:
    window = window_at(calendar("Hour", zone), now)
    assert window.ends_at is not None
    local = datetime.fromtimestamp(window.began_at, ZoneInfo(zone))
    length = window.ends_at - window.began_at
    assert length == HOUR or zone in {"Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu", "America/St_Johns"}
    assert 0 < length <= HOUR
    assert local.minute == 0 or length < HOUR


@given(now=instants)
@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"])
@pytest.mark.parametrize("unit", UNITS)
def test_what_is_known_from_before_says_the_same(unit: str, zone: str, now: float) -> None:
    """The last answer is kept; an equal window asked out of order answers the same as one asked for the first time."""
    kind = calendar(unit, zone)
    first = window_at(kind, now)
    window_at(kind, now + 40 * 86_400)
    assert window_at(kind, now) == first


@pytest.mark.parametrize(
    ("zone", "now", "began", "ends", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00+02:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00+01:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00", 25),
        ("America/New_York", "2026-03-08T12:00-04:00", "2026-03-08T00:00-05:00", "2026-03-09T00:00-04:00", 23),
        ("America/New_York", "2026-11-01T12:00-05:00", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00", 25),
        ("Australia/Lord_Howe", "2026-10-04T12:00+11:00", "2026-10-04T00:00+10:30", "2026-10-05T00:00+11:00", 23.5),
        ("Australia/Lord_Howe", "2026-04-05T12:00+10:30", "2026-04-05T00:00+11:00", "2026-04-06T00:00+10:30", 24.5),
        ("Asia/Kathmandu", "2026-06-01T12:00+05:45", "2026-06-01T00:00+05:45", "2026-06-02T00:00+05:45", 24),
        # There is no midnight: the clocks go from 23:59 to 01:00.
        ("America/Sao_Paulo", "2018-11-04T12:00-02:00", "2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00", 23),
        ("Asia/Beirut", "2022-03-27T12:00+03:00", "2022-03-27T01:00+03:00", "2022-03-28T00:00+03:00", 23),
        # There are two midnights: the day begins with the first.
        ("America/Havana", "2026-11-01T12:00-05:00", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00", 25),
        # Set back at one minute past midnight: the day has begun, and goes on.
        ("America/St_Johns", "2008-11-01T23:30-03:30", "2008-11-02T00:00-02:30", "2008-11-03T00:00-03:30", 25),
        # 30 December 2011 never was in Samoa.
        ("Pacific/Apia", "2011-12-31T12:00+14:00", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00", 24),
        ("Pacific/Apia", "2011-12-29T12:00-10:00", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00", 24),
    ],
)
def test_days_where_clocks_change(zone: str, now: str, began: str, ends: str, hours: float) -> None:
    window = window_at(calendar("Day", zone), at(now))
    assert window.ends_at is not None
    assert (shown(window.began_at, zone), shown(window.ends_at, zone)) == (began, ends)
    assert window.ends_at - window.began_at == hours * HOUR


@pytest.mark.parametrize(
    ("zone", "now", "began", "ends", "minutes"),
    [
        ("Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", 60),
        ("Europe/Berlin", "2026-10-25T02:30+01:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00", 60),
        ("Europe/Berlin", "2026-03-29T01:59+01:00", "2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00", 60),
        ("Asia/Kathmandu", "2026-06-01T12:44+05:45", "2026-06-01T12:00+05:45", "2026-06-01T13:00+05:45", 60),
        ("Australia/Lord_Howe", "2026-04-05T01:45+11:00", "2026-04-05T01:00+11:00", "2026-04-05T01:30+10:30", 60),
        ("Australia/Lord_Howe", "2026-04-05T01:45+10:30", "2026-04-05T01:30+10:30", "2026-04-05T02:00+10:30", 30),
        ("Australia/Lord_Howe", "2026-10-04T02:45+11:00", "2026-10-04T02:30+11:00", "2026-10-04T03:00+11:00", 30),
    ],
)
def test_hours_where_clocks_change(zone: str, now: str, began: str, ends: str, minutes: int) -> None:
    window = window_at(calendar("Hour", zone), at(now))
    assert window.ends_at is not None
    assert (shown(window.began_at, zone), shown(window.ends_at, zone)) == (began, ends)
    assert window.ends_at - window.began_at == minutes * 60


@pytest.mark.parametrize(
    ("unit", "now", "expected"),
    [
        ("Month", "2026-01-31T23:59:59+00:00", ("2026-01-01T00:00+00:00", "2026-02-01T00:00+00:00")),
        ("Month", "2028-02-29T12:00+00:00", ("2028-02-01T00:00+00:00", "2028-03-01T00:00+00:00")),
        ("Month", "2027-02-28T12:00+00:00", ("2027-02-01T00:00+00:00", "2027-03-01T00:00+00:00")),
        ("Month", "2026-12-31T12:00+00:00", ("2026-12-01T00:00+00:00", "2027-01-01T00:00+00:00")),
        ("Week", "2026-11-22T23:59+00:00", ("2026-11-16T00:00+00:00", "2026-11-23T00:00+00:00")),
        ("Week", "2027-01-01T12:00+00:00", ("2026-12-28T00:00+00:00", "2027-01-04T00:00+00:00")),
        ("Day", "2028-02-29T00:00+00:00", ("2028-02-29T00:00+00:00", "2028-03-01T00:00+00:00")),
    ],
)
def test_ends_of_months_weeks_and_leap_years(unit: str, now: str, expected: tuple[str, str]) -> None:
    assert bounds(unit, "UTC", now) == expected


def test_ids_name_unit_zone_and_beginning() -> None:
    now = at("2026-11-21T12:00+01:00")
    assert window_at(calendar("Day", "Europe/Berlin"), now).id == "day-2026-11-21T00:00+01:00[Europe/Berlin]"
    assert window_at(calendar("Hour"), now).id == "hour-2026-11-21T11:00+00:00"
    kinds = [calendar(unit, zone) for unit in UNITS for zone in (*ZONES, "Europe/Paris")]
    kinds += [BudgetWindow(kind="Rolling", duration_seconds=seconds) for seconds in (60, 3600)]
    kinds.append(BudgetWindow(kind="Total"))
    assert len({window_at(kind, now).id for kind in kinds}) == len(kinds)


def test_total_and_rolling_windows_do_not_end() -> None:
    rolling = window_at(BudgetWindow(kind="Rolling", duration_seconds=3600), 10.0)
    total = window_at(BudgetWindow(kind="Total"), 10.0)
    assert (rolling.id, rolling.ends_at, total.id, total.ends_at) == ("rolling-3600", None, "total", None)


@given(duration=st.integers(1, 10_000_000), then=instants, after=st.floats(0, 1.2))
def test_what_is_used_counts_for_the_whole_duration_and_little_longer(duration: int, then: float, after: float) -> None:
    window = BudgetWindow(kind="Rolling", duration_seconds=duration)
    slot = slot_at(window, then)
    later = then + after * duration
    if later - then < duration:
        assert not expired(slot, window, later)
    assert expired(slot, window, then + duration + slot_seconds(window))
    assert then < free_at(window, slot) - duration <= then + slot_seconds(window)
    assert slot_seconds(window) * SLOTS >= duration
    assert slot_at(window, then + slot_seconds(window)) == slot + 1


def test_unknown_zones_and_missing_durations_are_said() -> None:
    with pytest.raises(WindowError, match="'Europe/Atlantis' is not known"):
        window_at(calendar("Day", "Europe/Atlantis"), 0)
    with pytest.raises(WindowError, match="not known"):
        window_at(calendar("Day", "../../etc/passwd"), 0)
    with pytest.raises(WindowError, match="duration"):
        slot_at(BudgetWindow(kind="Rolling"), 0)


def test_times_in_use_are_utc_seconds() -> None:
    window = window_at(calendar("Day"), at("2026-11-21T12:00+00:00"))
    assert datetime.fromtimestamp(window.began_at, UTC).isoformat() == "2026-11-21T00:00:00+00:00"
