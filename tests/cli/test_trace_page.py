"""The page of a run in a real headless Chromium: drawn, quiet, self-contained, and usable without a mouse."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Page, browsing, chromium
from support.runs import RUN, decision, large, opening, story

from fleetward.audit.trace import trace
from fleetward.cli.tracehtml import page as pieces

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chromium")]

SHOWN = "[...document.querySelectorAll('#tree .row')].filter((row) => row.offsetParent).map((row) => row.textContent)"
FOCUSED = "document.activeElement.querySelector(':scope > .row code')?.textContent ?? document.activeElement.id"
DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine: install chromium-headless-shell, or name one in FLEETWARD_CHROMIUM")
    async with browsing(program, tmp_path / "profile") as opened:
        yield opened


async def draw(page: Page, tmp_path: Path, records: list[Any]) -> None:
    """Write the page of a run, open it, and wait until it is drawn."""
    file = tmp_path / "run.html"
    file.write_text("".join(pieces(trace(RUN, records))), "utf-8")
    await page.open(file.absolute().as_uri())
    await page.run(DRAWN)
    assert page.logged == []
    assert set(page.requested) == {file.absolute().as_uri()}


def ids(rows: list[str]) -> list[str]:
    return [found[-1] for row in rows if (found := re.findall(r"(?:aaaa|gone)-\d+(?!\d)", row))]


async def test_the_tree_is_drawn(page: Page, tmp_path: Path) -> None:
    await draw(page, tmp_path, story())
    rows = await page.run(SHOWN)
    assert len(rows) == 12
    assert rows[0].startswith("Opened10:00:01.000 reports/coordinator run run-1 aaaa-1for kim@example.com: Write to")
    assert "by reports/work/outside of reports/coordinator · under g-2" in rows[5]
    left = await page.run("[...document.querySelectorAll('#tree .row')].map((row) => row.getBoundingClientRect().left)")
    assert left[0] < left[1] < left[2] < left[3] < left[4] < left[5]
    red = await page.run("getComputedStyle(document.querySelector('b.Deny')).color")
    background = await page.run("getComputedStyle(document.body).backgroundColor")
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    await page.call("Emulation.setEmulatedMedia", features=[dark])
    assert await page.run("getComputedStyle(document.querySelector('b.Deny')).color") != red
    assert await page.run("getComputedStyle(document.body).backgroundColor") != background


async def test_by_keyboard(page: Page, tmp_path: Path) -> None:
    await draw(page, tmp_path, story())
    for _ in range(4):
        await page.press("Tab")
    assert await page.run(FOCUSED) == "aaaa-1"
    await page.press("ArrowDown")
    await page.press("ArrowRight")
    assert await page.run(FOCUSED) == "aaaa-3"
    await page.press("ArrowLeft")
    assert len(await page.run(SHOWN)) == 12 - 4
    await page.press("ArrowDown")
    assert await page.run(FOCUSED) == "aaaa-11"
    await page.press("ArrowUp")
    await page.press(" ", " ")
    assert len(await page.run(SHOWN)) == 12
    await page.press("Enter", "\r")
    assert '"id": "aaaa-3"' in await page.run("document.activeElement.querySelector(':scope > pre').textContent")
    await page.press("Enter", "\r")
    assert await page.run("document.querySelector('pre')") is None
    await page.press("End")
    assert await page.run(FOCUSED) == "aaaa-9"
    await page.press("ArrowLeft")
    await page.press("Home")
    assert await page.run(FOCUSED) == "aaaa-1"


async def test_the_filter_keeps_what_leads_there(page: Page, tmp_path: Path) -> None:
    await draw(page, tmp_path, story())
    await page.run("document.getElementById('close').click()")
    assert len(await page.run(SHOWN)) == 3
    await page.run("document.getElementById('filter').focus()")
    await page.type("requireapproval mailer")
    assert ids(await page.run(SHOWN)) == ["aaaa-1", "aaaa-2", "aaaa-3", "aaaa-4", "aaaa-6", "aaaa-7"]
    assert await page.run("document.getElementById('found').textContent") == "1 of 12 shown"
    await page.type(" and nothing has this")
    assert await page.run(SHOWN) == []
    await page.run("document.getElementById('filter').value = ''")
    await page.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    assert len(await page.run(SHOWN)) == 12 - 2


async def test_what_a_record_says_never_runs(page: Page, tmp_path: Path) -> None:
    attack = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!--"
    records = [opening(), decision(2, cause="aaaa-1", decision="Deny", reason=attack), decision(3, cause=attack)]
    await draw(page, tmp_path, records)
    await page.run("document.querySelectorAll('#tree .row').forEach((row) => row.click())")
    assert await page.run("document.title") == f"Run {RUN}"
    assert await page.run("document.querySelectorAll('img').length") == 0
    assert any(attack in row for row in await page.run(SHOWN))
    # And what got in all the same would not run, nor reach anybody.
    await page.run("document.body.insertAdjacentHTML('beforeend', '<img src=http://192.0.2.1/x onerror=alert(1)>')")
    assert await page.run(DRAWN) > 0
    assert any("Content Security Policy" in text for text in page.logged)


async def test_ten_thousand_records(page: Page, tmp_path: Path) -> None:
    records = large(10_000)
    await draw(page, tmp_path, records)
    tree = trace(RUN, records)
    assert await page.run("document.querySelectorAll('#tree .row').length") == sum(1 for _ in tree.walk())
    assert await page.run("document.getElementById('tree').scrollHeight") > 10_000
    await page.run("document.getElementById('filter').focus()")
    await page.type("deny")
    assert re.fullmatch(r"\d{3} of \d+ shown", await page.run("document.getElementById('found').textContent"))


async def test_a_deep_chain_is_drawn(page: Page, tmp_path: Path) -> None:
    records = [opening(), *(decision(seq, cause=f"aaaa-{seq - 1}") for seq in range(2, 1000))]
    await draw(page, tmp_path, records)
    assert len(await page.run(SHOWN)) == 999


async def test_printed_in_full(page: Page, tmp_path: Path) -> None:
    await draw(page, tmp_path, story())
    await page.run("document.getElementById('close').click()")
    await page.call("Emulation.setEmulatedMedia", media="print")
    assert len(await page.run(SHOWN)) == 12
    assert await page.run("document.querySelector('.tools').offsetParent") is None
