"""Budgets as a list: on a terminal a bar for each limit, into a pipe a row."""

from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

from fleetward.budget.report import BudgetsReport, LimitReport, PotReport
from fleetward.budget.terms import named
from fleetward.cli.budgets import words
from fleetward.cli.budgets.bars import bar, legend
from fleetward.cli.output import console, print_table, printable, say

COLUMNS = (
    "BUDGET", "POT", "WINDOW", "RESETS", "LIMIT", "USE", "USED", "SPENT", "RESERVED", "LEASED", "LEFT", "MAX", "STATE"
)  # fmt: skip

BAR_CELLS = 20
WIDEST_BAR = 40

RATE = "a rate: what passes is not added up"
"""What is said of a pot that has no limit."""


def show_list(report: BudgetsReport) -> None:
    """Print all pots."""
    out = console()
    if not out.is_terminal:
        print_table(COLUMNS, [row for pot in report.pots for row in _rows(pot, report.at)])
        return
    for number, pot in enumerate(report.pots):
        if number:
            say()
        for line in pot_lines(pot, report.at, out.width):
            say(line)
    say()
    say(legend())


def pot_lines(pot: PotReport, now: float, width: int) -> Iterator[Text]:
    """Give a pot as lines that fit a terminal of that width, where that can be."""
    yield heading(pot, now)
    if not pot.limits:
        yield Text(f"  {RATE}", style="dim")
    labels = [printable(words.label(limit.limit)) for limit in pot.limits]
    column = max((cell_len(label) for label in labels), default=0)
    cells = max(10, min(WIDEST_BAR, width - column - 60))
    for label, limit in zip(labels, pot.limits, strict=True):
        percent = words.used_percent(limit)
        yield Text.assemble(
            "  ", label, " " * (column - cell_len(label) + 2), bar(limit, cells, percent), f" {percent:>4} %  ",
            *_left(limit),
        )  # fmt: skip
        indent = " " * 4
        yield Text(indent + _amounts(limit), style="dim")
        if said := words.forecast(limit, pot, now):
            style = "red" if limit.remaining <= 0 else "yellow"
            yield Text(indent + said, style=style)


def heading(pot: PotReport, now: float) -> Text:
    """Name a pot, its window, and why it is paused."""
    head = Text(printable(named(pot.budget)), style="bold")
    head.append(f"  {printable(words.whose(pot.scope))}", style="")
    head.append(f"  {printable(pot.window)}, resets: {words.resets(pot, now)}", style="dim")
    if pot.paused:
        head.append(f"\n  paused: {printable(pot.paused)}", style="bold yellow")
    return head


def _left(limit: LimitReport) -> tuple[str | Text, ...]:
    left = Text(words.amount(limit.limit, limit.remaining), style="bold red" if limit.remaining <= 0 else "bold")
    return left, f" left of {words.amount(limit.limit, limit.max)}"


def _amounts(limit: LimitReport) -> str:
    named = {"spent": limit.spent, "reserved": limit.reserved, "leased": limit.leased}
    parts = [f"{words.amount(limit.limit, value)} {name}" for name, value in named.items()]
    if limit.overshoot:
        parts.append(f"{words.amount(limit.limit, limit.overshoot)} more than reserved")
    return ", ".join(parts)


def _rows(pot: PotReport, now: float) -> Iterator[list[str | Text]]:
    if not pot.limits:
        pot_cells = [named(pot.budget), words.whose(pot.scope), pot.window, words.resets(pot, now)]
        yield [*map(printable, pot_cells), *["-"] * (len(COLUMNS) - 5), RATE]
    yield from (_row(pot, limit, now) for limit in pot.limits)


def _row(pot: PotReport, limit: LimitReport, now: float) -> list[str | Text]:
    percent = words.used_percent(limit)
    values = (limit.spent, limit.reserved, limit.leased, limit.remaining, limit.max)
    # Why a pot is paused is a sentence; `show` has the room for it.
    state = ["paused" if pot.paused else "", words.forecast(limit, pot, now)]
    return [
        printable(named(pot.budget)),
        printable(words.whose(pot.scope)),
        printable(pot.window),
        words.resets(pot, now),
        printable(words.label(limit.limit)),
        bar(limit, BAR_CELLS, percent),
        f"{percent} %",
        *(words.amount(limit.limit, value) for value in values),
        printable("; ".join(filter(None, state))) or "-",
    ]
