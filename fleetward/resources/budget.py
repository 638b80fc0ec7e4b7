"""What budgets say: who shares them, what may be used in which time, and what happens near the end of it.

Shared by AgentBudget and ClusterAgentBudget.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fleetward.resources.actioncatalog import Estimate
from fleetward.resources.base import (
    MAX_COUNT,
    ActionGlob,
    AgentName,
    LabelSelector,
    Model,
    ObjectName,
    Role,
    Validation,
)

MAX_WALL_SECONDS = MAX_COUNT // 1000
"""Time is counted in milliseconds."""

SHORTEST_SECONDS, LONGEST_SECONDS = 60, 366 * 86400
"""What a rolling window may last."""

_DURATION = r"^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$"
_ZONE = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"
_UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}


def _with_unit(value: Any) -> Any:
    """Refuse a bare number in the words that help: which unit would be meant, nobody can tell."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number or (isinstance(value, str) and value.isdecimal()):
        raise ValueError(f"found {value} without a unit, allowed a duration in h, m and s, such as 24h, 90m or 1h30m")
    return value


Duration = Annotated[str, Field(min_length=2, max_length=32, pattern=_DURATION), BeforeValidator(_with_unit)]
"""A duration as Kubernetes writes it: hours, minutes and seconds, each with its unit."""

TimeZone = Annotated[str, Field(min_length=1, max_length=64, pattern=_ZONE)]
"""A time zone of the IANA database, such as Europe/Berlin."""

Limit = Annotated[int, Field(ge=1, le=MAX_COUNT)]


def seconds_of(duration: str) -> int:
    """Give a `Duration` in seconds."""
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([hms])", duration))


class BudgetSubjects(Model):
    """Who shares a budget: all the fields given must hold; empty, every agent the budget can reach."""

    fleets: Annotated[list[ObjectName], Field(max_length=64)] = []
    """Fleets, to one of which the agent belongs."""
    roles: Annotated[list[Role], Field(max_length=3)] = []
    """Roles."""
    agents: Annotated[list[AgentName], Field(max_length=256)] = []
    """Agents, as name or namespace/name."""
    agent_selector: LabelSelector = LabelSelector()
    """Labels of the agents."""


class Window(Model):
    """After what time what was used is free again."""

    VALIDATIONS = (
        Validation(
            "self.kind != 'Calendar' || has(self.unit)",
            "unit is missing; kind Calendar needs Hour, Day, Week or Month",
            ".unit",
            "FieldValueRequired",
        ),
        Validation(
            "self.kind == 'Calendar' || !has(self.unit)",
            "unit goes with kind Calendar only",
            ".unit",
            "FieldValueForbidden",
            "self.kind",
        ),
        Validation(
            "self.kind == 'Calendar' || !has(self.timeZone)",
            "timeZone goes with kind Calendar only",
            ".timeZone",
            "FieldValueForbidden",
            "self.kind",
        ),
        Validation(
            "self.kind != 'Rolling' || has(self.duration)",
            "duration is missing; kind Rolling needs it, such as 24h",
            ".duration",
            "FieldValueRequired",
        ),
        Validation(
            "self.kind == 'Rolling' || !has(self.duration)",
            "duration goes with kind Rolling only",
            ".duration",
            "FieldValueForbidden",
            "self.kind",
        ),
        Validation(
            f"!has(self.duration) || self.duration.size() < 2 || !self.duration.matches('{_DURATION}') || "
            f"(duration(self.duration) >= duration('{SHORTEST_SECONDS}s') && "
            f"duration(self.duration) <= duration('{LONGEST_SECONDS}s'))",
            "duration must be 1m to 8784h, which is 366 days",
            ".duration",
            found="self.duration",
        ),
    )

    kind: Literal["Calendar", "Rolling", "Total"]
    """Calendar: begins anew with each hour, day, week or month. Rolling: the last so many hours. Total: never."""
    unit: Literal["Hour", "Day", "Week", "Month"] | None = None
    """For Calendar; a week begins on Monday."""
    time_zone: TimeZone | None = None
    """For Calendar: the time zone whose hours and days count, daylight saving included; UTC where left out."""
    duration: Duration | None = None
    """For Rolling: no stretch of this length ever holds more than the limits; room comes back in 60 steps."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.kind == "Calendar" and self.unit is None:
            raise ValueError("unit is missing; kind Calendar needs Hour, Day, Week or Month")
        for field, value in (("unit", self.unit), ("timeZone", self.time_zone)):
            if self.kind != "Calendar" and value is not None:
                raise ValueError(f"{field} goes with kind Calendar only, found {self.kind}")
        if self.kind == "Rolling" and self.duration is None:
            raise ValueError("duration is missing; kind Rolling needs it, such as 24h")
        if self.kind != "Rolling" and self.duration is not None:
            raise ValueError(f"duration goes with kind Rolling only, found {self.kind}")
        if self.duration is not None and not SHORTEST_SECONDS <= seconds_of(self.duration) <= LONGEST_SECONDS:
            raise ValueError(f"duration must be 1m to 8784h, which is 366 days, found {self.duration}")
        return self


class CallLimit(Model):
    """How often actions may be taken, by their names."""

    names: Annotated[list[ActionGlob], Field(min_length=1, max_length=16)]
    """Globs over action names; the calls of all that one of them matches are counted together."""
    max: Limit
    """How many calls."""


class Limits(Model):
    """What may be used in one window; at least one limit is needed, and what has none is not counted."""

    VALIDATIONS = (
        Validation(
            "has(self.inputTokens) || has(self.outputTokens) || has(self.costMicroUsd) || has(self.records) || "
            "has(self.wallSeconds) || (has(self.calls) && self.calls.size() > 0)",
            "a limit is missing; a budget needs at least one of inputTokens, outputTokens, costMicroUsd, records, "
            "wallSeconds and calls",
            reason="FieldValueRequired",
        ),
        Validation(
            "!has(self.calls) || self.calls.all(a, self.calls.exists_one(b, b.names == a.names))",
            "two limits on calls have the same names",
            ".calls",
        ),
    )

    input_tokens: Limit | None = None
    """Tokens sent to models, those the provider had in its cache included."""
    output_tokens: Limit | None = None
    """Tokens models return, those spent on reasoning included."""
    cost_micro_usd: Limit | None = None
    """Cost in millionths of a US dollar: 5000000 is 5 dollars. Prices are told in ActionCatalogs."""
    records: Limit | None = None
    """Data records touched."""
    wall_seconds: Annotated[int, Field(ge=1, le=MAX_WALL_SECONDS)] | None = None
    """Seconds from decisions to their outcomes, added up; needs defaultEstimate.wallSeconds."""
    calls: Annotated[list[CallLimit], Field(max_length=16)] = []
    """Calls, by the names of actions."""

    @model_validator(mode="after")
    def _say_something(self) -> Self:
        amounts = (self.input_tokens, self.output_tokens, self.cost_micro_usd, self.records, self.wall_seconds)
        if all(amount is None for amount in amounts) and not self.calls:
            raise ValueError(
                "a limit is missing; a budget needs at least one of inputTokens, outputTokens, costMicroUsd, "
                "records, wallSeconds and calls"
            )
        if len({tuple(each.names) for each in self.calls}) < len(self.calls):
            raise ValueError("two limits on calls have the same names")
        return self


class Threshold(Model):
    """What happens once so much of any limit is used."""

    VALIDATIONS = (
        Validation(
            "self.action == 'Throttle' || !has(self.perMinute)",
            "perMinute goes with action Throttle only",
            ".perMinute",
            "FieldValueForbidden",
            "self.action",
        ),
    )

    percent: Annotated[int, Field(ge=1, le=100)]
    """Of a limit, in percent; what is reserved for actions under way counts as used."""
    action: Literal["Event", "Throttle", "RequireApproval", "Pause"]
    """Event: it is recorded. Throttle: so many actions a minute go ahead. RequireApproval: each needs approval.

    Pause: the agents that share the budget are Paused until it begins anew or its limits are raised.
    """
    per_minute: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """With Throttle: how many actions still go ahead in a minute; 1 where left out."""

    @model_validator(mode="after")
    def _rate_fits(self) -> Self:
        if self.per_minute is not None and self.action != "Throttle":
            raise ValueError(f"perMinute goes with action Throttle only, found {self.action}")
        return self


class BudgetEstimate(Estimate):
    """What an action is taken to use that nothing else is said of."""

    wall_seconds: Annotated[int, Field(ge=0, le=MAX_WALL_SECONDS)] | None = None
    """Seconds from the decision to the outcome."""


class Parent(Model):
    """The budget that this one is a part of."""

    kind: Literal["AgentBudget", "ClusterAgentBudget"]
    """Its kind; an AgentBudget is one of the same namespace."""
    name: ObjectName
    """Its name."""


class BudgetSpec(Model):
    """What may be used, by whom, in which time."""

    VALIDATIONS = (
        Validation(
            "!has(self.limits.wallSeconds) || (has(self.defaultEstimate) && has(self.defaultEstimate.wallSeconds))",
            "defaultEstimate.wallSeconds is missing; limits.wallSeconds needs it, as no action says beforehand how "
            "long it takes",
            ".defaultEstimate",
            "FieldValueRequired",
        ),
        Validation(
            "!has(self.thresholds) || self.thresholds.all(a, "
            "self.thresholds.exists_one(b, b.percent == a.percent && b.action == a.action))",
            "two thresholds have the same percent and action",
            ".thresholds",
        ),
    )

    subjects: BudgetSubjects = BudgetSubjects()
    """Who shares it; left out, every agent the budget can reach."""
    scope: Literal["Shared", "Agent", "Run", "Subtree"] = "Shared"
    """Shared: one pot for all subjects. Agent, Run: a pot for each agent, for each run.

    Subtree: a pot for each run, and one for each grant in it: for what is done under it, however far down.
    """
    window: Window = Window(kind="Total")
    """After what time what was used is free again; left out, never (kind Total)."""
    limits: Limits
    """What may be used in one window of one pot."""
    thresholds: Annotated[list[Threshold], Field(max_length=16)] = []
    """What happens before a limit is reached. Beyond it, actions are denied, or as a threshold at 100 percent says."""
    parent: Parent | None = None
    """The budget that this one is a part of: what counts here counts there, too, and both must have room."""
    default_estimate: BudgetEstimate = BudgetEstimate()
    """What an action is taken to use where neither a catalog nor the agent says it."""
    unpriced_models: Literal["Deny", "UseEstimate"] = "Deny"
    """What holds for calls of a model without a price, where cost is limited; UseEstimate: the estimate counts."""
    settle_after_seconds: Annotated[int, Field(ge=60, le=86400)] = 3600
    """After how many seconds an action without an outcome counts as what it was expected to use."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.limits.wall_seconds is not None and self.default_estimate.wall_seconds is None:
            raise ValueError(
                "defaultEstimate.wallSeconds is missing; limits.wallSeconds needs it, as no action says beforehand "
                "how long it takes"
            )
        if len({(each.percent, each.action) for each in self.thresholds}) < len(self.thresholds):
            raise ValueError("two thresholds have the same percent and action")
        return self
