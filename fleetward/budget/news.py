"""What happens in a ledger that no decision's record says, to be recorded by whoever keeps the ledger."""

from typing import Literal

import msgspec

Event = Literal["Threshold", "Paused", "Resumed", "SettledAtEstimate", "Overshoot", "Forfeited"]


class News(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of news; the fields are those of `fleetward.audit.record.BudgetRecord`."""

    event: Event
    budget: str
    scope: str = ""
    window: str = ""
    limit: str = ""
    percent: int | None = None
    amounts: dict[str, int] = {}
    agent: str | None = None
    decision_id: str | None = None
    reason: str
    at: float
    """When, in seconds since the epoch."""
    number: int = 0
    """Its place among all news of the ledger; never given twice."""


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A pot from which nothing may be taken any more."""

    budget: str
    scope: str
    window: str
    percent: int
    reason: str
    until: float | None
    """When its window ends; None: it does not."""


encode_news = msgspec.json.Encoder().encode
decode_news = msgspec.json.Decoder(News).decode
