"""Amounts by limit: what the limits are called, and how amounts are added up.

An amount is a whole number: tokens, millionths of a US dollar, records, milliseconds, or actions.
"""

from collections.abc import Mapping, Sequence

from fleetward.registry.slice import BudgetLimits

INPUT_TOKENS = "inputTokens"
OUTPUT_TOKENS = "outputTokens"
COST = "costMicroUsd"
RECORDS = "records"
WALL = "wallMilliseconds"
ACTIONS = "actions"
"""Of a rule that throttles: how often. Counted by a token bucket: what is granted is gone, spent or not."""
CONCURRENCY = "concurrency"
"""Of a rule that throttles: how many at once. Reserved like any amount, and free again with the outcome."""

CEILING = 2**61
"""No sum goes beyond it, so that it fits whatever keeps it: no limit is nearly as high."""


def calls_limit(names: Sequence[str]) -> str:
    """Name the limit on actions whose names one of the globs matches."""
    return f"calls {','.join(names)}"


def limits_of(limits: BudgetLimits) -> dict[str, int]:
    """Give the limits that are set, by name. Wall time is counted in milliseconds."""
    found = {
        INPUT_TOKENS: limits.input_tokens,
        OUTPUT_TOKENS: limits.output_tokens,
        COST: limits.cost_micro_usd,
        RECORDS: limits.records,
        WALL: None if limits.wall_seconds is None else limits.wall_seconds * 1000,
    }
    known = {name: most for name, most in found.items() if most is not None}
    for calls in limits.calls:
        name = calls_limit(calls.names)
        known[name] = min(calls.max, known.get(name, calls.max))
    return known


def add(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add to a total, in place; what is 0 adds nothing, not even the limit's name."""
    for limit, amount in more.items():
        if amount:
            total[limit] = min(total.get(limit, 0) + amount, CEILING)


def subtract(total: dict[str, int], less: Mapping[str, int]) -> None:
    """Take from a total, in place, and never below 0; what is then 0 is left out."""
    for limit, amount in less.items():
        left = total.get(limit, 0) - amount
        if left > 0:
            total[limit] = left
        else:
            total.pop(limit, None)


def some(amounts: Mapping[str, int]) -> bool:
    """Say whether any of it is more than 0."""
    return any(amount > 0 for amount in amounts.values())


def in_words(amounts: Mapping[str, int]) -> str:
    """Say amounts in words, such as `inputTokens 1200, records 3`."""
    return ", ".join(f"{limit} {amount}" for limit, amount in sorted(amounts.items()) if amount)
