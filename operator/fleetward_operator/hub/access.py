"""Refused access, written into the audit store, at a rate that no stranger can drive up."""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple

from fleetward.audit.query import utc
from fleetward.audit.record import AccessRefusedRecord, Record
from fleetward.audit.store import StoreError
from fleetward_operator.hub.own import OwnRecords

SAME_SECONDS = 60.0
"""The same refusal of the same workload is recorded at most once in this time."""

BURST = 60
RECORDS_A_MINUTE = 10
"""Refusals of all kinds are recorded at most this often in the long run, and BURST at once."""

MAX_KNOWN = 1000
"""How many different refusals are told apart; of more, the oldest is forgotten."""

MAX_WAITING = 100
"""How many records wait for a store that fails."""

MAX_REASON = 500
"""Characters kept of a reason."""

RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """Who was not let in, and why; see AccessRefusedRecord."""

    workload: str
    reason: str
    peer: str
    registry_version: str


class _Known:
    __slots__ = ("recorded_at", "repeated")

    def __init__(self, recorded_at: float) -> None:
        self.recorded_at = recorded_at
        self.repeated = 0


class AccessJournal:
    """Records refusals. Lives on the hub's loop; `committed` is called after each record.

    What is counted and not yet recorded when the hub stops is lost; `clock` gives seconds and never goes back.
    """

    def __init__(
        self, store: OwnRecords, committed: Callable[[], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._committed = committed
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        """By workload and reason, the one refused longest ago first."""
        self._unrecorded = 0
        self._allowance, self._allowance_at = float(BURST), clock()
        self._waiting: deque[Callable[[str, str, int], Record]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleetward-access")
        self.problem = ""
        """Why refusals are not recorded, in words; empty while they are."""

    def note(self, refusal: Refusal) -> bool:
        """Take a refusal; return whether it is recorded by itself, rather than counted."""
        refusal = refusal._replace(reason=refusal.reason[:MAX_REASON])
        key, now = (refusal.workload, refusal.reason), self._clock()
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            if now - known.recorded_at < SAME_SECONDS:
                known.repeated += 1
                return False
        if len(self._waiting) >= MAX_WAITING or not self._allowed(now):
            self._unrecorded += 1
            return False
        self._waiting.append(_builder(refusal, datetime.now(UTC), known.repeated if known else 0, self._unrecorded))
        self._unrecorded = 0
        self._known[key] = _Known(now)
        if len(self._known) > MAX_KNOWN:
            self._unrecorded += self._known.popitem(last=False)[1].repeated
        self._idle.clear()
        self._wake.set()
        return True

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                try:
                    await loop.run_in_executor(self._thread, self._store.append_own, self._waiting[0])
                except (StoreError, OSError) as error:
                    if str(error) != self.problem:
                        _log.error("A refused access cannot be recorded: %s", error)
                    self.problem = str(error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                self.problem = ""
                self._waiting.popleft()
                self._committed()
            self._idle.set()

    async def drained(self) -> None:
        """Wait until every refusal that is recorded by itself is in the store."""
        await self._idle.wait()

    def shut_down(self) -> None:
        """Give the thread back; what it is recording is still recorded."""
        self._thread.shutdown(wait=True)

    def _allowed(self, now: float) -> bool:
        grown = (now - self._allowance_at) * RECORDS_A_MINUTE / 60
        self._allowance, self._allowance_at = min(float(BURST), self._allowance + grown), now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


def _builder(
    refusal: Refusal, at: datetime, repeated: int, unrecorded: int
) -> Callable[[str, str, int], AccessRefusedRecord]:
    def build(id_: str, writer: str, seq: int) -> AccessRefusedRecord:
        return AccessRefusedRecord(
            id=id_,
            writer=writer,
            seq=seq,
            time=utc(at),
            workload=refusal.workload,
            reason=refusal.reason,
            peer=refusal.peer,
            repeated=repeated,
            unrecorded=unrecorded,
            registry_version=refusal.registry_version,
        )

    return build
