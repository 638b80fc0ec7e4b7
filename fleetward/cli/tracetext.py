"""A run's tree on a terminal or into a pipe, and the chain that led to one record."""

from collections.abc import Iterator, Sequence

import click
from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.console import COLOR_SYSTEMS
from rich.style import Style

from fleetward.audit.record import DecisionRecord, OutcomeRecord, Record, RunRecord
from fleetward.audit.trace import Node, Trace
from fleetward.cli.budgets.words import shortfall_in_words, spend_in_words
from fleetward.cli.output import DECISION_STYLES, console, printable
from fleetward.cli.runtext import handover_in_words, mandate_in_words, violation_in_words
from fleetward.cli.traceline import Line, line, time_in_short, what
from fleetward.decision.action import RuleRef

LONGEST_REASON = 20
"""On a narrow terminal a reason is cut, but not to fewer columns than this."""

VERDICT_STYLES = {**DECISION_STYLES, "Opened": "bold", "Closed": "bold", "": "bold yellow"}

_Piece = tuple[str, str]
"""Text and its style."""


class Printer:
    """Writes styled lines to standard output: coloured and cut to a terminal's width, or plain and whole."""

    def __init__(self) -> None:
        out = console()
        self.width = out.width if out.is_terminal else None
        self._colours: ColorSystem | None = COLOR_SYSTEMS.get(out.color_system or "")
        self._styles: dict[str, Style] = {}

    def line(self, pieces: Sequence[_Piece]) -> str:
        """Give a line of pieces, each of whose texts is printable."""
        if self.width is not None:
            pieces = _cut(pieces, self.width)
        return "".join(self._styled(text, style) for text, style in pieces).rstrip()

    def _styled(self, text: str, style: str) -> str:
        if not style or self._colours is None:
            return text
        if style not in self._styles:
            self._styles[style] = Style.parse(style)
        return self._styles[style].render(text, color_system=self._colours)


def show_tree(trace: Trace) -> None:
    """Print the tree."""
    printer = Printer()
    click.echo("\n".join(_tree(trace, printer)))


def _tree(trace: Trace, printer: Printer) -> Iterator[str]:
    day = trace.opening.time[:10] if trace.opening else ""
    span = times(trace)
    count = f"{trace.records} record{'s' * (trace.records != 1)}"
    yield printer.line([(f"run {printable(trace.run)}", "bold"), (f"  {count}{span}", "")])
    waiting = [(root, "", "") for root in reversed(trace.roots)]
    while waiting:
        node, glyph, indent = waiting.pop()
        words = line(node, day)
        yield printer.line(_node(words, glyph, printer.width))
        bar = "│  " if node.children else "   "
        for text in words.below:
            style = "yellow" if node.kind == "Decision" else "dim"
            yield printer.line([(f"{indent}{bar}", "dim"), (printable(text), style)])
        children = [(child, f"{indent}├─ ", f"{indent}│  ") for child in node.children]
        if children:
            children[-1] = (node.children[-1], f"{indent}└─ ", f"{indent}   ")
        waiting += reversed(children)


def _node(words: Line, glyph: str, width: int | None) -> list[_Piece]:
    if not words.verdict:
        named = f"{words.id}: " if words.id else ""
        facts = "".join(f"  {printable(fact)}" for fact in words.facts)
        return [(glyph, "dim"), (printable(named + words.what), VERDICT_STYLES[""]), (facts, "")]
    head = [
        (glyph, "dim"),
        (words.verdict, VERDICT_STYLES[words.verdict]),
        (f"  {words.time}", "dim"),
        (f"  {printable(words.who)}  {printable(words.what)}", ""),
    ]
    facts = "".join(f"  {printable(fact)}" for fact in words.facts)
    tail = [(f"  {words.id}", "dim")]
    reason = f"  {printable(words.reason)}" if words.reason else ""
    if width is not None and reason:
        left = width - sum(cell_len(text) for text, _ in (*head, *tail)) - cell_len(facts)
        reason = _shortened(reason, max(left, LONGEST_REASON))
    return [*head, (facts, ""), (reason, "italic"), *tail]


def _cut(pieces: Sequence[_Piece], width: int) -> list[_Piece]:
    """Cut a line to a width; the last piece, the id, stays whole where there is room for it."""
    if sum(cell_len(text) for text, _ in pieces) <= width:
        return list(pieces)
    kept = pieces[-1:] if len(pieces) > 1 and cell_len(pieces[-1][0]) <= width // 2 else []
    left = width - sum(cell_len(text) for text, _ in kept)
    found: list[_Piece] = []
    for text, style in pieces[: len(pieces) - len(kept)]:
        found.append((_shortened(text, left), style))
        left -= cell_len(found[-1][0])
        if left <= 0 or found[-1][0] != text:
            break
    return [*found, *kept]


def _shortened(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(width - 1, 0)).rstrip()}…"


def times(trace: Trace) -> str:
    """Say from when to when a run's records are, after two blanks; nothing where there are none."""
    found = [node.record.time for node, _ in trace.walk() if node.record is not None]
    found += [outcome.time for node, _ in trace.walk() for outcome in node.outcomes]
    return f"  {time_in_short(min(found))} to {time_in_short(max(found))}" if found else ""


def show_chain(chain: Sequence[tuple[str, Record | None]]) -> None:
    """Print the chain that led to its last record, as a numbered list."""
    printer = Printer()
    # A list that is read as a whole is not cut.
    printer.width = None
    for text in _headline(chain):
        click.echo(printer.line([(text, "bold")]))
    for number, (id_, record) in enumerate(chain, start=1):
        head, *below = _link(id_, record)
        click.echo(printer.line([(f"{number:>3}. ", "dim"), *head]))
        if (run := getattr(record, "run", None)) != getattr(chain[-1][1], "run", None) and record is not None:
            below.append([(printable(f"this is of another run: {run}"), "yellow")])
        for pieces in below:
            click.echo(printer.line([("     ", ""), *pieces]))


def _headline(chain: Sequence[tuple[str, Record | None]]) -> Iterator[str]:
    *above, (id_, last) = chain
    if isinstance(last, OutcomeRecord) and above:
        id_ = above.pop()[0]
    if not above:
        if not isinstance(last, RunRecord):
            yield f"{printable(id_)}: nothing in a run authorised it; it stands by the rules of its agent alone"
        return
    cause_id, cause = above[-1]
    if cause is None:
        yield f"{printable(id_)} came under {printable(cause_id)}, which is not in the store"
    elif isinstance(cause, RunRecord):
        yield f"{printable(id_)} came under the opening of run {printable(cause.run)} itself, by {cause.agent}"
    elif isinstance(cause, DecisionRecord):
        whose = f"{what(cause)} by {cause.agent}"
        yield f"{printable(id_)} came under {printable(cause_id)}: {printable(whose)}"


def _link(id_: str, record: Record | None) -> Iterator[list[_Piece]]:
    if record is None:
        yield [(f"{printable(id_)}: not in the store: lost, or not collected yet", VERDICT_STYLES[""])]
        return
    if isinstance(record, OutcomeRecord):
        words = f"  {time_in_short(record.time)}  {record.agent}  outcome {record.status}: {record.reason}"
        yield [_verdict(record.decision), (printable(words), ""), (f"  {record.id}", "dim")]
        yield from ([_rule(ref), (_version(ref), "dim")] for ref in record.rules)
        return
    if not isinstance(record, DecisionRecord | RunRecord):
        yield [(f"{record.id}: neither a decision nor a run", VERDICT_STYLES[""])]
        return
    its = line(Node("Decision", record.id, record))
    head = f"  {its.time}  {its.who}  {its.what}"
    yield [_verdict(its.verdict), (printable(head), ""), (f"  {record.id}", "dim")]
    yield from ([(printable(text), "")] for text in _particulars(record))
    if isinstance(record, DecisionRecord):
        yield from ([_rule(ref), (_version(ref), "dim")] for ref in record.rules)


def _particulars(record: DecisionRecord | RunRecord) -> Iterator[str]:
    if isinstance(record, RunRecord):
        yield from mandate_in_words(record.mandate)
    else:
        yield f"reason: {record.reason}"
        if record.path:
            yield f"handed down by {' > '.join(record.path)}"
        if record.grant:
            yield f"under grant {record.grant}"
        if record.handover is not None:
            yield f"hands over {'; '.join(handover_in_words(record.handover))}"
        yield from (f"too far: {violation_in_words(each)}" for each in record.violations)
        if record.shortfall is not None:
            yield f"no room: {shortfall_in_words(record.shortfall)}"
        yield from (f"reserved {spend_in_words(each)}" for each in record.spends)
    if record.parent:
        yield f"says it came from {record.parent}"


def _verdict(verdict: str) -> _Piece:
    return (verdict, VERDICT_STYLES[verdict])


def _rule(ref: RuleRef) -> _Piece:
    audited = ", recorded only" if ref.enforcement == "Audit" else ""
    words = f"rule {ref.rule} of {ref.kind} {ref.policy}: {ref.decision}{audited}, for {ref.principal}"
    return (printable(words), "")


def _version(ref: RuleRef) -> str:
    return printable(f"  uid {ref.uid}, generation {ref.generation}, hash {ref.hash}")
