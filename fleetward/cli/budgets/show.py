"""One budget: how it stands, its burn-down, and who spent it."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.text import Text

from fleetward.budget.report import BudgetsReport, LimitReport, PotReport
from fleetward.cli.budgets import burn, words
from fleetward.cli.budgets.bars import bar, legend
from fleetward.cli.budgets.select import fullest
from fleetward.cli.budgets.spent import LOST
from fleetward.cli.budgets.table import pot_lines
from fleetward.cli.follow import POLL_SECONDS
from fleetward.cli.output import console, printable, say

PIPED_WIDTH = 100
"""So wide is a chart where it is not on a terminal."""

TOP = 10
"""So many spenders, and other pots, are shown."""

_SHARE_CELLS = 20


class View(NamedTuple):
    """A pot and one of its limits at one moment, and the budget's other pots, the fullest first."""

    at: float
    pot: PotReport
    limit: LimitReport
    others: tuple[PotReport, ...]

    @property
    def report(self) -> BudgetsReport:
        """All of it as data."""
        return BudgetsReport(at=self.at, pots=(self.pot, *self.others))


def lines(view: View) -> Iterator[Text]:
    """Give everything, in lines that fit the terminal where that can be."""
    out = console()
    width = out.width if out.is_terminal else PIPED_WIDTH
    pot, limit = view.pot, view.limit
    yield from pot_lines(pot, view.at, width)
    yield Text()
    yield Text(f"{words.label(limit.limit)} left over the window", style="bold")
    yield from burn.chart(pot, limit, view.at, width)
    yield Text()
    yield from _spenders(pot, limit)
    if view.others:
        yield Text()
        yield Text(f"other pots: {len(view.others)}; --pot shows one", style="bold")
        for other in view.others[:TOP]:
            yield Text(f"  {printable(words.whose(other.scope))}  {fullest(other)} %")
    yield Text()
    yield legend()


def _spenders(pot: PotReport, limit: LimitReport) -> Iterator[Text]:
    spent = [(each.agent or LOST, each.amounts.get(limit.limit, 0)) for each in pot.spenders]
    spent = sorted(((agent, value) for agent, value in spent if value), key=lambda pair: (-pair[1], pair[0]))
    if not spent:
        yield Text(f"nobody has spent {words.label(limit.limit)} of it in this window")
        return
    yield Text(f"who spent {words.label(limit.limit)}", style="bold")
    whole = sum(value for _, value in spent)
    shown = spent[:TOP]
    if rest := spent[TOP:]:
        shown = [*shown, (f"and {len(rest)} more", sum(value for _, value in rest))]
    names = max(len(printable(agent)) for agent, _ in shown)
    amounts = max(len(words.amount(limit.limit, value)) for _, value in shown)
    for agent, value in shown:
        share = LimitReport(limit=limit.limit, max=whole, spent=value, remaining=whole - value)
        line = Text(f"  {printable(agent):<{names}}  {words.amount(limit.limit, value):>{amounts}}  ")
        yield line + bar(share, _SHARE_CELLS, 0) + f" {value * 100 / whole:>3.0f} %"


@contextlib.contextmanager
def screen() -> Iterator[Callable[[View], None]]:
    """Give what shows a view in place of the one before, on a terminal; into a pipe, after it.

    What was shown last stays on the terminal.
    """
    out = console()
    last: list[View] = []
    if not out.is_terminal:

        def print_one(view: View) -> None:
            if last:
                say()
            last[:] = [view]
            for line in lines(view):
                say(line)

        yield print_one
        return

    def draw(view: View) -> None:
        last[:] = [view]
        shown = list(lines(view))
        out.clear()
        for line in shown[: max(1, out.height - 1)]:
            say(line)

    with out.screen(hide_cursor=True):
        yield draw
    for line in lines(last[0]) if last else ():
        say(line)


def polls(seconds: float) -> int:
    """Give how many waits make so many seconds."""
    return max(1, math.ceil(seconds / POLL_SECONDS))
