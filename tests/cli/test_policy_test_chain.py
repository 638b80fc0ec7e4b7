"""`fleetward policy test`: cases in a chain and in a run."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from fleetward.cli.supposed import SupposedPlan, SupposedRun
from fleetward.decision.cel.fields import MESSAGES

Run = Callable[..., Result]

HEAD = "apiVersion: fleetward.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: chains}\ncases:\n"
READ = "request: {agent: care/worker, action: {kind: ToolCall, name: db.read}}"
DROP = "request: {agent: care/worker, action: {kind: ToolCall, name: db.drop}}"
WRITE = "request: {agent: care/worker, action: {kind: ToolCall, name: db.write}}"
CLEAN = "request: {agent: care/worker, action: {kind: ToolCall, name: db.clean}}"
PLAN = "request: {agent: care/desk, action: {kind: Plan, name: plan}}"
HAND = "request: {agent: care/desk, action: {kind: Delegation, name: delegate.care.worker}}"
BY_DESK = "path: [care/desk]"
SEEN = "expect: {decision: Deny, rule: seen, reason: 'seen: It holds'}"  # an expression that errs gives another reason


@pytest.fixture
def judge(run: Run, chain: Path) -> Callable[..., Result]:
    def judged(*lines: str, output: str = "text") -> Result:
        body = "".join(f"  {line}\n" for line in lines)
        (chain / "tests.yaml").write_text(f"{HEAD}- name: case\n{body}")
        return run("policy", "test", chain, "-o", output)

    return judged


@pytest.mark.parametrize(
    ("request_", "with_", "expected", "without"),
    [
        (READ, BY_DESK, "Allow", "Deny"),
        (READ, f"{BY_DESK}\n  labels: [untrusted]", "RequireApproval", "Deny"),
        (READ, f"{BY_DESK}\n  run: {{repeats: 3}}", "Throttle", "Deny"),
        (CLEAN, "run: {requester: mallory}", "Deny", "Allow"),
        (PLAN, "plan: {fanOut: 6}", "Deny", "Allow"),
        (PLAN, "plan: {steps: 11}", "Deny", "Allow"),
        (PLAN, "plan: {dataClasses: [staff]}", "Deny", "Allow"),
        (HAND, "to: care/worker", "RequireApproval", "Allow"),
        (HAND, "to: care/worker\n  dataClasses: [staff]", "Deny", "Allow"),
    ],
)
def test_what_is_supposed_counts(
    judge: Callable[..., Result], request_: str, with_: str, expected: str, without: str
) -> None:
    assert judge(request_, with_, f"expect: {{decision: {expected}}}").exit_code == 0
    assert judge(request_, f"expect: {{decision: {without}}}").exit_code == 0


def test_who_proposed_may_not_execute(judge: Callable[..., Result]) -> None:
    for who, decision in (("care/worker", "Deny"), ("care/desk", "Allow")):
        history = f"run: {{onTarget: {{db.propose: [{who}]}}}}"
        assert judge(WRITE, BY_DESK, history, f"expect: {{decision: {decision}}}").exit_code == 0


@pytest.mark.parametrize(
    ("field", "value", "when"),
    [
        ("id", "run-7", "run.id == 'run-7'"),
        ("requester", "ana", "run.requester == 'ana'"),
        ("purpose", "tickets", "run.purpose == 'tickets'"),
        ("openedBy", "care/desk", "run.openedBy == 'care/desk'"),
        ("steps", "40", "run.steps == 40"),
        ("used", "{records: 9}", "has(run.used.records) && run.used.records == 9"),
        ("agents", "[care/desk, post/mailer]", "'post/mailer' in run.agents"),
        ("depth", "4", "run.depth == 4"),
        ("ageSeconds", "70", "run.ageSeconds == 70"),
        ("repeats", "5", "run.repeats == 5"),
        ("idleSteps", "6", "run.idleSteps == 6"),
        ("exchanges", "7", "run.exchanges == 7"),
        ("onTarget", "{db.read: [care/desk]}", "'db.read' in run.onTarget && run.onTarget['db.read'] == ['care/desk']"),
        (
            "recentOnTarget",
            "{db.read: [care/desk]}",
            "size(run.recentOnTarget) == 1 && run.recentOnTarget['db.read'] == ['care/desk']",
        ),
    ],
)
def test_each_field_of_a_run_is_what_rules_read(
    judge: Callable[..., Result], chain: Path, field: str, value: str, when: str
) -> None:
    _deny_when(chain, when)
    assert judge(CLEAN, BY_DESK, f"run: {{{field}: {value}}}", SEEN).exit_code == 0
    if field != "openedBy":  # that follows from the path
        assert judge(CLEAN, BY_DESK, "run: {}", "expect: {decision: Allow}").exit_code == 0


@pytest.mark.parametrize(
    ("field", "value", "when"),
    [
        ("steps", "4", "plan.steps == 4"),
        ("agents", "[care/worker]", "'care/worker' in plan.agents"),
        ("fanOut", "3", "plan.fanOut == 3"),
        ("depth", "2", "plan.depth == 2"),
        ("dataClasses", "[customer]", "plan.dataClasses == ['customer'] && 'customer' in action.dataClasses"),
        ("targets", "[crm]", "plan.targets == ['crm']"),
        ("used", "{calls: 8}", "plan.used.calls == 8"),
    ],
)
def test_each_field_of_a_plan_is_what_rules_read(
    judge: Callable[..., Result], chain: Path, field: str, value: str, when: str
) -> None:
    _deny_when(chain, f"has(plan.used.calls) && {when}" if field == "used" else when)
    assert judge(PLAN, f"plan: {{{field}: {value}}}", SEEN).exit_code == 0
    assert judge(PLAN, "plan: {}", "expect: {decision: Allow}").exit_code == 0


def _deny_when(chain: Path, when: str) -> None:
    (chain / "seen.yaml").write_text(
        "apiVersion: fleetward.dev/v1alpha1\nkind: ClusterAgentPolicy\nmetadata: {name: seen}\nspec:\n  rules:\n"
        f"  - {{name: seen, match: {{}}, when: {json.dumps(when)}, decision: Deny, message: It holds}}\n"
    )


def test_the_fields_are_those_of_the_expressions() -> None:
    for message, shape in (("Run", SupposedRun), ("Plan", SupposedPlan)):
        assert [f.name for f in MESSAGES[message]] == [f.encode_name for f in msgspec.structs.fields(shape)]


@pytest.mark.parametrize(
    ("standing", "when"),
    [
        (BY_DESK, "run.openedBy == 'care/desk' && run.steps == 1 && run.depth == 1 && run.agents == ['care/desk']"),
        (BY_DESK, "has(run.id) && delegation.depth == 1 && delegation.path == ['care/desk']"),
        ("run: {}", "run.openedBy == 'care/worker' && run.steps == 0 && run.depth == 0 && run.agents == []"),
    ],
)
def test_what_follows_from_the_path_need_not_be_said(
    judge: Callable[..., Result], chain: Path, standing: str, when: str
) -> None:
    _deny_when(chain, when)
    assert judge(CLEAN, standing, SEEN).exit_code == 0
    _deny_when(chain, "has(run.id) && run.id == 'r-1'")
    assert judge(CLEAN.replace("}}", "}, run: r-1}"), SEEN).exit_code == 0
    _deny_when(chain, "has(run.id)")
    assert judge(CLEAN, "expect: {decision: Allow}").exit_code == 0  # with nothing said it is in no run


def test_whose_rule_decides_can_be_expected(judge: Callable[..., Result]) -> None:
    for principal in ("care/desk", "desk"):
        expected = f"expect: {{decision: Deny, rule: no-drop, principal: {principal}}}"
        assert judge(DROP, BY_DESK, expected).exit_code == 0
    wrong = judge(DROP, BY_DESK, "expect: {decision: Deny, principal: care/worker}")
    assert wrong.exit_code == 1
    assert "expected a rule of care/worker to decide, found care/desk" in wrong.stdout
    assert "care/desk/no-drop (Deny, by care/desk, who handed the work down), care/work/read (Allow)" in wrong.stdout
    data = json.loads(judge(DROP, BY_DESK, "expect: {decision: Allow}", output="json").stdout)
    assert [ref["principal"] for ref in data["cases"][0]["found"]["rules"]] == ["care/desk", "care/worker"]


def test_what_is_cleansed_can_be_expected(judge: Callable[..., Result]) -> None:
    assert judge(CLEAN, "expect: {decision: Allow, cleanses: [web, untrusted]}").exit_code == 0
    wrong = judge(CLEAN, "expect: {decision: Allow, cleanses: [web]}")
    assert wrong.exit_code == 1
    assert "expected to cleanse web, found untrusted, web" in wrong.stdout
    assert judge(READ, BY_DESK, "expect: {decision: Allow, cleanses: []}").exit_code == 0


def test_an_outcome_is_judged_in_the_same_chain(judge: Callable[..., Result], chain: Path) -> None:
    (chain / "after.yaml").write_text(
        "apiVersion: fleetward.dev/v1alpha1\nkind: ClusterAgentPolicy\nmetadata: {name: after}\nspec:\n  rules:\n"
        "  - {name: late, phase: After, match: {path: [desk]}, when: run.steps > 4, decision: Deny}\n"
    )
    after = ("expect: {decision: Allow}", "outcome: {status: Succeeded}")
    assert judge(READ, BY_DESK, "run: {steps: 5}", *after, "expectOutcome: {decision: Deny, rule: late}").exit_code == 0
    assert judge(READ, BY_DESK, "run: {steps: 4}", *after, "expectOutcome: {decision: Allow}").exit_code == 0


@pytest.mark.parametrize(
    ("request_", "line", "words"),
    [
        (READ, "path: care/desk", ":7: cases[0].path: "),
        (READ, "path: [desk]", 'cases[0].path[0]: found "desk"; allowed: an agent as namespace/name'),
        (READ, "path:", "cases[0].path: "),
        (READ, "path: [care/dsek]", "cases[0].path[0]: found care/dsek, which is no Agent here; there are: care/desk"),
        (READ, "path: [care/worker]", "cases[0].path[0]: found care/worker, the agent that acts"),
        (READ, "labels: [a b]", 'cases[0].labels[0]: found "a b"'),
        (READ, "run: {repeat: 3}", "cases[0].run.repeat: unknown field; did you mean repeats?"),
        (READ, "run: {repeats: -1}", "cases[0].run.repeats: found -1"),
        (READ, "run: {onTarget: {db.read: care/desk}}", "cases[0].run.onTarget"),
        (READ, "run: {openedBy: care/desk}", "run.openedBy: found care/desk, allowed care/worker: without a path"),
        (READ, "path: [care/desk, post/mailer]\n  run: {openedBy: post/mailer}", "the first of path opened the run"),
        (READ, "path: [care/desk]\n  run: {depth: 0}", "cases[0].run.depth: found 0, allowed 1 or more"),
        (READ, "to: care/desk", "cases[0].to: goes with an action of kind Delegation, found ToolCall"),
        (READ, "dataClasses: [staff]", "cases[0].dataClasses: goes with an action of kind Delegation"),
        (READ, "plan: {}", "cases[0].plan: goes with an action of kind Plan, found ToolCall"),
        (PLAN, "plan: {fanout: 1}", "cases[0].plan.fanout: unknown field; did you mean fanOut?"),
        (PLAN.replace("name: plan", "name: plans"), "plan: {}", "request.action.name: found plans, allowed plan"),
        (HAND, "to: care/dsek", "cases[0].to: found care/dsek, which is no Agent here"),
        (HAND, "to: post/mailer", "action.name: found delegate.care.worker, allowed delegate.post.mailer"),
        (HAND, "dataClasses: [staff]", "cases[0].to: is missing; dataClasses are those of the scope"),
        (HAND.replace("}}", ", target: x}}"), "to: care/worker", "action.target: found x, allowed care/worker"),
        (READ.replace("}}", "}, run: r-1}"), "run: {id: r-2}", "cases[0].run.id: found r-2, allowed r-1"),
        (READ, "paths: []", "cases[0].paths: found the unknown field paths"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_finding_with_its_line(
    judge: Callable[..., Result], chain: Path, request_: str, line: str, words: str
) -> None:
    result = judge(request_, line, "expect: {decision: Deny}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(chain / "tests.yaml") in result.stderr
    assert words in result.stderr
