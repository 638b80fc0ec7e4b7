"""Recording what the hub itself does and sees."""

from collections.abc import Callable
from typing import Protocol

from fleetward.audit.record import Record


class OwnRecords(Protocol):
    """What is needed of `fleetward.audit.store.Store`."""

    def append_own(self, build: Callable[[str, str, int], Record]) -> Record:
        """Commit a record of the hub's own. Raises StoreError."""
