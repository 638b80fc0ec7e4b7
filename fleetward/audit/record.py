"""Audit records: what is kept of every decision, outcome, change of mode and refused access.

A record's id is its writer's id and its number there, so it is stable wherever the record travels, and a hole in a
writer's numbers shows. Arguments and results are digested, never stored.
"""

import msgspec

from fleetward.decision.action import Actual, RecordedAction, RuleRef
from fleetward.registry.slice import Decision, Mode, Obligation, OperatingMode, Wire


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
    parent: str | None = None
    traceparent: str | None = None
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


Record = DecisionRecord | OutcomeRecord | ModeChangeRecord | AccessRefusedRecord

encode = msgspec.json.Encoder().encode
"""A record as one line of JSON, without the newline."""

decode = msgspec.json.Decoder(Record).decode
"""A record from its line; raises msgspec.ValidationError for anything else."""
