import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from fleetward.decision.action import Answer
from fleetward.registry.slice import Obligation

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]


def request(kind: str, name: str, agent: str = "reports/data-worker", **facts: object) -> dict[str, object]:
    return {"agent": agent, "action": {"kind": kind, "name": name, **facts}}


ALLOWED = request("ToolCall", "crm.customers.read")
CONSTRAINED = request("ModelCall", "llm.chat")
THROTTLED = request("ToolCall", "crm.search")
HELD = request("Message", "mail.send.customer")
DENIED = request("ToolCall", "crm.drop")


@pytest.mark.parametrize(
    ("asked", "decision", "code"),
    [
        (ALLOWED, "Allow", 0),
        (CONSTRAINED, "Constrain", 0),
        (THROTTLED, "Throttle", 11),
        (HELD, "RequireApproval", 10),
        (DENIED, "Deny", 12),
        (request("ToolCall", "unheard.of"), "Deny", 12),
    ],
)
def test_exit_code_and_answer_of_each_decision(
    process: Process, folder: Path, asked: dict[str, object], decision: str, code: int
) -> None:
    done = process("decide", "--dir", folder, "-f", "-", "-o", "json", stdin=json.dumps(asked))
    assert (done.returncode, done.stderr) == (code, "")
    answer = msgspec.json.decode(done.stdout, type=Answer)
    assert (answer.id, answer.decision) == ("offline-1", decision)


def test_the_answer_is_what_the_api_gives(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "action.json").write_text(json.dumps(CONSTRAINED, indent=2))
    result = run("decide", "--dir", folder, "-f", tmp_path / "action.json", "-o", "json")
    answer = msgspec.json.decode(result.stdout, type=Answer)
    assert answer.obligations == (Obligation("Clamp", "arguments.limit", 10),)
    assert [(ref.policy, ref.rule, ref.decision) for ref in answer.rules] == [("reports/work", "short", "Constrain")]
    assert answer.registry_version
    assert result.stdout == msgspec.json.encode(answer).decode() + "\n"


def test_an_array_gives_an_array_and_the_highest_code(run: Run, folder: Path) -> None:
    result = run("decide", "--dir", folder, "-f", "-", "-o", "json", stdin=json.dumps([DENIED, ALLOWED, HELD]))
    assert result.exit_code == 12
    answers = json.loads(result.stdout)
    assert [(each["id"], each["decision"]) for each in answers] == [
        ("offline-1", "Deny"),
        ("offline-2", "Allow"),
        ("offline-3", "RequireApproval"),
    ]


def test_a_byte_order_mark_is_passed_over(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "action.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(ALLOWED).encode())
    assert run("decide", "--dir", folder, "-f", tmp_path / "action.json").exit_code == 0


def test_json_lines_give_an_answer_a_line(run: Run, folder: Path) -> None:
    lines = "\n".join(map(json.dumps, (ALLOWED, THROTTLED))) + "\n\n"
    result = run("decide", "--dir", folder, "-f", "-", "-o", "json", stdin=lines)
    assert result.exit_code == 11
    assert [json.loads(line)["decision"] for line in result.stdout.splitlines()] == ["Allow", "Throttle"]


def test_the_explanation_names_rule_policy_and_enforcement(run: Run, folder: Path) -> None:
    (folder / "trial.yaml").write_text(
        "apiVersion: fleetward.dev/v1alpha1\nkind: ClusterAgentPolicy\nmetadata: {name: trial}\n"
        "spec: {enforcement: Audit, rules: [{name: would-deny, match: {}, decision: Deny}]}\n"
    )
    result = run("decide", "--dir", folder, "-f", "-", stdin=json.dumps([CONSTRAINED, THROTTLED, HELD]))
    assert "Constrain  reports/data-worker  ModelCall llm.chat  (offline-1)" in result.stdout
    assert "short  of AgentPolicy reports/work, enforced" in result.stdout
    assert "would-deny  of ClusterAgentPolicy trial, recorded only (enforcement: Audit)" in result.stdout
    assert "clamp arguments.limit to at most 10" in result.stdout
    assert "in 7 s" in result.stdout
    assert "Sending needs approval" in result.stdout
    assert "what would allow it" not in result.stdout


def test_advice_is_shown(run: Run, folder: Path) -> None:
    (folder / "tags.yaml").write_text(
        "apiVersion: fleetward.dev/v1alpha1\nkind: ClusterAgentPolicy\nmetadata: {name: tags}\n"
        "spec: {rules: [{name: tagged, match: {riskTags: [safe]}, decision: Allow}]}\n"
    )
    asked = request("ToolCall", "unheard.of", riskTags=["safe"])
    result = run("decide", "--dir", folder, "-f", "-", stdin=json.dumps(asked))
    assert "  advice\n" in result.stdout
    assert "ActionCatalog entry for unheard.of" in result.stdout


def test_a_default_decision_says_what_would_allow_the_action(run: Run, folder: Path) -> None:
    asked = request("ToolCall", "crm.customers.read", agent="reports/writer")
    result = run("decide", "--dir", folder, "-f", "-", stdin=json.dumps(asked))
    assert result.exit_code == 12
    assert "rule read of AgentPolicy reports/work, but it is for the role Worker, found Planner" in result.stdout
    assert "match: {kinds: [ToolCall], names: [crm.customers.read]}" in result.stdout
    assert "defaultDecision: Allow on AgentFleet reporting" in result.stdout


def test_rules_that_are_far_from_allowing_are_not_shown(run: Run, folder: Path) -> None:
    asked = request("Plan", "crm.customers.read", agent="reports/writer")
    result = run("decide", "--dir", folder, "-f", "-", stdin=json.dumps(asked))
    assert "what would allow it" in result.stdout
    assert "rule read" not in result.stdout  # another kind and another role
    assert "rule short" not in result.stdout  # another kind, and no name in common


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        ("riskTags: [pii]", "asks for risk tags pii, trusted are none"),
        ("kinds: [Plan]", "is about Plan, found ToolCall"),
        ("agents: [data-worker]", "is for the agents data-worker"),
        ("targets: [crm]", "asks for targets crm, trusted are none"),
        ("fleets: [other]", "is for the fleets other, found reporting"),
    ],
)
def test_a_rule_that_nearly_allowed_says_what_was_missing(run: Run, folder: Path, obstacle: str, words: str) -> None:
    (folder / "near.yaml").write_text(
        "apiVersion: fleetward.dev/v1alpha1\nkind: AgentFleet\nmetadata: {name: other}\n"
        "spec: {agents: {agentSelector: {matchLabels: {team: other}}}}\n---\n"
        "apiVersion: fleetward.dev/v1alpha1\nkind: ClusterAgentPolicy\nmetadata: {name: near}\n"
        f"spec: {{rules: [{{name: nearly, match: {{names: [wiki.read], {obstacle}}}, decision: Allow}}]}}\n"
    )
    asked = request("ToolCall", "wiki.read", agent="reports/writer")
    result = run("decide", "--dir", folder, "-f", "-", stdin=json.dumps(asked))
    assert f"rule nearly of ClusterAgentPolicy near, but it {words}" in result.stdout


def test_a_paused_agent_is_denied_with_the_mode(run: Run, folder: Path) -> None:
    run("pause", "data-worker", "--dir", folder, "--reason", "ticket 1", "--by", "ann")
    result = run("decide", "--dir", folder, "-f", "-", "-o", "json", stdin=json.dumps(ALLOWED))
    assert result.exit_code == 12
    assert json.loads(result.stdout)["mode"] == {
        "operatingMode": "Paused",
        "reason": "ticket 1",
        "setBy": "ann",
        "source": "Agent reports/data-worker",
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", ["found nothing"]),
        ("[]", ["an empty array"]),
        ("3", ["found a number, allowed a request"]),
        ('{"agent": "reports/data-worker"', ["not valid JSON"]),
        ('{"a": 1, "a": 2}', ["not valid JSON"]),
        (json.dumps(request("Toolcall", "x")), ["action.kind", "Toolcall"]),
        (json.dumps({"agnet": "reports/x", **ALLOWED}), ["agnet: unknown field", "did you mean agent?", "allowed: "]),
        (json.dumps({"action": ALLOWED["action"]}), ["agent: is missing", "reports/data-worker"]),
        (json.dumps([ALLOWED, request("ToolCall", "no name!")]), ["standard input[1]: action.name"]),
        (json.dumps(ALLOWED) + "\n{]\n", ["standard input:2: not valid JSON"]),
        (json.dumps(ALLOWED) + "\n" + json.dumps({"action": {}}), ["standard input:2: action.kind: is missing"]),
        ('{"\\u001b[31m": 1}', ["1b[31m: unknown field"]),
    ],
)
def test_a_bad_request_names_field_found_and_allowed(run: Run, folder: Path, body: str, words: list[str]) -> None:
    done = run("decide", "--dir", folder, "-f", "-", "-o", "json", stdin=body)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "\x1b" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_folder_with_findings_is_bad_input(process: Process, folder: Path) -> None:
    policy = folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("decision: Throttle", "decision: Slow"))
    done = process("decide", "--dir", folder, "-f", "-", stdin=json.dumps(ALLOWED))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{policy}:11: spec.rules[2].decision: found " in done.stderr


@pytest.mark.parametrize("arguments", [["--dir", "nowhere", "-f", "-"], ["-f", "nowhere.json"], []])
def test_what_is_not_there_is_bad_input(process: Process, arguments: list[str]) -> None:
    done = process("decide", *arguments, stdin=json.dumps(ALLOWED))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_folder_can_come_from_the_environment(process: Process, folder: Path) -> None:
    done = process("decide", "-f", "-", stdin=json.dumps(HELD), env={"FLEETWARD_DIR": str(folder)})
    assert done.returncode == 10
