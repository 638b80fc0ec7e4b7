"""The burn-down of one limit: what was left over the window so far, beside an even pace, and how it goes on."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from rich.text import Text

from fleetward.budget.report import LimitReport, PotReport
from fleetward.cli.budgets import words
from fleetward.cli.budgets.bars import can_show
from fleetward.cli.budgets.canvas import Canvas

NARROWEST = 20
HEIGHT = 12
_LABEL_ROWS = 4
"""So many parts the scale has."""


@dataclass(frozen=True)
class Course:
    """What was left of a limit over time. Times are seconds since the epoch."""

    began: float
    now: float
    ends: float
    """To where it is drawn: when the pot begins anew; where it never does, until now or until it is empty."""
    max: int
    left: tuple[tuple[float, int], ...]
    """What was left from some moment on, in order; the first is of the beginning."""
    remaining: int
    """What is left now, less what is reserved and leased."""
    empty_at: float | None
    resets: bool

    def left_at(self, at: float) -> int | None:
        """Say how much was left; None: before it began, or in the future."""
        if not self.began <= at <= self.now:
            return None
        index = bisect_right(self.left, at, key=lambda point: point[0]) - 1
        return self.left[max(index, 0)][1]

    def pace_at(self, at: float) -> float | None:
        """Say how much would be left if all of it were used evenly up to the reset."""
        return self.max * (self.ends - at) / (self.ends - self.began) if self.resets else None

    def forecast_at(self, at: float) -> float | None:
        """Say how much will be left at the rate of late; None where it is not known or not running out."""
        if self.empty_at is None or not self.now < at <= self.empty_at or self.empty_at <= self.now:
            return None
        return max(self.remaining, 0) * (self.empty_at - at) / (self.empty_at - self.now)


def course(pot: PotReport, limit: LimitReport, now: float) -> Course:
    """Work out how a limit of a pot was used."""
    began = began_at(pot, now)
    points = sorted((point.at, point.amounts.get(limit.limit, 0)) for point in pot.series)
    used = accumulate(amount for _, amount in points)
    left = [(max(began, min(at, now)), limit.max - so_far) for (at, _), so_far in zip(points, used, strict=True)]
    ends = pot.resets_at if pot.resets_at is not None else max(now, limit.empty_at or now)
    return Course(
        began=began,
        now=now,
        ends=max(ends, began + 1),
        max=limit.max,
        left=((began, limit.max), *left),
        remaining=limit.remaining,
        empty_at=limit.empty_at,
        resets=pot.resets_at is not None,
    )


def began_at(pot: PotReport, now: float) -> float:
    """Say from when on a pot's use is shown: of a rolling window, its length ago."""
    if rolling := words.rolling_seconds(pot.window):
        return now - rolling
    first = min((point.at for point in pot.series), default=now)
    return min(pot.began_at or first, now)


def chart(pot: PotReport, limit: LimitReport, now: float, width: int) -> Iterator[Text]:
    """Draw the burn-down, in lines at most `width` wide where that can be."""
    its = course(pot, limit, now)
    scale = [words.amount(limit.limit, limit.max * (_LABEL_ROWS - part) // _LABEL_ROWS) for part in range(_LABEL_ROWS)]
    scale.append(words.amount(limit.limit, 0))
    margin = max(map(len, scale))
    braille = can_show("⣿┤─└")
    canvas = Canvas(max(NARROWEST, width - margin - 3), HEIGHT, braille=braille)
    whole, top = its.ends - its.began, max(its.max, 1)

    def height(value: float | None) -> float | None:
        return None if value is None else value / top

    canvas.line(lambda x: height(its.pace_at(its.began + x * whole)), style="dim", plain=".", pattern=(1, 3))
    canvas.line(lambda x: height(its.forecast_at(its.began + x * whole)), style="yellow", plain="x", pattern=(2, 2))
    canvas.line(lambda x: height(its.left_at(its.began + x * whole)), style="bold green", plain="*", joined=True)
    tick, corner, bar = ("┤", "└", "─") if braille else ("|", "+", "-")
    labels = {round(part * (HEIGHT - 1) / _LABEL_ROWS): text for part, text in enumerate(scale)}
    for number, row in enumerate(canvas.rows()):
        line = Text.assemble(f"{labels.get(number, ''):>{margin}} {tick}", row)
        line.rstrip()
        yield line
    cells = canvas.steps // (2 if braille else 1)
    yield Text(f"{'':>{margin}} {corner}{bar * cells}")
    yield Text(f"{'':>{margin}}  {_times(its, cells)}")
    yield _legend(its, braille=braille)


def _times(its: Course, cells: int) -> str:
    """Write the beginning, now and the end where they are on the axis."""
    line = [" "] * cells
    marks = [(its.began, words.clock(its.began, its.now)), (its.ends, words.clock(its.ends, its.now))]
    if its.ends > its.now:
        marks.append((its.now, "now"))
    taken: set[int] = set()
    for at, text in marks:
        start = round((at - its.began) / (its.ends - its.began) * (cells - 1)) - (
            len(text) // 2 if text == "now" else 0
        )
        start = min(max(0, start), max(0, cells - len(text)))
        places = range(start, min(start + len(text), cells))
        if taken.isdisjoint(range(places.start - 1, places.stop + 1)):
            taken.update(places)
            for place, character in zip(places, text, strict=False):
                line[place] = character
    return "".join(line).rstrip()


def _legend(its: Course, *, braille: bool) -> Text:
    words_of = [("⠒⠒" if braille else "**", "bold green", "not spent")]
    if its.resets:
        words_of.append(("⠁⠁" if braille else "..", "dim", "even pace to the reset"))
    if its.empty_at is not None and its.empty_at > its.now:
        words_of.append(("⠉ ⠉" if braille else "xx", "yellow", "at this rate"))
    drawn = Text()
    for sign, style, word in words_of:
        drawn.append("   " if drawn else "  ").append(sign, style).append(f" {word}")
    return drawn
