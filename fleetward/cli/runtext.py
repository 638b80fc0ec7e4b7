"""Runs in words: mandates, scopes, violations, handed-over work and plans."""

from collections.abc import Iterator, Sequence

import msgspec

from fleetward.decision.action import Actual, Handover, PlannedStep, RuleRef
from fleetward.delegation.scope import Amounts, Scope, Violation
from fleetward.registry.slice import Decision, Estimate
from fleetward.run.mandate import Mandate

_AMOUNTS = {
    "steps": "steps",
    "agents": "agents",
    "depth": "levels of delegation",
    "input_tokens": "input tokens",
    "cached_input_tokens": "cached input tokens",
    "output_tokens": "output tokens",
    "reasoning_tokens": "reasoning tokens",
    "cost_micro_usd": "millionths of a US dollar",
    "calls": "calls",
    "records": "records",
    "duration_ms": "ms",
}
_SPANS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def amounts_in_words(amounts: Estimate | Actual | Amounts) -> list[str]:
    """Say each amount that is given, such as `7 records`."""
    values = msgspec.structs.asdict(amounts)
    known = [(values[name], words) for name, words in _AMOUNTS.items() if values.get(name) is not None]
    return [_amount(value, words) for value, words in known]


def _amount(value: int, words: str) -> str:
    if value != 1 or words == "ms":
        return f"{value} {words}"
    return f"1 {words.replace('levels', 'level').removesuffix('s')}"


def mandate_in_words(mandate: Mandate | None) -> Iterator[str]:
    """Say what a run may do; nothing where it is not recorded."""
    if mandate is None:
        return
    yield f"for {mandate.requester}: {mandate.purpose}"
    yield from _lists({"data classes": mandate.data_classes, "targets": mandate.targets})
    if limits := amounts_in_words(mandate.limits):
        yield f"at most {', '.join(limits)}"
    yield f"ends by itself after {span_in_words(mandate.expires_in_seconds)}"


def scope_in_words(scope: Scope) -> Iterator[str]:
    """Say what a scope narrows; nothing where it narrows nothing."""
    yield from _lists({"actions": scope.actions, "data classes": scope.data_classes, "targets": scope.targets})
    if scope.depth is not None:
        yield f"may be handed on {'once' if scope.depth == 1 else f'{scope.depth} times'}"
    if limits := amounts_in_words(scope.limits):
        yield f"at most {', '.join(limits)}"


def handover_in_words(handover: Handover) -> Iterator[str]:
    """Say what was to be handed over."""
    yield f"to {handover.to}" + (f", by grant {handover.grant}" if handover.grant else ", no grant was given")
    yield from scope_in_words(handover.scope)
    if handover.labels:
        yield f"labels {', '.join(handover.labels)}"


def step_in_words(step: PlannedStep) -> str:
    """Say what a step of a plan is."""
    after = f", after {', '.join(step.depends_on)}" if step.depends_on else ""
    return f"{step.id}: {step.agent}  {step.kind} {step.name}{after}"


def violation_in_words(violation: Violation) -> str:
    """Say where something goes too far, such as `steps: found 41, allowed 40 (mandate)`."""
    what = f"step {violation.step}" if violation.step else violation.total or "in all"
    by = f" ({violation.by})" if violation.by else ""
    return f"{what}: found {violation.found}, allowed {violation.allowed}{by}"


def deciding(rules: Sequence[RuleRef], decision: Decision) -> list[RuleRef]:
    """Give the rules that the decision comes from."""
    return [ref for ref in rules if ref.enforcement == "Enforce" and ref.decision == decision]


def rule_in_short(ref: RuleRef, agent: str) -> str:
    """Name a rule, and whose it is where it is not the agent's own."""
    return f"{ref.policy}/{ref.rule}" + (f" of {ref.principal}" if ref.principal != agent else "")


def span_in_words(seconds: int) -> str:
    """Say a length of time in the largest unit that it is a multiple of."""
    size, unit = next(((size, unit) for size, unit in _SPANS if seconds % size == 0), (1, "second"))
    count = seconds // size
    return f"{count} {unit}{'s' * (count != 1)}"


def _lists(lists: dict[str, tuple[str, ...] | None]) -> Iterator[str]:
    for name, values in lists.items():
        if values is not None:
            yield f"{name} {', '.join(values) or 'none'}"
