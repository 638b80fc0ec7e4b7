"""Points in time, as a user gives them on the command line."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from fleetward.cli.output import printable

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_AMOUNT = re.compile(r"\d+(\.\d+)?")
_AGO = re.compile(r"(\d+[wdhms])+")


class When(click.ParamType[datetime]):
    """A point in time: RFC 3339, or how long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read what the user gave."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            if _AGO.fullmatch(text):
                return datetime.now(UTC) - _span(text)
            time = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            time = None
        if time is None or time.tzinfo is None:
            zone = ", and has no time zone" if time else ""
            self.fail(
                f"found {printable(text)}{zone}; allowed are RFC 3339, such as 2026-03-01T10:00:00Z, and how long ago,"
                " such as 15m, 2h or 1d12h",
                param,
                ctx,
            )
        return time


class Seconds(click.ParamType[float]):
    """A length of time: `90s`, `1m30s`, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read what the user gave."""
        if isinstance(value, float):
            return value
        text = str(value)
        try:
            return float(text) if _AMOUNT.fullmatch(text) else _span(text).total_seconds()
        except (ValueError, OverflowError):
            self.fail(f"found {printable(text)}; allowed is a length of time, such as 30s, 2m or 0", param, ctx)


def _span(text: str) -> timedelta:
    """Read such as 1h30m. Raises ValueError for anything else, OverflowError for what is too long."""
    if not _AGO.fullmatch(text):
        raise ValueError(text)
    parts = {_UNITS[part[-1]]: int(part[:-1]) for part in re.findall(r"\d+[a-z]", text)}
    return timedelta(**parts)
