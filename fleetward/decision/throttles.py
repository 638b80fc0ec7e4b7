"""Rules that throttle beyond some limit: found again by what `Judgement.throttles` calls them, and put in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleetward.decision.action import RuleRef
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.judgement import Judgement, throttled
from fleetward.decision.rules import ref_of
from fleetward.registry.slice import Items, Policy, Rule, Throttle


def find_rule(policies: Mapping[str, Policy], pot: str) -> tuple[Policy, Rule] | None:
    """Give the rule that throttles in `pot` (`KIND/NAME#RULE`), and its policy; None where it is not known here."""
    key, _, name = pot.rpartition("#")
    policy = policies.get(key)
    if policy is None:
        return None
    return next(((policy, rule) for rule in policy.rules if rule.name == name and rule.throttle is not None), None)


@dataclass(frozen=True, slots=True)
class Throttling:
    """A rule with a limit, as it counts for one action."""

    ref: RuleRef
    limit: str
    """In words, such as `10 in 60 s, 2 at once, for each agent`."""
    inherited: bool
    message: str

    def hold(self, judgement: Judgement, why: str, retry_after_seconds: int) -> Judgement:
        """Give what the action comes to where there is no room, and `why`; what the rule's author says is told, too."""
        message = f"{why}: {self.message}" if self.message else why
        return throttled(judgement, self.ref, message, retry_after_seconds, inherited=self.inherited)


def throttling(engine: Engine, evaluation: Evaluation, pot: str) -> Throttling | None:
    """Give a rule among `evaluation.judgement.throttles`; None where a new slice no longer has it."""
    found = find_rule(engine.slice.items.policies, pot)
    if found is None or found[1].throttle is None:
        return None
    policy, rule = found
    principal = _whose(engine.slice.items, evaluation, pot.rpartition("#")[0])
    ref = ref_of(policy, rule, principal)
    return Throttling(ref, limit_in_words(found[1].throttle), principal != evaluation.agent, rule.message)


def _whose(items: Items, evaluation: Evaluation, policy: str) -> str:
    """Say for whom a policy counts: the agent first, then those who handed the work down, as they are judged."""
    chain = (evaluation.agent, *evaluation.situation.path)
    bound = (items.agents.get(key) or items.principals.get(key) for key in chain)
    return next((agent.key for agent in bound if agent is not None and policy in agent.policies), evaluation.agent)


_WHOSE = {"Agent": "for each agent", "Run": "for each run", "Shared": "for all together"}


def limit_in_words(throttle: Throttle) -> str:
    """Say a limit, such as `10 in 60 s (20 at most after a rest), 2 at once, for each agent`."""
    parts = []
    if (rate := throttle.rate) is not None:
        rest = f" ({rate.burst} at most after a rest)" if rate.burst != rate.count else ""
        parts.append(f"{rate.count} in {rate.per_seconds} s{rest}")
    if throttle.concurrency is not None:
        parts.append(f"{throttle.concurrency} at once")
    return f"{', '.join(parts)}, {_WHOSE[throttle.scope]}"


def limits_advice(engine: Engine, evaluation: Evaluation) -> tuple[str, ...]:
    """Say which limits an action counts in, where nobody can say whether there is room: offline."""
    found = (throttling(engine, evaluation, pot) for pot in evaluation.judgement.throttles)
    return tuple(
        f"rule {each.ref.rule} of {each.ref.kind} {each.ref.policy} throttles it beyond {each.limit}"
        for each in found
        if each is not None
    )
