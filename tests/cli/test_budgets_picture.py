"""Pictures of spend over time: files that read as SVG and PNG, and hold what they should."""

import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cli.test_budgets_look import COST, HOUR, NOW, POT
from msgspec.structs import replace

from fleetward.budget.report import Point
from fleetward.cli.budgets import picture
from fleetward.cli.output import CliError
from fleetward.registry.slice import Threshold

SVG = "{http://www.w3.org/2000/svg}"
THRESHOLDS = (Threshold(80, "Event"), Threshold(95, "Throttle"), Threshold(100, "Pause"))


def by_agents(count: int) -> tuple[Point, ...]:
    return tuple(
        Point(at=NOW - (count - i) * HOUR / 4, amounts={"costMicroUsd": 10_000 * (i + 1)}, agent=f"reports/agent-{i}")
        for i in range(count)
    )


def texts(path: Path) -> list[str]:
    root = ET.parse(path).getroot()  # noqa: S314 - we wrote it
    assert root.tag == f"{SVG}svg"
    return ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]


def test_an_svg_names_spenders_limit_thresholds_and_forecast(tmp_path: Path) -> None:
    out = tmp_path / "spend.svg"
    picture.draw(replace(POT, series=by_agents(3)), COST, THRESHOLDS, NOW, out)
    said = texts(out)
    for text in ("reports/agent-0", "reports/agent-2", "limit $5.00", "80 %: Event", "95 %: Throttle"):
        assert text in said, said
    assert any("AgentBudget reports/day: cost" in text for text in said)
    assert any(text.startswith("at this rate, empty at ") for text in said)
    assert not any("100 %" in text for text in said)


def test_a_png(tmp_path: Path) -> None:
    out = tmp_path / "spend.png"
    picture.draw(replace(POT, series=by_agents(2)), COST, (), NOW, out)
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1350, 720)
    length = struct.unpack(">I", data[8:12])[0]
    assert zlib.crc32(data[12 : 16 + length]) == struct.unpack(">I", data[16 + length : 20 + length])[0]


def test_the_same_svg_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    for out in (first, second):
        picture.draw(POT, COST, THRESHOLDS, NOW, out)
    assert first.read_bytes() == second.read_bytes()


def test_areas_add_up_and_small_spenders_share_one() -> None:
    points = by_agents(20)
    times, areas = picture.areas(replace(POT, series=points), COST, NOW)
    assert [area.name for area in areas] == [f"reports/agent-{i}" for i in range(19, 12, -1)] + ["others"]
    assert all(len(area.heights) == len(times) for area in areas)
    assert sum(area.heights[-1] for area in areas) == pytest.approx(
        sum(p.amounts["costMicroUsd"] for p in points) / 1e6
    )
    assert all(before <= after for area in areas for before, after in zip(area.heights, area.heights[1:], strict=False))


def test_points_of_no_agent_are_all_of_them() -> None:
    points = tuple(replace(point, agent="") for point in by_agents(3))
    assert [area.name for area in picture.areas(replace(POT, series=points), COST, NOW)[1]] == ["all agents"]


def test_an_untouched_budget_has_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "spend.svg"
    picture.draw(replace(POT, series=()), replace(COST, spent=0, empty_at=None), (), NOW, out)
    assert "limit $5.00" in texts(out)


def test_names_that_look_like_formulas_or_markup(tmp_path: Path) -> None:
    out = tmp_path / "spend.svg"
    points = tuple(replace(point, agent="reports/$x^2$<b>&") for point in by_agents(2))
    picture.draw(replace(POT, scope="a$b$<i>", series=points), COST, (), NOW, out)
    assert any("<b>&" in text for text in texts(out))


def test_only_svg_and_png(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"found spend\.pdf, allowed a file that ends in \.svg or \.png"):
        picture.draw(POT, COST, (), NOW, tmp_path / "spend.pdf")
    with pytest.raises(CliError, match=r"cannot write .*: No such file or directory"):
        picture.draw(POT, COST, (), NOW, tmp_path / "missing" / "spend.svg")


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(CliError, match=r"pip install 'fleetward\[pictures\]'"):
        picture.draw(POT, COST, (), NOW, tmp_path / "spend.svg")
