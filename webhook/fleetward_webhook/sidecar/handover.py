"""Records on their way from the spool to the hub: in order, in batches, a bounded number at a time."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

import msgspec

from fleetward.audit.spool import SpoolError
from fleetward.stream import messages

LINGER = 0.05
"""Seconds that records are gathered for before they are sent, so that decisions share the cost of a frame."""

RETRY = 1.0
"""Seconds before a spool that could not be read is read again."""

_log = logging.getLogger(__name__)


class RecordSpool(Protocol):
    """What is needed of `fleetward.audit.spool.Spool`."""

    @property
    def writer(self) -> str:
        """The id under which its records are numbered."""

    @property
    def next_seq(self) -> int:
        """The number that the next record gets."""

    @property
    def acknowledged_seq(self) -> int:
        """Every record up to this number is in the hub's store."""

    def unacknowledged(self, limit_records: int = ..., limit_bytes: int = ...) -> list[bytes]:
        """Read on from the last call."""

    def rewind(self) -> None:
        """Start again at the first unacknowledged record."""

    def acknowledge(self, seq: int) -> None:
        """Take note that the hub has all up to `seq`."""


class _Numbered(msgspec.Struct):
    """What is read of a record here."""

    seq: int


class _Batch(NamedTuple):
    last: int
    records: int


_read_seq = msgspec.json.Decoder(_Numbered).decode


class Handover:
    """What of one spool is on its way. Belongs to the loop that sends it."""

    def __init__(self, spool: RecordSpool) -> None:
        self._spool = spool
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._in_flight: deque[_Batch] = deque()
        self.problem = ""
        """What is wrong with the spool, in words; empty while all is well."""

    def wake(self) -> None:
        """Say that a record was spooled. Costs next to nothing."""
        self._wake.set()

    async def batches(self) -> AsyncGenerator[messages.Records, None]:
        """Give, over a new connection, all that is not acknowledged and then what is spooled, for ever."""
        self._spool.rewind()
        self._in_flight.clear()
        while True:
            self._wake.clear()
            while lines := self._next():
                self._in_flight.append(_Batch(_read_seq(lines[-1]).seq, len(lines)))
                yield messages.Records(records=tuple(map(msgspec.Raw, lines)))
            if self.problem:
                await asyncio.sleep(RETRY)
                continue
            await self._wake.wait()
            await asyncio.sleep(LINGER)

    def acknowledged(self, seq: int) -> None:
        """Take the hub's word that its store has every record up to `seq`."""
        while self._in_flight and self._in_flight[0].last <= seq:
            self._in_flight.popleft()
        try:
            self._spool.acknowledge(seq)
        except SpoolError as error:
            self._trouble(error)
        self._wake.set()
        self._progress.set()

    async def delivered(self) -> None:
        """Wait until the hub's store has everything that was spooled."""
        while self._spool.acknowledged_seq < self._spool.next_seq - 1:
            self._progress.clear()
            await self._progress.wait()

    def _next(self) -> list[bytes]:
        room = messages.MAX_IN_FLIGHT_RECORDS - sum(batch.records for batch in self._in_flight)
        if room <= 0:
            return []
        limit = min(room, messages.MAX_BATCH_RECORDS)
        try:
            lines = self._spool.unacknowledged(limit, messages.MAX_BATCH_BYTES)
        except SpoolError as error:
            self._trouble(error)
            return []
        self.problem = ""
        return lines

    def _trouble(self, error: SpoolError) -> None:
        if str(error) != self.problem:
            _log.error("%s", error)
        self.problem = str(error)
