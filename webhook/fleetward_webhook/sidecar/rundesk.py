"""Actions that belong to a run: the hub counts them first, once for all webhooks, then they are judged here.

An action of a run costs one exchange with the hub. Whatever keeps the hub from answering denies the action.
"""

import asyncio
import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import time
from types import ModuleType
from typing import NamedTuple, Protocol, cast

import msgspec

from fleetward.decision.action import Action, Actual, DecisionRequest, Handover, OutcomeRequest, PlannedStep
from fleetward.decision.agent import arguments_digest_of
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.facts import larger
from fleetward.decision.judgement import Judgement
from fleetward.decision.replies import Failed
from fleetward.decision.request import RequestError
from fleetward.decision.situation import Situation
from fleetward.delegation.grant import Grant
from fleetward.delegation.scope import Amounts, Violation
from fleetward.registry.slice import Mode
from fleetward.run import calls
from fleetward.run.api import DelegationRequest, PlanRequest
from fleetward.run.situation import amounts_of, situation_of
from fleetward_webhook.sidecar.problem import Kind, Problem
from fleetward_webhook.sidecar.questions import Questions
from fleetward_webhook.sidecar.recording import RETRY_SECONDS, Recorder
from fleetward_webhook.sidecar.spending import Spending


class Decider(Protocol):
    """What is needed of the service."""

    engine: Engine
    spending: Spending

    def deny_unready(self, request: DecisionRequest) -> None:
        """Record that nothing can be decided now, where that is so, and raise the Problem."""


class _Standing(NamedTuple):
    """What an agent shows before the hub is asked."""

    agent: str
    run: str
    grant: Grant | None


class RunDesk:
    """Runs, plans, delegations, and the actions of runs. Lives on the service's loop."""

    def __init__(self, service: Decider, recorder: Recorder, questions: Questions) -> None:
        self._service = service
        self._recorder = recorder
        self._questions = questions

    async def decide(self, request: DecisionRequest) -> Evaluation:
        """Judge an action of a run. Raises Problem, after the denial was recorded; and RequestError."""
        shown = await self._show(request)
        if isinstance(shown, Evaluation):
            return shown
        if request.run is None:
            request = msgspec.structs.replace(request, run=shown.run)  # the grant says it
        action = request.action
        facts = self._service.engine.footprint(shown.agent, action)
        reply = await self._ask(
            request,
            calls.Step(
                run=shown.run,
                agent=shown.agent,
                kind=action.kind,
                name=action.name,
                grant=_id(shown.grant),
                digest=arguments_digest_of(action),
                target=facts.target,
                turns_to=calls.recipient(action.kind, shown.agent, facts.target or action.target),
                data_classes=tuple(sorted(facts.data_classes)),
                labels=action.labels,
                brings=tuple(sorted(facts.result_labels)),
                amounts=amounts_of(facts.estimate),
            ),
        )
        if isinstance(reply, calls.NotAllowed):
            return self._not_allowed(request, shown, reply)
        assert isinstance(reply, calls.Taken)  # noqa: S101 - what Step is answered with
        return await self._judge(request, shown, reply, situation_of(reply.view, to=reply.to))

    async def learn(self, opened: OpenDecision, outcome: OutcomeRequest, judgement: Judgement) -> Problem | None:
        """Tell the hub what came of an action of a run; give the problem where it could not be told."""
        ended = outcome.status != "Running"
        succeeded = outcome.status == "Succeeded" and judgement.decision == "Allow"
        cleansed = opened.cleanses if succeeded else ()
        actual = self._used(opened, outcome.actual) if ended and outcome.actual else None
        if not (outcome.labels or cleansed or actual) or opened.run is None or opened.reservation is None:
            return None
        reply = await self._questions.ask(
            calls.Learn(
                run=opened.run,
                agent=opened.agent,
                seq=opened.reservation,
                labels=outcome.labels,
                cleansed=cleansed,
                actual=actual,
            )
        )
        match reply:
            case Failed(reason=reason):
                return unable(reason)
            case calls.NotAllowed(reason=reason):
                return Problem(Kind.RUN_REFUSED, reason)
        return None

    def _used(self, opened: OpenDecision, actual: Actual) -> Amounts:
        """Give what an action used: no less than a catalog expects, unless the agent is believed."""
        return amounts_of(larger(actual, self._service.engine.least(opened.agent, opened.action.name)))

    # Plans and delegations

    async def plan(self, asked: PlanRequest) -> Evaluation:
        """Judge a plan as a whole. Raises as `decide` does."""
        request = _request(asked, Action(kind="Plan", name="plan", labels=asked.labels))
        self._service.deny_unready(request)
        shown = await self._show(request)
        _check_arguments(asked)
        steps = tuple(
            PlannedStep(id=s.id, agent=s.agent, kind=s.action.kind, name=s.action.name, depends_on=s.depends_on)
            for s in asked.steps
        )
        if isinstance(shown, Evaluation):
            shown.plan = steps
            return shown
        question = calls.CheckPlan(
            run=shown.run, agent=shown.agent, steps=asked.steps, grant=_id(shown.grant), labels=asked.labels
        )
        reply = await self._ask(request, question)
        if isinstance(reply, calls.NotAllowed):
            evaluation = self._not_allowed(request, shown, reply)
            evaluation.plan = steps
            return evaluation
        assert isinstance(reply, calls.PlanChecked)  # noqa: S101 - what CheckPlan is answered with
        totals, violations = reply.totals, reply.violations
        situation = situation_of(reply.view, totals=totals, data_classes=totals.data_classes)

        def hold(evaluation: Evaluation) -> None:
            evaluation.plan, evaluation.violations = steps, violations
            judgement = evaluation.judgement
            evaluation.judgement = replace(judgement, advice=(*judgement.advice, *reply.held))
            if violations:
                evaluation.judgement = evaluation.judgement.refused(_too_far(violations))

        return await self._judge(request, shown, reply, situation, hold)

    async def delegate(self, asked: DelegationRequest) -> tuple[Evaluation, calls.Proposed | None]:
        """Judge a delegation, and give what was proposed where it may go ahead: see `issue`. Raises as `decide`."""
        name = f"delegate.{asked.to.replace('/', '.')}"
        request = _request(asked, Action(kind="Delegation", name=name, target=asked.to, labels=asked.labels))
        self._service.deny_unready(request)
        shown = await self._show(request)
        handover = Handover(to=asked.to, scope=asked.scope.lasting, labels=asked.labels)
        if isinstance(shown, Evaluation):
            shown.handover = handover
            return shown, None
        question = calls.Propose(
            run=shown.run,
            agent=shown.agent,
            to=asked.to,
            scope=asked.scope,
            grant=_id(shown.grant),
            labels=asked.labels,
        )
        reply = await self._ask(request, question)
        if isinstance(reply, calls.NotAllowed):
            evaluation = self._not_allowed(request, shown, reply)
            evaluation.handover = handover
            return evaluation, None
        assert isinstance(reply, calls.Proposed)  # noqa: S101 - what Propose is answered with
        grant = reply.grant
        situation = situation_of(reply.view, to=reply.to, target=asked.to, data_classes=asked.scope.data_classes or ())

        def hold(evaluation: Evaluation) -> None:
            if evaluation.decision == "Constrain":
                reason = "it is allowed with obligations only, and a delegation has nothing they could hold to"
                evaluation.judgement = evaluation.judgement.refused(reason)
            evaluation.handover = Handover(
                to=grant.to,
                scope=grant.scope,
                labels=grant.labels,
                grant=grant.id if evaluation.decision == "Allow" else None,
                expires_at=grant.expires_at,
            )

        evaluation = await self._judge(request, shown, reply, situation, hold)
        return evaluation, reply if evaluation.decision == "Allow" else None

    async def issue(self, proposed: calls.Proposed, cause: str) -> str:
        """Give the signed grant of a delegation that was allowed by the decision `cause`. Raises Problem."""
        grant = proposed.grant
        reply = await self._questions.ask(calls.Issue(run=grant.run, grant=grant.id, cause=cause))
        if not isinstance(reply, calls.Issued):
            raise refused(reply)
        return reply.token

    # What they share

    async def _show(self, request: DecisionRequest) -> _Standing | Evaluation:
        """Say under which run and grant the agent acts; a denial where it may not, before the hub is asked."""
        engine = self._service.engine
        agent = engine.agent_of(request)
        grant, wrong = await self._grant_of(request, agent)
        shown = _Standing(agent, grant.run if grant is not None else request.run or "", grant)
        if (why := engine.standstill(agent)) is not None:
            return self._not_allowed(request, shown, calls.NotAllowed(reason=why[0]), why[1])
        if wrong:
            return engine.deny(request, agent, wrong)
        return shown

    async def _grant_of(self, request: DecisionRequest, agent: str) -> tuple[Grant | None, str]:
        """Give the grant that a request shows, or what is wrong with it."""
        if request.grant is None:
            return None, ""
        token = await _token_module()
        try:
            grant = cast("Grant", token.verify(request.grant, self._questions.keys, agent, int(time())))
        except token.GrantError as error:
            return None, f"the grant is refused: {error}"
        if request.run is not None and request.run != grant.run:
            return None, f"the grant is for run {grant.run}, and the request names {request.run}"
        return grant, ""

    async def _ask(self, request: DecisionRequest, question: calls.Request) -> calls.Reply:
        """Ask the hub. Raises Problem where it cannot say, after the denial was recorded."""
        reply = await self._questions.ask(question)
        if isinstance(reply, Failed):
            problem = unable(reply.reason)
            engine = self._service.engine
            self._recorder.decision(engine.deny(request, engine.agent_of(request), problem.detail), 0)
            raise problem
        try:
            self._service.deny_unready(request)  # much may have happened since it was asked
        except Problem:
            self._release(reply)
            raise
        return reply

    def _not_allowed(
        self, request: DecisionRequest, shown: _Standing, reply: calls.NotAllowed, mode: Mode | None = None
    ) -> Evaluation:
        evaluation = self._service.engine.deny(request, shown.agent, reply.reason, mode)
        if reply.view is not None:
            evaluation.situation = situation_of(reply.view)
        elif shown.grant is not None:
            evaluation.situation = Situation(path=shown.grant.path)
        evaluation.violations = reply.violations
        return _placed(evaluation, shown, reply.view)

    async def _judge(
        self,
        request: DecisionRequest,
        shown: _Standing,
        reply: calls.Taken | calls.Proposed | calls.PlanChecked,
        situation: Situation,
        hold: Callable[[Evaluation], None] | None = None,
    ) -> Evaluation:
        """Judge by the rules, and tell the hub what becomes of the reservation, once the budgets have had their say.

        `hold` has a word before that. A plan takes nothing from budgets; its steps will.
        """
        settle = calls.Settle(run=shown.run, seq=reply.seq, allowed=False)
        try:
            evaluation = _placed(self._service.engine.decide(request, situation), shown, reply.view)
            evaluation.reservation = reply.seq
            if hold is not None:
                hold(evaluation)
            paying = None if isinstance(reply, calls.PlanChecked) else self._service.spending.pay(evaluation)
            if paying is not None:
                await paying
                if hold is not None:
                    hold(evaluation)  # it may have been judged anew
                if not evaluation.allowed:
                    self._service.spending.forgo(evaluation)
            settle = calls.Settle(run=shown.run, seq=reply.seq, allowed=evaluation.allowed)
        finally:
            self._questions.tell(settle)
        return evaluation

    def _release(self, reply: calls.Reply) -> None:
        """Give back what the hub counted for an action that will not go ahead."""
        if isinstance(reply, calls.Taken | calls.Proposed | calls.PlanChecked):
            self._questions.tell(calls.Settle(run=reply.view.run, seq=reply.seq, allowed=False))


def _check_arguments(plan: PlanRequest) -> None:
    """Refuse steps whose arguments have no digest. Raises RequestError."""
    for number, step in enumerate(plan.steps):
        if step.action.arguments is not None:
            try:
                arguments_digest_of(step.action)
            except RequestError as error:
                raise RequestError(f"steps[{number}].{error.field}", error.message) from None


_token: ModuleType | None = None


async def _token_module() -> ModuleType:
    """Give what verifies grants. It brings the cryptography along, which few webhooks ever need."""
    global _token  # noqa: PLW0603 - sys.modules has it too early, while another request still imports it
    if _token is None:
        _token = await asyncio.to_thread(importlib.import_module, "fleetward.delegation.token")
    return _token


def _placed(evaluation: Evaluation, shown: _Standing, view: calls.View | None) -> Evaluation:
    evaluation.grant = _id(shown.grant)
    if view is not None:
        evaluation.cause = view.cause or None
    elif shown.grant is not None:  # its signature was checked
        evaluation.cause = shown.grant.cause
    return evaluation


def _request(asked: PlanRequest | DelegationRequest, action: Action) -> DecisionRequest:
    return DecisionRequest(
        action=action,
        agent=asked.agent,
        run=asked.run,
        grant=asked.grant,
        parent=asked.parent,
        traceparent=asked.traceparent,
    )


def _too_far(violations: Sequence[Violation]) -> str:
    """Say where a plan goes too far."""
    first = violations[0]
    where = f"step {first.step}" if first.step is not None else f"{first.total} in all"
    more = f" (and {len(violations) - 1} more: see violations)" if len(violations) > 1 else ""
    by = f", by {first.by}" if first.by else ""
    return f"the plan goes too far at {where}: found {first.found}; allowed: {first.allowed}{by}{more}"


def _id(grant: Grant | None) -> str | None:
    return None if grant is None else grant.id


def unable(reason: str) -> Problem:
    """Say that the hub cannot be asked."""
    return Problem(Kind.NO_HUB, f"the run cannot be counted: {reason}", retry_after=RETRY_SECONDS)


def refused(reply: calls.Reply) -> Problem:
    """Say that the hub does not go along with what is no decision."""
    if isinstance(reply, calls.NotAllowed):
        return Problem(Kind.RUN_REFUSED, reply.reason)
    return unable(reply.reason if isinstance(reply, Failed) else "the hub answered something else")
