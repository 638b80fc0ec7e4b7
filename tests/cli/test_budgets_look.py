"""How budgets look: amounts, times, bars and charts, for any width and any stream."""

import contextlib
import io
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from rich.cells import cell_len
from rich.text import Text

from fleetward.budget.report import BudgetsReport, LimitReport, Point, PotReport
from fleetward.cli.budgets import burn, words
from fleetward.cli.budgets.bars import bar, parts
from fleetward.cli.budgets.table import pot_lines, show_list
from fleetward.decision.action import Shortfall, Spend

NOW = 1_795_269_600.0
"""2026-11-21 14:00 UTC."""
HOUR = 3600.0

COST = LimitReport(
    limit="costMicroUsd",
    max=5_000_000,
    spent=3_500_000,
    reserved=200_000,
    leased=50_000,
    remaining=1_250_000,
    empty_at=NOW + 2 * HOUR + 600,
)
POT = PotReport(
    budget="AgentBudget/reports/day",
    window="day-2026-11-21T00:00+00:00",
    began_at=NOW - 14 * HOUR,
    resets_at=NOW + 10 * HOUR,
    limits=(COST,),
    series=tuple(
        Point(at=NOW - (14 - hour) * HOUR, amounts={"costMicroUsd": 250_000}, agent="reports/a")
        for hour in range(1, 15)
    ),
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def ascii_only() -> Iterator[contextlib.AbstractContextManager[object]]:
    """A standard output that holds ASCII alone, while it is entered."""
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stream:
        yield contextlib.redirect_stdout(stream)


@pytest.mark.parametrize(
    ("limit", "value", "text"),
    [
        ("costMicroUsd", 5_000_000, "$5.00"),
        ("costMicroUsd", 1, "$0.000001"),
        ("costMicroUsd", 1_234_567_890, "$1,234.56789"),
        ("costMicroUsd", -20_000, "-$0.02"),
        ("inputTokens", 1_200_000, "1,200,000"),
        ("wallMilliseconds", 850, "850 ms"),
        ("wallMilliseconds", 182_500, "3 min 2.5 s"),
        ("wallMilliseconds", 3_600_000, "1 h"),
        ("wallMilliseconds", 0, "0 s"),
        ("calls crm.**", 7, "7"),
    ],
)
def test_amounts_are_exact(limit: str, value: int, text: str) -> None:
    assert words.amount(limit, value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (45, "45 s"), (90, "1 min 30 s"), (3599.7, "1 h"), (7800, "2 h 10 min"), (10_800, "3 h"),
        (3 * 86_400 + 4 * 3600 + 59, "3 d 4 h"), (86_399, "1 d"), (-5, "0 s"),
    ],
)  # fmt: skip
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


def test_forecast() -> None:
    said = words.forecast(COST, POT, NOW)
    assert said == "at this rate, empty at 16:10 (in 2 h 10 min), 7 h 50 min before the reset"
    total = replace(POT, resets_at=None, window="total")
    assert words.forecast(COST, total, NOW) == "at this rate, empty at 16:10 (in 2 h 10 min)"
    tomorrow = replace(COST, empty_at=NOW + 12 * HOUR)
    assert "2026-11-22 02:00 (in 12 h)" in words.forecast(tomorrow, total, NOW)
    assert not words.forecast(replace(COST, empty_at=None), POT, NOW)
    assert words.forecast(replace(COST, spent=4_800_000, leased=0, remaining=0), POT, NOW) == "empty"
    lowered = replace(COST, max=3_000_000, remaining=-750_000)
    assert words.forecast(lowered, POT, NOW) == "$0.75 more is gone than the limit allows"


def test_resets() -> None:
    assert words.resets(POT, NOW) == "2026-11-22 00:00 UTC (in 10 h)"
    assert words.resets(replace(POT, window="rolling-5400", resets_at=None), NOW) == "bit by bit, over 1 h 30 min"
    assert words.resets(replace(POT, window="total", resets_at=None), NOW) == "never"


def test_records_in_words() -> None:
    short = Shortfall(
        budget="AgentBudget/reports/day", limit="costMicroUsd", needed=300_000, left=120_000, resets_at=int(NOW)
    )
    assert words.shortfall_in_words(short) == (
        "AgentBudget reports/day: cost: needed $0.30, left $0.12, begins anew 2026-11-21 14:00 UTC"
    )
    here = Spend(budget="AgentBudget/reports/day", window="w", amounts={"records": 10, "costMicroUsd": 2})
    above = Spend(budget="ClusterAgentBudget/all", window="w", amounts={"records": 10})
    assert words.spends_in_short((here, above)) == "records 10, cost $0.000002"
    assert not words.spends_in_short((Spend(budget="b", amounts={"records": 0}),))
    assert words.spend_in_words(above) == "records 10 from ClusterAgentBudget all, window w"


@pytest.mark.parametrize("width", [4, 10, 20, 37])
@pytest.mark.parametrize(
    "amounts",
    [(0, 0, 0, 100), (1, 0, 0, 99), (99, 0, 0, 1), (70, 20, 5, 5), (100, 0, 0, 0), (1, 1, 1, 1), (3, 0, 0, -2)],
)
def test_a_bar_is_as_wide_as_it_should_be_and_hides_nothing(width: int, amounts: tuple[int, int, int, int]) -> None:
    spent, reserved, leased, remaining = amounts
    limit = LimitReport(
        limit="records", max=sum(amounts), spent=spent, reserved=reserved, leased=leased, remaining=remaining
    )
    cells = parts(limit, width)
    assert sum(cells) == width
    assert [bool(each) for each in cells] == [each > 0 for each in amounts]


def test_a_bar_in_ascii(ascii_only: contextlib.AbstractContextManager[object]) -> None:
    with ascii_only:
        assert bar(COST, 20, 74).plain == "#" * 13 + "=-" + "....."


def test_a_limit_of_nothing_is_full() -> None:
    assert parts(LimitReport(limit="records", max=0), 10) == (10, 0, 0, 0)
    assert words.used_percent(LimitReport(limit="records", max=0)) == 100


@pytest.mark.parametrize("width", [80, 100, 160])
def test_lines_fit_the_terminal(width: int) -> None:
    lines = list(pot_lines(POT, NOW, width))
    assert all(cell_len(line.plain) <= width for line in lines[1:]), [line.plain for line in lines]
    text = "\n".join(line.plain for line in lines)
    assert "74 %  $1.25 left of $5.00" in text
    assert "$3.50 spent, $0.20 reserved, $0.05 leased" in text
    chart = list(burn.chart(POT, COST, NOW, width))
    assert max(cell_len(line.plain) for line in chart[:-1]) <= width


def test_a_pause_and_an_overshoot_are_told() -> None:
    over = replace(COST, overshoot=20_000)
    lines = [line.plain for line in pot_lines(replace(POT, paused="all of it\x1b[2J", limits=(over,)), NOW, 100)]
    assert "paused: all of it\\x1b[2J" in lines[0]
    assert any("$0.02 more than reserved" in line for line in lines)


def test_the_burn_down_in_ascii(ascii_only: contextlib.AbstractContextManager[object]) -> None:
    with ascii_only:
        lines = [line.plain for line in burn.chart(POT, COST, NOW, 80)]
    stars = [index for index, line in enumerate(lines[:12]) if "*" in line]
    assert stars == list(range(stars[0], stars[-1] + 1))
    assert stars[0] == 0
    assert lines[0].startswith("$5.00 |*")
    assert lines[-3].strip().startswith("+---")
    now = lines[-2].index("now") + 1
    assert abs(now - (8 + (80 - 9) * 14 / 24)) <= 2
    last = max(index for index, line in enumerate(lines[:12]) if "*" in line)
    right = max(line.rfind("*") for line in lines[:12])
    assert abs(right - now) <= 1
    # In the last column before 14:00, 1.75 of 5 dollars are not spent.
    assert last == round((1 - 1_750_000 / 5_000_000) * 11)
    crosses = [line.rfind("x") for line in lines[:12] if "x" in line]
    assert crosses
    assert all(column > right for column in crosses)
    assert lines[-1] == "  ** not spent   .. even pace to the reset   xx at this rate"
    assert all(line.isascii() for line in lines)


def test_the_burn_down_in_braille() -> None:
    lines = list(burn.chart(POT, COST, NOW, 80))
    drawn = [line.plain[8:] for line in lines[:12]]
    assert any(character for line in drawn for character in line if "\u2800" < character <= "\u28ff")
    assert isinstance(lines[0], Text)
    assert lines[-2].plain.split() == ["00:00", "now", "2026-11-22", "00:00"]


def test_the_course_of_a_rolling_window() -> None:
    rolling = replace(POT, window="rolling-7200", began_at=0.0, resets_at=None, series=POT.series[-2:])
    its = burn.course(rolling, replace(COST, spent=500_000), NOW)
    assert (its.began, its.pace_at(NOW)) == (NOW - 7200, None)
    assert its.left_at(NOW) == 4_500_000
    assert its.left_at(NOW - 7200) == 5_000_000
    assert its.left_at(NOW + 1) is None
    assert its.ends == COST.empty_at
    assert its.forecast_at(NOW + 3900) == pytest.approx(1_250_000 / 2)


def test_a_pot_that_nobody_used_has_a_chart() -> None:
    limit = LimitReport(limit="records", max=10, remaining=10)
    bare = PotReport(budget="AgentBudget/reports/day", window="total", began_at=NOW, limits=(limit,))
    lines = list(burn.chart(bare, limit, NOW, 40))
    assert len(lines) == 15


def test_a_rule_with_a_rate_alone_has_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    rate = PotReport(budget="AgentPolicy/reports/p#mail", scope="reports/a", window="total", began_at=NOW)
    assert [line.plain for line in pot_lines(rate, NOW, 80)] == [
        "rule mail of AgentPolicy reports/p  reports/a  total, resets: never",
        "  a rate: what passes is not added up",
    ]
    show_list(BudgetsReport(at=NOW, pots=(rate,)))
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith("rule mail of AgentPolicy reports/p  reports/a  total   never")
    assert row.endswith("-    a rate: what passes is not added up")
