"""The limits of a run: edited in the folder, and in force at each hub a little later."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.processes import Hub
from chaos.world import LIMITS, Limit, write

from fleetward_operator.local.source import FolderSource

GRACE_SECONDS = 6.0
"""A hub may be in the middle of a transaction that goes by what was in force before; it may be frozen in it."""


@dataclass
class _Doubt:
    """A limit that may still be in force somewhere."""

    limit: Limit
    value: int
    version: int
    """The edit that made it another."""
    over_at: float | None = None


class Limits:
    """Edits the folder, and knows the highest that each limit may be anywhere right now."""

    def __init__(self, folder: Path, hubs: Sequence[Hub]) -> None:
        self._folder = folder
        self._hubs = hubs
        self._versions: dict[str, int] = {}
        self._edits = 0
        self._doubts: list[_Doubt] = []
        self.now: dict[Limit, int] = dict(LIMITS)
        self.highest: dict[Limit, int] = dict(LIMITS)
        self._write()

    def change(self, limit: Limit, value: int) -> None:
        """Edit one limit."""
        before, self.now[limit] = self.now[limit], value
        self.highest[limit] = max(value, self.highest[limit])
        self._edits += 1
        self._doubts.append(_Doubt(limit, before, self._edits))
        self._write()

    def most(self, limit: Limit) -> int:
        """Give the highest that the limit may be anywhere now."""
        return max([self.now[limit], *(doubt.value for doubt in self._doubts if doubt.limit == limit)])

    def ever(self, limit: Limit) -> int:
        """Give the highest that the limit has ever been."""
        return self.highest[limit]

    def tend(self) -> None:
        """Note what is in force by now."""
        least = min((self._in_force(hub) for hub in self._hubs), default=0)
        now = time.monotonic()
        for doubt in self._doubts:
            if doubt.over_at is None and least >= doubt.version:
                doubt.over_at = now + GRACE_SECONDS
        self._doubts = [doubt for doubt in self._doubts if doubt.over_at is None or doubt.over_at > now]

    def _in_force(self, hub: Hub) -> int:
        """Give the last edit that a hub has surely read. One that does not run grants nothing."""
        return self._versions.get(hub.version, -1) if hub.runs else self._edits

    def _write(self) -> None:
        write(self._folder, self.now)
        reading = FolderSource(self._folder).read()
        assert not reading.findings, reading.findings
        self._versions[reading.registry.version] = self._edits
