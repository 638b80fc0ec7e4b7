"""What a sink is: a target that takes records in order, each at least once."""

from collections.abc import Sequence
from typing import Protocol

from fleetward.audit.store import StoredRecord


class SinkError(Exception):
    """A delivery failed and is to be tried again.

    `delivered` of its records, counted from the first, were taken before it failed. `rejected` says that the target is
    there and refuses this very record, so that trying again will hardly help before somebody looks at it.
    """

    def __init__(self, message: str, *, delivered: int = 0, rejected: bool = False) -> None:
        super().__init__(message)
        self.delivered = delivered
        self.rejected = rejected


class Sink(Protocol):
    """A target for records. Calls never overlap, save that `close` may come while a delivery is being cancelled."""

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """Hand over the records in order; return once the target has taken all of them for good. Raises SinkError."""

    async def close(self) -> None:
        """Let go of the target."""
