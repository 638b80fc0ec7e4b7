"""Whom an agent may delegate to: `spec.mayDelegateTo`, beside what the rules say."""

from typing import Any

import pytest
from decision.build import agent, ask, catalog, engine_of, fleet, policy, slice_of

from fleetward.decision.engine import Engine

ALLOW_ALL = policy({"decision": "Allow"})
WORKER, PLANNER = agent("worker"), agent("planner", role="Planner")
ELSEWHERE = agent("worker", "sales")


def _desk(**may: Any) -> Any:
    return agent("desk", role="Coordinator", mayDelegateTo=may)


def _ask(*resources: Any, to: str, kind: str = "Delegation", **declared: Any) -> Any:
    to_catalog = catalog({"names": ["give"], "target": to})
    return ask(engine_of(*resources, ALLOW_ALL, to_catalog), "reports/desk", kind=kind, name="give", **declared)


@pytest.mark.parametrize(
    ("may", "to", "allowed"),
    [
        ({"roles": ["Worker"]}, "worker", True),
        ({"roles": ["Worker"]}, "reports/worker", True),
        ({"roles": ["Worker"]}, "planner", False),
        ({"roles": ["Worker"]}, "nobody", False),
        ({"roles": ["Worker"]}, "sales/worker", False),
        ({"agents": ["planner"]}, "planner", True),
        ({"agents": ["planner"]}, "reports/planner", True),
        ({"agents": ["planner"]}, "worker", False),
        ({"agents": ["planner"]}, "sales/planner", False),
        ({"agents": ["sales/worker"]}, "sales/worker", True),
        ({"agents": ["sales/worker"]}, "worker", False),
        ({"roles": ["Planner"], "agents": ["sales/worker"]}, "planner", True),
        ({"roles": [], "agents": []}, "worker", False),
    ],
)
def test_may_delegate_to(may: Any, to: str, allowed: bool) -> None:  # noqa: FBT001
    evaluation = _ask(_desk(**may), WORKER, PLANNER, ELSEWHERE, to=to)
    assert evaluation.decision == ("Allow" if allowed else "Deny")
    if not allowed:
        assert evaluation.reason.startswith("reports/desk may not delegate to ")


def test_the_refusal_names_what_is_allowed() -> None:
    refusal = _ask(_desk(roles=["Worker"], agents=["sales/worker"]), PLANNER, to="planner").reason
    assert refusal == (
        "reports/desk may not delegate to reports/planner; spec.mayDelegateTo allows role Worker, sales/worker"
    )
    assert _ask(_desk(), PLANNER, to="planner").reason.endswith("spec.mayDelegateTo allows nobody")
    unordered = _ask(_desk(roles=["Worker", "Coordinator"], agents=["b", "a"]), PLANNER, to="planner").reason
    assert unordered.endswith("allows role Coordinator, role Worker, reports/a, reports/b")


def test_left_out_it_is_for_the_rules_to_say() -> None:
    assert _ask(agent("desk"), to="anyone").decision == "Allow"


def test_only_delegations_are_meant() -> None:
    assert _ask(_desk(), WORKER, to="worker", kind="Message").decision == "Allow"


def test_an_agent_of_another_namespace_is_no_neighbour_though_its_role_is_known_here() -> None:
    """One slice may hold the roles of several namespaces, for several agents; each delegates in its own."""
    other = agent("desk", "sales", mayDelegateTo={"roles": ["Worker"]})
    slice_ = slice_of(
        _desk(roles=["Worker"]), other, ELSEWHERE, ALLOW_ALL, catalog({"names": ["**"], "target": "sales/worker"})
    )
    assert "sales/worker" in slice_.items.roles
    assert ask(Engine(slice_), "reports/desk", kind="Delegation", name="give").decision == "Deny"


def test_a_declared_target_is_not_enough() -> None:
    engine = engine_of(_desk(roles=["Worker"]), WORKER, ALLOW_ALL)
    evaluation = ask(engine, "reports/desk", kind="Delegation", name="give", target="worker")
    assert evaluation.decision == "Deny"
    assert "nothing trusted says whom give goes to; give it a target in an ActionCatalog entry" in evaluation.reason
    trusting = engine_of(_desk(roles=["Worker"]), WORKER, ALLOW_ALL, fleet(declaredFacts="Trusted"))
    assert ask(trusting, "reports/desk", kind="Delegation", name="give", target="worker").decision == "Allow"
