"""Prices: what a model costs by the catalogs of a slice, and what tokens come to at a price.

A price is in millionths of a US dollar (micro-USD) for a million tokens. What tokens cost is rounded up to whole
micro-USD, once for all tokens of an action.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fleetward.decision.engine import Engine
from fleetward.registry.slice import Catalog, ModelPrice
from fleetward.registry.text import MAX_COUNT

_MILLION = 1_000_000

MAX_NAMES = 4096
"""Models whose prices are remembered; beyond that it starts over."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in micro-USD for a million tokens of each kind."""

    input: int
    output: int
    cached: int
    """For input that the provider had in its cache."""
    reasoning: int
    """For output that the model spent on reasoning."""

    def cost(self, input_tokens: int, output_tokens: int, cached: int = 0, reasoning: int = 0) -> int:
        """Give what tokens cost, in micro-USD; `cached` is a part of the input, `reasoning` of the output."""
        cached, reasoning = min(cached, input_tokens), min(reasoning, output_tokens)
        sent = (input_tokens - cached) * self.input + cached * self.cached
        returned = (output_tokens - reasoning) * self.output + reasoning * self.reasoning
        return min(-(-(sent + returned) // _MILLION), MAX_COUNT)

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """Give what tokens cost at most, whatever part of them is cached or spent on reasoning, in micro-USD."""
        dearest = Price(max(self.input, self.cached), max(self.output, self.reasoning), 0, 0)
        return dearest.cost(input_tokens, output_tokens)


class Prices:
    """The prices in all catalogs of a slice, asked by a model's name.

    A name said in full counts before any glob; of several globs that match it, those with the most characters besides
    `*`. Where these give different prices, in one catalog or in several, the highest counts for each kind of token.
    """

    def __init__(self, catalogs: Iterable[Catalog]) -> None:
        self._exact: dict[str, list[Price]] = {}
        self._globs: list[tuple[int, re.Pattern[str], Price]] = []
        self._known: dict[str, Price | None] = {}
        for catalog in catalogs:
            for model in catalog.models:
                self._add(model)

    def _add(self, model: ModelPrice) -> None:
        price = _price(model)
        for glob in model.models:
            if "*" in glob:
                self._globs.append((len(glob) - glob.count("*"), _pattern(glob), price))
            else:
                self._exact.setdefault(glob, []).append(price)

    def find(self, model: str) -> Price | None:
        """Give what the model costs; None where no catalog says."""
        try:
            return self._known[model]
        except KeyError:
            pass
        if len(self._known) >= MAX_NAMES:
            self._known.clear()
        price = self._known[model] = self._look_up(model)
        return price

    def _look_up(self, model: str) -> Price | None:
        if exact := self._exact.get(model):
            return _dearest(exact)
        matching = [(literal, price) for literal, pattern, price in self._globs if pattern.fullmatch(model)]
        longest = max((literal for literal, _ in matching), default=None)
        return None if longest is None else _dearest([price for literal, price in matching if literal == longest])


def _price(model: ModelPrice) -> Price:
    sent, returned = model.input_micro_usd_per_million, model.output_micro_usd_per_million
    cached, reasoning = model.cached_input_micro_usd_per_million, model.reasoning_micro_usd_per_million
    return Price(sent, returned, sent if cached is None else cached, returned if reasoning is None else reasoning)


def _dearest(prices: list[Price]) -> Price:
    return Price(
        max(price.input for price in prices),
        max(price.output for price in prices),
        max(price.cached for price in prices),
        max(price.reasoning for price in prices),
    )


def _pattern(glob: str) -> re.Pattern[str]:
    first, *middle, last = map(re.escape, glob.split("*"))
    # Atomic groups: where a part was found first is where it counts, so time stays linear for any glob.
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last, re.DOTALL)


def prices_of(engine: Engine) -> Prices:
    """Give the prices in the catalogs of the engine's slice."""
    prices: Prices | None = engine.derived.get("prices")
    if prices is None:
        prices = engine.derived["prices"] = Prices(engine.slice.items.catalogs.values())
    return prices
