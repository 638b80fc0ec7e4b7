"""Terms: what holds for the pots of one budget, or of one rule that throttles, as the registry has it now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fleetward.budget.amounts import CONCURRENCY, limits_of
from fleetward.decision.throttles import find_rule
from fleetward.registry.slice import Budget, BudgetWindow, Policy, Rate, Rule, Threshold

SETTLE_AFTER_SECONDS = 3600
"""After how long an action without an outcome counts as its estimate, where no budget says otherwise."""

TOTAL = BudgetWindow()
"""The window that never ends."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a pot."""

    budget: str
    """`KIND/NAME` of a budget, `KIND/NAME#RULE` of a rule."""
    limits: dict[str, int]
    """The most of each limit in one window."""
    window: BudgetWindow = TOTAL
    thresholds: tuple[Threshold, ...] = ()
    settle_after_seconds: int = SETTLE_AFTER_SECONDS
    problem: str = ""
    """Why nothing may be taken; empty where nothing is wrong."""
    rate: Rate | None = None
    """How often, of a rule that throttles."""

    @property
    def name(self) -> str:
        """As it is said in reasons: `AgentBudget reports/day`, or `rule r of AgentPolicy reports/p`."""
        return named(self.budget)


def named(budget: str) -> str:
    """Say a budget's or a rule's key in words."""
    holder, _, rule = budget.partition("#")
    words = holder.replace("/", " ", 1)
    return f"rule {rule} of {words}" if rule else words


def terms_of(budget: Budget) -> Terms:
    """Give the terms of a budget."""
    return Terms(
        budget=budget.key,
        limits=limits_of(budget.limits),
        window=budget.window,
        thresholds=tuple(sorted(budget.thresholds, key=lambda threshold: threshold.percent)),
        settle_after_seconds=budget.settle_after_seconds,
        problem=budget.problem,
    )


def terms_of_rule(policy: Policy, rule: Rule) -> Terms:
    """Give the terms of a rule that throttles. Raises ValueError for one that does not."""
    throttle = rule.throttle
    if throttle is None or (throttle.rate is None and throttle.concurrency is None):
        raise ValueError(f"rule {rule.name} of {policy.kind} {policy.name} throttles nothing")
    return Terms(
        budget=f"{policy.kind}/{policy.name}#{rule.name}",
        limits={} if throttle.concurrency is None else {CONCURRENCY: throttle.concurrency},
        rate=throttle.rate,
    )


class Governing(Protocol):
    """What governs: a registry, or the items of a slice."""

    @property
    def budgets(self) -> Mapping[str, Budget]:
        """Budgets by `KIND/NAME`."""

    @property
    def policies(self) -> Mapping[str, Policy]:
        """Policies by `KIND/NAME`."""


def terms_in(governing: Governing, pot: str) -> Terms | None:
    """Give the terms of `KIND/NAME`, or of `KIND/NAME#RULE`; None where there is no such one."""
    if "#" not in pot:
        budget = governing.budgets.get(pot)
        return None if budget is None else terms_of(budget)
    found = find_rule(governing.policies, pot)
    return None if found is None else terms_of_rule(*found)
