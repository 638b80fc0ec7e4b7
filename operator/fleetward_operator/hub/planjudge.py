"""What the rules say of a plan's steps, each as if its time had come: what it waits for is done, and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fleetward.decision.action import DecisionRequest
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.request import RequestError
from fleetward.decision.situation import Situation
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Slice
from fleetward.run.calls import CheckPlan, PlanStep
from fleetward.run.plan import Judge, StepFacts
from fleetward.run.situation import amounts_of

History = Callable[[str | None], Mapping[str, Sequence[str]]]
"""Who did what on a target in the run so far: agents by action name."""


class PlanJudge:
    """Judges steps of whatever agents there are. Used by one thread; what it learned of a registry it keeps."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def judge(self, registry: Registry, plan: CheckPlan, path: tuple[str, ...], history: History) -> Judge:
        """Give the judge of one plan, whose planner got its work along `path`."""
        engine = self._ready(registry.cut({step.agent for step in plan.steps}, {*path, plan.agent}))
        footprints = {step.id: engine.footprint(step.agent, step.action) for step in plan.steps}
        order = _Order(plan.steps, [footprints[step.id].target for step in plan.steps])
        judged: dict[object, StepFacts] = {}

        def judge(step: PlanStep) -> StepFacts | None:
            if step.agent not in engine.agents:
                return None
            done = order.done_before(step, history(footprints[step.id].target))
            alike = None  # steps that differ in nothing a rule could read are judged once
            if step.action.arguments is None:
                alike = (step.agent, step.action, tuple((name, *agents) for name, agents in done.items()))
                if alike in judged:
                    return judged[alike]
            said = facts(step, done)
            if alike is not None:
                judged[alike] = said
            return said

        def facts(step: PlanStep, done: dict[str, list[str]]) -> StepFacts:
            facts = footprints[step.id]
            situation = Situation(
                path=path if step.agent == plan.agent else (*path, plan.agent),
                run={"id": plan.run, "onTarget": done},
            )
            try:
                evaluation = engine.decide(DecisionRequest(action=step.action, agent=step.agent), situation)
            except RequestError as error:
                return StepFacts(decision="Deny", reason=str(error))
            return StepFacts(
                decision=evaluation.decision,
                reason=evaluation.reason,
                rule=_deciding(evaluation),
                data_classes=tuple(sorted(facts.data_classes)),
                target=facts.target,
                amounts=amounts_of(facts.estimate),
            )

        return judge

    def _ready(self, slice_: Slice) -> Engine:
        if self._engine is None:
            self._engine = Engine(slice_)
        else:
            self._engine.apply(slice_)
        return self._engine


@dataclass(frozen=True, slots=True)
class _Waits:
    """A step, and what it waits for: one bit a step."""

    number: int
    before: int


class _Order:
    """Which steps are done before which: sets of steps are whole numbers, one bit a step."""

    def __init__(self, steps: Sequence[PlanStep], targets: Sequence[str | None]) -> None:
        self._steps = steps
        self._targets = targets
        self._on: dict[str, int] = {}
        """The steps on each target."""
        for number, target in enumerate(targets):
            if target is not None:
                self._on[target] = self._on.get(target, 0) | 1 << number
        self._waits = _closure(steps)

    def done_before(self, step: PlanStep, so_far: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Give who will have acted on the target of `step` when its time has come: agents by action name."""
        done = {name: list(agents) for name, agents in so_far.items()}
        waits = self._waits.get(step.id)
        target = None if waits is None else self._targets[waits.number]
        if waits is None or target is None:
            return done
        bits = waits.before & self._on[target] & ~(1 << waits.number)
        while bits:
            other = self._steps[(bits & -bits).bit_length() - 1]
            agents = done.setdefault(other.action.name, [])
            if other.agent not in agents:
                agents.append(other.agent)
            bits &= bits - 1
        return done


def _closure(steps: Sequence[PlanStep]) -> dict[str, _Waits]:
    """Give, for each step, all that it waits for, directly or not. Steps in a circle, which are refused, get less."""
    numbers = {step.id: number for number, step in enumerate(steps)}
    found: dict[str, _Waits] = {}
    for start in numbers:
        stack = [start]
        open_: set[str] = set()
        while stack:
            step = steps[numbers[stack[-1]]]
            waiting = [] if step.id in open_ else [d for d in step.depends_on if d in numbers and d not in found]
            open_.add(step.id)
            waiting = [each for each in waiting if each not in open_]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            before = 0
            for other in step.depends_on:
                if other in numbers:
                    before |= 1 << numbers[other] | (found[other].before if other in found else 0)
            found.setdefault(step.id, _Waits(numbers[step.id], before))
    return found


def _deciding(evaluation: Evaluation) -> str:
    """Name the rule that decided; empty where none did."""
    for ref in evaluation.rules:
        if ref.enforcement == "Enforce" and ref.decision == evaluation.decision:
            return f"rule {ref.rule} of {ref.kind} {ref.policy}"
    return ""
