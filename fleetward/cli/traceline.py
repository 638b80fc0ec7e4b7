"""A node of a run's tree as one line: the same words for a terminal, a flowchart and a page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleetward.audit.record import DecisionRecord, OutcomeRecord, RunRecord
from fleetward.audit.trace import Node
from fleetward.cli.budgets.words import shortfall_in_words, spends_in_short
from fleetward.cli.runtext import (
    amounts_in_words,
    deciding,
    mandate_in_words,
    rule_in_short,
    scope_in_words,
    violation_in_words,
)
from fleetward.decision.action import RecordedAction

PLACES = {
    "NotInStore": "cause not in the store for this run: lost, or not collected yet",
    "NotAuthorised": "no cause: nothing in this run authorised these",
    "Circle": "causes that lead back to themselves",
}
"""What the nodes without a record say."""


@dataclass(frozen=True, slots=True)
class Line:
    """A node in words. None of them is made safe for where it is shown."""

    verdict: str
    """A decision, `Opened` or `Closed`; empty for a node without a record."""
    time: str
    who: str
    what: str
    facts: tuple[str, ...]
    """What decided, under which grant, with which labels, and what came of it."""
    reason: str
    """Why it was not simply allowed."""
    below: tuple[str, ...]
    """What needs a line of its own."""
    id: str


def line(node: Node, day: str = "") -> Line:
    """Put a node into words; times on `day` are given without it."""
    record = node.record
    if isinstance(record, DecisionRecord):
        return _decision(node, record, day)
    if isinstance(record, RunRecord):
        return _run(node, record, day)
    return Line("", "", "", PLACES[node.kind], tuple(_outcomes(None, node.outcomes)), "", (), node.id)


def time_in_short(time: str, day: str = "") -> str:
    """Give a time to the millisecond, without the date where it is `day`."""
    if not time.endswith("Z") or len(time) < 20:
        return time
    shown = time[:-1][:23]
    return shown[11:] if shown[:10] == day else f"{shown}Z"


def _run(node: Node, record: RunRecord, day: str) -> Line:
    opened = record.state == "Opened"
    below = tuple(mandate_in_words(record.mandate)) if opened else ()
    said = (f"says it came from {record.parent}",) if record.parent else ()
    facts = tuple(_outcomes(None, node.outcomes))
    time = time_in_short(record.time, day)
    return Line(record.state, time, record.agent, f"run {record.run}", facts, "", below + said, node.id)


def _decision(node: Node, record: DecisionRecord, day: str) -> Line:
    facts = (*_authority(record), *_outcomes(record, node.outcomes))
    reason = "" if record.decision == "Allow" else record.reason
    short = (f"no room: {shortfall_in_words(record.shortfall)}",) if record.shortfall else ()
    below = (*(f"too far: {violation_in_words(each)}" for each in record.violations), *short, *node.notes)
    time = time_in_short(record.time, day)
    return Line(record.decision, time, record.agent, what(record), facts, reason, below, node.id)


def what(record: DecisionRecord) -> str:
    """Say what was decided on."""
    action = record.action
    if record.handover is not None:
        return f"{action.kind} to {record.handover.to}"
    steps = f" of {len(record.plan)} step{'s' * (len(record.plan) != 1)}" if record.plan else ""
    return f"{action.kind} {action.name}{steps}"


def _authority(record: DecisionRecord) -> Iterator[str]:
    rules = deciding(record.rules, record.decision)
    if rules:
        more = f" and {len(rules) - 1} more" if len(rules) > 1 else ""
        yield f"by {rule_in_short(rules[0], record.agent)}{more}"
    if record.mode is not None and record.decision == "Deny":
        yield f"{record.mode.source} is {record.mode.operating_mode}"
    if record.grant:
        yield f"under {record.grant}"
    if record.handover is not None:
        scope = "; ".join(scope_in_words(record.handover.scope))
        given = f"gave {record.handover.grant}" if record.handover.grant else "asked"
        yield given + (f" ({scope})" if scope else "")
    if labels := _labels(record.action, record.handover.labels if record.handover else ()):
        yield f"labels {', '.join(labels)}"
    if reserved := spends_in_short(record.spends):
        yield f"reserved {reserved}"


def _labels(action: RecordedAction, handed: Sequence[str]) -> list[str]:
    declared = action.declared.labels if action.declared else ()
    return list(dict.fromkeys((*action.trusted.labels, *declared, *handed)))


def _outcomes(decision: DecisionRecord | None, outcomes: Sequence[OutcomeRecord]) -> Iterator[str]:
    """Say what came of an action: progress is counted, an end is told."""
    running = [outcome for outcome in outcomes if outcome.status == "Running"]
    ended = [outcome for outcome in outcomes if outcome.status != "Running"]
    if running and not ended:
        yield f"-> Running, told {len(running)} time{'s' * (len(running) != 1)}"
    refused = [outcome for outcome in running if outcome.decision != "Allow"]
    for outcome in refused + ended:
        took = _took(decision, outcome)
        used = f", used {used}" if (used := ", ".join(_used(outcome))) else ""
        used += f", counted {counted}" if (counted := spends_in_short(outcome.spends)) else ""
        refused_words = "" if outcome.decision == "Allow" else f", {outcome.decision}: {outcome.reason}"
        error = f", error {outcome.error}" if outcome.error else ""
        yield f"-> {outcome.status}{took}{used}{refused_words}{error}"


def _used(outcome: OutcomeRecord) -> list[str]:
    return [] if outcome.actual is None else [each for each in amounts_in_words(outcome.actual) if each[-3:] != " ms"]


def _took(decision: DecisionRecord | None, outcome: OutcomeRecord) -> str:
    """Say how long an action took: as reported, else by the clock of the one writer of both records."""
    if outcome.actual is not None and outcome.actual.duration_ms is not None:
        return f" in {outcome.actual.duration_ms} ms"
    if decision is None or decision.writer != outcome.writer:
        return ""
    try:
        took = datetime.fromisoformat(outcome.time) - datetime.fromisoformat(decision.time)
    except (ValueError, TypeError):
        return ""
    return f" after {took.total_seconds() * 1000:.0f} ms"
