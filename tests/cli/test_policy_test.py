import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import Result

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]

HEAD = "apiVersion: fleetward.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: more}\ncases:\n"
READ = "request: {agent: reports/data-worker, action: {kind: ToolCall, name: crm.customers.read}}"
CHAT = "request: {agent: reports/data-worker, action: {kind: ModelCall, name: llm.chat}}"


def add(folder: Path, *cases: str) -> Path:
    file = folder / "tests.yaml"
    file.write_text(HEAD + "".join(f"- name: case {i}\n" + _indented(case) for i, case in enumerate(cases)))
    return file


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def test_all_as_expected(process: Process, folder: Path) -> None:
    done = process("policy", "test", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "ok    basics: the worker reads\n"
        "ok    basics: mail is held\n"
        "2 cases, none failed; 2 of 6 rules reached\n"
        "rules that no case reached:\n"
        "  AgentPolicy reports/work: large, never, short, slow\n"
    )


def test_a_failure_says_where_what_and_why(process: Process, folder: Path) -> None:
    file = add(folder, f"{READ}\nexpect: {{decision: Deny, rule: never}}", f"{READ}\nexpect: {{decision: Allow}}")
    done = process("policy", "test", folder)
    assert done.returncode == 1
    assert f"FAIL  more: case 0  ({file}:5)\n" in done.stdout
    assert "expected decision Deny, found Allow" in done.stdout
    assert "expected rule never to decide, found read" in done.stdout
    assert "reason: allowed by rule read of AgentPolicy reports/work" in done.stdout
    assert "rules that counted: reports/work/read (Allow)" in done.stdout
    assert "ok    more: case 1" in done.stdout
    assert "2 cases, 1 failed" in done.stdout


@pytest.mark.parametrize(
    ("expected", "failure"),
    [
        ("decision: Allow, rule: send", "expected rule send to decide, found read"),
        ("decision: Allow, policy: other", "expected policy other to decide, found reports/work"),
        ("decision: Allow, policy: other/work", "expected policy other/work to decide"),
        ("decision: Allow, rules: []", "expected the rules none to count, found read"),
        ("decision: Allow, rules: [read, send]", "expected the rules read, send to count, found read"),
        ("decision: Allow, reason: because", "expected a reason with 'because'"),
        (
            "decision: Allow, obligations: [{type: Redact, field: result.x}]",
            "expected obligations Redact result.x, found none",
        ),
    ],
)
def test_each_expectation_can_fail(run: Run, folder: Path, expected: str, failure: str) -> None:
    add(folder, f"{READ}\nexpect: {{{expected}}}")
    result = run("policy", "test", folder)
    assert result.exit_code == 1
    assert failure in result.stdout


@pytest.mark.parametrize(
    "expected",
    [
        "decision: Constrain, rule: short, policy: reports/work, rules: [short], reason: by rule short",
        "decision: Constrain, obligations: [{type: Clamp, field: arguments.limit, maximum: 10}]",
    ],
)
def test_each_expectation_can_hold(run: Run, folder: Path, expected: str) -> None:
    add(folder, f"{CHAT}\nexpect: {{{expected}}}")
    assert run("policy", "test", folder).exit_code == 0


def test_a_rule_only_recorded_does_not_decide(run: Run, folder: Path) -> None:
    policy = folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("spec:\n", "spec:\n  enforcement: Audit\n", 1))
    add(
        folder,
        f"{READ}\nexpect: {{decision: Deny, rules: [read], reason: no rule}}",
        f"{READ}\nexpect: {{decision: Allow}}",
        f"{READ.replace('customers.read', 'drop')}\nexpect: {{decision: Deny, rule: never}}",
    )
    result = run("policy", "test", folder)
    assert "ok    more: case 0" in result.stdout
    assert "FAIL  more: case 1" in result.stdout
    assert "FAIL  more: case 2" in result.stdout
    assert "expected rule never to decide, found none" in result.stdout


def test_an_outcome_is_judged_after_the_request(run: Run, folder: Path) -> None:
    ten, eleven = (f"outcome: {{status: Succeeded, actual: {{records: {n}}}}}" for n in (10, 11))
    allow = f"{READ}\nexpect: {{decision: Allow}}"
    add(
        folder,
        f"{allow}\n{ten}\nexpectOutcome: {{decision: Allow}}",
        f"{allow}\n{eleven}\nexpectOutcome: {{decision: Deny, rule: large}}",
        f"{allow}\n{eleven}\nexpectOutcome: {{decision: Allow}}",
    )
    result = run("policy", "test", folder)
    assert [line[:4].strip() for line in result.stdout.splitlines() if ": case" in line] == ["ok", "ok", "FAIL"]
    assert "outcome: expected decision Allow, found Deny" in result.stdout
    assert "large" not in result.stdout.partition("no case reached")[2]


def test_an_outcome_of_what_was_refused_fails(run: Run, folder: Path) -> None:
    held = "request: {agent: reports/writer, action: {kind: Message, name: mail.send.x}}"
    add(
        folder,
        f"{held}\nexpect: {{decision: RequireApproval}}\n"
        "outcome: {status: Failed}\nexpectOutcome: {decision: Allow}",
    )
    result = run("policy", "test", folder)
    assert result.exit_code == 1
    assert "the outcome was not judged: the request came to RequireApproval" in result.stdout


def test_a_paused_agent_is_judged_as_running(run: Run, folder: Path) -> None:
    run("pause", "data-worker", "--dir", folder)
    assert run("policy", "test", folder).exit_code == 0


def test_coverage_can_be_required(process: Process, folder: Path, tmp_path: Path) -> None:
    assert process("policy", "test", folder, "--require-coverage", "--junit", "report.xml").returncode == 1
    root = ET.parse(tmp_path / "report.xml").getroot()  # noqa: S314  the command just wrote it
    assert root.get("failures") == "1"
    failure = root.find("testsuite[@name='coverage']/testcase/failure")
    assert failure is not None
    assert "AgentPolicy reports/work: never" in (failure.text or "")

    policy = folder / "policy.yaml"
    text = policy.read_text()
    for rule in ("slow", "never"):
        text = "\n".join(line for line in text.splitlines() if f"name: {rule}," not in line) + "\n"
    head, _, tail = text.partition("  - name: short\n")
    policy.write_text(head + "  - " + tail.partition("  - ")[2].partition("  - name: large")[0])
    assert (
        run_ok(process("policy", "test", folder, "--require-coverage")) == "2 cases, none failed; 2 of 2 rules reached"
    )


def run_ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_junit(run: Run, folder: Path, tmp_path: Path) -> None:
    file = add(folder, f"{READ}\nexpect: {{decision: Deny}}", f"{CHAT}\nexpect: {{decision: Constrain}}")
    file.write_text(file.read_text().replace("name: case 0", r'name: "case <0> \e[31m"'))
    assert run("policy", "test", folder, "--junit", tmp_path / "report.xml").exit_code == 1
    root = ET.parse(tmp_path / "report.xml").getroot()  # noqa: S314  the command just wrote it
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "2", "1")
    [suite] = root
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("more", "2", "1")
    first, second = suite
    assert (first.get("name"), first.get("file"), first.get("line")) == (r"case <0> \x1b[31m", str(file), "5")
    assert first.find("failure") is not None
    assert len(second) == 0


def test_json(run: Run, folder: Path) -> None:
    file = add(folder, f"{READ}\nexpect: {{decision: Deny}}")
    result = run("policy", "test", folder, "-o", "json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert (data["passed"], data["failed"], data["rules"]["total"]) == (0, 1, 6)
    assert {"kind": "AgentPolicy", "policy": "reports/work", "rule": "never"} in data["rules"]["unreached"]
    [case] = data["cases"]
    assert (case["file"], case["line"], case["passed"]) == (str(file), 5, False)
    assert case["failures"] == ["expected decision Deny, found Allow"]
    assert case["found"]["rules"][0]["rule"] == "read"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (f"{READ}\nexpect: {{decision: Alow}}", ':7: cases[0].expect.decision: found "Alow"'),
        (f"{READ}\nexpected: {{}}", "cases[0].expected: found the unknown field expected"),
        (READ, "cases[0].expect: is missing"),
        (
            "request: {agent: reports/data-worker, action: {kind: Toolcall, name: x}}\nexpect: {decision: Deny}",
            ":6: cases[0].request.action.kind: ",
        ),
        (
            "request: {agent: reports/data-wroker, action: {kind: ToolCall, name: x}}\nexpect: {decision: Deny}",
            "cases[0].request.agent: found reports/data-wroker, which is no Agent here",
        ),
        (
            "request: {action: {kind: ToolCall, name: x}}\nexpect: {decision: Deny}",
            "cases[0].request.agent: is missing",
        ),
        (
            "request: {agent: reports/writer, action: {kind: Plan, name: x, arguments: {since: 2026-01-01}}}",
            "cases[0].request.action.arguments.since: found a date",
        ),
        (f"{READ}\nexpect: {{decision: Allow}}\noutcome: {{status: Failed}}", "expectOutcome is missing"),
        (f"{READ}\nexpect: {{decision: Allow}}\nexpectOutcome: {{decision: Allow}}", "outcome is missing"),
        (
            f"{READ}\nexpect: {{decision: Allow}}\noutcome: {{status: Done}}\nexpectOutcome: {{decision: Allow}}",
            ":8: cases[0].outcome.status: ",
        ),
    ],
)
def test_a_mistake_in_a_test_has_its_line(run: Run, folder: Path, case: str, words: str) -> None:
    file = add(folder, case if "expect" in case or case == READ else f"{case}\nexpect: {{decision: Deny}}")
    result = run("policy", "test", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(file) in result.stderr
    assert words in result.stderr


def test_a_folder_with_findings_is_not_tested(run: Run, folder: Path) -> None:
    (folder / "broken.yaml").write_text("kind: Agent\n")
    result = run("policy", "test", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "broken.yaml:1: apiVersion: is missing" in result.stderr


def test_no_tests_is_no_success(run: Run, folder: Path) -> None:
    (folder / "tests.yaml").unlink()
    result = run("policy", "test", folder)
    assert result.exit_code == 2
    assert "found no document of kind PolicyTest" in result.stderr


def test_a_report_that_cannot_be_written(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("policy", "test", folder, "--junit", tmp_path / "nowhere" / "report.xml")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
