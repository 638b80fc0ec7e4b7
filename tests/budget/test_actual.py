"""What an action that has ended is settled at."""

from typing import Any

import msgspec
import pytest
from budget.spending import amounts, budget, decide, engine_with, needs
from hypothesis import given
from hypothesis import strategies as st

from fleetward.budget.needs import hold, needs_of, used
from fleetward.budget.windows import window_at
from fleetward.decision.action import Actual, OutcomeRequest, Spend
from fleetward.decision.engine import Engine
from fleetward.decision.situation import Situation
from fleetward.registry import slice as sl
from fleetward.registry.text import MAX_COUNT

NOW = 1_700_000_000.5
TOKENS = budget(input_tokens=9, output_tokens=9, cost_micro_usd=9, default={"input_tokens": 1000, "output_tokens": 200})
MODEL: Any = {"arguments": {"model": "m-1", "messages": []}}


def settle(
    engine: Engine,
    kind: str = "ToolCall",
    *,
    actual: dict[str, int] | None = None,
    status: Any = "Succeeded",
    elapsed_ms: int = 0,
    **action: Any,
) -> tuple[dict[str, int], dict[str, int]]:
    """Give what was reserved, and what it was settled at."""
    evaluation = decide(engine, kind, **action)
    found = needs_of(engine, evaluation)
    assert hold(evaluation, found), evaluation.reason
    evaluation.spends = tuple(
        Spend(budget=need.budget, scope=need.scope, window="w", amounts=need.amounts) for need in found.needs
    )
    opened = evaluation.open("d-1")
    reported = OutcomeRequest(status=status, actual=None if actual is None else Actual(**actual))
    [spend] = used(engine, opened, reported, elapsed_ms)
    [before] = opened.spends
    assert (spend.budget, spend.scope, spend.window) == (before.budget, before.scope, "w")
    return before.amounts, spend.amounts


def test_nothing_reserved_is_nothing_settled() -> None:
    engine = engine_with()
    assert used(engine, decide(engine).open("d-1"), OutcomeRequest(), 5) == ()


@pytest.mark.parametrize("status", ["Succeeded", "Failed"])
def test_what_is_not_reported_stays_as_it_was_reserved(status: str) -> None:
    for actual in (None, {}, {"duration_ms": 5}):
        before, after = settle(engine_with(TOKENS), "ModelCall", actual=actual, status=status, **MODEL)
        assert after == before == {"inputTokens": 1000, "outputTokens": 200, "costMicroUsd": 6000}


@pytest.mark.parametrize("status", ["Succeeded", "Failed"])
def test_what_is_reported_counts_and_the_cost_follows_from_the_tokens(status: str) -> None:
    said = {"input_tokens": 100, "output_tokens": 10, "cached_input_tokens": 50}
    _, after = settle(engine_with(TOKENS), "ModelCall", actual=said, status=status, **MODEL)
    assert after == {"inputTokens": 100, "outputTokens": 10, "costMicroUsd": 50 * 3 + 15 + 10 * 15}


def test_a_larger_cost_that_is_reported_counts_and_a_smaller_one_does_not() -> None:
    said = {"input_tokens": 100, "output_tokens": 10}
    for cost, expected in ((1, 450), (9000, 9000)):
        _, after = settle(engine_with(TOKENS), "ModelCall", actual={**said, "cost_micro_usd": cost}, **MODEL)
        assert after["costMicroUsd"] == expected


def test_more_than_was_reserved_counts_in_full() -> None:
    _, after = settle(engine_with(TOKENS), "ModelCall", actual={"input_tokens": 5000, "output_tokens": 900}, **MODEL)
    assert after == {"inputTokens": 5000, "outputTokens": 900, "costMicroUsd": 5000 * 3 + 900 * 15}


def test_tokens_that_are_not_told_of_may_have_cost_all_that_was_reserved() -> None:
    _, after = settle(engine_with(TOKENS), "ModelCall", actual={"input_tokens": 1}, **MODEL)
    assert after == {"inputTokens": 1, "outputTokens": 200, "costMicroUsd": 6000}
    _, after = settle(engine_with(TOKENS), "ModelCall", actual={"input_tokens": 9000}, **MODEL)
    assert after["costMicroUsd"] == 27_000
    _, after = settle(engine_with(TOKENS), "ModelCall", actual={"cost_micro_usd": 5}, **MODEL)
    assert after["costMicroUsd"] == 6000
    _, after = settle(engine_with(TOKENS, trusted=True), "ModelCall", actual={"cost_micro_usd": 5}, **MODEL)
    assert after["costMicroUsd"] == 5


def test_a_report_lowers_nothing_below_the_catalog_unless_the_fleet_is_trusted() -> None:
    limited = budget(records=100)
    assert settle(engine_with(limited, estimate={"records": 10}), actual={"records": 2})[1] == {"records": 10}
    assert settle(engine_with(limited, estimate={"records": 10}), actual={"records": 12})[1] == {"records": 12}
    assert settle(engine_with(limited, estimate={"records": 10}, trusted=True), actual={"records": 2})[1] == {
        "records": 2
    }
    told: Any = {"estimate": {"records": 20}}
    assert settle(engine_with(limited, estimate={"records": 10}), actual={"records": 2}, **told)[1] == {"records": 10}


def test_the_catalog_makes_nothing_more_than_was_reserved() -> None:
    """The call was clamped to 50 tokens, so it cannot have taken the 200 that the catalog expects of such calls."""
    engine = engine_with(budget(output_tokens=9), estimate={"output_tokens": 200})
    before, after = settle(engine, "ModelCall", actual={"output_tokens": 5}, arguments={"max_tokens": 50})
    assert (before, after) == ({"outputTokens": 50}, {"outputTokens": 50})


def test_what_nobody_foresaw_counts_where_the_budget_limits_it() -> None:
    limited = budget(input_tokens=9, records=9, cost_micro_usd=9)
    said = {"records": 3, "input_tokens": 40, "output_tokens": 2, "cost_micro_usd": 7}
    before, after = settle(engine_with(limited), actual=said, estimate={"records": 1})
    assert before == {"records": 1}
    assert after == {"records": 3, "inputTokens": 40, "costMicroUsd": 7}


def test_calls_stay_and_the_time_is_as_it_was_seen() -> None:
    limited = budget(wall_seconds=9, calls=[(("**",), 9)], default={"wall_seconds": 2})
    before, after = settle(engine_with(limited), actual={"calls": 7, "duration_ms": 1}, elapsed_ms=3210)
    assert before == {"calls **": 1, "wallMilliseconds": 2000}
    assert after == {"calls **": 1, "wallMilliseconds": 3210}
    assert settle(engine_with(limited), elapsed_ms=-5)[1]["wallMilliseconds"] == 0


def test_a_place_among_those_under_way_is_free_again() -> None:
    rule = {"name": "few", "decision": "Throttle", "throttle": {"concurrency": 2}}
    assert settle(engine_with(rules=({"decision": "Allow"}, rule))) == ({"concurrency": 1}, {"concurrency": 0})


def test_a_model_without_a_price_costs_what_is_reported() -> None:
    limited = budget(cost_micro_usd=9, unpriced_models="UseEstimate", default={"cost_micro_usd": 40})
    for said, expected in (({}, 40), ({"cost_micro_usd": 3}, 3), ({"input_tokens": 5}, 40)):
        assert settle(engine_with(limited), "ModelCall", actual=said, model="x")[1] == {"costMicroUsd": expected}


def test_a_budget_that_is_gone_is_settled_all_the_same() -> None:
    engine = engine_with(TOKENS)
    evaluation = decide(engine, "ModelCall", **MODEL)
    evaluation.spends = (Spend(budget=TOKENS.key, window="w", amounts={"inputTokens": 10, "costMicroUsd": 100}),)
    opened = evaluation.open("d-1")
    engine.apply(sl.Slice("2"))
    [spend] = used(engine, opened, OutcomeRequest(actual=Actual(input_tokens=4)), 0)
    assert spend.amounts == {"inputTokens": 4, "costMicroUsd": 100}


counts = st.none() | st.integers(0, 3000)
reports = st.fixed_dictionaries(dict.fromkeys(("input_tokens", "output_tokens", "cost_micro_usd", "records"), counts))


@given(
    reports,
    st.dictionaries(st.sampled_from(("input_tokens", "output_tokens", "cost_micro_usd")), st.integers(1, 3000)),
    st.sampled_from(["m-1", "x"]),
)
def test_no_report_lowers_anything_below_the_catalog_or_what_it_reports(
    report: dict[str, int | None], catalog: dict[str, int], model: str
) -> None:
    limited = budget(
        input_tokens=9,
        output_tokens=9,
        cost_micro_usd=9,
        unpriced_models="UseEstimate",
        default={"input_tokens": 100, "output_tokens": 100, "cost_micro_usd": 100},
    )
    engine = engine_with(limited, estimate=catalog)
    said = {name: amount for name, amount in report.items() if amount is not None}
    before, after = settle(engine, "ModelCall", actual=said, model=model)
    for limit, field in (
        ("inputTokens", "input_tokens"),
        ("outputTokens", "output_tokens"),
        ("costMicroUsd", "cost_micro_usd"),
    ):
        least = min(catalog.get(field, 0), before.get(limit, 0))
        assert after.get(limit, 0) >= max(least, said.get(field, 0))
        assert after.get(limit, 0) <= MAX_COUNT
        if field not in said and field != "cost_micro_usd":
            assert after.get(limit, 0) == before.get(limit, 0)


def test_the_model_is_remembered_without_its_arguments() -> None:
    engine = engine_with(TOKENS)
    for action in (MODEL, {"model": "m-1"}):
        assert decide(engine, "ModelCall", **action).open("d-1").action.model == "m-1"
    assert decide(engine, "ModelCall", arguments={"model": "no\nname"}).open("d-1").action.model is None
    assert decide(engine, "ToolCall", arguments={"model": "m-1"}).open("d-1").action.model is None
    assert amounts(engine, "ModelCall", **MODEL) == needs(engine, "ModelCall", **MODEL).needs[0].amounts


def test_what_is_taken_out_of_a_budget_that_nothing_was_reserved_in_counts_too() -> None:
    by_records, by_cost = budget("r", records=9), budget("c", "Subtree", cost_micro_usd=9)
    engine = engine_with(by_records, by_cost)
    evaluation = decide(engine, run="r1", situation=Situation(grants=("g1",)), estimate={"records": 2})
    evaluation.spends = (Spend(budget=by_records.key, window="total", amounts={"records": 2}),)
    opened = evaluation.open("d-1")
    found = used(engine, opened, OutcomeRequest(actual=Actual(cost_micro_usd=70)), 0, NOW)
    assert [(spend.budget, spend.scope, spend.window, spend.amounts) for spend in found] == [
        (by_records.key, "", "total", {"records": 2}),
        (by_cost.key, "r1", "total", {"costMicroUsd": 70}),
        (by_cost.key, "r1/g1", "total", {"costMicroUsd": 70}),
    ]
    assert len(used(engine, opened, OutcomeRequest(actual=Actual(records=1)), 0, NOW)) == 1


def test_it_counts_in_the_window_of_the_moment() -> None:
    hourly = sl.BudgetWindow(kind="Calendar", unit="Hour", time_zone="Europe/Berlin")
    engine = engine_with(msgspec.structs.replace(budget(cost_micro_usd=9), window=hourly))
    [spend] = used(engine, decide(engine).open("d-1"), OutcomeRequest(actual=Actual(cost_micro_usd=7)), 0, NOW)
    assert spend.window == window_at(hourly, NOW).id
    assert used(engine, decide(engine).open("d-1"), OutcomeRequest(actual=Actual(records=7)), 0, NOW) == ()
