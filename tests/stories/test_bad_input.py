"""Runs, plans and delegations asked for wrongly: one clear answer that names the field."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stories.world import Answer, World
from support.serving import post

DESK, READER = "care/desk", "care/data-worker"
MISSING = object()
LONG = "x" * 300

RUN: Answer = {
    "agent": DESK,
    "mandate": {
        "requester": "ana",
        "purpose": "answer",
        "dataClasses": ["customer"],
        "targets": ["mail"],
        "limits": {"steps": 5},
        "expiresInSeconds": 60,
    },
}
DELEGATION: Answer = {
    "agent": DESK,
    "to": READER,
    "run": "run-1",
    "scope": {"actions": ["db.*"], "limits": {"steps": 5}},
    "labels": [],
}
STEP: Answer = {"id": "a", "agent": READER, "action": {"kind": "ToolCall", "name": "db.customers.read"}}
PLAN: Answer = {"agent": DESK, "run": "run-1", "steps": [STEP]}

NOT_A_GRANT = "a grant as it was given: three parts of base64url, joined by dots"
MISTAKES: list[tuple[str, str, Any, str, str]] = [
    # path, field that is set, to what, field that the answer names, a part of what it says
    ("/v1/runs", "mandate", MISSING, "mandate", "is missing"),
    ("/v1/runs", "mandate", "all", "mandate", 'found "all"; allowed: an object'),
    ("/v1/runs", "mandate.requester", MISSING, "mandate.requester", "is missing"),
    ("/v1/runs", "mandate.requester", "", "mandate.requester", 'found ""; allowed: text of length >= 1'),
    ("/v1/runs", "mandate.purpose", MISSING, "mandate.purpose", "is missing"),
    ("/v1/runs", "mandate.purpose", "x" * 1025, "mandate.purpose", "allowed: text of length <= 1024"),
    ("/v1/runs", "mandate.dataClasses", "customer", "mandate.dataClasses", "allowed: a list or null"),
    ("/v1/runs", "mandate.dataClasses", ["a b"], "mandate.dataClasses[0]", 'found "a b"'),
    ("/v1/runs", "mandate.targets", [5], "mandate.targets[0]", "found 5; allowed: text"),
    ("/v1/runs", "mandate.limits.steps", -1, "mandate.limits.steps", "found -1; allowed: a whole number >= 0"),
    ("/v1/runs", "mandate.limits.records", 1.5, "mandate.limits.records", "found 1.5"),
    ("/v1/runs", "mandate.limits.depth", 33, "mandate.limits.depth", "found 33; allowed: a whole number <= 32"),
    ("/v1/runs", "mandate.limits.cost", 5, "mandate.limits.cost", "unknown field; allowed: steps, calls, records"),
    ("/v1/runs", "mandate.expiresInSeconds", 0, "mandate.expiresInSeconds", "found 0; allowed: a whole number >= 1"),
    ("/v1/runs", "mandate.expiresInSeconds", 604801, "mandate.expiresInSeconds", "allowed: a whole number <= 604800"),
    ("/v1/runs", "mandate.labels", [], "mandate.labels", "unknown field; allowed: requester, purpose"),
    ("/v1/runs", "agent", "Desk", "agent", 'found "Desk"; allowed: an agent as namespace/name'),
    ("/v1/runs", "parent", "a b", "parent", 'found "a b"; allowed: letters, digits'),
    ("/v1/runs", "traceparent", "00-1", "traceparent", 'found "00-1"; allowed: a traceparent of W3C Trace Context'),
    ("/v1/delegations", "to", MISSING, "to", "is missing"),
    ("/v1/delegations", "to", "worker", "to", 'found "worker"; allowed: an agent as namespace/name'),
    ("/v1/delegations", "run", MISSING, "run", "is missing"),
    ("/v1/delegations", "run", "a b", "run", 'found "a b"'),
    ("/v1/delegations", "scope", [], "scope", "found a list; allowed: an object"),
    ("/v1/delegations", "scope.actions", ["db..read"], "scope.actions[0]", 'found "db..read"; allowed: a dotted name'),
    ("/v1/delegations", "scope.actions", ["a"] * 65, "scope.actions", "allowed: a list of length <= 64"),
    ("/v1/delegations", "scope.depth", "one", "scope.depth", 'found "one"; allowed: a whole number or null'),
    ("/v1/delegations", "scope.expiresInSeconds", 86401, "scope.expiresInSeconds", "allowed: a whole number <= 86400"),
    ("/v1/delegations", "scope.limits.calls", True, "scope.limits.calls", "found true"),
    ("/v1/delegations", "scope.budget", 5, "scope.budget", "unknown field; allowed: actions, dataClasses, targets"),
    ("/v1/delegations", "labels", ["un trusted"], "labels[0]", 'found "un trusted"'),
    ("/v1/delegations", "grant", "g-1", "grant", f'found "g-1"; allowed: {NOT_A_GRANT}'),
    ("/v1/delegations", "purpose", "x", "purpose", "unknown field; allowed: to, run, scope"),
    ("/v1/plans", "run", MISSING, "run", "is missing"),
    ("/v1/plans", "steps", MISSING, "steps", "is missing"),
    ("/v1/plans", "steps", [], "steps", "allowed: a list of length >= 1"),
    ("/v1/plans", "steps", [STEP] * 1001, "steps", "allowed: a list of length <= 1000"),
    ("/v1/plans", "steps", [{**STEP, "id": ""}], "steps[0].id", 'found ""'),
    ("/v1/plans", "steps", [STEP, {"id": "b", "agent": READER}], "steps[1].action", "is missing"),
    ("/v1/plans", "steps", [{**STEP, "agent": "x"}], "steps[0].agent", 'found "x"; allowed: an agent'),
    (
        "/v1/plans",
        "steps",
        [{**STEP, "action": {"kind": "Call", "name": "a"}}],
        "steps[0].action.kind",
        "allowed: ToolCall",
    ),
    ("/v1/plans", "steps", [{**STEP, "dependsOn": "a"}], "steps[0].dependsOn", 'found "a"; allowed: a list'),
    ("/v1/plans", "steps", [{**STEP, "after": []}], "steps[0].after", "unknown field; allowed: id, agent, action"),
    ("/v1/plans", "grant", "x.y", "grant", f'found "x.y"; allowed: {NOT_A_GRANT}'),
    ("/v1/decisions", "grant", 7, "grant", "found 7; allowed: text or null"),
    ("/v1/decisions", "run", LONG, "run", "allowed: text of length <= 128"),
]
RIGHT = {
    "/v1/runs": RUN,
    "/v1/delegations": DELEGATION,
    "/v1/plans": PLAN,
    "/v1/decisions": {"agent": DESK, "action": {"kind": "ToolCall", "name": "web.page.fetch"}},
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=[f"{m[0]} {m[1]} {str(m[4])[:40]}" for m in MISTAKES])
def test_a_mistake_is_told_by_field(care: World, mistake: tuple[str, str, Any, str, str]) -> None:
    path, field, value, named, says = mistake
    body = copy.deepcopy(RIGHT[path])
    *parents, last = field.split(".")
    inner = body
    for parent in parents:
        inner = inner[parent]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    problem = care.ask(DESK, path, body, status=400)
    assert (problem["type"], problem["field"]) == ("urn:fleetward:problem:invalid-request", named)
    assert problem["detail"].startswith(f"{named}: ")
    assert says in problem["detail"]


@pytest.mark.parametrize("path", [*RIGHT, "/v1/runs/run-1/close"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"agent": 1, "agent": 2}', b"\xff", b"[" * 5000])
def test_what_is_no_request(care: World, path: str, body: bytes) -> None:
    status, problem = post(care.server.address(DESK) + path, body)
    assert (status, problem["type"]) == (400, "urn:fleetward:problem:invalid-request")


@pytest.mark.parametrize("path", ["/v1/plans", "/v1/delegations", "/v1/decisions"])
def test_a_run_that_never_was_is_a_denial_on_record(care: World, path: str) -> None:
    answer = care.ask(DESK, path, {**RIGHT[path], "run": "run-nope"})
    assert (answer["decision"], answer["reason"][:23]) == ("Deny", "run run-nope is unknown")
    assert care.recorded(answer)[0]["run"] == "run-nope"


def test_closing(care: World) -> None:
    run = care.open(DESK)
    assert "was never opened here" in care.close(DESK, "run-nope", status=409)["detail"]
    assert "can only be closed by care/desk" in care.close(READER, run, status=409)["detail"]
    problem = care.ask(DESK, f"/v1/runs/{run}/close", {"agent": DESK, "why": "done"}, status=400)
    assert (problem["field"], problem["detail"]) == ("why", "why: unknown field; allowed: agent")
    assert care.close(DESK, run) == care.close(DESK, run) == {"run": run}, "closing again says so again"
    assert "is unknown" in care.close(DESK, LONG, status=409)["detail"]


def test_a_forged_or_stale_grant_in_place_of_a_good_one(care: World) -> None:
    """Form is a 400, since nobody can have been given that; anything else is a denial that says what is wrong."""
    run = care.open(DESK)
    grant = care.give(DESK, READER, run)
    body: Answer = {"run": run, "action": {"kind": "ToolCall", "name": "db.customers.read"}}
    assert care.call(READER, "/v1/decisions", {**body, "grant": grant})["decision"] == "Allow"
    for wrong in (grant[:-3], f"{grant}AAAA", grant.replace(".", ".A", 1), ".".join(reversed(grant.split(".")))):
        answer = care.call(READER, "/v1/decisions", {**body, "grant": wrong})
        assert (answer["decision"], answer["reason"][:21]) == ("Deny", "the grant is refused:")
    care.call(READER, "/v1/decisions", {**body, "grant": f"{grant}="}, status=400)
    care.close(DESK, run)
    assert "is closed" in care.call(READER, "/v1/decisions", {**body, "grant": grant})["reason"], "a replay"


def test_an_outcome_said_again_and_said_otherwise(care: World) -> None:
    run = care.open(DESK, limits={"records": 1000})
    read = care.act(READER, "db.customers.read", run, care.give(DESK, READER, run))
    said = care.ended(READER, read, actual={"records": 50})
    assert care.ended(READER, read, actual={"records": 50}) == said
    assert "the first final outcome stands" in care.ended(READER, read, actual={"records": 20}, expect=409)["detail"]


def test_plans_that_make_no_sense_are_denied_with_the_step(care: World) -> None:
    run = care.open(DESK)
    twice = care.plan(DESK, run, [STEP, STEP])
    assert twice["violations"][0] == {"step": "a", "found": "the id of another step, too", "allowed": "each id once"}
    circle = [{**STEP, "id": "a", "dependsOn": ["b"]}, {**STEP, "id": "b", "dependsOn": ["a"]}]
    assert "waits for itself" in care.plan(DESK, run, circle)["violations"][0]["found"]
    nowhere = care.plan(DESK, run, [{**STEP, "dependsOn": ["z"]}])["violations"][0]
    assert (nowhere["step"], nowhere["found"]) == ("a", "dependsOn z, no step of the plan")
    ghost = care.plan(DESK, run, [{**STEP, "agent": "care/ghost"}])["violations"][0]
    assert ghost["found"] == "agent care/ghost, which is not governed"


@pytest.mark.slow
def test_schemathesis_finds_nothing_where_a_hub_answers(care: World, tmp_path: Path) -> None:
    """tests/webhook holds the whole description to a webhook by itself; here runs are opened and plans are checked."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{care.server.address(DESK)}/openapi.json"]
    command += ["--checks", "all", "--phases", "examples,fuzzing,stateful", "--max-examples", "10", "--no-color"]
    hooks = {"SCHEMATHESIS_HOOKS": str(Path(__file__).parents[1] / "webhook" / "api" / "schemathesis_hooks.py")}
    done = subprocess.run(
        [*command, "--rate-limit", "180/s"],
        cwd=tmp_path,
        env=os.environ | hooks,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in care.server.log, care.server.log[-3000:]
