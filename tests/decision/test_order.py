"""Order never matters: not of resources, policies, rules, entries or lists, nor what was asked before."""

from typing import Any

import pytest
from decision.build import agent, all_of, ask, catalog, engine_of, fleet, policy, slice_of
from decision.strategies import ERRING, EXPRESSIONS, FEW, SOME, Data, World, decide, requests, worlds
from hypothesis import given
from hypothesis import strategies as st

from fleetward.decision.engine import Engine


@given(st.data())
@SOME
def test_order_of_resources_never_matters(data: Any) -> None:
    world = data.draw(worlds())
    shuffled = World(data.draw(st.permutations(world.documents)), world.namespaces)
    one, other = world.engine, shuffled.engine
    assert one.slice == other.slice
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=3)):
        assert all_of(decide(one, request)) == all_of(decide(other, request))


@given(st.data())
@SOME
def test_order_within_a_resource_never_matters(data: Any) -> None:
    world = data.draw(worlds((*EXPRESSIONS, *ERRING[:3])))
    shuffled = World([_shuffled(data.draw, document) for document in world.documents], world.namespaces)
    one, other = world.engine, shuffled.engine
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=3)):
        again = {**request, "action": _shuffled(data.draw, request["action"])}
        assert _without_versions(decide(one, request)) == _without_versions(decide(other, again))


def _shuffled(draw: Any, value: Any) -> Any:
    """Put every list in another order."""
    if isinstance(value, dict):
        return {key: _shuffled(draw, item) for key, item in value.items()}
    if isinstance(value, list):
        return draw(st.permutations([_shuffled(draw, item) for item in value]))
    return value


def _without_versions(evaluation: Any) -> Data:
    """Leave out what identifies the very text of a policy, and lists recorded as the agent wrote them."""
    said = all_of(evaluation)
    said["answer"].pop("registryVersion")
    said["recorded"].pop("declared", None)
    for rule in said["answer"]["rules"]:
        rule.pop("hash")
    return said


@given(st.data())
@SOME
def test_an_engine_asked_many_questions_answers_as_a_fresh_one(data: Any) -> None:
    world = data.draw(worlds())
    engine, registry = world.engine, world.registry
    # Few different actions, so that plans and known judgements are met again.
    asked = data.draw(st.lists(requests(world), min_size=1, max_size=3))
    asked += [_with_another_estimate(data.draw, request) for request in asked]
    for request in data.draw(st.lists(st.sampled_from(asked), min_size=2, max_size=8)):
        fresh = Engine(registry.cut(registry.agents))
        assert all_of(decide(engine, request)) == all_of(decide(fresh, request))


def _with_another_estimate(draw: Any, request: Data) -> Data:
    action = {key: value for key, value in request["action"].items() if key not in ("estimate", "arguments")}
    return {
        **request,
        "action": action
        | draw(st.sampled_from(({}, {"estimate": {"records": 5}}, {"estimate": {"records": 0}}, {"estimate": {}}))),
    }


def test_an_estimate_declared_by_an_earlier_question_is_not_in_a_later_answer() -> None:
    engine = engine_of(agent(), fleet(), policy({"decision": "Allow", "match": {"riskTags": ["t"]}}))
    with_estimate = {"name": "a", "riskTags": ["t"], "estimate": {"records": 1}}
    ask(engine, **with_estimate)
    later = ask(engine, name="a", riskTags=["t"])
    assert later.judgement.advice
    assert "estimate" not in later.judgement.advice[0]


HAS_MANY = "has(action.estimate.records) && action.estimate.records > 1"


@pytest.mark.parametrize(
    ("rules", "first", "second"),
    [
        # Only the view with declared facts added tells the two questions apart.
        (({"decision": "Deny", "when": HAS_MANY, "exclude": {"labels": ["v"]}},), "Allow", "Deny"),
        # Only what would hold if the agent were believed does: the advice differs.
        (({"decision": "Allow", "when": HAS_MANY, "match": {"labels": ["v"]}},), "Allow", "Allow"),
    ],
)
def test_what_was_judged_before_is_not_taken_for_what_is_asked_now(rules: Any, first: str, second: str) -> None:
    resources = agent(), fleet(defaultDecision="Allow"), policy(*rules)
    engine = engine_of(*resources)
    asked = [{"name": "a", "labels": ["v"], "estimate": {"records": records}} for records in (1, 5, 1)]
    answers = [ask(engine, **question) for question in asked]
    assert [answer.decision for answer in answers] == [first, second, first]
    assert [all_of(answer) for answer in answers] == [all_of(ask(engine_of(*resources), **q)) for q in asked]
    assert answers[0].judgement != answers[1].judgement


def test_a_smaller_estimate_than_the_catalogs_is_not_looked_at() -> None:
    """Declared facts are added to the trusted ones, and of two estimates the larger counts."""
    rule = {"decision": "Deny", "when": "action.estimate.records < 5"}
    entry = catalog({"names": ["a"], "estimate": {"records": 9}})
    engine = engine_of(agent(), fleet(defaultDecision="Allow"), entry, policy(rule))
    assert ask(engine, name="a", estimate={"records": 1}).decision == "Allow"
    trusting = engine_of(agent(), fleet(defaultDecision="Allow", declaredFacts="Trusted"), entry, policy(rule))
    assert ask(trusting, name="a", estimate={"records": 1}).decision == "Deny"


def test_full_plans_are_dropped_and_decide_the_same(monkeypatch: Any) -> None:
    monkeypatch.setattr("fleetward.decision.agent.MAX_PLANS", 3)
    monkeypatch.setattr("fleetward.decision.plan._MAX_KNOWN", 2)
    rules = ({"decision": "Allow"}, {"decision": "Deny", "when": "action.arguments.n > 3"})
    slice_ = slice_of(agent(), policy(*rules))
    engine = Engine(slice_)
    for _ in range(2):
        for name in ("a", "b", "c", "d", "e"):
            for arguments in ({"n": 1}, {"n": 4}, {"n": "?"}, {}, {"n": 9}):
                asked = {"name": name, "arguments": arguments}
                assert all_of(ask(engine, **asked)) == all_of(ask(Engine(slice_), **asked))


@given(st.data())
@FEW
def test_a_slice_of_one_agent_decides_for_it_as_the_slice_of_all(data: Any) -> None:
    world = data.draw(worlds())
    registry = world.registry
    everything = Engine(registry.cut(registry.agents))
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=4)):
        alone = Engine(registry.cut([request["agent"]]))
        assert all_of(decide(alone, request)) == all_of(decide(everything, request))
