"""A plan's steps are judged as if their time had come: what they wait for is done, and nothing else."""

from typing import Any

import msgspec
import pytest
from decision.build import agent, catalog, policy

from fleetward.registry.registry import Registry
from fleetward.run.calls import CheckPlan, PlanStep
from fleetward_operator.hub.planjudge import PlanJudge

PLANNER, A, B = "reports/planner", "reports/a", "reports/b"
AGENTS = (agent("planner", role="Planner"), agent("a"), agent("b"))
PAYMENTS = catalog({"names": ["pay.*"], "target": "ledger", "estimate": {"calls": 1}})
ALLOW = policy({"decision": "Allow"}, name="all", subjects={"agents": ["a", "b"]})
FOUR_EYES = policy(
    {
        "decision": "Deny",
        "match": {"names": ["pay.execute"]},
        "when": "!('pay.propose' in run.onTarget) || agent.key in dyn(run.onTarget['pay.propose'])",
    },
    name="four-eyes",
)


def step(id_: str, who: str, name: str, *after: str, **action: Any) -> PlanStep:
    data = {"id": id_, "agent": who, "action": {"kind": "ToolCall", "name": name, **action}, "dependsOn": after}
    return msgspec.convert(data, PlanStep)


def judged(*steps: PlanStep, registry: Registry | None = None, **history: Any) -> list[Any]:
    known = registry or Registry.build([*AGENTS, PAYMENTS, ALLOW, FOUR_EYES])
    plan = CheckPlan(run="r", agent=PLANNER, steps=steps)
    judge = PlanJudge().judge(known, plan, (), lambda target: history.get(target or "", {}))
    return [None if (said := judge(each)) is None else said.decision for each in steps]


def test_what_a_step_waits_for_is_done_when_its_time_comes() -> None:
    assert judged(step("1", A, "pay.propose"), step("2", B, "pay.execute", "1")) == ["Allow", "Allow"]


def test_directly_or_not() -> None:
    steps = (step("1", A, "pay.propose"), step("2", A, "pay.check", "1"), step("3", B, "pay.execute", "2"))
    assert judged(*steps) == ["Allow"] * 3


def test_what_it_does_not_wait_for_is_not_done() -> None:
    assert judged(step("1", A, "pay.propose"), step("2", B, "pay.execute")) == ["Allow", "Deny"]


def test_a_plan_in_which_one_does_both_is_seen_before_it_begins() -> None:
    assert judged(step("1", A, "pay.propose"), step("2", A, "pay.execute", "1")) == ["Allow", "Deny"]


def test_what_the_run_did_before_counts() -> None:
    assert judged(step("1", B, "pay.execute"), ledger={"pay.propose": (A,)}) == ["Allow"]
    assert judged(step("1", A, "pay.execute"), ledger={"pay.propose": (A,)}) == ["Deny"]


def test_only_the_same_target_counts() -> None:
    other = catalog({"names": ["pay.propose"], "target": "elsewhere"}, {"names": ["pay.execute"], "target": "ledger"})
    known = Registry.build([*AGENTS, other, ALLOW, FOUR_EYES])
    assert judged(step("1", A, "pay.propose"), step("2", B, "pay.execute", "1"), registry=known) == ["Allow", "Deny"]


def test_a_target_that_is_only_declared_makes_no_history() -> None:
    known = Registry.build([*AGENTS, ALLOW, FOUR_EYES])
    steps = (step("1", A, "pay.propose", target="ledger"), step("2", B, "pay.execute", "1", target="ledger"))
    assert judged(*steps, registry=known) == ["Allow", "Deny"]


def test_an_agent_that_nobody_governs_is_told_apart() -> None:
    assert judged(step("1", "reports/nobody", "pay.propose")) == [None]


def test_steps_of_others_are_under_the_planners_restrictions() -> None:
    stop = policy(
        {"decision": "Deny", "match": {"names": ["pay.**"]}}, name="of-planner", subjects={"agents": ["planner"]}
    )
    known = Registry.build([*AGENTS, PAYMENTS, ALLOW, stop])
    assert judged(step("1", A, "pay.propose"), registry=known) == ["Deny"]


@pytest.mark.parametrize("after", [("2",), ("1",)])
def test_circles_end(after: tuple[str, ...]) -> None:
    assert judged(step("1", A, "pay.propose", "2"), step("2", B, "pay.execute", *after))[0] == "Allow"


def test_steps_that_differ_in_their_arguments_are_judged_apart() -> None:
    rule = {"decision": "Deny", "when": "has(action.arguments) && action.arguments.n > 5"}
    known = Registry.build([*AGENTS, PAYMENTS, ALLOW, policy(rule, name="few")])
    steps = (step("1", A, "pay.propose", arguments={"n": 1}), step("2", A, "pay.propose", arguments={"n": 9}))
    assert judged(*steps, registry=known) == ["Allow", "Deny"]
