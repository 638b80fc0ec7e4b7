"""What the rules say of a plan's steps, each as if its time had come."""

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


class PlanJudge:
    """Judges steps of whatever agents there are. Used by one thread; what it learned of a registry it keeps."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def judge(self, registry: Registry, plan: CheckPlan, path: tuple[str, ...]) -> Judge:
        """Give the judge of one plan, whose planner got its work along `path`."""
        engine = self._ready(registry.cut({step.agent for step in plan.steps}, {*path, plan.agent}))
        handed_on = Situation(path=(*path, plan.agent), run={"id": plan.run})
        own = Situation(path=path, run={"id": plan.run})

        def judge(step: PlanStep) -> StepFacts | None:
            if step.agent not in engine.agents:
                return None
            request = DecisionRequest(action=step.action, agent=step.agent)
            try:
                evaluation = engine.decide(request, own if step.agent == plan.agent else handed_on)
            except RequestError as error:
                return StepFacts(decision="Deny", reason=str(error))
            facts = engine.footprint(step.action)
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


def _deciding(evaluation: Evaluation) -> str:
    """Name the rule that decided; empty where none did."""
    for ref in evaluation.rules:
        if ref.enforcement == "Enforce" and ref.decision == evaluation.decision:
            return f"rule {ref.rule} of {ref.kind} {ref.policy}"
    return ""
