"""Audit records in words: a row of a table, or one record with all that is known of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.text import Text

from fleetward.audit.record import (
    AccessRefusedRecord,
    BudgetRecord,
    DecisionRecord,
    ModeChangeRecord,
    OutcomeRecord,
    Record,
    RunRecord,
)
from fleetward.budget.terms import named
from fleetward.cli.budgets.words import amounts, label, shortfall_in_words, spend_in_words
from fleetward.cli.describe import obligation_in_words
from fleetward.cli.output import decision_text, mode_text, printable, say
from fleetward.cli.runtext import (
    amounts_in_words,
    handover_in_words,
    mandate_in_words,
    step_in_words,
    violation_in_words,
)
from fleetward.decision.action import Facts, RuleRef

COLUMNS = ("TIME", "AGENT", "ACTION", "DECISION", "RULES", "RUN", "ID")

FindRecord = Callable[[str], Record | None]
"""Gives the record of an id, if there is one."""


def row(record: Record, find: FindRecord) -> list[str | Text]:
    """Give a record as one row under COLUMNS; `find` looks up the decision that an outcome belongs to."""
    if isinstance(record, ModeChangeRecord):
        who, what, verdict = (
            record.agent or record.subject,
            f"operatingMode was {record.before}{f', set by {record.set_by}' if record.set_by else ''}",
            mode_text(record.after),
        )
        rules, run = "-", "-"
    elif isinstance(record, AccessRefusedRecord):
        who, what, verdict, rules, run = "-", f"stream of {record.workload}", _refused(), "-", "-"
    elif isinstance(record, BudgetRecord):
        who, what, verdict, rules, run = record.agent or "-", _budget(record), _event(record), "-", "-"
    elif isinstance(record, RunRecord):
        asked = f"run for {record.mandate.requester}" if record.mandate else "run"
        who, what, verdict, rules, run = record.agent, asked, _state(record), "-", record.run
    else:
        who, what, verdict = record.agent, _action(record, find), decision_text(record.decision)
        rules = ", ".join(_rule_name(ref) for ref in record.rules) or "-"
        run = record.run or "-"
    return [_time(record), printable(who), printable(what), verdict, printable(rules), printable(run), record.id]


def show(record: Record, related: Sequence[Record]) -> None:
    """Print one record with everything in it, and what is `related`: the outcomes of a decision, or the decision."""
    lines = _CHAPTERS[type(record)](record)
    for title, content in lines:
        _section(title, content)
    outcomes = [other for other in related if isinstance(other, OutcomeRecord) and other.id != record.id]
    if isinstance(record, DecisionRecord):
        _section("outcomes", [_outcome(outcome) for outcome in outcomes] or ["none recorded"])
    elif isinstance(record, OutcomeRecord):
        decisions = [other for other in related if isinstance(other, DecisionRecord)]
        _section("the decision", [_decision(decision) for decision in decisions] or ["not in this store"])
        _section("other outcomes of it", [_outcome(outcome) for outcome in outcomes])


_Chapter = tuple[str, Iterable[str | Text]]


def _decision_chapters(record: DecisionRecord) -> Iterator[_Chapter]:
    action = record.action
    say(decision_text(record.decision), f"  {record.agent}  {action.kind} {action.name}  ({record.id})")
    took = "" if record.duration_micros is None else f", decided in {record.duration_micros} microseconds"
    yield "when", [f"{record.time}{took}"]
    yield "reason", [record.reason]
    if record.mode is not None:
        mode = record.mode
        by = f", set by {mode.set_by}" if mode.set_by else ""
        why = f": {mode.reason}" if mode.reason else ""
        yield "operating mode", [mode_text(mode.operating_mode) + f" on {printable(mode.source)}{printable(by + why)}"]
    yield "trusted facts", list(_facts(action.trusted)) or ["none"]
    yield "declared facts", list(_facts(action.declared)) if action.declared else ["none beyond these"]
    yield "arguments", [f"digest {action.arguments_digest}"] if action.arguments_digest else []
    yield "rules that counted", [_rule(ref) for ref in record.rules] or ["none"]
    yield "obligations", [obligation_in_words(each) for each in record.obligations]
    if record.retry_after_seconds is not None:
        yield "try again", [f"in {record.retry_after_seconds} s"]
    yield "had no room", [shortfall_in_words(record.shortfall)] if record.shortfall else []
    yield "reserved in budgets", [spend_in_words(each) for each in record.spends]
    yield "advice", record.advice
    yield "goes too far", [violation_in_words(each) for each in record.violations]
    yield "hands over", handover_in_words(record.handover) if record.handover else []
    yield "steps of the plan", [step_in_words(step) for step in record.plan]
    yield "handed down by", [" > ".join(record.path)] if record.path else []
    ids = {"run": record.run, "grant": record.grant, "cause": record.cause, "parent": record.parent}
    yield "belongs to", _context(**ids, trace=record.traceparent)
    yield "decided from", [f"registry {record.registry_version}"]


def _outcome_chapters(record: OutcomeRecord) -> Iterator[_Chapter]:
    say(
        decision_text(record.decision),
        f"  {record.agent}  outcome {record.status} of {record.decision_id}  ({record.id})",
    )
    yield "when", [record.time]
    yield "reason", [record.reason]
    yield "really used", amounts_in_words(record.actual) if record.actual else []
    yield "counted in budgets", [spend_in_words(each) for each in record.spends]
    yield "error", [record.error] if record.error else []
    digests = {"arguments": record.arguments_digest, "result": record.result_digest}
    yield "digests", [f"{name} {digest}" for name, digest in digests.items() if digest]
    yield "rules that counted", [_rule(ref) for ref in record.rules] or ["none"]
    yield "obligations", [obligation_in_words(each) for each in record.obligations]
    yield "belongs to", _context(run=record.run)
    yield "decided from", [f"registry {record.registry_version}"]


def _run_chapters(record: RunRecord) -> Iterator[_Chapter]:
    say(_state(record), f"  run {printable(record.run)}  opened by {record.agent}  ({record.id})")
    yield "when", [record.time]
    yield "mandate", mandate_in_words(record.mandate)
    yield "belongs to", _context(parent=record.parent, trace=record.traceparent)
    yield "decided from", [f"registry {record.registry_version}"]


def _mode_chapters(record: ModeChangeRecord) -> Iterator[_Chapter]:
    say(mode_text(record.after), f"  {printable(record.subject)}  operatingMode was {record.before}  ({record.id})")
    yield "when", [record.time]
    yield "reason", [record.reason or "none given"]
    yield "set by", [record.set_by or "not said"]
    yield "in force from", [f"registry {record.registry_version}"]


def _budget_chapters(record: BudgetRecord) -> Iterator[_Chapter]:
    say(_event(record), f"  {printable(_budget(record))}  ({record.id})")
    yield "when", [record.time]
    yield "reason", [record.reason]
    yield "window", [record.window] if record.window else []
    yield "amounts", [amounts(record.amounts)] if record.amounts else []
    yield "belongs to", _context(agent=record.agent, decision=record.decision_id)
    yield "judged by", [f"registry {record.registry_version}"] if record.registry_version else []


def _access_chapters(record: AccessRefusedRecord) -> Iterator[_Chapter]:
    say(_refused(), f"  the stream of workload {printable(record.workload)}  ({record.id})")
    yield "when", [record.time]
    yield "reason", [record.reason]
    yield "asked from", [record.peer or "not known"]
    yield "the same, since it was last recorded", [f"{record.repeated} more"] if record.repeated else []
    yield "other refusals not recorded one by one", [str(record.unrecorded)] if record.unrecorded else []
    yield "judged by", [f"registry {record.registry_version}"] if record.registry_version else []


_CHAPTERS: dict[type, Callable[..., Iterator[_Chapter]]] = {
    DecisionRecord: _decision_chapters,
    OutcomeRecord: _outcome_chapters,
    RunRecord: _run_chapters,
    ModeChangeRecord: _mode_chapters,
    BudgetRecord: _budget_chapters,
    AccessRefusedRecord: _access_chapters,
}


def _section(title: str, lines: Iterable[str | Text]) -> None:
    lines = list(lines)
    if not lines:
        return
    say(f"  {title}", style="dim")
    for line in lines:
        say("    ", line if isinstance(line, Text) else printable(line))


def _time(record: Record) -> str:
    """To the millisecond, as --since takes it."""
    whole, dot, fraction = record.time.removesuffix("Z").partition(".")
    return f"{whole}{dot}{fraction[:3]}Z" if record.time.endswith("Z") else record.time


def _action(record: DecisionRecord | OutcomeRecord, find: FindRecord) -> str:
    if isinstance(record, DecisionRecord):
        return record.action.name
    decision = find(record.decision_id)
    name = decision.action.name if isinstance(decision, DecisionRecord) else f"outcome of {record.decision_id}"
    return f"{name}: {record.status}"


def _refused() -> Text:
    return Text("Refused", style="bold red")


def _state(record: RunRecord) -> Text:
    return Text(record.state, style="bold")


def _event(record: BudgetRecord) -> Text:
    alarming = record.event in {"Paused", "Overshoot", "Forfeited"}
    return Text(record.event, style="bold red" if alarming else "bold yellow")


def _budget(record: BudgetRecord) -> str:
    """Name the pot, and what of it is concerned."""
    limit = f", {label(record.limit)}" if record.limit else ""
    percent = f" at {record.percent} %" if record.percent is not None else ""
    return f"{named(record.budget)}{f' of {record.scope}' if record.scope else ''}{limit}{percent}"


def _rule_name(ref: RuleRef) -> str:
    return ref.rule if ref.enforcement == "Enforce" else f"{ref.rule} (audit)"


def _rule(ref: RuleRef) -> Text:
    padding = " " * (len("RequireApproval") - len(ref.decision))
    enforcement = "enforced" if ref.enforcement == "Enforce" else "recorded only (enforcement: Audit)"
    version = f"uid {ref.uid}, generation {ref.generation}, hash {ref.hash}"
    error = f"; its expression failed: {ref.error}" if ref.error else ""
    words = f"{padding}  {ref.rule} of {ref.kind} {ref.policy} ({version}), {enforcement}, for {ref.principal}{error}"
    return decision_text(ref.decision) + printable(words)


def _facts(facts: Facts) -> Iterator[str]:
    lists = {"risk tags": facts.risk_tags, "data classes": facts.data_classes, "labels": facts.labels}
    for name, values in lists.items():
        if values:
            yield f"{name} {', '.join(values)}"
    if facts.target:
        yield f"target {facts.target}"
    if facts.reversibility:
        yield facts.reversibility.lower()
    if facts.estimate:
        yield f"estimate {', '.join(amounts_in_words(facts.estimate))}"


def _context(**ids: str | None) -> list[str]:
    return [f"{name} {value}" for name, value in ids.items() if value]


def _outcome(record: OutcomeRecord) -> Text:
    used = f", used {', '.join(amounts_in_words(record.actual))}" if record.actual else ""
    words = f"{_time(record)}  {record.status}{used}: {record.reason}  ({record.id})"
    return decision_text(record.decision) + "  " + printable(words)


def _decision(record: DecisionRecord) -> Text:
    words = f"{_time(record)}  {record.action.kind} {record.action.name}: {record.reason}  ({record.id})"
    return decision_text(record.decision) + "  " + printable(words)
