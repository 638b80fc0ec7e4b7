"""A picture of spend over time: who spent how much of a limit, its thresholds, and how it goes on."""

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fleetward.budget.amounts import COST, WALL
from fleetward.budget.report import LimitReport, Point, PotReport
from fleetward.budget.terms import named
from fleetward.cli.budgets import words
from fleetward.cli.budgets.burn import began_at
from fleetward.cli.budgets.spent import Use
from fleetward.cli.output import CliError, printable
from fleetward.registry.slice import Threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".svg", ".png")
NAMED_AGENTS = 7
"""So many agents have an area of their own; the others share one."""

ALL, OTHERS = "all agents", "others"

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""The palette of Okabe and Ito, which readers with any kind of colour vision can tell apart."""
_SCALE = {COST: 1e6, WALL: 1000.0}
_UNITS = {COST: "US dollars", WALL: "seconds"}


STEPS = 240
"""Into so many steps the time of a picture is divided at most."""


class Area(NamedTuple):
    """What one agent had spent, at each of the times of all areas."""

    name: str
    heights: list[float]


def points_of(found: Sequence[Use], began: float, now: float) -> tuple[Point, ...]:
    """Give what agents used, step by step, from what the records say; what is only reserved is left out."""
    seconds = max((now - began) / STEPS, 1e-3)
    sums: dict[tuple[int, str], dict[str, int]] = {}
    for use in found:
        if use.settled:
            step = min(max(0, math.ceil((use.at - began) / seconds)), STEPS)
            amounts = sums.setdefault((step, use.agent), {})
            for limit, value in use.amounts.items():
                amounts[limit] = amounts.get(limit, 0) + value
    return tuple(
        Point(at=began + step * seconds, amounts=amounts, agent=agent)
        for (step, agent), amounts in sorted(sums.items())
    )


def draw(pot: PotReport, limit: LimitReport, thresholds: Sequence[Threshold], now: float, out: Path) -> None:
    """Write the picture into a file, as the file's name says. CliError where that cannot be done."""
    if out.suffix.lower() not in FORMATS:
        raise CliError(f"found {out.name}, allowed a file that ends in {' or '.join(FORMATS)}")
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to load
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise CliError(
            "a picture needs matplotlib, which is not installed: pip install 'fleetward[pictures]'"
        ) from None
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fleetward", "font.size": 9.0}):
        figure = Figure(figsize=(9, 4.8), layout="constrained")
        axes = figure.add_subplot()
        times, found = areas(pot, limit, now)
        _draw_spend(axes, times, found)
        _draw_limits(axes, limit, thresholds)
        _draw_forecast(axes, pot, limit, now)
        _label(axes, pot, limit, now)
        metadata = {"Date": None} if out.suffix.lower() == ".svg" else {}
        try:
            figure.savefig(out, dpi=150, metadata=metadata)
        except OSError as error:
            raise CliError(f"cannot write {out}: {error.strerror}") from None


def areas(pot: PotReport, limit: LimitReport, now: float) -> tuple[list[float], list[Area]]:
    """Give the times at which something was settled, from the window's beginning to now, and each agent's area."""
    points = [point for point in pot.series if point.amounts.get(limit.limit)]
    times = sorted({began_at(pot, now), *(point.at for point in points), now})
    sums: dict[str, float] = {}
    for point in points:
        sums[point.agent] = sums.get(point.agent, 0) + point.amounts[limit.limit]
    named = sorted(sums, key=lambda agent: (-sums[agent], agent))
    if len(named) > NAMED_AGENTS + 1:
        named = named[:NAMED_AGENTS]
    steps = {name: dict.fromkeys(times, 0.0) for name in [*named, OTHERS]}
    for point in points:
        steps[point.agent if point.agent in named else OTHERS][point.at] += point.amounts[limit.limit]
    scale = _SCALE.get(limit.limit, 1.0)
    found = [Area(name or ALL, [y / scale for y in accumulate(steps[name].values())]) for name in [*named, OTHERS]]
    return times, [area for area in found if area.heights[-1]]


def _draw_spend(axes: "Axes", times: Sequence[float], found: Sequence[Area]) -> None:
    if not found:
        return
    axes.stackplot(
        [_days(at) for at in times],
        [area.heights for area in found],
        labels=[_plain(area.name) for area in found],
        colors=_COLOURS[: len(found)],
        step="post",
        alpha=0.85,
    )


def _draw_limits(axes: "Axes", limit: LimitReport, thresholds: Sequence[Threshold]) -> None:
    scale = _SCALE.get(limit.limit, 1.0)
    axes.axhline(
        limit.max / scale, color="#B00020", linewidth=1.6, label=_plain(f"limit {words.amount(limit.limit, limit.max)}")
    )
    for threshold in thresholds:
        if threshold.percent < 100:
            height = limit.max * threshold.percent / 100 / scale
            label = f"{threshold.percent} %: {threshold.action}"
            axes.axhline(height, color="#B00020", linewidth=0.9, linestyle="--", alpha=0.7)
            axes.annotate(
                label, (1, height), xycoords=("axes fraction", "data"), xytext=(-3, 2), textcoords="offset points",
                ha="right", fontsize=8, color="#B00020",
            )  # fmt: skip


def _draw_forecast(axes: "Axes", pot: PotReport, limit: LimitReport, now: float) -> None:
    scale = _SCALE.get(limit.limit, 1.0)
    if limit.empty_at is not None and limit.empty_at > now:
        taken = (limit.spent + limit.reserved) / scale
        axes.plot(
            [_days(now), _days(limit.empty_at)],
            [taken, limit.max / scale],
            color="#333333", linestyle=":", linewidth=1.6,
            label=f"at this rate, empty at {words.clock(limit.empty_at, now)}",
        )  # fmt: skip
    axes.axvline(_days(now), color="#333333", linewidth=0.8, alpha=0.6)
    end = pot.resets_at if pot.resets_at is not None else max(now, limit.empty_at or now)
    began = began_at(pot, now)
    axes.set_xlim(_days(began), _days(max(end, began + 1)))


def _label(axes: "Axes", pot: PotReport, limit: LimitReport, now: float) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - as above

    zone = datetime.now().astimezone().tzinfo
    locator = AutoDateLocator(tz=zone)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]
    axes.set_ylim(0, max(limit.max, limit.spent + limit.reserved) * 1.08 / _SCALE.get(limit.limit, 1.0) or 1)
    axes.set_ylabel(f"{words.label(limit.limit)}, {_UNITS.get(limit.limit, 'count')}")
    parts = [f"{words.amount(limit.limit, value)} {name}" for name, value in _amounts(limit).items()]
    resets = f"resets {words.resets(pot, now)}" if pot.resets_at else f"window {pot.window}"
    subtitle = ", ".join([*parts, resets])
    name = f"{named(pot.budget)}{f'  {pot.scope}' if pot.scope else ''}: {words.label(limit.limit)}"
    axes.set_title(_plain(f"{name}\n{subtitle}"), loc="left", fontsize=10)
    axes.figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _amounts(limit: LimitReport) -> dict[str, int]:
    return {"spent": limit.spent, "reserved": limit.reserved, "leased": limit.leased, "left": limit.remaining}


def _plain(text: str) -> str:
    """Keep dollars from starting a formula."""
    return "\n".join(printable(line) for line in text.split("\n")).replace("$", r"\$")


def _days(at: float) -> float:
    """Give a time as matplotlib counts it: in days since the epoch."""
    return at / 86_400
