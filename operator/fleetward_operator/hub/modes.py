"""Changes of operating mode, written into the audit store as they come into force.

What counts as a change is judged against the mode that was last recorded for a resource: by the store, or by what the
caller says where several hubs, each with a store of its own, take turns. So a change made while no hub ran is recorded
by the next one, and a mere restart records nothing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from fleetward.audit.query import RecordQuery, utc
from fleetward.audit.record import ModeChangeRecord, Record
from fleetward.audit.store import StoredRecord, StoreError
from fleetward.registry.convert import mode_of
from fleetward.registry.registry import Registry
from fleetward.registry.slice import OperatingMode
from fleetward.resources import Agent, AgentFleet
from fleetward_operator.hub.own import OwnRecords

RETRY_SECONDS = 1.0
"""Before a store that failed is tried again."""

MAX_WAITING = 256
"""How many registries wait for a store that fails; beyond that, the oldest changes fall together into one."""

SETTLE_SECONDS = 0.05
"""Before a change is recorded: it reaches the sidecars first, and then has all the time it needs."""

_PAGE = 1000
_EVER = datetime.min.replace(tzinfo=UTC)

_log = logging.getLogger(__name__)


class ModeStore(OwnRecords, Protocol):
    """What is needed of `fleetward.audit.store.Store`."""

    def read(self, query: RecordQuery | None = None, after_position: int = 0) -> list[StoredRecord]:
        """Read records in order. Raises StoreError."""


@dataclass(frozen=True)
class RecordedElsewhere:
    """Which modes were last recorded, where several hubs take turns in recording them."""

    modes: Mapping[str, OperatingMode]
    """By subject (`Agent namespace/name`, `AgentFleet name`); one left out was Running."""
    since: datetime | None = None
    """From when on it is this hub's turn, so that what its own store has since then is newer than `modes`; None where
    the turn only begins."""


class ModeJournal:
    """Compares each published registry with what is recorded. `committed` is called after each record.

    `elsewhere`, where given, says which mode was last recorded for whom; left out, the store alone does. It is called
    on the loop, when recording begins.
    """

    def __init__(
        self,
        store: ModeStore,
        committed: Callable[[], None],
        elsewhere: Callable[[], RecordedElsewhere] | None = None,
    ) -> None:
        self._store = store
        self._committed = committed
        self._elsewhere = elsewhere
        self._recording = True
        self._last: tuple[Registry, datetime] | None = None
        """What was published last, and when."""
        self._waiting: deque[tuple[Registry, datetime]] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleetward-modes")
        self._recorded: dict[str, OperatingMode] | None = None
        """The mode last recorded, by subject; None before it was found out."""
        self.problem = ""
        """Why changes of mode are not recorded, in words; empty while they are."""

    def publish(self, registry: Registry) -> None:
        """Take a registry that comes into force now."""
        self._last = (registry, datetime.now(UTC))
        if self._recording:
            self._put(self._last)

    @property
    def recording(self) -> bool:
        """Whether changes are recorded. While not, nothing is compared; once again, the last registry is."""
        return self._recording

    @recording.setter
    def recording(self, recording: bool) -> None:
        if recording == self._recording:
            return
        self._recording, self._recorded = recording, None
        if not recording:
            self._waiting.clear()
            self.problem = ""
        elif self._last is not None:
            self._put(self._last)

    def recorded(self, subject: str) -> OperatingMode | None:
        """Give the mode last recorded for a subject; None while that is not known, or not recorded here."""
        return None if self._recorded is None else self._recorded.get(subject, "Running")

    def _put(self, entry: tuple[Registry, datetime]) -> None:
        self._waiting.append(entry)
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
                    recorded = await self._find_recorded()
                    if recorded is None:
                        continue
                    written = await loop.run_in_executor(self._thread, self._note, recorded, registry, at)
                except (StoreError, OSError) as error:
                    if self._recording:
                        self._trouble(str(error))
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                self.problem = ""
                if self._waiting and self._waiting[0] is entry:
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

    async def _find_recorded(self) -> dict[str, OperatingMode] | None:
        """Give the modes last recorded; None where recording was ended or begun meanwhile. Raises StoreError."""
        if self._recorded is None:
            entry = self._waiting[0]
            told = self._elsewhere() if self._elsewhere is not None else RecordedElsewhere({}, _EVER)
            found = dict(told.modes)
            if told.since is not None:
                loop = asyncio.get_running_loop()
                found |= await loop.run_in_executor(self._thread, self._last_recorded, told.since)
            if not self._waiting or self._waiting[0] is not entry:
                return None
            self._recorded = found
        return self._recorded

    def _note(self, recorded: dict[str, OperatingMode], registry: Registry, at: datetime) -> int:
        """Record what differs; return how many records that took. Raises StoreError; what was recorded stays so."""
        written = 0
        for subject, resource in _subjects(registry, recorded):
            before, after = recorded.get(subject, "Running"), resource.spec.operating_mode
            if before != after and self._recording:
                self._store.append_own(_builder(subject, resource, before, registry.version, at))
                recorded[subject] = after
                written += 1
        return written

    def _last_recorded(self, since: datetime) -> dict[str, OperatingMode]:
        recorded: dict[str, OperatingMode] = {}
        query, position = RecordQuery(types=("ModeChange",), since=since, limit=_PAGE), 0
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


def _subjects(registry: Registry, recorded: Mapping[str, OperatingMode]) -> Iterator[tuple[str, Agent | AgentFleet]]:
    """Give what may differ from what is recorded: all fleets, and the agents that do not run or did not."""
    for fleet in registry.fleets.values():
        yield f"AgentFleet {fleet.key}", fleet
    stood = (subject.removeprefix("Agent ") for subject in recorded if subject.startswith("Agent "))
    for key in sorted({*registry.not_running, *stood}):
        inside = registry.agents_in.get(key.partition("/")[0])
        if inside is not None and (agent := inside.get(key)) is not None:
            yield f"Agent {key}", agent


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
