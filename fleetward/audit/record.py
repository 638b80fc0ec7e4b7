"""Audit records: what is kept of every decision, outcome, run, change of mode and refused access.

A record's id is its writer's id and its number there, so it is stable wherever the record travels, and a hole in a
writer's numbers shows. Arguments and results are digested, never stored.
"""

from typing import Literal

import msgspec

from fleetward.budget.news import Event
from fleetward.decision.action import Actual, Handover, PlannedStep, RecordedAction, RuleRef, Shortfall, Spend
from fleetward.delegation.scope import Violation
from fleetward.registry.slice import Decision, Mode, Obligation, OperatingMode, Wire
from fleetward.run.mandate import Mandate


class _Head(Wire, frozen=True, kw_only=True, tag_field="type"):
    id: str
    """`<writer>-<seq>`; of a decision, also its decision id."""
    writer: str
    seq: int
    time: str
    """When, in UTC (RFC 3339, microseconds)."""


class DecisionRecord(_Head, frozen=True, kw_only=True, tag="Decision"):
    """One decision: who asked to do what, what was answered, and every rule that counted."""

    agent: str
    action: RecordedAction
    decision: Decision
    reason: str
    rules: tuple[RuleRef, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    retry_after_seconds: int | None = None
    mode: Mode | None = None
    advice: tuple[str, ...] = ()
    run: str | None = None
    grant: str | None = None
    """The id of the grant that the agent acted under; None: it opened the run, or there is none."""
    path: tuple[str, ...] = ()
    """Who handed the work down to the agent, the agent that opened the run first."""
    cause: str | None = None
    """The id of the decision that authorised this one: of the delegation its grant came from, else of the run's
    opening. Vouched for by Fleetward."""
    parent: str | None = None
    """The record that the agent says this came from. Only said, and never believed across runs."""
    traceparent: str | None = None
    violations: tuple[Violation, ...] = ()
    handover: Handover | None = None
    """Of a delegation."""
    plan: tuple[PlannedStep, ...] = ()
    """Of a plan: its steps."""
    spends: tuple[Spend, ...] = ()
    """What the action reserved in budgets, and where it counts towards a limit on concurrency."""
    shortfall: Shortfall | None = None
    """What had no room for the action."""
    registry_version: str
    duration_micros: int | None = None
    """From the parsed request to the judgement."""


class OutcomeRecord(_Head, frozen=True, kw_only=True, tag="Outcome"):
    """What came of a decision's action, and what was decided about it."""

    agent: str
    decision_id: str
    status: str
    decision: Decision
    reason: str
    rules: tuple[RuleRef, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    actual: Actual | None = None
    arguments_digest: str | None = None
    result_digest: str | None = None
    error: str | None = None
    run: str | None = None
    spends: tuple[Spend, ...] = ()
    """With the final outcome: what the action really took, in place of what its decision reserved."""
    registry_version: str


class RunRecord(_Head, frozen=True, kw_only=True, tag="Run"):
    """A run was opened, closed, or ended by its time."""

    run: str
    agent: str
    """Who opened it."""
    state: Literal["Opened", "Closed", "Expired"]
    mandate: Mandate | None = None
    """What was authorised, where the run was opened."""
    parent: str | None = None
    traceparent: str | None = None
    registry_version: str


class ModeChangeRecord(_Head, frozen=True, kw_only=True, tag="ModeChange"):
    """An operating mode was changed on a resource."""

    subject: str
    """Such as `Agent reports/data-worker` or `AgentFleet reporting`."""
    agent: str | None = None
    """The agent's key where the subject is an agent."""
    before: OperatingMode
    after: OperatingMode
    reason: str = ""
    set_by: str = ""
    registry_version: str


class BudgetRecord(_Head, frozen=True, kw_only=True, tag="Budget"):
    """Something happened to a budget that no decision says."""

    event: Event
    """Forfeited: what a webhook held on lease when its machine died counts as used."""
    budget: str
    scope: str = ""
    window: str = ""
    limit: str = ""
    percent: int | None = None
    """Of a threshold."""
    amounts: dict[str, int] = {}
    """What was settled, overshot or forfeited, by limit."""
    agent: str | None = None
    decision_id: str | None = None
    reason: str
    registry_version: str


class AccessRefusedRecord(_Head, frozen=True, kw_only=True, tag="AccessRefused"):
    """Somebody asked to speak for a workload and was not let in, or was shown out.

    The same refusal is recorded at most once a minute, and different ones at a bounded rate; the rest is counted.
    """

    workload: str
    """The workload that was claimed; of what was claimed, nothing need be true."""
    reason: str
    peer: str = ""
    """The address the connection came from; empty where it is not known (a unix socket)."""
    repeated: int = 0
    """How often the same was refused since it was last recorded."""
    unrecorded: int = 0
    """How many other refusals went unrecorded since the last record of any, because there were too many."""
    registry_version: str


Record = DecisionRecord | OutcomeRecord | RunRecord | ModeChangeRecord | BudgetRecord | AccessRefusedRecord

encode = msgspec.json.Encoder().encode
"""A record as one line of JSON, without the newline."""

decode = msgspec.json.Decoder(Record).decode
"""A record from its line; raises msgspec.ValidationError for anything else."""
