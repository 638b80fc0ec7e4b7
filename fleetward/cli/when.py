"""Points in time, as a user gives them on the command line."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from fleetward.cli.output import printable

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
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
                parts = {_UNITS[part[-1]]: int(part[:-1]) for part in re.findall(r"\d+[a-z]", text)}
                return datetime.now(UTC) - timedelta(**parts)
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
