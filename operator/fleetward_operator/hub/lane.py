"""One link's records between the stream and the store, checked as they come in."""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from fleetward.audit.query import utc
from fleetward.audit.record import DecisionRecord, OutcomeRecord, RunRecord
from fleetward.budget.ledger import Entry
from fleetward.stream import messages
from fleetward_operator.hub.settling import entry_of

MAX_SEQ = 2**53 - 1

_decode = msgspec.json.Decoder(DecisionRecord | OutcomeRecord | RunRecord).decode


class Waiting(NamedTuple):
    """A record on its way into the store."""

    seq: int
    line: bytes
    entry: Entry | None
    """What it settles in budgets, if anything."""


class BadRecordsError(Exception):
    """A sidecar sent what it may not send. The message says what, and what is allowed."""


class ForeignAgentError(BadRecordsError):
    """A record says that something was allowed to an agent that the sidecar does not serve."""

    def __init__(self, agent: str, message: str) -> None:
        super().__init__(message)
        self.agent = agent


class Lane:
    """What one link delivers. Lives on the hub's loop.

    `acknowledge` is called with the number up to which all is committed; `refuse` with a reason, when the store will
    never take a record of this lane.
    """

    def __init__(
        self, writer: str, workload: str, *, acknowledge: Callable[[int], None], refuse: Callable[[str], None]
    ) -> None:
        self.writer = writer
        self.workload = workload
        self.acknowledge = acknowledge
        self.refuse = refuse
        self.waiting: deque[Waiting] = deque()
        """Records that are not committed yet."""
        self.received = 0
        """The last number received."""
        self.stored = 0
        """The last number in the store; 0 for none."""
        self.spooled = 0
        """The last number the sidecar says it has written."""
        self.agents: set[str] | None = None
        """The agents that records may be about; None where any will do. Denials may name others: that agents unknown
        here are denied is recorded under the name they gave."""
        self.closed = False

    def take(self, lines: Sequence[bytes]) -> None:
        """Put a batch in line. Raises BadRecordsError, and then takes none of it."""
        if len(self.waiting) + len(lines) > messages.MAX_IN_FLIGHT_RECORDS:
            raise BadRecordsError(
                f"more than {messages.MAX_IN_FLIGHT_RECORDS} records were sent before they were acknowledged"
            )
        batch: list[Waiting] = []
        last = self.received
        for line in lines:
            record = self._check(line, last)
            last = record.seq
            batch.append(Waiting(last, line, entry_of(record)))
        self.received = last
        self.waiting.extend(batch)

    def committed(self, count: int) -> None:
        """Acknowledge the first `count` records in line."""
        for _ in range(count):
            self.stored = self.waiting.popleft().seq
        self.acknowledge(self.stored)

    def _check(self, line: bytes, last: int) -> DecisionRecord | OutcomeRecord | RunRecord:
        try:
            record: DecisionRecord | OutcomeRecord | RunRecord = _decode(line)
            utc(datetime.fromisoformat(record.time))
        except (msgspec.MsgspecError, ValueError, OverflowError) as error:
            raise BadRecordsError(
                f"after record {last} came what is not a record of a decision, an outcome or a run: {error}"
            ) from None
        if b"\n" in line or b"\r" in line:
            raise BadRecordsError(f"record {record.id} is not one line")
        if record.writer != self.writer or record.id != f"{self.writer}-{record.seq}":
            raise BadRecordsError(f"record {record.id} is not of the writer {self.writer} that opened the stream")
        if not last < record.seq <= MAX_SEQ:
            raise BadRecordsError(f"record {record.seq} came after record {last}; numbers go up, to at most {MAX_SEQ}")
        if self.agents is not None and record.agent not in self.agents and not _denies(record):
            raise ForeignAgentError(
                record.agent,
                f"record {record.id} allows something to agent {record.agent}, which workload {self.workload} does not"
                " serve",
            )
        return record


def _denies(record: DecisionRecord | OutcomeRecord | RunRecord) -> bool:
    return not isinstance(record, RunRecord) and record.decision == "Deny"
