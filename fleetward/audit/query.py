"""Which records are asked for."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from fleetward.registry.slice import Decision

RecordType = Literal["Decision", "Outcome", "Run", "ModeChange", "Budget", "AccessRefused"]


class RecordQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A selection of records; all that is given must hold, and what is left out selects everything."""

    agent: str | None = None
    """`namespace/name`, or a bare name in whichever namespace."""
    namespace: str | None = None
    """The namespace of the agent; what is about no agent, such as a fleet's change of mode, is in none."""
    run: str | None = None
    decision: Decision | None = None
    """The verdict of a decision or an outcome."""
    decision_id: str | None = None
    """A decision's id: selects the decision, its outcomes, and what a budget recorded of it."""
    types: tuple[RecordType, ...] = ()
    since: datetime | None = None
    """From this time on, inclusive. Times know their zone."""
    until: datetime | None = None
    """Up to this time, exclusive."""
    id: str | None = None
    limit: int = 1000
    """At most this many records."""
    order: Literal["OldestFirst", "NewestFirst"] = "OldestFirst"
    """By the order in which the store took them in."""

    def sql(self, after_position: int) -> tuple[str, tuple[object, ...]]:
        """Give the part of the statement that follows FROM, and its parameters."""
        clauses: list[tuple[str, object]] = [("position > ?", after_position)]
        if self.agent is not None:
            whole = "/" in self.agent
            clauses.append(("agent = ?" if whole else "substr(agent, instr(agent, '/') + 1) = ?", self.agent))
        if self.namespace is not None:
            clauses.append(("substr(agent, 1, instr(agent, '/') - 1) = ?", self.namespace))
        for column in ("run", "decision", "decision_id", "id"):
            value = getattr(self, column)
            if value is not None:
                clauses.append((f"{column} = ?", value))
        if self.since is not None:
            clauses.append(("time >= ?", utc(self.since)))
        if self.until is not None:
            clauses.append(("time < ?", utc(self.until)))
        where = " AND ".join(clause for clause, _ in clauses)
        parameters = [value for _, value in clauses]
        if self.types:
            where += f" AND type IN ({', '.join('?' * len(self.types))})"
            parameters += self.types
        direction = "DESC" if self.order == "NewestFirst" else "ASC"
        return f"records WHERE {where} ORDER BY position {direction} LIMIT ?", (*parameters, self.limit)


def utc(time: datetime) -> str:
    """Write a time as the store keeps it: RFC 3339 in UTC with microseconds, so that text order is time order."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
