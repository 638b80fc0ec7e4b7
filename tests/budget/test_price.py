"""What a model costs by the catalogs, and what tokens come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetward.budget.price import Price, Prices
from fleetward.registry.slice import Catalog, ModelPrice
from fleetward.registry.text import MAX_COUNT

EACH = 1_000_000
counts = st.one_of(st.integers(0, 5), st.integers(0, 10**7), st.integers(0, MAX_COUNT))
prices = st.builds(Price, *[st.integers(0, 10**12)] * 4)


def priced(*models: str, sent: int = 1, returned: int = 1, **more: int) -> ModelPrice:
    return ModelPrice(models, sent, returned, **more)


def catalog(*models: ModelPrice) -> Catalog:
    return Catalog(name="c", entries=(), models=models)


def test_a_price_is_for_a_million_tokens_and_what_is_left_is_rounded_up_once() -> None:
    price = Price(3_000_000, 15_000_000, 300_000, 15_000_000)
    assert price.cost(1000, 200) == 3 * 1000 + 15 * 200
    assert Price(1, 1, 1, 1).cost(1, 0) == 1
    assert Price(1, 1, 1, 1).cost(500_000, 500_000) == 1
    assert Price(1, 1, 1, 1).cost(500_000, 500_001) == 2
    assert Price(1, 1, 1, 1).cost(0, 0) == 0


def test_cached_is_a_part_of_the_input_and_reasoning_of_the_output() -> None:
    price = Price(10 * EACH, 100 * EACH, 1 * EACH, 200 * EACH)
    assert price.cost(10, 10, cached=4, reasoning=3) == 6 * 10 + 4 * 1 + 7 * 100 + 3 * 200
    assert price.cost(10, 10, cached=99, reasoning=99) == 10 * 1 + 10 * 200


def test_what_is_reserved_is_at_the_dearer_of_the_two() -> None:
    assert Price(10 * EACH, 100 * EACH, 1 * EACH, 200 * EACH).most(10, 10) == 10 * 10 + 10 * 200


@given(prices, counts, counts, counts, counts, counts)
def test_more_tokens_never_cost_less_and_nothing_costs_more_than_the_most(  # noqa: PLR0917
    price: Price, sent: int, returned: int, cached: int, reasoning: int, more: int
) -> None:
    cost = price.cost(sent, returned, cached, reasoning)
    assert cost <= price.cost(sent + more, returned, cached, reasoning)
    assert cost <= price.cost(sent, returned + more, cached, reasoning)
    assert 0 <= cost <= price.most(sent, returned) <= MAX_COUNT


def test_what_is_left_out_is_as_the_rest() -> None:
    assert Prices([catalog(priced("m", sent=3, returned=7))]).find("m") == Price(3, 7, 3, 7)
    full = priced("m", sent=3, returned=7, cached_input_micro_usd_per_million=1, reasoning_micro_usd_per_million=9)
    assert Prices([catalog(full)]).find("m") == Price(3, 7, 1, 9)


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "GPT-4o", False),
        ("gpt-4o*", "gpt-4o", True),
        ("gpt-4o*", "gpt-4o-2024.08.06", True),
        ("*", "any/thing.at@all:7b", True),
        ("*/claude-*-5", "aws/claude-sonnet-4.5-5", True),
        ("a*b*b", "ab", False),
        ("a*b*b", "abb", True),
        ("a.c", "abc", False),
        ("*-mini", "x-mini-2", False),
    ],
)
def test_a_glob_stands_for_any_text(glob: str, name: str, *, matches: bool) -> None:
    assert (Prices([catalog(priced(glob))]).find(name) is not None) is matches


def test_the_closest_glob_counts_wherever_it_stands() -> None:
    general, family, mini = (priced(glob, sent=sent) for glob, sent in (("*", 9), ("gpt-4o*", 5), ("gpt-4o-mini*", 1)))
    for order in ([general, family, mini], [mini, family, general]):
        for catalogs in ([catalog(*order)], [catalog(each) for each in order]):
            found = [Prices(catalogs).find(name) for name in ("gpt-4o-mini", "gpt-4o-2024", "other")]
            assert [price.input for price in found if price] == [1, 5, 9]


def test_a_name_in_full_counts_before_any_glob() -> None:
    known = Prices([catalog(priced("gpt-4o*", sent=9)), catalog(priced("gpt-4o", sent=1))])
    assert known.find("gpt-4o") == Price(1, 1, 1, 1)


def test_where_catalogs_differ_the_dearer_counts_for_each_kind_of_token() -> None:
    for one, other in (("m", "m"), ("m*", "m*"), ("m-*", "*-m")):
        known = Prices([catalog(priced(one, sent=1, returned=8)), catalog(priced(other, sent=2, returned=4))])
        assert known.find("m" if one == "m" else "m-m") == Price(2, 8, 2, 8)


def test_a_model_that_nobody_knows_has_no_price() -> None:
    assert Prices([]).find("m") is None
    assert Prices([catalog(priced("n"))]).find("m") is None


def test_any_glob_is_matched_in_linear_time() -> None:
    known = Prices([catalog(priced("a*" * 120 + "b"))])
    assert known.find("a" * 253) is None  # in any other time it would never come to an end
