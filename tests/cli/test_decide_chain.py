"""`fleetward decide` where work was handed down, and in a run."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.chains import read
from click.testing import Result

Run = Callable[..., Result]
MISNAMED = read(name="delegate", kind="Delegation")
TO_DESK = ("delegate.care.desk", "Delegation")
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(run: Run, chain: Path) -> Callable[..., Result]:
    def asked(request: Any, *options: str) -> Result:
        return run("decide", "--dir", chain, "-f", "-", *options, stdin=json.dumps(request))

    return asked


def decision(result: Result) -> str:
    return str(result.stdout).split(maxsplit=1)[0]


def test_the_restrictions_of_everyone_in_the_chain_count(ask: Callable[..., Result]) -> None:
    alone = ask(read())
    assert decision(alone) == "Deny"
    assert "only the rules were judged" not in alone.stderr
    allowed = ask(read(), "--path", "care/desk")
    assert (decision(allowed), allowed.exit_code) == ("Allow", 0)  # the desk's own Deny is for the desk itself only
    assert "  chain\n    care/desk > care/worker\n" in allowed.stdout
    assert "  whose rule decided\n    care/worker, who acts\n" in allowed.stdout
    denied = ask(read(name="db.drop"), "--path", "care/desk")
    assert "  whose rule decided\n    care/desk, who handed the work down\n" in denied.stdout
    assert (
        "no-drop  of AgentPolicy care/desk, enforced, as a rule for care/desk, who handed the work down"
        in denied.stdout
    )
    assert "read  of AgentPolicy care/work, enforced, as a rule for care/worker, who acts" in denied.stdout
    assert "only the rules were judged: offline no run, mandate or grant is checked" in denied.stderr
    further = ask(read(agent="post/mailer", name="db.drop"), "--path", "care/desk,care/worker")
    assert "care/desk > care/worker > post/mailer" in further.stdout
    assert "whose rule decided\n    care/desk, who handed" in further.stdout


def test_json_names_the_principal(ask: Callable[..., Result]) -> None:
    answer = json.loads(ask(read(name="db.drop"), "--path", "care/desk", "-o", "json").stdout)
    assert [(ref["rule"], ref["principal"]) for ref in answer["rules"]] == [
        ("no-drop", "care/desk"),
        ("read", "care/worker"),
    ]


def test_what_would_allow_it_knows_the_chain(ask: Callable[..., Result]) -> None:
    told = ask(read()).stdout
    assert "rule read of AgentPolicy care/work, but it is for work handed down by desk, found nobody" in told
    told = ask(read(name="deep.a"), "--path", "care/desk").stdout
    assert "rule deep of AgentPolicy care/work, but it is for work handed on at least 2 times, found 1 time" in told
    told = ask(read(name="own.a"), "--path", "care/desk").stdout
    assert "rule own of AgentPolicy care/work, but it is for work handed on at most 0 times, found 1 time" in told
    assert decision(ask(read(name="own.a"))) == "Allow"
    assert decision(ask(read(name="deep.a"), "--path", "post/mailer,care/desk")) == "Allow"


def test_intersection_asks_everyone_and_says_who_was_not_allowed(ask: Callable[..., Result], chain: Path) -> None:
    assert decision(ask(read(name="db.clean"), "--path", "care/desk")) == "Allow"
    agents = chain / "agents.yaml"
    agents.write_text(agents.read_text().replace("{team: care}}}}", "{team: care}}}, delegation: Intersection}", 1))
    told = ask(read(name="db.clean"), "--path", "care/desk").stdout
    assert told.startswith("Deny")
    assert "care/desk, who handed the work down, may not do it itself:" in told
    assert "whose rule decided\n    nobody's: see the reason" in told
    assert "match: {kinds: [ToolCall], names: [db.clean]} in an AgentPolicy of namespace care" in told


def test_labels_are_believed(ask: Callable[..., Result]) -> None:
    assert decision(ask(read(), "--path", "care/desk", "--labels", "web,untrusted")) == "RequireApproval"
    assert decision(ask(read(), "--path", "care/desk", "--labels", "web")) == "Allow"
    cleansed = ask(read(name="db.clean"), "--labels", "untrusted")
    assert "  cleanses\n    untrusted, web\n" in cleansed.stdout


def test_whom_a_delegation_goes_to_is_seen(ask: Callable[..., Result]) -> None:
    handing = read("care/desk", "delegate.care.worker", "Delegation")
    assert decision(ask(handing)) == "Allow"
    assert decision(ask(handing, "--to", "care/worker")) == "RequireApproval"
    assert decision(ask(handing, "--to", "care/worker", "--labels", "web")) == "Deny"  # by its target, too
    assert decision(ask(read("care/desk", "delegate.post.mailer", "Delegation"), "--to", "post/mailer")) == "Allow"
    scoped = {"request": handing, "to": "care/worker", "dataClasses": ["staff"]}
    assert decision(ask(scoped)) == "Deny"


@pytest.mark.parametrize("target", [{"target": "care/worker"}, {"target": "worker"}])
def test_whom_a_message_goes_to_is_seen(ask: Callable[..., Result], target: dict[str, str]) -> None:
    message = {"agent": "care/desk", "action": {"kind": "Message", "name": "say.it", **target}}
    assert decision(ask(message, "--labels", "mail")) == "RequireApproval"
    told_by_the_catalog = {"agent": "care/desk", "action": {"kind": "Message", "name": "note.send"}}
    assert decision(ask(told_by_the_catalog, "--labels", "mail")) == "RequireApproval"
    elsewhere = {"agent": "care/desk", "action": {"kind": "Message", "name": "say.it", "target": "post/mailer"}}
    assert decision(ask(elsewhere, "--labels", "mail")) == "Allow"


def test_each_request_may_have_a_chain_of_its_own(ask: Callable[..., Result]) -> None:
    requests = [
        {"request": read(), "path": ["care/desk"]},
        read(),
        {"request": read(), "path": ["care/desk"], "run": {"repeats": 3}},
        {"request": read("care/desk", "plan", "Plan"), "plan": {"steps": 11}},
        {"request": read("care/desk", "plan", "Plan"), "plan": {"steps": 10, "dataClasses": ["customer"]}},
        {"request": read("care/desk", "plan", "Plan"), "plan": {"dataClasses": ["staff"]}},
    ]
    result = ask(requests, "-o", "json")
    assert [each["decision"] for each in json.loads(result.stdout)] == [
        "Allow",
        "Deny",
        "Throttle",
        "Deny",
        "Allow",
        "Deny",
    ]
    assert ask([{"request": read(name="db.drop")}, read(name="own.a")], "--path", "care/desk").exit_code == 12


@pytest.mark.parametrize("named", [{"run": "run-1"}, {"grant": "a.b.c"}, {"run": "run-1", "grant": "a.b.c"}])
def test_a_run_or_a_grant_that_nobody_checks_is_said(ask: Callable[..., Result], named: dict[str, str]) -> None:
    told = ask(read(**named), "-o", "json")
    which = " and the ".join(named)
    assert (
        f"standard input: the {which} it names cannot be read here: judged as if care/worker had opened" in told.stderr
    )
    assert json.loads(told.stdout)["decision"] == "Deny"
    with_path = ask(read(**named), "--path", "care/desk")
    assert decision(with_path) == "Allow"
    assert "cannot be read here" not in with_path.stderr
    assert "no run, mandate or grant is checked" in with_path.stderr


@pytest.mark.parametrize(
    ("request_", "options", "words"),
    [
        (read(), ["--path", "care/dsek"], "path[0]: found care/dsek, which is no Agent here; there are: care/desk"),
        (read(), ["--path", "care/desk,care/worker"], "path[1]: found care/worker, the agent that acts; work never"),
        (read(), ["--path", "care/desk,care/desk"], "path[1]: found care/desk, named before"),
        (read(), ["--path", "desk"], '--path: found "desk"; allowed: an agent as namespace/name'),
        (read(), ["--path", ""], "--path: found"),
        (read(), ["--labels", "a b"], '--labels: found "a b"'),
        (read(), ["--to", "desk"], '--to: found "desk"'),
        (read(), ["--to", "care/desk"], "to: goes with an action of kind Delegation, found ToolCall"),
        (MISNAMED, ["--to", "care/desk"], "request.action.name: found delegate, allowed delegate.care.desk"),
        (read("care/desk", *TO_DESK), ["--to", "care/desk"], "to: found care/desk, which is in the chain already"),
        (read("care/worker", *TO_DESK), ["--to", "care/desk", "--path", "care/desk"], "to: found care/desk, which is"),
        ({"request": read(), "path": ["care/desk"]}, ["--path", "care/desk"], "path: is said here and with --path"),
        ({"request": read(), "run": {"repeat": 1}}, [], "run.repeat: unknown field; did you mean repeats?"),
        ({"request": read(), "paths": []}, [], "paths: unknown field; did you mean path?"),
        ({"request": {"action": {}}}, [], "request.action.kind: is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_bad_input(ask: Callable[..., Result], request_: Any, options: list[str], words: str) -> None:
    result = ask(request_, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_the_chain_is_completed_agent_by_agent(process: Process, chain: Path) -> None:
    def proposed(words: str) -> list[str]:
        line = f"fleetward decide --dir {chain} --path {words}"
        done = process(env={"_FLEETWARD_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "5"})
        return [each.partition(",")[2] for each in done.stdout.splitlines()]

    assert proposed("care/") == ["care/desk", "care/worker"]
    assert proposed("care/desk,") == ["care/desk,care/worker", "care/desk,post/mailer"]
