"""`fleetward budgets` on a real ledger and a real audit store."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from cli.budgetworld import ALL, EACH, ROLLING, World, world
from click.testing import Result
from support.waiting import until

from fleetward.audit.record import DecisionRecord, encode
from fleetward.cli.budgets import verify
from fleetward.cli.budgets.spent import LOST
from fleetward.decision.action import Facts, RecordedAction, Spend

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]
FLEETWARD = str(Path(sys.executable).with_name("fleetward"))

WORKER, WRITER = "reports/data-worker", "reports/writer"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def spent(tmp_path: Path) -> Iterator[World]:
    """Two agents that spent 0.70 of a dollar in three hours, and have 0.10 reserved; what came next had no room."""
    with world(tmp_path / "policies") as made:
        for i in range(20):
            run = f"r-{i // 10}" if i % 2 else None
            made.spend(WORKER if i % 4 else WRITER, 35_000, 3 * 3600 - i * 540, run=run)
        made.decide(WRITER, {ALL: {"costMicroUsd": 100_000, "records": 10}, EACH: {"calls crm.**": 1}}, 2, run="r-1")
        made.denied = made.decide(WORKER, {ALL: {"costMicroUsd": 600_000}}, 1, run="r-1")
        made.settle_all_news()
        yield made


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [re.split(r"  +", line) for line in result.stdout.splitlines()]


def test_list_into_a_pipe(run: Run, spent: World) -> None:
    table = rows(run("budgets", "list", "--dir", spent.folder))
    assert table[0][:6] == ["BUDGET", "POT", "WINDOW", "RESETS", "LIMIT", "USE"]
    everything = [row[:1] + row[2:3] + row[4:5] + row[6:-1] for row in table[1:]]
    assert everything == [
        ["AgentBudget reports/all", "total", "cost", "80 %", "$0.70", "$0.10", "$0.00", "$0.20", "$1.00"],
        ["AgentBudget reports/all", "total", "records", "10 %", "0", "10", "0", "90", "100"],
        ["AgentBudget reports/each", "total", "calls crm.**", "10 %", "0", "1", "0", "9", "10"],
        ["AgentBudget reports/rolling", "rolling-14400", "cost", "0 %", "$0.00", "$0.00", "$0.00", "$1.00", "$1.00"],
        ["AgentBudget reports/untouched", "total", "input tokens", "0 %", "0", "0", "0", "1,000", "1,000"],
    ]
    assert [row[1] for row in table[1:]] == ["shared", "shared", WRITER, "shared", "shared"]
    assert [row[3] for row in table[1:]] == ["never", "never", "never", "bit by bit, over 4 h", "never"]
    assert re.fullmatch(r"at this rate, empty at .* \(in .*\)", table[1][-1])
    assert table[1][5] == "██████████████▓▓░░░░"


def test_list_is_the_default_and_help_is_of_the_group(run: Run, spent: World) -> None:
    assert run("budgets", "--dir", spent.folder).stdout == run("budgets", "list", "--dir", spent.folder).stdout
    assert "picture" in run("budgets", "--help").stdout
    assert run("budgets", "nonsense").exit_code == 2


def test_list_as_json(run: Run, spent: World) -> None:
    report = json.loads(run("budgets", "-o", "json", "--dir", spent.folder).stdout)
    pots = {(pot["budget"], pot.get("scope", "")): pot for pot in report["pots"]}
    assert set(pots) >= {(ALL, ""), (EACH, WRITER), ("AgentBudget/reports/untouched", "")}
    cost = pots[ALL, ""]["limits"][0]
    assert {key: cost[key] for key in ("limit", "max", "spent", "reserved", "remaining")} == {
        "limit": "costMicroUsd",
        "max": 1_000_000,
        "spent": 700_000,
        "reserved": 100_000,
        "remaining": 200_000,
    }
    assert {each["agent"]: each["amounts"]["costMicroUsd"] for each in pots[ALL, ""]["spenders"]} == {
        WORKER: 525_000,
        WRITER: 275_000,
    }


def test_there_is_no_ledger(run: Run, folder: Path) -> None:
    for command in (["list"], ["show", "x"], ["explain", "x"], ["verify"]):
        result = run("budgets", *command, "--dir", folder)
        assert result.exit_code == 2
        assert "there is no ledger of budgets at" in result.stderr


def test_show(run: Run, spent: World) -> None:
    result = run("budgets", "show", "all", "--dir", spent.folder)
    assert result.exit_code == 0
    assert "AgentBudget reports/all  shared  total, resets: never" in result.stdout
    assert "$0.20 left of $1.00" in result.stdout
    assert re.search(r"reports/data-worker  \$0\.525  █+░+  66 %", result.stdout)
    assert re.search(r"reports/writer       \$0\.275  █+░+  34 %", result.stdout)
    assert "\x1b" not in result.stdout


def test_show_another_limit_and_pot(run: Run, spent: World) -> None:
    spent.decide(WORKER, {EACH: {"calls crm.**": 5}})
    fullest = run("budgets", "show", "each", "--dir", spent.folder).stdout
    assert fullest.startswith(f"AgentBudget reports/each  {WORKER}")
    assert f"other pots: 1; --pot shows one\n  {WRITER}  10 %" in fullest
    chosen = run("budgets", "show", "each", "--pot", WRITER, "--dir", spent.folder).stdout
    assert chosen.startswith(f"AgentBudget reports/each  {WRITER}")
    records = run("budgets", "show", ALL, "--limit", "records", "--dir", spent.folder).stdout
    assert "records left over the window" in records


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "al"], "found no budget al, allowed AgentBudget/reports/all, "),
        (["show", "each", "--pot", "x"], f"found no pot x of AgentBudget/reports/each, allowed {WRITER}"),
        (["show", "all", "--limit", "cots"], "found no limit cots, allowed costMicroUsd, records"),
        (["explain"], "give either DECISION-ID, BUDGET or --agent NAME"),
        (["explain", "webhook-9999"], "found no decision webhook-9999"),
        (["explain", "webhook-2"], "record webhook-2 is no decision"),
        (["explain", "webhook-1"], "no budget stopped webhook-1: Allow, allowed by rule read"),
        (["explain", "--agent", "writer"], "no budget has stopped an action of writer"),
        (["picture", "all", "--out", "x.pdf"], "allowed a file that ends in .svg or .png"),
    ],
)  # fmt: skip
def test_mistakes(run: Run, spent: World, args: list[str], said: str) -> None:
    result = run("budgets", *args, "--dir", spent.folder)
    assert result.exit_code == 2
    assert said in result.stderr


def test_explain_a_decision(run: Run, spent: World) -> None:
    denied = spent.denied
    result = run("budgets", "explain", denied, "--dir", spent.folder)
    lines = result.stdout.splitlines()
    assert lines[0] == f"Deny  {WORKER}  ToolCall crm.read  ({denied})"
    facts = {line[2:14].strip(): line[14:] for line in lines[1:9]}
    assert facts["stopped by"] == "AgentBudget reports/all, shared"
    assert facts["limit"] == "cost: needed $0.60, left $0.20, of $1.00 as the limit is now"
    assert facts["run"] == f"r-1: fleetward trace r-1 --dir {spent.folder}"
    assert facts["begins anew"] == "never by itself"
    assert "who had it up to then: cost $0.70 spent, $0.10 reserved" in lines
    table = [re.split(r"  +", line)[:5] for line in lines]
    assert [WORKER, "$0.525", "66 %", "$0.00", "15"] in table
    assert [WRITER, "$0.275", "34 %", "$0.10", "6"] in table
    assert ["r-1", "$0.275", "34 %", "$0.10", "6"] in table
    assert lines[-1] == f"what led to what in a run: fleetward trace RUN --dir {spent.folder}"
    assert ["r-0", "$0.175", "22 %", "$0.00", "5"] in table


def test_explain_by_agent_and_by_budget(run: Run, spent: World) -> None:
    denied = spent.denied
    by_agent, by_budget, by_id = (
        json.loads(run("budgets", "explain", *args, "-o", "json", "--dir", spent.folder).stdout)
        for args in (["--agent", "data-worker"], ["all"], [denied])
    )
    assert by_agent == by_budget == by_id
    assert by_id["decision"]["shortfall"]["needed"] == 600_000
    assert (by_id["max"], by_id["spent"], by_id["reserved"]) == (1_000_000, 700_000, 100_000)
    assert {each["agent"]: each["runs"] for each in by_id["agents"]} == {WORKER: ["r-0", "r-1"], WRITER: ["r-1"]}


def test_explain_leaves_out_what_came_later(run: Run, spent: World) -> None:
    denied = spent.denied
    spent.spend(WRITER, 50_000, 0)
    its = json.loads(run("budgets", "explain", denied, "-o", "json", "--dir", spent.folder).stdout)
    assert its["spent"] == 700_000


def test_explain_a_budget_that_stopped_nothing(run: Run, spent: World) -> None:
    spent.spend(WRITER, 70_000, 6 * 3600, ROLLING)
    spent.spend(WRITER, 30_000, 3600, ROLLING)
    result = run("budgets", "explain", "rolling", "--dir", spent.folder)
    assert "AgentBudget reports/rolling  shared: it has stopped nothing" in result.stdout
    assert "bit by bit: it holds the last 4 h" in result.stdout
    assert "who had it so far: cost $0.03 spent, $0.00 reserved" in result.stdout


def test_explain_after_the_budget_is_gone(run: Run, spent: World) -> None:
    denied = spent.denied
    (spent.folder / "resources.yaml").write_text("")
    result = run("budgets", "explain", denied, "--dir", spent.folder)
    assert result.exit_code == 0, result.output
    assert "limit       cost: needed $0.60, left $0.20\n" in result.stdout
    assert "who had it up to then: cost $0.70 spent, $0.10 reserved" in result.stdout


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_picture(run: Run, spent: World, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"spend.{suffix}"
    result = run("budgets", "picture", "all", "--out", out, "--dir", spent.folder)
    assert (result.exit_code, result.stderr) == (0, f"wrote {out}\n")
    if suffix == "png":
        assert out.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        return
    said = {"".join(each.itertext()) for each in ET.parse(out).iter("{http://www.w3.org/2000/svg}text")}  # noqa: S314
    assert {WORKER, WRITER, "limit $1.00", "80 %: Event"} <= said


def test_verify(run: Run, spent: World) -> None:
    spent.spend(WRITER, 70_000, 6 * 3600, ROLLING)
    spent.spend(WRITER, 30_000, 3600, ROLLING)
    result = run("budgets", "verify", "--dir", spent.folder)
    assert (result.exit_code, result.stdout) == (
        0,
        "the ledger holds what the records say: 4 limits of 3 pots, 23 actions\n",
    )


def test_verify_after_estimates_overshoot_and_a_lost_machine(run: Run, spent: World) -> None:
    over = spent.decide(WORKER, {ALL: {"records": 5}, EACH: {"calls crm.**": 2}})
    spent.end(over, WORKER, {ALL: {"records": 9}})  # of the calls it says nothing: the estimate stands
    late = spent.decide(WORKER, {ALL: {"records": 20}})
    spent.sweep(later=4000)
    spent.end(late, WORKER, {ALL: {"records": 4}})
    report = json.loads(run("budgets", "-o", "json", "--dir", spent.folder).stdout)
    records = next(pot for pot in report["pots"] if pot["budget"] == ALL)["limits"][1]
    assert records["spent"] == 10 + 9 + 4
    result = run("budgets", "verify", "--dir", spent.folder)
    assert result.exit_code == 0, result.output


def test_verify_counts_what_was_lost(run: Run, spent: World) -> None:
    from fleetward.budget.calls import Need, Reserve, Wish
    from fleetward.budget.terms import terms_in
    from fleetward.cli.folder import open_folder

    need = Need(budget=ALL, amounts={"records": 5}, wanted={"records": 8})
    asked = Reserve(born="b", wishes=(Wish(agent=WORKER, needs=(need,)),))
    spent.ledger.reserve(asked, "webhook", partial(terms_in, open_folder(spent.folder).registry), spent.now)
    leased = json.loads(run("budgets", "-o", "json", "--dir", spent.folder).stdout)["pots"][0]["limits"][1]["leased"]
    assert leased >= 5
    spent.lose_the_webhook()
    assert run("budgets", "verify", "--dir", spent.folder).exit_code == 0
    assert LOST in run("budgets", "show", "all", "--limit", "records", "--dir", spent.folder).stdout


def test_verify_tells_every_difference(run: Run, spent: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "AGAIN_SECONDS", 0.0)
    spends = (Spend(budget=ALL, window="total", born="b", amounts={"records": 3, "costMicroUsd": 7}),)
    head: dict[str, Any] = {"id": "other-1", "writer": "other", "seq": 1, "time": "2026-11-21T00:00:00.000000Z"}
    action = RecordedAction(kind="ToolCall", name="crm.read", trusted=Facts())
    unfolded = DecisionRecord(
        **head, agent=WORKER, action=action, decision="Allow", reason="r", spends=spends, registry_version="v1"
    )
    spent.store.append([encode(unfolded)])
    result = run("budgets", "verify", "--dir", spent.folder)
    assert result.exit_code == 1
    assert [re.split(r"  +", line) for line in result.stdout.splitlines()] == [
        ["BUDGET", "POT", "WINDOW", "LIMIT", "LEDGER", "RECORDS", "DIFFERENCE"],
        ["AgentBudget reports/all", "shared", "total", "cost", "$0.80", "$0.800007", "-$0.000007"],
        ["AgentBudget reports/all", "shared", "total", "records", "10", "13", "-3"],
    ]
    data = json.loads(run("budgets", "verify", "-o", "json", "--dir", spent.folder).stdout)
    assert [each["limit"] for each in data["differences"]] == ["costMicroUsd", "records"]


def test_a_rolling_window_is_read_beside_a_hub_that_writes(run: Run, spent: World) -> None:
    spent.spend(WRITER, 70_000, 6 * 3600, ROLLING)
    first = json.loads(run("budgets", "-o", "json", "--dir", spent.folder).stdout)
    spent.spend(WRITER, 20_000, 0, ROLLING)
    second = json.loads(run("budgets", "-o", "json", "--dir", spent.folder).stdout)
    amounts = [
        pot["limits"][0].get("spent", 0)
        for report in (first, second)
        for pot in report["pots"]
        if pot["budget"] == ROLLING
    ]
    assert amounts == [0, 20_000]


def test_ascii_where_the_stream_holds_nothing_else(process: Process, spent: World) -> None:
    done = process("budgets", "show", "all", "--dir", spent.folder, env={"PYTHONIOENCODING": "ascii", "TZ": "UTC"})
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "\\u" not in done.stdout
    assert "$0.20 left of $1.00" in done.stdout


@contextlib.contextmanager
def terminal(*args: str, env: dict[str, str], columns: int = 90) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command on a terminal of its own."""
    main, its = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES", "NO_COLOR"}}
    command = [FLEETWARD, "budgets", *args]
    started = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env={**environment, "TERM": "xterm-256color", **env}
    )
    os.close(its)
    try:
        yield started, main
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()
        os.close(main)


def read_all(main: int, seconds: float = 30) -> str:
    """Read until the command lets go of its terminal."""
    data = b""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not select.select([main], [], [], 0.2)[0]:
            continue
        try:
            data += os.read(main, 65_536)
        except OSError:  # the other end is closed
            break
    return data.decode()


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}])
def test_on_a_terminal_there_is_colour_unless_it_is_not_wanted(spent: World, env: dict[str, str]) -> None:
    with terminal("--dir", str(spent.folder), env=env) as (started, main):
        said = read_all(main)
        assert started.wait(10) == 0
    assert ("\x1b[" in said) is not bool(env)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert "cost" in plain
    assert "$0.20 left of $1.00" in plain
    assert all(len(line) <= 90 for line in plain.splitlines())


def test_watch_draws_again_until_interrupted(spent: World) -> None:
    with terminal("show", "all", "--watch", "--dir", str(spent.folder), env={"TZ": "UTC"}) as (started, main):
        seen: list[str] = []

        def shows(text: str) -> bool:
            if select.select([main], [], [], 0.1)[0]:
                seen.append(os.read(main, 65_536).decode(errors="replace"))
            return text in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "".join(seen))

        until(lambda: shows("$0.20 left of $1.00"), "the first picture")
        spent.spend(WRITER, 50_000, 0)
        until(lambda: shows("$0.15 left of $1.00"), "what was spent meanwhile")
        started.send_signal(signal.SIGINT)
        rest = read_all(main)
        assert started.wait(10) == 0
    # The screen before comes back, and the last picture stays on it.
    assert "\x1b[?1049l" in rest
    assert "$0.15 left of $1.00" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", rest.partition("\x1b[?1049l")[2])


def test_watch_as_json_is_a_line_each_time(spent: World) -> None:
    command = [FLEETWARD, "budgets", "show", "all", "--watch", "-o", "json", "--dir", str(spent.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            lines = [json.loads(started.stdout.readline()) for _ in range(2)]
            started.send_signal(signal.SIGTERM)
            assert started.wait(20) == 0
        finally:
            if started.poll() is None:
                started.kill()
    assert [line["pots"][0]["budget"] for line in lines] == [ALL, ALL]
    assert lines[0]["at"] < lines[1]["at"]


def test_what_a_rolling_window_frees_in_time_is_never_empty(run: Run, spent: World) -> None:
    for i in range(20):
        spent.spend(WRITER, 10_000, 10_000 - 500 * i, ROLLING)
    report = json.loads(run("budgets", "-o", "json", "--dir", spent.folder).stdout)
    slow = next(pot for pot in report["pots"] if pot["budget"] == ROLLING)["limits"][0]
    assert slow["spent"] == 200_000
    assert "emptyAt" not in slow
    spent.spend(WRITER, 500_000, 300, ROLLING)
    report = json.loads(run("budgets", "-o", "json", "--dir", spent.folder).stdout)
    fast = next(pot for pot in report["pots"] if pot["budget"] == ROLLING)["limits"][0]
    assert report["at"] < fast["emptyAt"] < report["at"] + 4 * 3600


def test_completion_proposes_budgets(process: Process, spent: World) -> None:
    words = f"fleetward budgets show --dir {spent.folder} reports/"
    done = process(env={"_FLEETWARD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "5"})
    assert "plain,reports/rolling" in done.stdout


def test_verify_tells_pots_that_the_ledger_forgot(run: Run, spent: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "AGAIN_SECONDS", 0.0)
    other = spent.folder.parent / "other"
    with world(other):
        pass
    with contextlib.closing(sqlite3.connect(spent.folder / ".fleetward" / "audit.db")) as audit:
        audit.execute("VACUUM INTO ?", (str(other / ".fleetward" / "copy.db"),))
    for file in (other / ".fleetward").glob("audit.db*"):
        file.unlink()
    (other / ".fleetward" / "copy.db").rename(other / ".fleetward" / "audit.db")
    result = run("budgets", "verify", "-o", "json", "--dir", other)
    assert result.exit_code == 1, result.output
    differences = {
        (each["budget"], each["scope"], each["limit"]): (each["ledger"], each["records"])
        for each in json.loads(result.stdout)["differences"]
    }
    assert differences == {
        (ALL, "", "costMicroUsd"): (0, 800_000),
        (ALL, "", "records"): (0, 10),
        (EACH, WRITER, "calls crm.**"): (0, 1),
    }
