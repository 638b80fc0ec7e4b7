"""The budget of one evaluation in the portable runtime; cel-python itself has none."""

import threading
from typing import Final

MAX_ITERATIONS: Final = 9_999
"""Turns of all macros of one evaluation together: cel-expr's limit."""

MAX_STEPS: Final = 100_000
"""Nodes visited, items compared and hundreds of characters read: about a second at worst."""


class BudgetError(Exception):
    """An evaluation has taken more than its budget."""


class _Meter(threading.local):
    steps = 0
    iterations = 0


_meter = _Meter()


def refill() -> None:
    """Begin an evaluation on this thread with a full budget."""
    _meter.steps = _meter.iterations = 0


def spend(steps: int) -> None:
    """Count work; raises BudgetError."""
    _meter.steps += steps
    if _meter.steps > MAX_STEPS:
        msg = f"evaluation budget exceeded: more than {MAX_STEPS} steps"
        raise BudgetError(msg)


def turn() -> None:
    """Count one turn of a macro; raises BudgetError."""
    _meter.iterations += 1
    if _meter.iterations > MAX_ITERATIONS:
        msg = f"iteration budget exceeded: more than {MAX_ITERATIONS} turns"
        raise BudgetError(msg)
