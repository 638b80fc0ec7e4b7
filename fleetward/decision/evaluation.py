"""What deciding gives: what is answered, what is recorded, and what is remembered until the outcome comes."""

from dataclasses import dataclass

from fleetward.decision.action import (
    Action,
    Answer,
    DecisionRequest,
    Facts,
    Handover,
    PlannedStep,
    RecordedAction,
    RuleRef,
    Shortfall,
    Spend,
)
from fleetward.decision.facts import declared_estimate, model_of
from fleetward.decision.judgement import Judgement
from fleetward.decision.situation import ALONE, Situation
from fleetward.delegation.scope import Violation
from fleetward.registry.slice import Decision, Mode, Obligation


@dataclass(slots=True)
class OpenDecision:
    """A decision that let an action go ahead, kept until its outcome is reported."""

    id: str
    agent: str
    action: Action
    """Without the arguments, unless a rule for the outcome reads them."""
    obligations: tuple[Obligation, ...]
    expected_digest: str | None
    """Digest the arguments must have once the obligations are carried out; None: unchanged, or never known."""
    run: str | None
    situation: Situation = ALONE
    cleanses: tuple[str, ...] = ()
    """Labels that the agent is rid of once the action has succeeded."""
    reservation: int | None = None
    """The number under which the hub counts the action in its run."""
    spends: tuple[Spend, ...] = ()
    """What it reserved in budgets."""
    since: float = 0.0
    """When it was given out, by whatever clock its keeper has, in seconds."""


@dataclass(slots=True)
class Evaluation:
    """A judged request."""

    agent: str
    request: DecisionRequest
    judgement: Judgement
    registry_version: str
    trusted: Facts
    mode: Mode | None = None
    arguments_digest: str | None = None
    expected_digest: str | None = None
    keep_arguments: bool = False
    situation: Situation = ALONE
    grant: str | None = None
    """The id of the grant that the agent acts under."""
    cause: str | None = None
    """The id of the decision that authorised the agent to act in the run."""
    violations: tuple[Violation, ...] = ()
    reservation: int | None = None
    """The number under which the hub counts the action in its run."""
    handover: Handover | None = None
    plan: tuple[PlannedStep, ...] = ()
    spends: tuple[Spend, ...] = ()
    """What the action reserves in budgets."""
    shortfall: Shortfall | None = None
    """What has no room for the action."""

    @property
    def decision(self) -> Decision:
        """The decision."""
        return self.judgement.decision

    @property
    def reason(self) -> str:
        """Why, in words."""
        return self.judgement.reason

    @property
    def rules(self) -> tuple[RuleRef, ...]:
        """Every rule that counted."""
        return self.judgement.rules

    @property
    def allowed(self) -> bool:
        """Whether the action may go ahead."""
        return self.judgement.decision in ("Allow", "Constrain")

    def answer(self, decision_id: str) -> Answer:
        """Give the answer under the id its record will have."""
        judgement = self.judgement
        return Answer(
            id=decision_id,
            decision=judgement.decision,
            reason=judgement.reason,
            rules=judgement.rules,
            obligations=judgement.obligations,
            registry_version=self.registry_version,
            retry_after_seconds=judgement.retry_after_seconds,
            mode=self.mode,
            advice=judgement.advice,
            shortfall=self.shortfall,
            violations=self.violations,
        )

    def recorded_action(self) -> RecordedAction:
        """Give the action as it is recorded: what was held to be true of it, and what was only declared."""
        action = self.request.action
        declared = None
        if action.risk_tags or action.data_classes or action.labels or action.target or action.estimate:
            declared = Facts(
                risk_tags=action.risk_tags,
                data_classes=action.data_classes,
                target=action.target,
                estimate=declared_estimate(action),
                labels=action.labels,
            )
        return RecordedAction(
            kind=action.kind,
            name=action.name,
            trusted=self.trusted,
            declared=declared,
            arguments_digest=self.arguments_digest,
        )

    def open(self, decision_id: str, since: float = 0.0) -> OpenDecision:
        """Give what must be remembered until the outcome is reported; `since` as in OpenDecision."""
        action = self.request.action
        if action.arguments is not None and not self.keep_arguments:
            action = _without_arguments(action)
        return OpenDecision(
            id=decision_id,
            agent=self.agent,
            action=action,
            obligations=self.judgement.obligations,
            expected_digest=self.expected_digest,
            run=self.request.run,
            situation=self.situation,
            cleanses=self.judgement.cleanses,
            reservation=self.reservation,
            spends=self.spends,
            since=since,
        )


def _without_arguments(action: Action) -> Action:
    return Action(
        kind=action.kind,
        name=action.name,
        risk_tags=action.risk_tags,
        data_classes=action.data_classes,
        target=action.target,
        estimate=action.estimate,
        labels=action.labels,
        model=model_of(action),
    )
