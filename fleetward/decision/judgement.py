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
    cleanses: tuple[str, ...] = ()
    """Labels that the agent is rid of once the action has succeeded."""
    advice: tuple[str, ...] = ()
    throttles: tuple[str, ...] = ()
    """The rules that throttle beyond some limit and matched, as `KIND/NAME#RULE` of the policy and the rule.

    Only the hub knows whether there is room, so they have not counted towards the decision, and are not in `rules`.
    """

    def refused(self, reason: str) -> "Judgement":
        """Give the same judgement turned into a Deny for a reason of Fleetward's own."""
        return replace(
            self, decision="Deny", reason=reason, obligations=(), retry_after_seconds=None, cleanses=(), throttles=()
        )

    def held(self, decision: Decision, reason: str, retry_after_seconds: int | None = None) -> "Judgement":
        """Give the same judgement of an allowed action turned into one that does not let it go ahead now."""
        if decision == "Deny":
            return self.refused(reason)
        return replace(self, decision=decision, reason=reason, retry_after_seconds=retry_after_seconds, cleanses=())

    def owing(self, obligation: Obligation, why: str) -> "Judgement":
        """Give the same judgement of an allowed action with one obligation more, and why."""
        return replace(
            self,
            decision="Constrain",
            reason=f"{self.reason}; {why}",
            obligations=_stricter((*self.obligations, obligation)),
        )

    def joined(self, other: "Judgement", principal: str) -> "Judgement":
        """Give what holds where `principal`, who handed the work down, would be judged by `other`: the stricter."""
        stricter = SEVERITY[other.decision] > SEVERITY[self.decision]
        decision = other.decision if stricter else self.decision
        return Judgement(
            decision=decision,
            reason=f"{principal}, who handed the work down, may not do it itself: {other.reason}"
            if stricter
            else self.reason,
            rules=_once((*self.rules, *other.rules)),
            obligations=() if decision == "Deny" else _stricter((*self.obligations, *other.obligations)),
            retry_after_seconds=max(self.retry_after_seconds or 0, other.retry_after_seconds or 0) or None
            if decision == "Throttle"
            else None,
            durable=self.durable or other.durable,
            cleanses=() if decision not in ("Allow", "Constrain") else self.cleanses,
            advice=self.advice,
            throttles=() if decision == "Deny" else tuple(sorted({*self.throttles, *other.throttles})),
        )


def throttled(
    judgement: Judgement, ref: RuleRef, message: str, retry_after_seconds: int, *, inherited: bool = False
) -> Judgement:
    """Give what an allowed action comes to where a rule with a limit has no room for it: see `throttles.Throttling`.

    `message` says which limit; `inherited`, that the rule is of somebody who handed the work down.
    """
    held = judgement.held("Throttle", f"{_by('Throttle', ref, inherited=inherited)}: {message}", retry_after_seconds)
    return replace(held, rules=_once((ref, *judgement.rules)))


def combine(
    default: Default, trusted: Sequence[Hit], declared: Sequence[Hit] = (), advice: Iterable[str] = ()
) -> Judgement:
    """Combine rules that count on trusted facts with restricting ones that count once declared facts are added.

    Only the trusted ones of the agent's own policies can turn a default Deny into anything milder; the declared ones,
    and those inherited from whoever handed the work down, can only make it stricter.

    A rule that throttles beyond some limit does not decide; it is told in `throttles`. If its policy is only recorded
    (enforcement Audit), nothing is counted for it: like any such rule it is listed where it matches, and no more.
    """
    met = [*trusted, *declared]
    throttles = {hit.rule.pot for hit in met if hit.limits}
    if throttles:
        trusted, declared = ([hit for hit in hits if not hit.limits] for hits in (trusted, declared))
    base = _severest(hit for hit in trusted if not hit.rule.inherited)
    further = (*declared, *(hit for hit in trusted if hit.rule.inherited))
    severity = max(SEVERITY[default.decision] if base is None else base, _severest(further) or 0)
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
        durable=any(hit.rule.durable for hit in met),
        cleanses=_cleansed(decision, trusted),
        advice=tuple(advice),
        throttles=() if decision == "Deny" else tuple(sorted(throttles)),
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
    text = _by(decision, first.ref, inherited=first.rule.inherited)
    if first.ref.error is not None:
        return f"{text}, whose expression could not be evaluated: {first.ref.error}"
    if len(deciding) > 1:
        text += f" (and {len(deciding) - 1} more)"
    return f"{text}: {first.rule.message}" if first.rule.message else text


def _by(decision: Decision, ref: RuleRef, *, inherited: bool) -> str:
    text = f"{_LEAD[decision]} rule {ref.rule} of {ref.kind} {ref.policy}"
    return f"{text}, which binds {ref.principal}, who handed the work down" if inherited else text


def _add_up(hits: Iterable[Hit]) -> tuple[Obligation, ...]:
    return _stricter(obligation for hit in hits for obligation in hit.rule.obligations)


def _stricter(obligations: Iterable[Obligation]) -> tuple[Obligation, ...]:
    """Join obligations: of several clamps of one field, the smallest maximum."""
    joined: dict[tuple[str, str], Obligation] = {}
    for obligation in obligations:
        key = (obligation.field, obligation.type)
        known = joined.get(key)
        if known is None or (known.maximum or 0) > (obligation.maximum or 0):
            joined[key] = obligation
    return tuple(joined[key] for key in sorted(joined))


def _cleansed(decision: Decision, trusted: Iterable[Hit]) -> tuple[str, ...]:
    """Give the labels that rules take away. Only where trusted facts met the rule: to declare one must not cleanse."""
    if decision not in ("Allow", "Constrain"):
        return ()
    rules = (hit.rule for hit in trusted if hit.rule.enforced and hit.ref.error is None)
    return tuple(sorted({label for rule in rules for label in rule.cleanses}))


def _once(refs: Iterable[RuleRef]) -> tuple[RuleRef, ...]:
    """Put each rule once, for the principal that comes first, the most restrictive first."""
    seen: dict[tuple[str, str, str], RuleRef] = {}
    for ref in refs:
        seen.setdefault((ref.kind, ref.policy, ref.rule), ref)
    return tuple(sorted(seen.values(), key=lambda r: (-SEVERITY[r.decision], r.kind, r.policy, r.rule)))


def left_out(rule: ReadyRule, error: str) -> str:
    """Say that an Allow did not count since its expression erred."""
    return f"rule {rule.ref.rule} of {rule.ref.kind} {rule.ref.policy} did not count: {error}"
