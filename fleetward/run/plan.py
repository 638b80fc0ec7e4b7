"""Plans, checked as a whole before the first step: structure, totals against mandate and grants, and each step's rules.

Every part takes time in proportion to the steps and their dependencies.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fleetward.delegation.narrowing import Bounds, beyond, outside
from fleetward.delegation.scope import Amounts, Scope, Violation
from fleetward.registry.slice import ActionKind, Decision
from fleetward.run.amounts import NOTHING, Account, Six, as_amounts, with_step
from fleetward.run.calls import PlanStep, PlanTotals

MAX_DEPENDENCIES = 10_000
"""Dependencies of one plan, over all its steps."""

MAX_SHOWN = 100
"""How many violations of steps, and how many held steps, an answer lists."""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What the rules of a step's agent say of it, and what is known of its action."""

    decision: Decision
    reason: str = ""
    rule: str = ""
    """The rule that decided, and its policy; empty where none did."""
    data_classes: tuple[str, ...] = ()
    target: str | None = None
    amounts: Amounts = field(default_factory=Amounts)
    """What it may use; a step more is understood."""


class KnownFacts(NamedTuple):
    """What of an action a mandate and a scope are about."""

    kind: ActionKind
    name: str
    target: str | None
    data_classes: tuple[str, ...]


Judge = Callable[[PlanStep], StepFacts | None]
"""Judges a step as if its time had come; None: its agent is not governed."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a plan has to stay within, with what its run has used already."""

    mandate: Bounds
    accounts: Sequence[Account]
    """Of the run, and of every grant from the planner's up."""
    grant: tuple[str, Scope] | None
    """The planner's grant, and its scope."""
    handed_on: int
    """How often the work was handed on before it reached the planner."""
    max_depth: int
    """How often it may be in all, as the mandate says."""
    agents: Collection[str]
    """Who is an agent of the run already."""
    max_agents: int
    reached: Collection[str]
    """Who needs no new grant to act in the run."""


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """What a plan comes to, and where it goes too far."""

    totals: PlanTotals
    violations: tuple[Violation, ...]
    held: tuple[str, ...]


def check_plan(steps: Sequence[PlanStep], judge: Judge, ceilings: Ceilings) -> CheckedPlan:
    """Check a plan. Each step is judged once, in the order given."""
    structure = _Structure(steps)
    facts = [judge(step) for step in steps]
    amounts: Six = NOTHING
    for one in facts:
        amounts = _sum(amounts, with_step(one.amounts if one else Amounts()))
    totals = PlanTotals(
        steps=len(steps),
        agents=tuple(sorted({step.agent for step in steps})),
        fan_out=structure.fan_out,
        depth=structure.depth,
        data_classes=tuple(sorted({name for one in facts if one for name in one.data_classes})),
        targets=tuple(sorted({one.target for one in facts if one and one.target is not None})),
        amounts=as_amounts(amounts),
    )
    of_steps = [*structure.violations, *_of_steps(steps, facts, ceilings)]
    violations = [*_of_totals(steps, amounts, ceilings), *of_steps[:MAX_SHOWN]]
    if len(of_steps) > MAX_SHOWN:
        found = f"{len(of_steps)} of steps, of which the first {MAX_SHOWN} are listed"
        violations.append(Violation(total="violations", found=found, allowed="none"))
    held = [
        f"step {step.id}: {one.decision} for {step.action.name} by {step.agent}"
        + (f": {one.reason}" if one.reason else "")
        for step, one in zip(steps, facts, strict=True)
        if one and one.decision in ("RequireApproval", "Throttle")
    ]
    if len(held) > MAX_SHOWN:
        held = [*held[:MAX_SHOWN], f"and {len(held) - MAX_SHOWN} more steps"]
    return CheckedPlan(totals, tuple(violations), tuple(held))


class _Structure:
    """How steps wait for each other, and what is wrong with that."""

    def __init__(self, steps: Sequence[PlanStep]) -> None:
        self.violations: list[Violation] = []
        self._ids = self._unique(steps)
        self._waits_for = self._dependencies(steps)
        self._waiting: dict[str, list[str]] = {id_: [] for id_ in self._waits_for}
        for id_, needed in self._waits_for.items():
            for other in needed:
                self._waiting[other].append(id_)
        first = sum(not needed for needed in self._waits_for.values())
        self.fan_out = max((first, *map(len, self._waiting.values())), default=0)
        """The most steps that wait for one and the same step, or for none."""
        self.depth = self._longest()
        """The most steps in a row that wait for each other."""

    def _unique(self, steps: Sequence[PlanStep]) -> set[str]:
        ids: set[str] = set()
        for step in steps:
            if step.id in ids:
                self._wrong(step.id, "the id of another step, too", "each id once")
            ids.add(step.id)
        return ids

    def _dependencies(self, steps: Sequence[PlanStep]) -> dict[str, tuple[str, ...]]:
        count = sum(len(step.depends_on) for step in steps)
        if count > MAX_DEPENDENCIES:
            self.violations.append(
                Violation(total="dependsOn", found=f"{count} dependencies", allowed=str(MAX_DEPENDENCIES))
            )
            return {step.id: () for step in steps}
        found = {}
        for step in steps:
            needed = tuple(dict.fromkeys(step.depends_on))
            unknown = [other for other in needed if other not in self._ids]
            if unknown:
                self._wrong(step.id, f"dependsOn {', '.join(unknown[:5])}, no step of the plan", "steps of the plan")
                needed = tuple(other for other in needed if other in self._ids)
            found[step.id] = needed
        return found

    def _longest(self) -> int:
        missing = {id_: len(needed) for id_, needed in self._waits_for.items()}
        level = {id_: 1 for id_, count in missing.items() if not count}
        ready = deque(level)
        while ready:
            done = ready.popleft()
            for id_ in self._waiting[done]:
                missing[id_] -= 1
                level[id_] = max(level.get(id_, 1), level[done] + 1)
                if not missing[id_]:
                    ready.append(id_)
        stuck = {id_ for id_, count in missing.items() if count}
        if stuck:
            self._name_circle(stuck)
        return max((level[id_] for id_ in missing if id_ not in stuck), default=0)

    def _name_circle(self, stuck: set[str]) -> None:
        """Say which steps wait for each other in a circle: from any step that cannot start, back, until one returns."""
        at = next(id_ for id_ in self._waits_for if id_ in stuck)
        way: dict[str, None] = {}
        while at not in way:
            way[at] = None
            at = next(other for other in self._waits_for[at] if other in stuck)
        passed = list(way)
        circle = [*passed[passed.index(at) :], at]
        shown = circle if len(circle) <= 8 else [*circle[:4], "…", *circle[-3:]]
        self._wrong(at, f"waits for itself: {' → '.join(shown)}", "steps that can start one after the other")

    def _wrong(self, step: str, found: str, allowed: str) -> None:
        self.violations.append(Violation(step=step, found=found, allowed=allowed))


def _of_totals(steps: Sequence[PlanStep], amounts: Six, ceilings: Ceilings) -> Iterable[Violation]:
    for account in ceilings.accounts:
        yield from account.beyond(amounts)
    agents = {*ceilings.agents, *(step.agent for step in steps)}
    if len(agents) > ceilings.max_agents:
        yield Violation(total="agents", found=str(len(agents)), allowed=str(ceilings.max_agents), by="mandate")
    if all(step.agent in ceilings.reached for step in steps):
        return
    if ceilings.handed_on + 1 > ceilings.max_depth:
        found = str(ceilings.handed_on + 1)
        yield Violation(total="depth", found=found, allowed=str(ceilings.max_depth), by="mandate")
    if ceilings.grant and ceilings.grant[1].depth == 0:
        yield Violation(total="depth", found="1", allowed="0", by=ceilings.grant[0])


def _of_steps(steps: Sequence[PlanStep], facts: Sequence[StepFacts | None], ceilings: Ceilings) -> Iterable[Violation]:
    known: dict[KnownFacts, tuple[Violation, ...]] = {}
    for step, one in zip(steps, facts, strict=True):
        if one is None:
            found = f"agent {step.agent}, which is not governed"
            yield Violation(step=step.id, found=found, allowed="agents that an Agent resource names")
            continue
        key = KnownFacts(step.action.kind, step.action.name, one.target, one.data_classes)
        if key not in known:
            known[key] = out_of_scope(ceilings.mandate, ceilings.grant, key)
        for violation in known[key]:
            found = f"{violation.total} {violation.found}"
            yield Violation(step=step.id, found=found, allowed=violation.allowed, by=violation.by)
        if one.decision == "Deny":
            found = f"Deny: {one.reason}" if one.reason else "Deny"
            yield Violation(step=step.id, found=found, allowed="what the rules allow its agent", by=one.rule)


def out_of_scope(mandate: Bounds, grant: tuple[str, Scope] | None, facts: KnownFacts) -> tuple[Violation, ...]:
    """Say where an action goes beyond a mandate, or a grant (its name, its scope) where that says more."""
    found = outside(mandate, facts.kind, facts.target, facts.data_classes, by="mandate")
    if grant is None:
        return found
    said = {(one.total, one.found) for one in found}
    of_grant = beyond(grant[1], *facts, by=grant[0])
    return (*found, *(one for one in of_grant if (one.total, one.found) not in said)) if of_grant else found


def _sum(one: Six, other: Six) -> Six:
    return tuple(map(int.__add__, one, other))  # type: ignore[return-value]  # mypy loses the length
