"""Rules that counted, combined: the most restrictive decision wins, obligations add up, order never matters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fleetward.decision.action import RuleRef
from fleetward.decision.rules import DECISIONS, SEVERITY, Hit, ReadyRule
from fleetward.registry.slice import Decision, Obligation


@dataclass(frozen=True, slots=True)
class Default:
    """What holds where no rule counts, and why."""

    decision: Decision
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What comes of all the rules that counted."""

    decision: Decision
    reason: str
    rules: tuple[RuleRef, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    retry_after_seconds: int | None = None
    durable: bool = False
    advice: tuple[str, ...] = ()

    def refused(self, reason: str) -> "Judgement":
        """Give the same judgement turned into a Deny for a reason of Fleetward's own."""
        return replace(self, decision="Deny", reason=reason, obligations=(), retry_after_seconds=None)


def combine(
    default: Default, trusted: Sequence[Hit], declared: Sequence[Hit] = (), advice: Iterable[str] = ()
) -> Judgement:
    """Combine rules that count on trusted facts with restricting ones that count once declared facts are added.

    Only the trusted ones can turn a default Deny into anything milder; the declared ones can only make it stricter.
    """
    base = _severest(trusted)
    severity = max(SEVERITY[default.decision] if base is None else base, _severest(declared) or 0)
    decision = DECISIONS[severity]
    hits = _in_order([*trusted, *declared])
    enforced = [hit for hit in hits if hit.rule.enforced]
    deciding = [hit for hit in enforced if hit.ref.decision == decision]
    return Judgement(
        decision=decision,
        reason=_reason(decision, deciding) if deciding else default.reason,
        rules=tuple(hit.ref for hit in hits),
        obligations=() if decision == "Deny" else _add_up(enforced),
        retry_after_seconds=max(hit.rule.retry_after_seconds for hit in deciding) if decision == "Throttle" else None,
        durable=any(hit.rule.durable for hit in hits),
        advice=tuple(advice),
    )


def _severest(hits: Iterable[Hit]) -> int | None:
    return max((SEVERITY[hit.ref.decision] for hit in hits if hit.rule.enforced), default=None)


def _in_order(hits: Iterable[Hit]) -> list[Hit]:
    """Put each rule once, the most restrictive first, ties by name: the answer never depends on the order of rules."""
    once: dict[tuple[str, str, str], Hit] = {}
    for hit in sorted(hits, key=lambda hit: -SEVERITY[hit.ref.decision]):
        once.setdefault((hit.ref.kind, hit.ref.policy, hit.ref.rule), hit)
    return sorted(
        once.values(),
        key=lambda hit: (-SEVERITY[hit.ref.decision], hit.ref.kind, hit.ref.policy, hit.ref.rule),
    )


_LEAD: dict[Decision, str] = {
    "Allow": "allowed by",
    "Constrain": "allowed with obligations by",
    "Throttle": "throttled by",
    "RequireApproval": "held until approved, by",
    "Deny": "denied by",
}


def _reason(decision: Decision, deciding: Sequence[Hit]) -> str:
    first = deciding[0]
    text = f"{_LEAD[decision]} rule {first.ref.rule} of {first.ref.kind} {first.ref.policy}"
    if first.ref.error is not None:
        return f"{text}, whose expression could not be evaluated: {first.ref.error}"
    if len(deciding) > 1:
        text += f" (and {len(deciding) - 1} more)"
    return f"{text}: {first.rule.message}" if first.rule.message else text


def _add_up(hits: Iterable[Hit]) -> tuple[Obligation, ...]:
    """Join obligations: of several clamps of one field, the smallest maximum."""
    joined: dict[tuple[str, str], Obligation] = {}
    for hit in hits:
        for obligation in hit.rule.obligations:
            key = (obligation.field, obligation.type)
            known = joined.get(key)
            if known is None or (known.maximum or 0) > (obligation.maximum or 0):
                joined[key] = obligation
    return tuple(joined[key] for key in sorted(joined))


def left_out(rule: ReadyRule, error: str) -> str:
    """Say that an Allow did not count since its expression erred."""
    return f"rule {rule.ref.rule} of {rule.ref.kind} {rule.ref.policy} did not count: {error}"
