"""What an action really used, as the record takes it, also from what the APIs of models say of a call."""

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from fleetward.decision.action import Actual


class Used(TypedDict, total=False):
    """What an action really used; see `Estimate`."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    """Of the input tokens, those that the provider had in its cache."""
    reasoning_tokens: int
    """Of the output tokens, those that the model spent on reasoning."""
    cost_micro_usd: int
    calls: int
    records: int
    duration: float
    """Seconds; measured where it is left out."""
    usage: Any
    """The `usage` of a model's response, as OpenAI's and Anthropic's APIs give it: a mapping, or an object with the
    same names. What is said beside it counts instead."""


_COUNTS: Final = frozenset(Used.__annotations__) - {"duration", "usage"}


def actual_of(used: Used, measured: float) -> Actual:
    """Give what was used; it took `measured` seconds where nothing else is said. Raises TypeError and ValueError."""
    if unknown := used.keys() - Used.__annotations__.keys():
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(Used.__annotations__)}")
    counts: dict[str, Any] = tokens_of(used["usage"]) if used.get("usage") is not None else {}
    counts |= {name: amount for name, amount in used.items() if name in _COUNTS}
    duration = used.get("duration")
    return Actual(duration_ms=round((measured if duration is None else duration) * 1000), **counts)


def tokens_of(usage: Any) -> dict[str, int]:
    """Give the tokens that a response of a model says it took. Raises ValueError where it says none.

    Where cached tokens are told apart from input tokens (Anthropic), they are added: here they are a part of them.
    """
    sent = _first(usage, "prompt_tokens", "input_tokens")
    returned = _first(usage, "completion_tokens", "output_tokens")
    if sent is None and returned is None:
        raise ValueError("usage says neither how many tokens were sent nor how many came back")
    read, written = _first(usage, "cache_read_input_tokens"), _first(usage, "cache_creation_input_tokens")
    cached = _detail(usage, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    reasoning = _detail(usage, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
    counts = {
        "input_tokens": None if sent is None else sent + (read or 0) + (written or 0),
        "output_tokens": returned,
        "cached_input_tokens": cached if read is None else read,
        "reasoning_tokens": reasoning,
    }
    return {name: count for name, count in counts.items() if count is not None}


def _detail(usage: Any, parts: tuple[str, ...], name: str) -> int | None:
    found = (_get(usage, part) for part in parts)
    return next((count for part in found if part is not None and (count := _first(part, name)) is not None), None)


def _first(data: Any, *names: str) -> int | None:
    for name in names:
        value = _get(data, name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _get(data: Any, name: str) -> Any:
    return data.get(name) if isinstance(data, Mapping) else getattr(data, name, None)
