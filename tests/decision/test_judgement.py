"""How rules that counted become one answer: reason, order, obligations, retry, advice."""

from typing import Any

import pytest
from decision.build import AGENT, agent, ask, engine_of, fleet, policy, resource, slice_of

from fleetward.decision.engine import Engine
from fleetward.registry.slice import Slice

CLAMP = {"type": "Clamp", "field": "arguments.n", "maximum": 5}


def test_the_most_restrictive_rule_gives_the_reason_and_all_are_listed() -> None:
    engine = engine_of(
        agent(),
        policy(
            {"name": "b", "decision": "Deny", "message": "No."},
            {"name": "a", "decision": "RequireApproval"},
            {"name": "c", "decision": "Allow"},
        ),
        policy({"name": "z", "decision": "Deny"}, name="q"),
    )
    evaluation = ask(engine)
    assert evaluation.decision == "Deny"
    assert evaluation.reason == "denied by rule b of AgentPolicy reports/p (and 1 more): No."
    listed = [(r.policy, r.rule, r.decision, r.principal) for r in evaluation.rules]
    assert listed == [
        ("reports/p", "b", "Deny", AGENT),
        ("reports/q", "z", "Deny", AGENT),
        ("reports/p", "a", "RequireApproval", AGENT),
        ("reports/p", "c", "Allow", AGENT),
    ]


@pytest.mark.parametrize(
    ("rule", "lead"),
    [
        ({"decision": "Allow"}, "allowed by"),
        ({"decision": "Constrain", "obligations": [CLAMP]}, "allowed with obligations by"),
        ({"decision": "Throttle"}, "throttled by"),
        ({"decision": "RequireApproval"}, "held until approved, by"),
        ({"decision": "Deny"}, "denied by"),
    ],
)
def test_the_reason_says_what_happened(rule: dict[str, Any], lead: str) -> None:
    evaluation = ask(engine_of(agent(), policy(rule)))
    assert evaluation.decision == rule["decision"]
    assert evaluation.reason == f"{lead} rule r0 of AgentPolicy reports/p"
    assert evaluation.allowed == (rule["decision"] in ("Allow", "Constrain"))


def test_the_default_says_where_it_comes_from() -> None:
    assert ask(engine_of(agent())).reason == (
        "no rule matches ToolCall crm.read by reports/worker; the default decision of an agent in no fleet is Deny"
    )
    evaluation = ask(engine_of(agent(), fleet(defaultDecision="RequireApproval")))
    assert evaluation.decision == "RequireApproval"
    assert evaluation.reason.endswith("the default decision of AgentFleet f is RequireApproval")


def test_obligations_of_all_rules_add_up_under_a_stricter_decision_too() -> None:
    rules = (
        {"decision": "Constrain", "obligations": [CLAMP, {"type": "Redact", "field": "result.a"}]},
        {"decision": "Constrain", "obligations": [{**CLAMP, "maximum": 3}, {"type": "Redact", "field": "result.b"}]},
        {"decision": "RequireApproval"},
    )
    evaluation = ask(engine_of(agent(), policy(*rules)))
    assert evaluation.decision == "RequireApproval"
    owed = [(o.type, o.field, o.maximum) for o in evaluation.judgement.obligations]
    assert owed == [("Clamp", "arguments.n", 3), ("Redact", "result.a", None), ("Redact", "result.b", None)]


def test_a_clamp_to_nothing_is_the_smallest() -> None:
    rules = [{"decision": "Constrain", "obligations": [{**CLAMP, "maximum": n}]} for n in (5, 0, 3)]
    assert ask(engine_of(agent(), policy(*rules))).judgement.obligations[0].maximum == 0


def test_the_longest_wait_of_the_throttling_rules_counts() -> None:
    rules = (
        {"decision": "Throttle", "retryAfterSeconds": 5},
        {"decision": "Throttle", "retryAfterSeconds": 60},
        {"decision": "Allow"},
    )
    assert ask(engine_of(agent(), policy(*rules))).judgement.retry_after_seconds == 60
    assert ask(engine_of(agent(), policy({"decision": "Throttle"}))).judgement.retry_after_seconds == 30


def test_allows_that_err_are_told_in_one_order() -> None:
    rules = [
        {"name": "b", "decision": "Allow", "when": "action.nothing"},
        {"name": "a", "decision": "Allow", "when": "action.none"},
    ]
    told = [ask(engine_of(agent(), policy(*order))).judgement.advice for order in (rules, rules[::-1])]
    assert told[0] == told[1]
    assert [text.split()[1] for text in told[0]] == ["a", "b"]


def test_a_rule_that_counts_twice_is_listed_once_as_the_stricter() -> None:
    """On what is trusted it holds; once the label is added its expression errs, which counts as Deny."""
    rule = {"decision": "RequireApproval", "when": "size(action.labels) == 0 || action.nothing"}
    engine = engine_of(agent(), policy(rule))
    assert [r.decision for r in ask(engine).rules] == ["RequireApproval"]
    evaluation = ask(engine, labels=["web"])
    assert evaluation.decision == "Deny"
    [ref] = evaluation.rules
    assert (ref.rule, ref.decision) == ("r0", "Deny")
    assert ref.error is not None
    assert "nothing" in ref.error


def test_policies_of_one_name_in_both_kinds_are_told_apart() -> None:
    everywhere = resource("ClusterAgentPolicy", "p", {"rules": [{"name": "r0", "match": {}, "decision": "Deny"}]})
    evaluation = ask(engine_of(agent(), policy({"decision": "Allow"}), everywhere))
    assert [(r.kind, r.policy) for r in evaluation.rules] == [
        ("ClusterAgentPolicy", "p"),
        ("AgentPolicy", "reports/p"),
    ]


def test_an_unknown_agent_is_denied() -> None:
    evaluation = ask(engine_of(agent(), policy({"decision": "Allow"})), "reports/stranger")
    assert evaluation.decision == "Deny"
    assert evaluation.reason == (
        "agent reports/stranger is not governed here; the agents known here are reports/worker"
    )


def test_a_policy_missing_from_the_slice_denies_everything() -> None:
    """A slice that lost a policy on its way must not forget what the policy forbids."""
    whole = slice_of(agent(), policy({"decision": "Allow"}), policy({"decision": "Deny"}, name="q"))
    items = whole.items
    torn = Slice(
        version=whole.version,
        items=type(items)(
            agents=items.agents,
            policies={key: item for key, item in items.policies.items() if not key.endswith("q")},
        ),
    )
    evaluation = ask(Engine(torn))
    assert evaluation.decision == "Deny"
    assert "AgentPolicy/reports/q" in evaluation.reason
    engine = Engine(torn)
    engine.apply(slice_of(agent(), policy({"decision": "Allow"})))
    assert ask(engine).decision == "Allow"
