"""Changes of operating mode, written into the audit store as they come into force.

What counts as a change is judged against the store: the mode that was last recorded for a resource. So a change made
while no hub ran is recorded by the next one, and a mere restart records nothing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Protocol

from fleetward.audit.query import RecordQuery, utc
from fleetward.audit.record import ModeChangeRecord, Record
from fleetward.audit.store import StoredRecord, StoreError
from fleetward.registry.convert import mode_of
from fleetward.registry.registry import Registry
from fleetward.registry.slice import OperatingMode
from fleetward.resources import Agent, AgentFleet

RETRY_SECONDS = 1.0
"""Before a store that failed is tried again."""

MAX_WAITING = 256
"""How many registries wait for a store that fails; beyond that, the oldest changes fall together into one."""

SETTLE_SECONDS = 0.05
"""Before a change is recorded: it reaches the sidecars first, and then has all the time it needs."""

_PAGE = 1000

_log = logging.getLogger(__name__)


class ModeStore(Protocol):
    """What is needed of `fleetward.audit.store.Store`. Both raise StoreError."""

    def read(self, query: RecordQuery | None = None, after_position: int = 0) -> list[StoredRecord]:
        """Read records in order."""

    def append_own(self, build: Callable[[str, str, int], Record]) -> Record:
        """Commit a record of the hub's own."""


class ModeJournal:
    """Compares each published registry with what is recorded. `committed` is called after each record."""

    def __init__(self, store: ModeStore, committed: Callable[[], None]) -> None:
        self._store = store
        self._committed = committed
        self._waiting: deque[tuple[Registry, datetime]] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleetward-modes")
        self._recorded: dict[str, OperatingMode] | None = None
        """The mode last recorded, by subject; None before the store was read."""
        self.problem = ""
        """Why changes of mode are not recorded, in words; empty while they are."""

    def publish(self, registry: Registry) -> None:
        """Take a registry that comes into force now."""
        self._waiting.append((registry, datetime.now(UTC)))
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._wake.clear()
            while self._waiting:
                registry, at = entry = self._waiting[0]
                try:
                    written = await loop.run_in_executor(self._thread, self._note, registry, at)
                except (StoreError, OSError) as error:
                    self._trouble(str(error))
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                self.problem = ""
                if self._waiting[0] is entry:
                    self._waiting.popleft()
                if written:
                    self._committed()
            self._idle.set()

    async def drained(self) -> None:
        """Wait until every change is recorded."""
        await self._idle.wait()

    def shut_down(self) -> None:
        """Give the thread back; what it is recording is still recorded."""
        self._thread.shutdown(wait=True)

    def _note(self, registry: Registry, at: datetime) -> int:
        """Record what differs; return how many records that took. Raises StoreError; what was recorded stays so."""
        if self._recorded is None:
            self._recorded = self._last_recorded()
        written = 0
        for subject, resource in _subjects(registry):
            before, after = self._recorded.get(subject, "Running"), resource.spec.operating_mode
            if before != after:
                self._store.append_own(_builder(subject, resource, before, registry.version, at))
                self._recorded[subject] = after
                written += 1
        return written

    def _last_recorded(self) -> dict[str, OperatingMode]:
        recorded: dict[str, OperatingMode] = {}
        query, position = RecordQuery(types=("ModeChange",), limit=_PAGE), 0
        while page := self._store.read(query, position):
            for stored in page:
                if isinstance(record := stored.record, ModeChangeRecord):
                    recorded[record.subject] = record.after
            position = page[-1].position
        return recorded

    def _trouble(self, problem: str) -> None:
        if problem != self.problem:
            _log.error("A change of operating mode is in force but cannot be recorded: %s", problem)
        self.problem = problem


def _subjects(registry: Registry) -> Iterator[tuple[str, Agent | AgentFleet]]:
    for fleet in registry.fleets.values():
        yield f"AgentFleet {fleet.key}", fleet
    for agents in registry.agents_in.values():
        for agent in agents.values():
            yield f"Agent {agent.key}", agent


def _builder(
    subject: str, resource: Agent | AgentFleet, before: OperatingMode, version: str, at: datetime
) -> Callable[[str, str, int], Record]:
    after, who = resource.spec.operating_mode, mode_of(resource).set_by

    def build(id_: str, writer: str, seq: int) -> ModeChangeRecord:
        return ModeChangeRecord(
            id=id_,
            writer=writer,
            seq=seq,
            time=utc(at),
            subject=subject,
            agent=resource.key if isinstance(resource, Agent) else None,
            before=before,
            after=after,
            reason=resource.spec.operating_reason,
            set_by=who,
            registry_version=version,
        )

    return build
