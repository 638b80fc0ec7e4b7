"""Deciding: from the bytes of a request to the bytes of its answer, with the record written in between.

Nothing here waits for anything but the disk, and for that only where a rule asks for it.
"""

import re
from collections.abc import Callable
from time import gmtime, perf_counter, strftime, time_ns

import msgspec
from msgspec import UNSET

from fleetward.audit import record
from fleetward.audit.record import DecisionRecord, OutcomeRecord
from fleetward.audit.spool import Spool, SpoolError
from fleetward.decision.action import Answer, OutcomeRequest
from fleetward.decision.canonical import CanonicalError, digest
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.judgement import Judgement
from fleetward.decision.request import RequestError, parse_outcome, parse_request
from fleetward.registry.slice import Slice
from fleetward_webhook.sidecar import memory
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.commit import GroupCommit
from fleetward_webhook.sidecar.metrics import Gauges, Metrics
from fleetward_webhook.sidecar.outcomes import Final, OpenDecisions, Remembered, fingerprint
from fleetward_webhook.sidecar.problem import Kind, Problem

RETRY_SECONDS = 1
"""What Retry-After says where the webhook itself cannot decide: leases and disks come back soon, if at all."""

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
        self.wake: Callable[[], None] = _nothing
        """Called after each record."""
        self._spool = spool
        self._authority = authority
        self._commit = commit
        self._metrics = metrics
        self._open = OpenDecisions() if open_decisions is None else open_decisions
        self._has_snapshot = False
        metrics.watch(self._gauges, lambda: self.engine.slice.version)

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
            problem = None if self._has_snapshot and self._authority.live() else self.not_ready()
            if problem is None:
                evaluation = self.engine.decide(request)
            else:
                agent = self.engine.agent_of(request) if self._has_snapshot else ""
                if agent not in self.engine.slice.items.agents:
                    raise problem
                evaluation = self.engine.deny(request, agent, problem.detail)
        except RequestError as error:
            raise _invalid(error) from None
        seq, answer = self._record_decision(evaluation, round((perf_counter() - parsed) * 1e6))
        if problem is not None:
            raise problem
        decision = evaluation.judgement.decision
        self._open.add(seq, decision, evaluation.open(answer.id) if evaluation.allowed else None)
        if evaluation.judgement.durable:
            await self._synced(seq)
        encoded = _encode(answer)
        self._metrics.decided(decision, request.action.kind, perf_counter() - started)
        return encoded

    async def review(self, decision_id: str, body: bytes) -> bytes:
        """Answer `POST /v1/decisions/{id}/outcome`. Raises Problem."""
        try:
            outcome = parse_outcome(body)
            result_digest = None if outcome.result is UNSET else digest(outcome.result, "result", big_integers=True)
        except RequestError as error:
            raise _invalid(error) from None
        except CanonicalError as error:
            raise Problem(Kind.INVALID_REQUEST, str(error), field=error.path) from None
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
        seq, answer = self._record_outcome(opened, outcome, judgement, result_digest)
        encoded = _encode(answer)
        if _is_final(outcome, judgement):
            self._open.finish(number, Final(fingerprint(outcome), encoded, seq, judgement.durable))
        elif judgement.decision == "Constrain":
            self._open.owes(number, opened)
        self._metrics.judged(judgement.decision, outcome.status)
        if judgement.durable:
            await self._synced(seq)
        return encoded

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
            await self._synced(final.seq)
        return final.answer

    async def _synced(self, seq: int) -> None:
        try:
            await self._commit.synced(seq)
        except SpoolError as error:
            raise _unrecorded(error) from None

    def _record_decision(self, evaluation: Evaluation, micros: int) -> tuple[int, Answer]:
        spool = self._spool
        seq, writer = spool.next_seq, spool.writer
        request = evaluation.request
        answer = evaluation.answer(f"{writer}-{seq}")
        self._append(
            DecisionRecord(
                id=answer.id,
                writer=writer,
                seq=seq,
                time=_now(),
                agent=evaluation.agent,
                action=evaluation.recorded_action(),
                decision=answer.decision,
                reason=answer.reason,
                rules=answer.rules,
                obligations=answer.obligations,
                retry_after_seconds=answer.retry_after_seconds,
                mode=answer.mode,
                advice=answer.advice,
                run=request.run,
                parent=request.parent,
                traceparent=request.traceparent,
                registry_version=answer.registry_version,
                duration_micros=micros,
            )
        )
        return seq, answer

    def _record_outcome(
        self,
        opened: OpenDecision,
        outcome: OutcomeRequest,
        judgement: Judgement,
        result_digest: str | None,
    ) -> tuple[int, Answer]:
        spool = self._spool
        seq, writer = spool.next_seq, spool.writer
        answer = Answer(
            id=f"{writer}-{seq}",
            decision=judgement.decision,
            reason=judgement.reason,
            rules=judgement.rules,
            obligations=judgement.obligations,
            registry_version=self.engine.slice.version,
            retry_after_seconds=judgement.retry_after_seconds,
            advice=judgement.advice,
        )
        self._append(
            OutcomeRecord(
                id=answer.id,
                writer=writer,
                seq=seq,
                time=_now(),
                agent=opened.agent,
                decision_id=opened.id,
                status=outcome.status,
                decision=answer.decision,
                reason=answer.reason,
                rules=answer.rules,
                obligations=answer.obligations,
                actual=outcome.actual,
                arguments_digest=outcome.arguments_digest,
                result_digest=result_digest,
                error=outcome.error,
                run=opened.run,
                registry_version=answer.registry_version,
            )
        )
        return seq, answer

    def _append(self, entry: DecisionRecord | OutcomeRecord) -> None:
        try:
            self._spool.append(record.encode(entry))
        except SpoolError as error:
            raise _unrecorded(error) from None
        self._commit.mark()
        self.wake()

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
        }


def _is_final(outcome: OutcomeRequest, judgement: Judgement) -> bool:
    """Say whether nothing can follow: after progress an end can, and after obligations the report that they are met."""
    if outcome.status == "Succeeded":
        return judgement.decision != "Constrain"
    return outcome.status == "Failed"


def _invalid(error: RequestError) -> Problem:
    return Problem(Kind.INVALID_REQUEST, str(error), field=error.field)


def _unrecorded(error: SpoolError) -> Problem:
    return Problem(Kind.SPOOL_UNAVAILABLE, f"the decision cannot be recorded: {error}", retry_after=RETRY_SECONDS)


_second = 0
_known_second = ""


def _now() -> str:
    """Give the time in UTC (RFC 3339, microseconds); all but the last digits are made once a second."""
    global _second, _known_second  # noqa: PLW0603 - a cache of one
    second, nanoseconds = divmod(time_ns(), 1_000_000_000)
    if second != _second:
        _known_second = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        _second = second
    return f"{_known_second}.{nanoseconds // 1000:06d}Z"


def _nothing() -> None:
    pass
