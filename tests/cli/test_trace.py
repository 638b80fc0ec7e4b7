"""`fleetward trace`: a run's tree and a record's chain, in every format."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.runs import RUN, TRACEPARENT, A, B, decision, large, opening, outcome, rule, story

from fleetward.audit.record import ModeChangeRecord, encode
from fleetward.audit.store import Store
from fleetward.audit.trace import trace
from fleetward.cli.tracehtml import page
from fleetward.cli.tracemermaid import escaped, flowchart
from fleetward.run.mandate import Mandate

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]

FLEETWARD = str(Path(sys.executable).with_name("fleetward"))
HOSTILE = (
    '</script><img src=x onerror=alert(1)>"];\nclick n0 href "javascript:alert(1)" %%{init}%%'
    " `#60;b#62;` \x1b[31m \u2028 &lt;"
)


def stored(tmp_path: Path, records: list[Any]) -> Path:
    folder = tmp_path / "policies" / ".fleetward"
    with Store.open(folder / "audit.db") as store:
        store.append([encode(record) for record in records])
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the story of a run, and a record of no run."""
    change: dict[str, Any] = {"id": "aaaa-12", "writer": "aaaa", "seq": 12, "time": "2026-03-01T11:00:00.000000Z"}
    mode = ModeChangeRecord(**change, subject="AgentFleet f", before="Running", after="Paused", registry_version="v1")
    return stored(tmp_path, [*story(), mode])


def test_the_tree(process: Process, data: Path) -> None:
    result = process("trace", RUN, "--dir", data.parent)
    assert (result.returncode, result.stderr) == (0, "")
    scope = "(actions crm.**; data classes customer; may be handed on once; at most 100 records)"
    asked = "External actions from any agent need approval"
    assert result.stdout == (
        f"""run run-1  11 records  2026-03-01T10:00:01.000Z to 2026-03-01T10:00:11.000Z
Opened  10:00:01.000  reports/coordinator  run run-1  aaaa-1
│  for kim@example.com: Write to the customers of the north
│  data classes customer
│  targets crm, mail.outside
│  at most 40 steps, 3 agents, 2 levels of delegation, 500 records
│  ends by itself after 1 day
├─ Allow  10:00:02.000  reports/coordinator  Plan customer-letter of 1 step  by reports/work/plans  aaaa-2
│  └─ Allow  10:00:03.000  reports/coordinator  Delegation to reports/reader  by reports/work/dispatch  gave g-1 {scope}  labels web  aaaa-3
│     ├─ Allow  10:00:04.000  reports/reader  ToolCall crm.customers.read  by reports/work/read  under g-1  labels web  -> Succeeded in 81 ms, used 7 records  aaaa-4
│     │  └─ Allow  10:00:06.000  reports/reader  Delegation to reports/mailer  by reports/work/dispatch  under g-1  gave g-2 {scope}  labels web  aaaa-6
│     │     └─ RequireApproval  10:00:07.000  reports/mailer  ToolCall mail.send.customer  by reports/work/outside of reports/coordinator  under g-2  {asked}  aaaa-7
│     └─ Deny  10:00:08.000  reports/reader  ToolCall crm.customers.read  under g-1  the run's mandate does not allow it  aaaa-8
│           too far: records: found 507, allowed 500 (mandate)
│           says it came from other-1, which is not of this run
└─ Closed  10:00:11.000  reports/coordinator  run run-1  aaaa-11
gone-3: cause not in the store for this run: lost, or not collected yet
└─ Allow  10:00:10.000  reports/mailer  ToolCall crm.customers.read  by reports/work/read  under g-9  aaaa-10
no cause: nothing in this run authorised these
└─ Deny  10:00:09.000  reports/stranger  ToolCall crm.customers.read  reports/stranger holds no grant of this run  aaaa-9
"""  # noqa: E501 - as it is printed
    )


def test_what_came_of_it(run: Run, tmp_path: Path) -> None:
    records = [
        opening(),
        decision(2, cause="aaaa-1", rules=(rule("one"), rule("two"))),
        outcome(3, "aaaa-2", status="Running"),
        outcome(4, "aaaa-2", status="Running"),
        decision(5, cause="aaaa-1"),
        outcome(6, "aaaa-5", status="Failed", error="no route", decision="Deny", reason="too many records"),
        outcome(7, "bbbb-1"),
    ]
    shown = run("trace", RUN, "--data", stored(tmp_path, records)).stdout
    assert "by reports/work/one and 1 more  -> Running, told 2 times  aaaa-2\n" in shown
    assert "-> Failed after 1000 ms, Deny: too many records, error no route  aaaa-5\n" in shown
    assert "\nbbbb-1: cause not in the store for this run: lost, or not collected yet  -> Succeeded\n" in shown


def on_terminal(data: Path, columns: int) -> str:
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    env.pop("NO_COLOR", None)
    with subprocess.Popen([FLEETWARD, "trace", RUN, "--data", data], stdout=follower, env=env) as shown:
        os.close(follower)
        text = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the terminal is gone once nobody writes to it
                break
            text += piece
        assert shown.wait(30) == 0
    os.close(leader)
    return text.decode()


def test_on_a_terminal(data: Path) -> None:
    wide, narrow = on_terminal(data, 400), on_terminal(data, 80)
    assert "\x1b[1;31mDeny\x1b[0m" in wide
    assert "\x1b[1;35mRequireApproval" in wide
    assert "…" not in wide
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in narrow.splitlines()]
    assert max(map(len, lines)) <= 80
    (held,) = (line for line in lines if "RequireApproval" in line)
    assert re.search(r"reports/mailer .*…  aaaa-7$", held)


def test_json(run: Run, data: Path) -> None:
    found = json.loads(run("trace", RUN, "--data", data, "-o", "json").stdout)
    assert (found["run"], found["records"]) == (RUN, 11)
    opened, missing, alone = found["roots"]
    assert [each["kind"] for each in found["roots"]] == ["Opening", "NotInStore", "NotAuthorised"]
    assert opened["record"] == json.loads(encode(story()[0]))
    assert (opened["traceId"], opened["spanId"]) == tuple(TRACEPARENT.split("-")[1:3])
    delegation = opened["children"][0]["children"][0]
    read, denied = delegation["children"]
    assert read["record"]["traceparent"] == TRACEPARENT
    assert read["outcomes"] == [json.loads(encode(story()[4]))]
    assert (denied["said"], denied["notes"]) == (
        "NotOfThisRun",
        ["says it came from other-1, which is not of this run"],
    )
    assert missing["id"] == "gone-3"
    assert "record" not in missing
    assert [child["id"] for child in alone["children"]] == ["aaaa-9"]


def test_why(run: Run, data: Path) -> None:
    shown = run("trace", "--why", "aaaa-7", "--data", data).stdout.splitlines()
    assert shown[0] == "aaaa-7 came under aaaa-6: Delegation to reports/mailer by reports/reader"
    numbered = [line.split()[1:] for line in shown if re.match(r" +\d+\. ", line)]
    assert [(words[0], words[-1]) for words in numbered] == [
        ("Opened", "aaaa-1"),
        ("Allow", "aaaa-3"),
        ("Allow", "aaaa-6"),
        ("RequireApproval", "aaaa-7"),
    ]
    assert "     at most 40 steps, 3 agents, 2 levels of delegation, 500 records" in shown
    version = "uid 11111111-2222-3333-4444-555555555555, generation 3, hash cafe0123"
    whose = "for reports/coordinator"
    assert f"     rule outside of AgentPolicy reports/work: RequireApproval, {whose}  {version}" in shown
    assert f"     rule try-out of AgentPolicy reports/work: Deny, recorded only, {whose}  {version}" in shown
    assert "     under grant g-2" in shown
    assert "     handed down by reports/coordinator > reports/reader" in shown


@pytest.mark.parametrize(
    ("record", "first", "ids"),
    [
        ("aaaa-5", "aaaa-4 came under aaaa-3: Delegation", ["aaaa-1", "aaaa-3", "aaaa-4", "aaaa-5"]),
        ("aaaa-2", "aaaa-2 came under the opening of run run-1 itself, by reports/coordinator", ["aaaa-1", "aaaa-2"]),
        ("aaaa-10", "aaaa-10 came under gone-3, which is not in the store", ["gone-3", "aaaa-10"]),
        ("aaaa-9", "aaaa-9: nothing in a run authorised it", ["aaaa-9"]),
        ("aaaa-11", "aaaa-11 came under the opening of run run-1", ["aaaa-1", "aaaa-11"]),
        ("aaaa-1", "  1. Opened", ["aaaa-1"]),
    ],
)
def test_why_of_each(run: Run, data: Path, record: str, first: str, ids: list[str]) -> None:
    assert run("trace", "--why", record, "--data", data).stdout.startswith(first)
    found = json.loads(run("trace", "--why", record, "--data", data, "-o", "json").stdout)
    assert [link["id"] for link in found["chain"]] == ids
    assert found["run"] == RUN
    assert [link["id"] for link in found["chain"] if link["record"] is None] == [id_ for id_ in ids if id_ == "gone-3"]


def test_why_across_runs(run: Run, tmp_path: Path) -> None:
    data = stored(tmp_path, [opening(run="run-0"), decision(2, cause="aaaa-1")])
    assert "this is of another run: run-0" in run("trace", "--why", "aaaa-2", "--data", data).stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere"], "found no run nowhere in "),
        (["--why", "zzzz-1"], "found no record zzzz-1 in "),
        (["--why", "aaaa-12"], "record aaaa-12 is neither a decision nor an outcome"),
        ([], "give either RUN or --why RECORD"),
        ([RUN, "--why", "aaaa-1"], "give either RUN or --why RECORD"),
        (["--why", "aaaa-1", "-o", "mermaid"], "--why is shown as text or json"),
        ([RUN, "-o", "json", "--html", "x.html"], "leave out -o json"),
        ([RUN, "--html", "no/such/folder/x.html"], "cannot write no/such/folder/x.html: No such file"),
    ],
)
def test_what_cannot_be_shown(run: Run, data: Path, args: list[str], words: str) -> None:
    result = run("trace", *args, "--data", data)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_without_a_store(run: Run, tmp_path: Path) -> None:
    result = run("trace", RUN, "--dir", tmp_path)
    assert result.exit_code == 2
    assert "there is no audit store at" in result.stderr


def test_gaps_of_the_runs_writers_are_told(run: Run, data: Path) -> None:
    with Store.open(data / "audit.db") as store:
        store.report("bbbb", "reports/pod-b", 3)
        assert run("trace", RUN, "--data", data).stderr == ""
        store.report("aaaa", "reports/pod-a", 14)
    told = run("trace", RUN, "--data", data).stderr
    assert told == "warning: 2 records of this run's writers are not in the store, and may belong to this run\n"


def test_runs_are_completed(process: Process, data: Path) -> None:
    with Store.open(data / "audit.db") as store:
        store.append([encode(opening(1, writer="bbbb", run="run-2"))])
    env = {
        "COMP_WORDS": f"fleetward trace --data {data} run",
        "COMP_CWORD": "4",
        "_FLEETWARD_COMPLETE": "bash_complete",
    }
    done = process(env=env)
    assert done.stdout.splitlines() == ["plain,run-1", "plain,run-2"]
    assert done.stderr == ""


def hostile() -> list[Any]:
    return [
        replace(opening(), mandate=Mandate(requester=HOSTILE[:200], purpose=HOSTILE)),
        decision(2, agent=A, cause="aaaa-1", decision="Deny", reason=HOSTILE, rules=(rule(HOSTILE, "Deny"),)),
        decision(3, agent=B, cause=HOSTILE, parent=HOSTILE, grant=HOSTILE),
        outcome(4, "aaaa-2", error=HOSTILE),
    ]


def test_nothing_a_terminal_obeys(run: Run, tmp_path: Path) -> None:
    data = stored(tmp_path, hostile())
    for args in ([RUN], ["--why", "aaaa-2"], ["--why", "aaaa-3"]):
        shown = run("trace", *args, "--data", data)
        assert shown.exit_code == 0
        assert all(c.isprintable() or c == "\n" for c in shown.stdout)
        assert "\\x1b[31m" in shown.stdout


_CHART_LINE = re.compile(
    r"flowchart TD|  n\d+\[\"([A-Za-z0-9 ,./()_-]|#\d+;|<br>)*\"\]:::\w+|  n\d+ --> n\d+|  classDef \w+ [#\w:,-]+"
)


def test_mermaid(run: Run, data: Path, tmp_path: Path) -> None:
    lines = run("trace", RUN, "--data", data, "-o", "mermaid").stdout.splitlines()
    assert lines[0] == "flowchart TD"
    assert sum(" --> " in line for line in lines) == 9
    assert any(line.startswith('  n5["RequireApproval') and line.endswith(":::RequireApproval") for line in lines)
    for line in [*lines, *flowchart(trace(RUN, hostile()))]:
        assert _CHART_LINE.fullmatch(line), line


@given(st.text())
def test_no_text_leaves_its_label(text: str) -> None:
    written = escaped(text)
    assert re.fullmatch(r"([A-Za-z0-9 ,./()_-]|#\d+;)*", written)


def test_a_chart_too_large_to_draw_is_told(run: Run, tmp_path: Path) -> None:
    shown = run("trace", RUN, "--data", stored(tmp_path, large(1000)), "-o", "mermaid")
    assert re.fullmatch(r"the chart has \d+ edges; Mermaid draws 500 unless maxEdges says otherwise\n", shown.stderr)


class Elements(HTMLParser):
    """The elements and attributes of a page, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def test_the_page_holds_nothing_but_text(run: Run, tmp_path: Path) -> None:
    harmless, attacked = Elements(), Elements()
    harmless.feed("".join(page(trace(RUN, story()[:3]))))
    data = stored(tmp_path, hostile())
    file = tmp_path / "run.html"
    result = run("trace", RUN, "--data", data, "--html", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"wrote {file}\n")
    assert run("trace", RUN, "--data", data, "-o", "html").stdout == file.read_text("utf-8")
    attacked.feed(file.read_text("utf-8"))
    for elements in (harmless, attacked):
        assert elements.open == []
        assert not [its for _, its in elements.found if {"src", "href", "style"} & its.keys()]
        assert not [name for _, its in elements.found for name in its if name.startswith("on")]
    assert {tag for tag, _ in attacked.found} == {tag for tag, _ in harmless.found}
    policy = next(its["content"] for _, its in attacked.found if its.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    records = json.loads(attacked.texts["script"][0])
    assert records[1]["record"]["reason"] == HOSTILE


@pytest.fixture(autouse=True)
def _here(tmp_path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield
    os.chdir(before)
