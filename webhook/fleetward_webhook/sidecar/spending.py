"""Between judgement and record: what an allowed action takes out of budgets, and what holds where there is no room.

Where the leases held suffice, nothing is waited for. An agent without budgets costs a look at it, and no more.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from fleetward.budget.calls import Short, Wish
from fleetward.budget.needs import Needs, hold, needs_of, used
from fleetward.decision.action import DecisionRequest, OutcomeRequest, Spend
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.judgement import Judgement
from fleetward.decision.replies import Failed
from fleetward.decision.throttles import throttling
from fleetward_webhook.sidecar.leasing import Leases
from fleetward_webhook.sidecar.metrics import Metrics
from fleetward_webhook.sidecar.problem import Kind, Problem
from fleetward_webhook.sidecar.recording import RETRY_SECONDS, Recorder


class Decider(Protocol):
    """What is needed of the service."""

    engine: Engine

    def deny_unready(self, request: DecisionRequest) -> None:
        """Record that nothing can be decided now, where that is so, and raise the Problem."""


class Spending:
    """The budgets' part in decisions and outcomes. Lives on the service's loop."""

    def __init__(self, service: Decider, recorder: Recorder, leases: Leases, metrics: Metrics) -> None:
        self._service = service
        self._recorder = recorder
        self._metrics = metrics
        self.leases = leases

    def pay(self, evaluation: Evaluation) -> Awaitable[None] | None:
        """Take what an allowed action needs, and note it in the evaluation; turn that into a refusal without room.

        Where the hub must be asked, gives what is to be awaited; that raises Problem, after the denial was recorded.
        """
        judgement = evaluation.judgement
        if judgement.decision not in ("Allow", "Constrain"):
            return None
        engine = self._service.engine
        agent = engine.slice.items.agents.get(evaluation.agent)
        if not judgement.throttles and (agent is None or not agent.budgets):
            return None
        return self._pay(engine, evaluation, judgement)

    def _pay(self, engine: Engine, evaluation: Evaluation, judgement: Judgement) -> Awaitable[None] | None:
        needs = needs_of(engine, evaluation)
        if not hold(evaluation, needs):
            _stop(evaluation, evaluation.judgement)
            self._metrics.refused_by_budget("Deny")
            return None
        if not needs.needs:
            return None
        spends = self.leases.take(needs.needs)
        if spends is None:
            return self._ask(evaluation, judgement, needs)
        self._spend(evaluation, spends)
        return None

    def forgo(self, evaluation: Evaluation) -> None:
        """Put back what was taken for an action that will not go ahead, or whose decision is not on record."""
        spends, evaluation.spends = evaluation.spends, ()
        self.leases.put_back(spends)

    def settled(self, opened: OpenDecision, outcome: OutcomeRequest, elapsed_ms: int) -> tuple[Spend, ...]:
        """Give what an action took in the end, of a final outcome; `elapsed_ms` since its decision."""
        return used(self._service.engine, opened, outcome, elapsed_ms)

    async def _ask(self, evaluation: Evaluation, judgement: Judgement, needs: Needs) -> None:
        slice_ = self._service.engine.slice
        request = evaluation.request
        answer = await self.leases.ask(Wish(agent=evaluation.agent, needs=needs.needs, run=request.run))
        if isinstance(answer, Short):
            _stop(evaluation, self._without_room(evaluation, judgement, answer))
            evaluation.shortfall = answer.shortfall
            self._metrics.refused_by_budget(answer.decision)
        elif isinstance(answer, Failed):
            problem = Problem(Kind.NO_HUB, f"no budget can be asked: {answer.reason}", retry_after=RETRY_SECONDS)
            _stop(evaluation, judgement.refused(problem.detail))
            self._recorder.decision(evaluation, 0)
            raise problem
        else:
            self._spend(evaluation, answer)
            await self._confirm(evaluation, changed=self._service.engine.slice is not slice_)

    def _without_room(self, evaluation: Evaluation, judgement: Judgement, short: Short) -> Judgement:
        if short.decision == "Throttle" and "#" in (pot := short.shortfall.budget):
            rule = throttling(self._service.engine, evaluation, pot)
            if rule is not None:
                why = f"its limit ({rule.limit}) is reached"
                return rule.hold(judgement, why, short.retry_after_seconds or RETRY_SECONDS)
        return judgement.held(short.decision, short.reason, short.retry_after_seconds)

    async def _confirm(self, evaluation: Evaluation, *, changed: bool) -> None:
        """Make sure that the action is allowed still, for much may have happened meanwhile. Raises Problem."""
        try:
            self._service.deny_unready(evaluation.request)
        except Problem:
            self.forgo(evaluation)
            raise
        if changed:
            self.forgo(evaluation)
            _judge_anew(evaluation, self._service.engine)
            if (asking := self.pay(evaluation)) is not None:
                await asking

    def _spend(self, evaluation: Evaluation, spends: Sequence[Spend]) -> None:
        evaluation.spends = tuple(spends)
        self._metrics.spent(len(spends))


def _judge_anew(evaluation: Evaluation, engine: Engine) -> None:
    """Judge once more, by what holds now."""
    now = engine.decide(evaluation.request, evaluation.situation)
    evaluation.registry_version, evaluation.mode, evaluation.trusted = now.registry_version, now.mode, now.trusted
    evaluation.expected_digest, evaluation.keep_arguments = now.expected_digest, now.keep_arguments
    if now.allowed:
        evaluation.judgement = now.judgement
    else:
        _stop(evaluation, now.judgement)


def _stop(evaluation: Evaluation, judgement: Judgement) -> None:
    """Put a judgement in force that does not let the action go ahead."""
    evaluation.judgement = judgement
    evaluation.expected_digest = None
    if evaluation.handover is not None:
        evaluation.handover = msgspec.structs.replace(evaluation.handover, grant=None, expires_at=None)
