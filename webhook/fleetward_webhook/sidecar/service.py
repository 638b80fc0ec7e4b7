"""Deciding: from the bytes of a request to the bytes of its answer, with the record written in between.

Nothing here waits for anything but the disk, and for that only where a rule asks for it.
"""

import re
from collections.abc import Callable
from time import perf_counter

import msgspec
from msgspec import UNSET

from fleetward.audit.spool import Spool
from fleetward.decision.action import Answer, DecisionRequest, OutcomeRequest, Spend
from fleetward.decision.canonical import CanonicalError, digest
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.judgement import Judgement
from fleetward.decision.request import RequestError, parse, parse_outcome, parse_request
from fleetward.registry.slice import Slice
from fleetward.run.api import CloseRequest, DelegationRequest, PlanRequest, RunRequest
from fleetward_webhook.sidecar import memory
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.commit import GroupCommit
from fleetward_webhook.sidecar.leasing import Leases
from fleetward_webhook.sidecar.metrics import Gauges, Metrics
from fleetward_webhook.sidecar.outcomes import Final, OpenDecisions, Remembered, fingerprint
from fleetward_webhook.sidecar.problem import Kind, Problem
from fleetward_webhook.sidecar.questions import Questions
from fleetward_webhook.sidecar.recording import RETRY_SECONDS, Recorder
from fleetward_webhook.sidecar.rundesk import RunDesk
from fleetward_webhook.sidecar.runs import Runs
from fleetward_webhook.sidecar.spending import Spending

_NUMBER = re.compile(r"[1-9][0-9]{0,15}")
_encode = msgspec.json.Encoder().encode


class Service:
    """Decides and records for the agents of one sidecar. Lives on one event loop, and is the spool's only writer."""

    def __init__(
        self,
        *,
        spool: Spool,
        authority: Authority,
        commit: GroupCommit,
        metrics: Metrics,
        open_decisions: OpenDecisions | None = None,
    ) -> None:
        self.engine = Engine(Slice(version=""))
        self._recorder = Recorder(spool, commit)
        self._spool = spool
        self._authority = authority
        self._metrics = metrics
        self.connect(self._recorder.wake, Questions())
        self._open = OpenDecisions() if open_decisions is None else open_decisions
        self._has_snapshot = False
        metrics.watch(self._gauges, lambda: self.engine.slice.version, lambda: self.leases.asked)

    def connect(self, wake: Callable[[], None], questions: Questions) -> None:
        """Say whom to tell of each record, and who asks the hub about runs and budgets."""
        self._recorder.wake = wake
        self.leases = Leases(questions, self._spool)
        self.spending = Spending(self, self._recorder, self.leases, self._metrics)
        self.desk = RunDesk(self, self._recorder, questions)
        self.runs = Runs(self, self._recorder, questions)

    def apply(self, slice_: Slice) -> None:
        """Decide by `slice_` from now on."""
        self.engine.apply(slice_)
        if not self._has_snapshot:
            memory.settle()
        self._has_snapshot = True

    def not_ready(self) -> Problem | None:
        """Say why nothing can be decided now, if so."""
        if not self._has_snapshot:
            why = self._authority.lost_reason() or "the hub has not sent the policies yet"
            return Problem(Kind.NO_SNAPSHOT, f"no policies yet: {why}", retry_after=RETRY_SECONDS)
        if not self._authority.live():
            why = self._authority.lost_reason()
            return Problem(Kind.NO_AUTHORITY, f"no authority: {why}", retry_after=RETRY_SECONDS)
        return None

    async def decide(self, body: bytes) -> bytes:
        """Answer `POST /v1/decisions`. Raises Problem."""
        started = perf_counter()
        try:
            request = parse_request(body)
            parsed = perf_counter()
            if not (self._has_snapshot and self._authority.live()):
                self.deny_unready(request)
            if request.run is None and request.grant is None:
                evaluation = self.engine.decide(request)
                if (asking := self.spending.pay(evaluation)) is not None:
                    await asking
            else:
                evaluation = await self.desk.decide(request)
        except RequestError as error:
            raise invalid(error) from None
        answer = await self._record(evaluation, parsed)
        encoded = _encode(answer)
        self._metrics.decided(answer.decision, request.action.kind, perf_counter() - started)
        return encoded

    async def plan(self, body: bytes) -> bytes:
        """Answer `POST /v1/plans`. Raises Problem."""
        started = perf_counter()
        try:
            evaluation = await self.desk.plan(parse(body, PlanRequest))
        except RequestError as error:
            raise invalid(error) from None
        answer = await self._record(evaluation, started)
        self._metrics.decided(answer.decision, "Plan", perf_counter() - started)
        return _encode(answer)

    async def delegate(self, body: bytes) -> bytes:
        """Answer `POST /v1/delegations`. Raises Problem."""
        started = perf_counter()
        try:
            evaluation, proposed = await self.desk.delegate(parse(body, DelegationRequest))
        except RequestError as error:
            raise invalid(error) from None
        answer = await self._record(evaluation, started)
        if proposed is not None:
            answer = msgspec.structs.replace(answer, grant=await self.desk.issue(proposed, answer.id))
        self._metrics.decided(answer.decision, "Delegation", perf_counter() - started)
        return _encode(answer)

    async def open_run(self, body: bytes) -> bytes:
        """Answer `POST /v1/runs`. Raises Problem."""
        try:
            return _encode(await self.runs.open(parse(body, RunRequest)))
        except RequestError as error:
            raise invalid(error) from None

    async def close_run(self, run: str, body: bytes) -> bytes:
        """Answer `POST /v1/runs/{run}/close`. Raises Problem."""
        try:
            return _encode(await self.runs.close(run, parse(body, CloseRequest)))
        except RequestError as error:
            raise invalid(error) from None

    async def _record(self, evaluation: Evaluation, started: float) -> Answer:
        """Write a decision down, and remember it until its outcome comes. Raises Problem."""
        try:
            seq, answer = self._recorder.decision(evaluation, round((perf_counter() - started) * 1e6))
        except Problem:
            self.spending.forgo(evaluation)
            raise
        self._open.add(seq, answer.decision, evaluation.open(answer.id) if evaluation.allowed else None)
        if evaluation.judgement.durable:
            await self._recorder.synced(seq)
        return answer

    def deny_unready(self, request: DecisionRequest) -> None:
        """Record that nothing can be decided now, where that is so. Raises the Problem then; and RequestError."""
        problem = self.not_ready()
        if problem is None:
            return
        agent = self.engine.agent_of(request) if self._has_snapshot else ""
        if agent in self.engine.slice.items.agents:
            self._recorder.decision(self.engine.deny(request, agent, problem.detail), 0)
        raise problem

    async def review(self, decision_id: str, body: bytes) -> bytes:
        """Answer `POST /v1/decisions/{id}/outcome`. Raises Problem."""
        outcome, result_digest = _read_outcome(body)
        number, (decision, opened, final) = self._find(decision_id)
        if final is not None:
            return await self._repeat(final, outcome)
        if opened is None:
            raise Problem(
                Kind.ACTION_NOT_ALLOWED,
                f"decision {decision_id} was {decision}: the action may not be run, so it has no outcome",
            )
        if (problem := self.not_ready()) is not None:
            self._record_outcome(opened, outcome, Judgement("Deny", problem.detail), result_digest)
            raise problem
        judgement = self.engine.review(opened, outcome)
        if opened.reservation is not None and (unknown := await self.desk.learn(opened, outcome, judgement)):
            self._record_outcome(opened, outcome, judgement.refused(unknown.detail), result_digest)
            raise unknown
        if (final := self._find(decision_id)[1].final) is not None:  # another one came while the hub was asked
            return await self._repeat(final, outcome)
        ends = _is_final(outcome, judgement)
        spends = self.spending.settled(opened, outcome, self._open.elapsed_ms(opened)) if ends else ()
        seq, answer = self._record_outcome(opened, outcome, judgement, result_digest, spends)
        encoded = _encode(answer)
        if ends:
            self._open.finish(number, Final(fingerprint(outcome), encoded, seq, judgement.durable))
        elif judgement.decision == "Constrain":
            self._open.owes(number, opened)
        self._metrics.judged(judgement.decision, outcome.status)
        if judgement.durable:
            await self._recorder.synced(seq)
        return encoded

    def _record_outcome(
        self,
        opened: OpenDecision,
        outcome: OutcomeRequest,
        judgement: Judgement,
        result_digest: str | None,
        spends: tuple[Spend, ...] = (),
    ) -> tuple[int, Answer]:
        return self._recorder.outcome(
            opened,
            outcome,
            judgement,
            result_digest=result_digest,
            registry_version=self.engine.slice.version,
            spends=spends,
        )

    def _find(self, decision_id: str) -> tuple[int, Remembered]:
        writer, _, digits = decision_id.rpartition("-")
        number = int(digits) if writer == self._spool.writer and _NUMBER.fullmatch(digits) else -1
        remembered = self._open.find(number, decision_id)
        if remembered is None:
            raise Problem(
                Kind.UNKNOWN_DECISION,
                f"decision {decision_id[:100]!r} is not open here: it never was, was forgotten after an hour, or this "
                "webhook was restarted; do not use the result",
            )
        return number, remembered

    async def _repeat(self, final: Final, outcome: OutcomeRequest) -> bytes:
        if fingerprint(outcome) != final.fingerprint:
            raise Problem(Kind.OUTCOME_CONFLICT, "the first final outcome stands; this one differs from it")
        if final.durable:
            await self._recorder.synced(final.seq)
        return final.answer

    def _gauges(self) -> Gauges:
        pending = self._spool.pending
        return {
            "fleetward_spool_pending_records": ("Records the hub has not acknowledged.", pending.records),
            "fleetward_spool_pending_bytes": ("Their size.", pending.bytes),
            "fleetward_authority": ("Whether the webhook may decide now.", float(self._authority.live())),
            "fleetward_authority_remaining_seconds": (
                "For how long the authority lease still holds.",
                self._authority.remaining,
            ),
            "fleetward_open_decisions": ("Decisions whose outcome is remembered.", len(self._open)),
            "fleetward_agents": ("Agents decided for.", len(self.engine.agents)),
            "fleetward_budget_leases": ("Pots of budgets of which something is held on lease.", len(self.leases)),
        }


def _read_outcome(body: bytes) -> tuple[OutcomeRequest, str | None]:
    """Read an outcome, and give its result's digest. Raises Problem."""
    try:
        outcome = parse_outcome(body)
        return outcome, None if outcome.result is UNSET else digest(outcome.result, "result", big_integers=True)
    except RequestError as error:
        raise invalid(error) from None
    except CanonicalError as error:
        raise Problem(Kind.INVALID_REQUEST, str(error), field=error.path) from None


def _is_final(outcome: OutcomeRequest, judgement: Judgement) -> bool:
    """Say whether nothing can follow: after progress an end can, and after obligations the report that they are met."""
    if outcome.status == "Succeeded":
        return judgement.decision != "Constrain"
    return outcome.status == "Failed"


def invalid(error: RequestError) -> Problem:
    """Give the problem that a request which cannot be read is answered with."""
    return Problem(Kind.INVALID_REQUEST, str(error), field=error.field)
