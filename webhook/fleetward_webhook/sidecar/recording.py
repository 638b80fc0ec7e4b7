"""Writing down what was decided, before the answer leaves."""

from collections.abc import Callable
from time import gmtime, strftime, time_ns

from fleetward.audit import record
from fleetward.audit.record import DecisionRecord, OutcomeRecord, RunRecord
from fleetward.audit.spool import Spool, SpoolError
from fleetward.decision.action import Answer, OutcomeRequest, Spend
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.judgement import Judgement
from fleetward_webhook.sidecar.commit import GroupCommit
from fleetward_webhook.sidecar.problem import Kind, Problem

RETRY_SECONDS = 1
"""What Retry-After says where the webhook itself cannot decide: leases and disks come back soon, if at all."""


class Recorder:
    """Writes the records of one sidecar. Lives on one event loop, and is the spool's only writer."""

    def __init__(self, spool: Spool, commit: GroupCommit) -> None:
        self.spool = spool
        self.wake: Callable[[], None] = _nothing
        """Called after each record."""
        self._commit = commit

    async def synced(self, seq: int) -> None:
        """Return once record `seq` is on the disk. Raises Problem."""
        try:
            await self._commit.synced(seq)
        except SpoolError as error:
            raise _unrecorded(error) from None

    def decision(self, evaluation: Evaluation, micros: int) -> tuple[int, Answer]:
        """Record a decision; give the record's number, and the answer. Raises Problem."""
        seq, writer = self.spool.next_seq, self.spool.writer
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
                grant=evaluation.grant,
                path=evaluation.situation.path,
                cause=evaluation.cause,
                parent=request.parent,
                traceparent=request.traceparent,
                violations=evaluation.violations,
                handover=evaluation.handover,
                plan=evaluation.plan,
                spends=evaluation.spends,
                shortfall=evaluation.shortfall,
                registry_version=answer.registry_version,
                duration_micros=micros,
            )
        )
        return seq, answer

    def outcome(
        self,
        opened: OpenDecision,
        outcome: OutcomeRequest,
        judgement: Judgement,
        *,
        result_digest: str | None,
        registry_version: str,
        spends: tuple[Spend, ...] = (),
    ) -> tuple[int, Answer]:
        """Record an outcome; give the record's number, and the answer. Raises Problem."""
        seq, writer = self.spool.next_seq, self.spool.writer
        answer = Answer(
            id=f"{writer}-{seq}",
            decision=judgement.decision,
            reason=judgement.reason,
            rules=judgement.rules,
            obligations=judgement.obligations,
            registry_version=registry_version,
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
                spends=spends,
                registry_version=answer.registry_version,
            )
        )
        return seq, answer

    def run(self, make: Callable[[str, str, int, str], RunRecord]) -> str:
        """Record what `make` gives, told its id, writer, number and time; give the id. Raises Problem."""
        seq, writer = self.spool.next_seq, self.spool.writer
        entry = make(f"{writer}-{seq}", writer, seq, _now())
        self._append(entry)
        return entry.id

    def _append(self, entry: record.Record) -> None:
        try:
            self.spool.append(record.encode(entry))
        except SpoolError as error:
            raise _unrecorded(error) from None
        self._commit.mark()
        self.wake()


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
