"""What an action must take out of budgets before it goes ahead, and what keeps it from doing so."""

from typing import Any

import pytest
from budget.spending import AGENT, ALLOW, amounts, budget, decide, engine_with, needs, refusal
from hypothesis import given
from hypothesis import strategies as st

from fleetward.budget.needs import hold, needs_of
from fleetward.decision.engine import Engine
from fleetward.decision.request import RequestError
from fleetward.decision.situation import Situation
from fleetward.registry import slice as sl
from fleetward.registry.text import MAX_COUNT

CALLS = budget(calls=[(("crm.**", "erp.*"), 10), (("mail.**",), 5)])


def test_without_budgets_and_limits_nothing_is_needed() -> None:
    assert needs(engine_with()).needs == ()
    assert needs(engine_with(), "ModelCall", arguments={"model": "x"}).clamp is None


def test_an_agent_that_is_not_known_needs_nothing_as_it_may_do_nothing() -> None:
    engine = engine_with(CALLS)
    evaluation = decide(engine)
    engine.apply(sl.Slice("2"))
    assert needs_of(engine, evaluation).needs == ()


# Calls, records, wall time


def test_calls_count_where_a_glob_matches_the_name() -> None:
    engine = engine_with(CALLS)
    assert amounts(engine) == {"calls crm.**,erp.*": 1}
    assert amounts(engine, name="mail.send.now", kind="Message") == {"calls mail.**": 1}
    assert amounts(engine, estimate={"calls": 4}) == {"calls crm.**,erp.*": 4}
    assert amounts(engine, estimate={"calls": 0}) == {"calls crm.**,erp.*": 1}
    assert amounts(engine_with(CALLS, estimate={"calls": 3})) == {"calls crm.**,erp.*": 3}
    assert needs(engine, name="erp.a.b").needs == ()


def test_records_are_of_tool_calls_and_must_be_known_of() -> None:
    assert refusal(engine_with(budget(records=10))) == (
        "AgentBudget reports/b limits records, and nothing says how much of it crm.read uses: say estimate.records in "
        "an ActionCatalog entry for crm.read, or defaultEstimate.records on the budget"
    )
    assert needs(engine_with(budget(records=10)), "Message").needs == ()
    assert amounts(engine_with(budget(records=10, default={"records": 4}))) == {"records": 4}
    assert needs(engine_with(budget(records=10, default={"records": 4})), "Message").needs == ()
    assert amounts(engine_with(budget(records=10, default={"records": 4}), estimate={"records": 2})) == {"records": 2}
    assert amounts(engine_with(budget(records=10)), estimate={"records": 3}) == {"records": 3}
    assert needs(engine_with(budget(records=10, default={"records": 0}))).needs == ()


def test_wall_time_is_reserved_as_the_default_says_in_milliseconds() -> None:
    assert amounts(engine_with(budget(wall_seconds=60, default={"wall_seconds": 2}))) == {"wallMilliseconds": 2000}
    assert needs(engine_with(budget(wall_seconds=60, default={"wall_seconds": 2})), "Message").needs == ()
    assert refusal(engine_with(budget(wall_seconds=60))).endswith("set defaultEstimate.wallSeconds on it")


def test_a_tool_call_takes_no_tokens_that_nobody_spoke_of() -> None:
    tokens = budget(input_tokens=10, output_tokens=10, default={"input_tokens": 5, "output_tokens": 5})
    assert needs(engine_with(tokens)).needs == ()
    assert amounts(engine_with(tokens), estimate={"inputTokens": 3}) == {"inputTokens": 3}
    assert amounts(engine_with(tokens, estimate={"output_tokens": 3})) == {"outputTokens": 3}
    assert amounts(engine_with(budget(cost_micro_usd=9, default={"cost_micro_usd": 5}))) == {"costMicroUsd": 5}
    assert needs(engine_with(budget(cost_micro_usd=9))).needs == ()


def test_a_plan_takes_nothing() -> None:
    assert needs(engine_with(CALLS), "Plan", name="plan").needs == ()


# What is declared


@pytest.mark.parametrize(
    ("catalog", "default", "declared", "restricted", "trusted"),
    [
        (None, None, 3, 3, 3),
        (None, 5, 3, 5, 3),
        (None, 5, 8, 8, 8),
        (5, 9, 3, 5, 5),
        (5, 9, 8, 8, 8),
        (5, 9, None, 5, 5),
        (None, 9, None, 9, 9),
    ],
)
def test_what_counts_of_catalog_default_and_declared(
    catalog: int | None, default: int | None, declared: int | None, restricted: int, trusted: int
) -> None:
    limited = budget(records=100, default={"records": default})
    action: dict[str, Any] = {} if declared is None else {"estimate": {"records": declared}}
    for believed, expected in ((False, restricted), (True, trusted)):
        engine = engine_with(limited, estimate=None if catalog is None else {"records": catalog}, trusted=believed)
        assert amounts(engine, **action) == {"records": expected}


LIMITS: Any = {"input_tokens": 10, "output_tokens": 10, "cost_micro_usd": 10, "records": 10}
FIELDS = ("inputTokens", "outputTokens", "costMicroUsd", "calls", "records")
some_amounts = st.none() | st.integers(0, 2000)


@given(
    st.sampled_from(["ToolCall", "ModelCall", "Message", "Delegation"]),
    st.dictionaries(
        st.sampled_from(("input_tokens", "output_tokens", "cost_micro_usd", "calls", "records")), st.integers(0, 2000)
    ),
    st.fixed_dictionaries({name: st.integers(0, 2000) for name in LIMITS}),
    st.dictionaries(st.sampled_from(FIELDS), st.integers(0, 2000)),
    st.dictionaries(st.sampled_from(("max_tokens", "n")), st.integers(0, 2000)),
    st.sampled_from(["m-1", "x"]),
)
def test_nothing_declared_ever_lowers_a_need(  # noqa: PLR0917
    kind: str,
    catalog: dict[str, int],
    default: dict[str, int],
    declared: dict[str, int],
    arguments: dict[str, int],
    model: str,
) -> None:
    limited = budget(**LIMITS, calls=[(("**",), 9)], default=default, unpriced_models="UseEstimate")
    engine = engine_with(limited, estimate=catalog)
    arguments = {**arguments, "model": model}  # type: ignore[dict-item]
    silent = amounts(engine, kind, arguments=arguments)
    telling = amounts(engine, kind, arguments=arguments, estimate=declared)
    assert all(telling.get(limit, 0) >= amount for limit, amount in silent.items())
    assert all(0 < amount <= MAX_COUNT for amount in telling.values())


# Model calls


BOTH = budget(input_tokens=9, output_tokens=9, cost_micro_usd=9, default={"input_tokens": 1000, "output_tokens": 200})


def model_call(engine: Engine, **action: Any) -> dict[str, int]:
    return amounts(engine, "ModelCall", **action)


def test_a_model_call_takes_the_tokens_and_what_they_cost() -> None:
    assert model_call(engine_with(BOTH), arguments={"model": "m-1"}) == {
        "inputTokens": 1000,
        "outputTokens": 200,
        "costMicroUsd": 3 * 1000 + 15 * 200,
    }


def test_the_larger_of_what_is_said_to_cost_and_what_the_tokens_come_to() -> None:
    engine = engine_with(BOTH, estimate={"cost_micro_usd": 100_000})
    assert model_call(engine, arguments={"model": "m-1"})["costMicroUsd"] == 100_000
    assert model_call(engine_with(BOTH), model="m-1", estimate={"costMicroUsd": 7000})["costMicroUsd"] == 7000
    assert model_call(engine_with(BOTH), model="m-1", estimate={"costMicroUsd": 7})["costMicroUsd"] == 6000


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_it_is_clamped_to_what_is_reserved(field: str) -> None:
    engine = engine_with(BOTH)
    for said, expected in ((None, 200), (500, 200), (50, 50), (0, 0), (49.5, 50)):
        found = needs(engine, "ModelCall", arguments={"model": "m-1", field: said})
        known = field if said is not None else "max_tokens"
        assert found.clamp == sl.Obligation("Clamp", f"arguments.{known}", expected)
        assert found.needs[0].amounts.get("outputTokens", 0) == expected
        assert found.needs[0].amounts["costMicroUsd"] == 3000 + 15 * expected


def test_what_the_arguments_say_is_estimate_enough() -> None:
    engine = engine_with(budget(output_tokens=9))
    assert model_call(engine, arguments={"max_tokens": 70}) == {"outputTokens": 70}
    assert "limits outputTokens, and nothing says how much" in refusal(engine, "ModelCall", arguments={})


def test_several_answers_share_what_is_reserved() -> None:
    found = needs(engine_with(BOTH), "ModelCall", arguments={"model": "m-1", "n": 3})
    assert found.clamp == sl.Obligation("Clamp", "arguments.max_tokens", 66)
    assert found.needs[0].amounts["outputTokens"] == 198
    assert model_call(engine_with(BOTH), arguments={"model": "m-1", "n": 3, "max_tokens": 10})["outputTokens"] == 30


def test_budgets_with_different_defaults_clamp_to_the_smaller_and_reserve_as_much() -> None:
    wide = budget("wide", output_tokens=9, default={"output_tokens": 900})
    silent = budget("silent", output_tokens=9)
    narrow = budget("narrow", output_tokens=9, default={"output_tokens": 300})
    found = needs(engine_with(wide, silent, narrow), "ModelCall")
    assert found.clamp is not None
    assert found.clamp.maximum == 300
    assert [need.amounts for need in found.needs] == [{"outputTokens": 300}] * 3


def test_a_clamp_of_a_rule_counts_for_what_is_reserved() -> None:
    owed = {"type": "Clamp", "field": "arguments.max_output_tokens", "maximum": 80}
    engine = engine_with(BOTH, rules=({"decision": "Constrain", "obligations": [owed]},))
    evaluation = decide(engine, "ModelCall", arguments={"model": "m-1"})
    found = needs_of(engine, evaluation)
    assert found.needs[0].amounts["outputTokens"] == 80
    assert hold(evaluation, found)
    assert evaluation.judgement.obligations == (sl.Obligation("Clamp", "arguments.max_output_tokens", 80),)


def test_holding_to_the_clamp_makes_it_constrain_with_the_arguments_it_must_run_with() -> None:
    engine = engine_with(BOTH)
    evaluation = decide(engine, "ModelCall", arguments={"model": "m-1", "max_tokens": 4000})
    decisions = [evaluation.decision]
    assert hold(evaluation, needs_of(engine, evaluation))
    assert [*decisions, evaluation.decision] == ["Allow", "Constrain"]
    assert evaluation.reason == (
        "allowed by rule r0 of AgentPolicy reports/p; with arguments.max_tokens at most 200, which is what its "
        "budgets reserve for it"
    )
    same = decide(engine, "ModelCall", arguments={"model": "m-1", "max_tokens": 200})
    assert evaluation.expected_digest == same.arguments_digest


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ({"argumentsDigest": "sha256:" + "0" * 64, "model": "m-1"}, "needs the arguments, not just their digest"),
        ({"arguments": {"model": "m-1", "max_tokens": "many"}}, "must be a number to be clamped"),
        ({"arguments": {"model": "m-1", "max_tokens": True}}, "must be a number to be clamped"),
    ],
)
def test_what_cannot_be_clamped_is_refused(action: dict[str, Any], why: str) -> None:
    engine = engine_with(BOTH)
    evaluation = decide(engine, "ModelCall", **action)
    assert not hold(evaluation, needs_of(engine, evaluation))
    assert evaluation.decision == "Deny"
    assert why in evaluation.reason


def test_two_arguments_that_say_how_much_are_one_too_many() -> None:
    said = {"model": "m-1", "max_tokens": 5, "max_completion_tokens": 9000}
    assert refusal(engine_with(BOTH), "ModelCall", arguments=said) == (
        "AgentBudget reports/b limits what crm.read returns: arguments.max_tokens and arguments.max_completion_tokens "
        "both say it; leave one"
    )
    assert needs(engine_with(budget(input_tokens=9, default={"input_tokens": 1})), "ModelCall", arguments=said).needs


def test_where_only_the_input_counts_nothing_is_clamped() -> None:
    found = needs(engine_with(budget(input_tokens=9)), "ModelCall", estimate={"inputTokens": 4})
    assert found.clamp is None
    assert found.needs[0].amounts == {"inputTokens": 4}


# Models and prices


def test_the_model_is_named_by_the_arguments_or_beside_them() -> None:
    engine = engine_with(BOTH)
    actions: list[Any] = [{"arguments": {"model": "m-1"}}, {"model": "m-1"}, {"model": "m-1", "arguments": {}}]
    for action in actions:
        assert model_call(engine, **action)["costMicroUsd"] == 6000
    same: Any = {"model": "m-1", "arguments": {"model": "m-1"}}
    assert model_call(engine, **same)["costMicroUsd"] == 6000
    with pytest.raises(RequestError) as found:
        decide(engine, "ModelCall", model="m-1", arguments={"model": "m-2"})
    assert found.value.field == "action.model"


def test_a_model_without_a_price_is_denied() -> None:
    assert refusal(engine_with(BOTH), "ModelCall", model="x-1") == (
        "AgentBudget reports/b limits costMicroUsd, and no ActionCatalog says what the model x-1 costs (spec.models); "
        "unpricedModels: UseEstimate on it would go by estimates"
    )
    actions: list[Any] = [{}, {"arguments": {}}, {"arguments": {"model": 5}}, {"arguments": {"model": "a model\n"}}]
    for action in actions:
        assert "does not say its model" in refusal(engine_with(BOTH), "ModelCall", **action)


def test_or_goes_by_estimates_where_its_budget_says_so() -> None:
    limited = budget(cost_micro_usd=9, unpriced_models="UseEstimate", default={"cost_micro_usd": 40})
    found = needs(engine_with(limited), "ModelCall", model="x-1")
    assert found.needs[0].amounts == {"costMicroUsd": 40}
    assert found.clamp is None
    bare = budget(cost_micro_usd=9, unpriced_models="UseEstimate")
    assert "nothing says how much of it crm.read uses" in refusal(engine_with(bare), "ModelCall", model="x-1")


def test_a_price_without_tokens_says_nothing() -> None:
    assert refusal(engine_with(budget(cost_micro_usd=9)), "ModelCall", model="m-1") == (
        "AgentBudget reports/b limits costMicroUsd, and nothing says how much of it crm.read uses: say "
        "estimate.costMicroUsd (and the tokens, which a model's price needs) in an ActionCatalog entry for crm.read, "
        "or defaultEstimate.costMicroUsd (and the tokens, which a model's price needs) on the budget"
    )
    by_cost = budget(cost_micro_usd=9, default={"cost_micro_usd": 70})
    assert model_call(engine_with(by_cost), model="m-1") == {"costMicroUsd": 70}


def test_no_amount_is_more_than_travels() -> None:
    dear = sl.ModelPrice(("m-*",), 10**12, 10**12)
    engine = engine_with(budget(cost_micro_usd=9), prices=[dear])
    huge = {"inputTokens": MAX_COUNT, "outputTokens": MAX_COUNT}
    assert model_call(engine, model="m-1", estimate=huge)["costMicroUsd"] == MAX_COUNT


# Whose pot


@pytest.mark.parametrize(
    ("scope", "outside", "opener", "deep"),
    [
        ("Shared", [""], [""], [""]),
        ("Agent", [AGENT], [AGENT], [AGENT]),
        ("Run", [f"agent:{AGENT}"], ["r1"], ["r1"]),
        ("Subtree", [f"agent:{AGENT}"], ["r1"], ["r1", "r1/g1", "r1/g2"]),
    ],
)
def test_the_pots_that_an_action_counts_in(
    scope: sl.BudgetScope, outside: list[str], opener: list[str], deep: list[str]
) -> None:
    engine = engine_with(budget(scope=scope, calls=[(("**",), 9)]))
    below = Situation(grants=("g1", "g2"))
    for run, situation, expected in ((None, Situation(), outside), ("r1", Situation(), opener), ("r1", below, deep)):
        found = needs(engine, run=run, situation=situation).needs
        assert [need.scope for need in found] == expected
        assert all(need.budget == "AgentBudget/reports/b" and need.amounts == {"calls **": 1} for need in found)


@pytest.mark.parametrize(
    ("scope", "outside", "inside"), [("Agent", AGENT, AGENT), ("Run", f"agent:{AGENT}", "r1"), ("Shared", "", "")]
)
def test_rules_with_a_limit_are_pots_too(scope: str, outside: str, inside: str) -> None:
    limits = {"rate": {"count": 3, "perSeconds": 60}, "concurrency": 2, "scope": scope}
    engine = engine_with(rules=(ALLOW, {"name": "few", "decision": "Throttle", "throttle": limits}))
    for run, expected in ((None, outside), ("r1", inside)):
        [need] = needs(engine, run=run).needs
        assert (need.budget, need.scope) == ("AgentPolicy/reports/p#few", expected)
        assert need.amounts == {"actions": 1, "concurrency": 1}


def test_a_rule_with_one_limit_counts_only_that() -> None:
    rule = {"name": "few", "decision": "Throttle", "throttle": {"concurrency": 2}}
    assert amounts(engine_with(rules=(ALLOW, rule))) == {"concurrency": 1}


# What is wrong


def test_a_budget_that_did_not_arrive_stops_everything() -> None:
    engine = engine_with(keys=["AgentBudget/reports/gone"])
    assert refusal(engine) == "budgets that concern reports/worker did not arrive here: AgentBudget/reports/gone"
    evaluation = decide(engine)
    assert not hold(evaluation, needs_of(engine, evaluation))
    assert evaluation.decision == "Deny"


def test_a_budget_with_a_fault_stops_everything() -> None:
    engine = engine_with(budget(problem="its parent ClusterAgentBudget all is missing"))
    assert refusal(engine) == (
        "nothing may be spent from AgentBudget reports/b: its parent ClusterAgentBudget all is missing"
    )


# What is remembered


def test_a_new_slice_counts_at_once() -> None:
    engine = engine_with(budget(records=9, default={"records": 1}))
    assert amounts(engine) == {"records": 1}
    engine.apply(engine_with(budget(records=9, default={"records": 2})).slice)
    assert amounts(engine) == {"records": 2}
    assert model_call(engine_with(BOTH), model="m-1")["costMicroUsd"] == 6000
    engine = engine_with(BOTH)
    model_call(engine, model="m-1")
    engine.apply(engine_with(BOTH, prices=[sl.ModelPrice(("m-*",), 0, 15_000_000)]).slice)
    assert model_call(engine, model="m-1")["costMicroUsd"] == 3000


def test_what_is_remembered_is_bounded_and_never_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetward.budget.needs.MAX_KNOWN", 3)
    engine = engine_with(budget(scope="Run", records=9))
    for _ in range(2):
        for number in range(1, 8):
            [need] = needs(engine, name=f"a.n{number}", run=f"r{number}", estimate={"records": number}).needs
            assert (need.scope, need.amounts) == (f"r{number}", {"records": number})
    [spender] = engine.derived["needs"].values()
    assert len(spender._known) <= 3
    assert len(spender._expectations) <= 3
