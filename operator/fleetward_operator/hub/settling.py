"""What a record settles in budgets."""

from datetime import datetime

from fleetward.audit.record import DecisionRecord, OutcomeRecord, RunRecord
from fleetward.budget.ledger import Entry


def entry_of(record: DecisionRecord | OutcomeRecord | RunRecord) -> Entry | None:
    """Give what the record of a webhook reserves or settles; None where it says nothing of budgets."""
    if isinstance(record, RunRecord) or not record.spends:
        return None
    ends = isinstance(record, OutcomeRecord)
    return Entry(
        writer=record.writer,
        seq=record.seq,
        agent=record.agent,
        decision_id=record.decision_id if isinstance(record, OutcomeRecord) else record.id,
        spends=record.spends,
        at=datetime.fromisoformat(record.time).timestamp(),
        ends=ends,
    )
