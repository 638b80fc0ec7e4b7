"""`fleetward audit`: records are found, shown in words, and followed as they come."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import Result

from fleetward.audit.record import DecisionRecord, ModeChangeRecord, OutcomeRecord, Record, encode
from fleetward.audit.store import Store
from fleetward.decision.action import Actual, Facts, RecordedAction, RuleRef
from fleetward.registry.slice import Estimate, Mode, Obligation

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]

FLEETWARD = str(Path(sys.executable).with_name("fleetward"))
NOW = datetime.now(UTC)
RULE = RuleRef(
    policy="reports/outside",
    kind="AgentPolicy",
    uid="11111111-2222-3333-4444-555555555555",
    generation=3,
    hash="cafe0123",
    rule="no-bulk",
    decision="Deny",
    enforcement="Enforce",
    principal="reports/planner",
)
AUDITED = RuleRef(
    **{name: getattr(RULE, name) for name in RULE.__struct_fields__}
    | {"rule": "try-out", "decision": "RequireApproval", "enforcement": "Audit", "error": "no such key"}
)
ACTION = RecordedAction(
    kind="ToolCall",
    name="crm.customers.export",
    trusted=Facts(
        risk_tags=("bulk", "external"),
        data_classes=("customer",),
        target="crm",
        reversibility="Irreversible",
        estimate=Estimate(records=100),
    ),
    declared=Facts(labels=("web",), estimate=Estimate(calls=1, cost_micro_usd=250)),
    arguments_digest="sha256:" + "ab" * 32,
)


def head(seq: int, ago: timedelta = timedelta()) -> dict[str, Any]:
    time_ = (NOW - ago).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"id": f"aaaa-{seq}", "writer": "aaaa", "seq": seq, "time": time_, "registry_version": "v7"}


RECORDS: list[Record] = [
    DecisionRecord(
        **head(1, timedelta(hours=3)),
        agent="reports/data-worker",
        action=RecordedAction(kind="ToolCall", name="crm.customers.read", trusted=Facts()),
        decision="Constrain",
        reason="allowed by rule read",
        rules=(),
        obligations=(Obligation(type="Clamp", field="arguments.limit", maximum=10),),
        run="run-1",
        duration_micros=42,
    ),
    OutcomeRecord(
        **head(2, timedelta(hours=2)),
        agent="reports/data-worker",
        decision_id="aaaa-1",
        status="Succeeded",
        decision="Allow",
        reason="nothing speaks against it",
        actual=Actual(records=7, duration_ms=81),
        result_digest="sha256:" + "cd" * 32,
        run="run-1",
    ),
    DecisionRecord(
        **head(3, timedelta(minutes=5)),
        agent="reports/planner",
        action=ACTION,
        decision="Deny",
        reason="bulk export is denied \x1b[31mon every path",
        rules=(RULE, AUDITED),
        advice=("say so in the ActionCatalog",),
        run="run-2",
        parent="aaaa-1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    ModeChangeRecord(
        **head(4, timedelta(minutes=1)),
        subject="Agent reports/data-worker",
        agent="reports/data-worker",
        before="Running",
        after="Paused",
        reason="looking into it",
        set_by="kim@example.com",
    ),
    DecisionRecord(
        **head(5),
        agent="reports/data-worker",
        action=RecordedAction(kind="ToolCall", name="crm.customers.read", trusted=Facts()),
        decision="Deny",
        reason="reports/data-worker is Paused",
        mode=Mode("Paused", "looking into it", "kim@example.com", "Agent reports/data-worker"),
    ),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with five records."""
    folder = tmp_path / "policies" / ".fleetward"
    with Store.open(folder / "audit.db") as store:
        store.append([encode(record) for record in RECORDS])
    return folder


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    """The hub's own hold on the store."""
    with Store.open(data / "audit.db") as opened:
        yield opened


def listed(run: Run, data: Path, *args: str) -> list[int]:
    result = run("audit", "list", "--data", data, "-o", "jsonl", *args)
    assert result.exit_code == 0, result.output
    return [json.loads(line)["seq"] for line in result.stdout.splitlines()]


def test_list_as_a_table(run: Run, data: Path) -> None:
    result = run("audit", "list", "--dir", data.parent)
    assert result.exit_code == 0
    assert result.stderr == ""
    rows = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert rows[0] == ["TIME", "AGENT", "ACTION", "DECISION", "RULES", "RUN", "ID"]
    assert [row[1:] for row in rows[1:]] == [
        ["reports/data-worker", "crm.customers.read", "Constrain", "-", "run-1", "aaaa-1"],
        ["reports/data-worker", "crm.customers.read: Succeeded", "Allow", "-", "run-1", "aaaa-2"],
        ["reports/planner", "crm.customers.export", "Deny", "no-bulk, try-out (audit)", "run-2", "aaaa-3"],
        ["reports/data-worker", "operatingMode was Running, set by kim@example.com", "Paused", "-", "-", "aaaa-4"],
        ["reports/data-worker", "crm.customers.read", "Deny", "-", "-", "aaaa-5"],
    ]
    assert rows[1][0] == RECORDS[0].time[:23] + "Z"


def test_json_is_what_was_stored(run: Run, data: Path) -> None:
    expected = [json.loads(encode(record)) for record in RECORDS]
    assert json.loads(run("audit", "list", "--data", data, "-o", "json").stdout) == expected
    lines = run("audit", "list", "--data", data, "-o", "jsonl").stdout
    assert lines.encode() == b"".join(encode(record) + b"\n" for record in RECORDS)
    shown = run("audit", "show", "aaaa-3", "--data", data, "-o", "json")
    assert json.loads(shown.stdout) == expected[2]
    tailed = run("audit", "tail", "--data", data, "-o", "json", "--no-follow", "--limit", "2")
    assert json.loads(tailed.stdout) == expected[3:]
    nothing = run("audit", "tail", "--data", data, "-o", "json", "--no-follow", "--run", "none")
    assert json.loads(nothing.stdout) == []


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], [1, 2, 3, 4, 5]),
        (["--agent", "reports/data-worker"], [1, 2, 4, 5]),
        (["--agent", "planner"], [3]),
        (["--run", "run-1"], [1, 2]),
        (["--decision", "Deny"], [3, 5]),
        (["--decision", "deny", "--agent", "planner"], [3]),
        (["--type", "Outcome", "--type", "modechange"], [2, 4]),
        (["--since", "80m"], [3, 4, 5]),
        (["--since", "2h30m", "--until", "80m"], [2]),
        (["--until", "150m"], [1]),
        (["--since", (NOW - timedelta(minutes=90)).isoformat()], [3, 4, 5]),
        (["--until", (NOW - timedelta(minutes=90)).strftime("%Y-%m-%dT%H:%M:%SZ")], [1, 2]),
        (["--limit", "2"], [4, 5]),
        (["--limit", "0"], [1, 2, 3, 4, 5]),
        (["--limit", "1", "--decision", "Constrain"], [1]),
    ],
)
def test_filters(run: Run, data: Path, args: list[str], expected: list[int]) -> None:
    assert listed(run, data, *args) == expected


def test_a_shortened_list_says_so(run: Run, data: Path) -> None:
    assert "these are the newest 4; --limit 0 lists all" in run("audit", "list", "--data", data, "--limit", "4").stderr
    assert run("audit", "list", "--data", data, "--limit", "5").stderr == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--since", "yesterday"],
            "found yesterday; allowed are RFC 3339, such as 2026-03-01T10:00:00Z, and how long ago",
        ),
        (["--since", "2026-03-01T10:00:00"], "has no time zone"),
        (["--until", "99999999999w"], "found 99999999999w; allowed are"),
        (["--decision", "Maybe"], "'Maybe' is not one of"),
        (["--type", "Thing"], "'Thing' is not one of"),
        (["--limit", "-1"], "-1 is not in the range"),
        (["-o", "xml"], "'xml' is not one of"),
    ],
)
def test_bad_options(run: Run, data: Path, args: list[str], words: str) -> None:
    result = run("audit", "list", "--data", data, *args)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("command", [["list"], ["tail"], ["show", "aaaa-1"]])
def test_no_store(run: Run, tmp_path: Path, command: list[str]) -> None:
    result = run("audit", *command, "--dir", tmp_path)
    assert result.exit_code == 2
    assert f"there is no audit store at {tmp_path}/.fleetward/audit.db" in result.stderr
    (tmp_path / "audit.db").write_text("no database at all, whatever its name says" * 100)
    result = run("audit", *command, "--data", tmp_path)
    assert result.exit_code == 2
    assert "file is not a database" in result.stderr


def test_gaps_are_warned_of(run: Run, data: Path, store: Store) -> None:
    store.append([encode(ModeChangeRecord(**head(9), subject="AgentFleet f", before="Running", after="Paused"))])
    store.report("bbbb", "reports/pod-b", 1)
    result = run("audit", "list", "--data", data)
    assert result.stderr.splitlines() == [
        "warning: 3 records, numbers 6 to 8 of writer aaaa: missing",
        "warning: 1 record, number 1 of writer bbbb of reports/pod-b: not delivered yet",
    ]
    assert "warning" not in result.stdout
    for number in range(20, 40, 2):
        store.report(f"c{number}", "w", number)
    assert "and 7 more gaps, of" in run("audit", "tail", "--no-follow", "--data", data).stderr


def test_show_a_decision(run: Run, data: Path) -> None:
    result = run("audit", "show", "aaaa-3", "--data", data)
    assert result.exit_code == 0
    assert result.stdout == (
        f"""Deny  reports/planner  ToolCall crm.customers.export  (aaaa-3)
  when
    {RECORDS[2].time}
  reason
    bulk export is denied \\x1b[31mon every path
  trusted facts
    risk tags bulk, external
    data classes customer
    target crm
    irreversible
    estimate 100 records
  declared facts
    labels web
    estimate 250 millionths of a US dollar, 1 call
  arguments
    digest sha256:{"ab" * 32}
  rules that counted
    Deny             no-bulk of AgentPolicy reports/outside (uid 11111111-2222-3333-4444-555555555555, generation 3, hash cafe0123), enforced, for reports/planner
    RequireApproval  try-out of AgentPolicy reports/outside (uid 11111111-2222-3333-4444-555555555555, generation 3, hash cafe0123), recorded only (enforcement: Audit), for reports/planner; its expression failed: no such key
  advice
    say so in the ActionCatalog
  belongs to
    run run-2
    parent aaaa-1
    trace 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
  decided from
    registry v7
  outcomes
    none recorded
"""  # noqa: E501 - as it is printed
    )


def test_show_what_belongs_together(run: Run, data: Path) -> None:
    decision = run("audit", "show", "aaaa-1", "--data", data).stdout
    assert "decided in 42 microseconds" in decision
    assert "clamp arguments.limit to at most 10" in decision
    assert re.search(r"outcomes\n    Allow  \S+  Succeeded, used 7 records, 81 ms: nothing .* \(aaaa-2\)", decision)
    outcome = run("audit", "show", "aaaa-2", "--data", data).stdout
    assert "outcome Succeeded of aaaa-1" in outcome
    assert "really used\n    7 records\n    81 ms" in outcome
    assert re.search(r"the decision\n    Constrain  \S+  ToolCall crm.customers.read: allowed", outcome)
    assert "other outcomes" not in outcome
    paused = run("audit", "show", "aaaa-5", "--data", data).stdout
    assert "Paused on Agent reports/data-worker, set by kim@example.com: looking into it" in paused
    change = run("audit", "show", "aaaa-4", "--data", data).stdout
    assert change.startswith("Paused  Agent reports/data-worker  operatingMode was Running  (aaaa-4)\n")
    assert "set by\n    kim@example.com" in change


def test_show_an_unknown_record(run: Run, data: Path) -> None:
    result = run("audit", "show", "zzzz-1", "--data", data)
    assert result.exit_code == 2
    assert "found no record zzzz-1 in" in result.stderr


def test_as_a_process(process: Process, data: Path) -> None:
    listing = process("audit", "list", "--dir", data.parent)
    assert (listing.returncode, listing.stderr) == (0, "")
    assert "\x1b" not in listing.stdout
    assert len(listing.stdout.splitlines()) == 6
    assert process("audit", "list", "--dir", "nowhere").returncode == 2
    assert "list" in process("audit", "--help").stdout


def test_colours_on_a_terminal(data: Path) -> None:
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    env.pop("NO_COLOR", None)
    with subprocess.Popen(
        [FLEETWARD, "audit", "list", "--data", data], stdout=follower, stderr=follower, env=env
    ) as listing:
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the terminal is gone once nobody writes to it
                break
            shown += piece
        assert listing.wait(30) == 0
    os.close(leader)
    assert b"\x1b[1;31mDeny" in shown
    assert b"\x1b[33mPaused" in shown


class Tail:
    """`fleetward audit tail` as a process, read line by line with a deadline."""

    def __init__(self, data: Path, *args: str, stdout: int | IO[bytes] = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [FLEETWARD, "audit", "tail", "--data", data, *args], stdout=stdout, stderr=subprocess.PIPE
        )
        self._rest = b""

    def lines(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + 30
        while self._rest.count(b"\n") < count:
            assert select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0], self._rest
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, self._rest
            self._rest += piece
        *lines, self._rest = self._rest.split(b"\n", count)
        return [line.decode() for line in lines]

    def end(self, number: int) -> tuple[str, str]:
        self.process.send_signal(number)
        out, errors = self.process.communicate(timeout=30)
        return (self._rest + (out or b"")).decode(), errors.decode()


@pytest.fixture
def start_tail(data: Path) -> Iterator[Callable[..., Tail]]:
    started: list[Tail] = []

    def start(*args: str, **more: Any) -> Tail:
        started.append(Tail(data, *args, **more))
        return started[-1]

    yield start
    for tail in started:
        if tail.process.poll() is None:
            tail.process.kill()
        tail.process.communicate()


def more(seq: int, **changes: Any) -> bytes:
    fields = {"subject": "AgentFleet reporting", "before": "Running", "after": "Paused"}
    return encode(ModeChangeRecord(**head(seq) | fields | changes))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_follows_until_told_to_stop(store: Store, start_tail: Callable[..., Tail], number: int) -> None:
    tail = start_tail("--limit", "2", "-o", "jsonl")
    assert [json.loads(line)["seq"] for line in tail.lines(2)] == [4, 5]
    store.append([more(6)])
    assert [json.loads(line)["seq"] for line in tail.lines(1)] == [6]
    store.append([more(seq) for seq in range(7, 1500)])
    assert [json.loads(line)["seq"] for line in tail.lines(1493)] == list(range(7, 1500))
    assert tail.end(number) == ("", "")
    assert tail.process.returncode == 0


def test_tail_filters_what_it_follows(store: Store, start_tail: Callable[..., Tail]) -> None:
    tail = start_tail("--type", "ModeChange", "--agent", "reports/planner", "-o", "json")
    store.append([more(6, agent="reports/writer"), more(7, agent="reports/planner")])
    store.append([more(8, agent="reports/writer"), more(9, agent="reports/planner")])
    (first,) = tail.lines(1)
    assert first.startswith("[{")
    rest, errors = tail.end(signal.SIGINT)
    assert [record["seq"] for record in json.loads(first + rest)] == [7, 9]
    assert errors == ""


def test_tail_as_a_table_and_its_gaps(store: Store, start_tail: Callable[..., Tail]) -> None:
    tail = start_tail("--limit", "1")
    heading, row = tail.lines(2)
    assert re.split(r"  +", heading)[:2] == ["TIME", "AGENT"]
    assert row.endswith("aaaa-5")
    store.append([more(8)])
    assert re.split(r"  +", tail.lines(1)[0])[1:] == [
        "AgentFleet reporting",
        "operatingMode was Running",
        "Paused",
        "-",
        "-",
        "aaaa-8",
    ]
    assert tail.process.stderr is not None
    assert tail.process.stderr.readline() == b"warning: 2 records, numbers 6 to 7 of writer aaaa: missing\n"
    store.append([more(9)])
    tail.lines(1)
    assert tail.end(signal.SIGTERM) == ("", "")


def test_tail_ends_when_nobody_reads(start_tail: Callable[..., Tail]) -> None:
    tail = start_tail()
    tail.lines(6)
    assert tail.process.stdout is not None
    tail.process.stdout.close()
    assert tail.process.wait(30) == 0
    assert tail.process.stderr is not None
    assert tail.process.stderr.read() == b""


def test_tail_into_a_file(tmp_path: Path, store: Store, start_tail: Callable[..., Tail]) -> None:
    path = tmp_path / "out.jsonl"
    with path.open("wb") as file:
        tail = start_tail("-o", "jsonl", stdout=file)
    store.append([more(6)])
    deadline = time.monotonic() + 30
    while path.read_bytes().count(b"\n") < 6:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert tail.end(signal.SIGTERM)[1] == ""
    assert [json.loads(line)["seq"] for line in path.read_bytes().splitlines()] == [1, 2, 3, 4, 5, 6]
