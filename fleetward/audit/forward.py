"""Forwarding: each sink gets every record it asks for, in the order of the store, at least once.

A sink has a task of its own that reads the store from where that sink stands, so one that is down holds up nobody.
Where it stands is written down after each delivery: a crash in between delivers the same records again, under the same
ids.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from fleetward.audit.query import RecordQuery
from fleetward.audit.sinks import open_sink
from fleetward.audit.sinks.base import Sink, SinkError
from fleetward.audit.store import Store, StoredRecord
from fleetward.resources.auditsink import AuditSink, AuditSinkSpec

BATCH_RECORDS = 200
"""How many records are handed to a sink at a time."""

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 30.0
"""The wait after a first failure, doubled by each further one up to the longest; up to half of it is left to chance."""

_log = logging.getLogger(__name__)


class SinkStatus(msgspec.Struct, frozen=True):
    """How a sink is doing."""

    name: str
    type: str
    position: int
    """Everything in the store up to this position is delivered."""
    lag: int
    """How many records are in the store after that."""
    error: str = ""
    """Why the last attempt failed; empty when it did not."""
    failing_since: datetime | None = None
    rejected: bool = False
    """The target is there and refuses a record: somebody must look, nothing goes on before it takes it."""


class Forwarder:
    """Keeps one delivery going for each AuditSink. Use it as an async context manager, on one event loop.

    Files of JSON-lines sinks go below `folder`, which is `sinks` beside the store unless given.
    """

    def __init__(self, store: Store, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder or store.path.parent / "sinks"
        self._deliveries: dict[str, _Delivery] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def set_sinks(self, sinks: Sequence[AuditSink]) -> None:
        """Let these be the sinks: new ones start, changed ones start anew where they stood, others end.

        A sink is known by its name. A name never seen before starts at the beginning of the store.
        """
        wanted = {sink.metadata.name: sink.spec for sink in sinks}
        ended = [name for name, delivery in self._deliveries.items() if wanted.get(name) != delivery.spec]
        await asyncio.gather(*(self._deliveries.pop(name).stop() for name in ended))
        for name, spec in wanted.items():
            if name not in self._deliveries:
                self._deliveries[name] = _Delivery(self._store, name, spec, open_sink(spec, self._folder))

    def wake(self) -> None:
        """Say that records were stored. Call it on the event loop."""
        for delivery in self._deliveries.values():
            delivery.stored.set()

    def status(self) -> list[SinkStatus]:
        """Say how each sink is doing. Raises StoreError."""
        last = self._store.last_position()
        return [delivery.status(last) for _, delivery in sorted(self._deliveries.items())]

    async def close(self) -> None:
        """Stop all deliveries; what is not delivered yet is so by the next Forwarder over this store."""
        await self.set_sinks([])


class _Delivery:
    """The task that brings one sink up to date and keeps it so."""

    def __init__(self, store: Store, name: str, spec: AuditSinkSpec, sink: Sink) -> None:
        self.spec = spec
        self.stored = asyncio.Event()
        self._store = store
        self._name = name
        self._sink = sink
        self._query = RecordQuery(types=tuple(spec.records or ()), limit=BATCH_RECORDS)
        self._position = -1
        """Where the sink stands; -1 before it was read from the store."""
        self._failures = 0
        self._error = ""
        self._failing_since: datetime | None = None
        self._rejected = False
        self._task = asyncio.create_task(self._run(), name=f"audit sink {name}")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._sink.close()

    def status(self, last: int) -> SinkStatus:
        position = max(self._position, 0)
        return SinkStatus(
            self._name, self.spec.type, position, last - position, self._error, self._failing_since, self._rejected
        )

    async def _run(self) -> None:
        while True:
            self.stored.clear()
            try:
                more = await self._deliver_batch()
            except Exception as error:  # noqa: BLE001 - nothing that goes wrong may end the forwarding
                self._failed(error)
                longest = min(FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, 20), LONGEST_RETRY_SECONDS)
                await asyncio.sleep(longest * random.uniform(0.5, 1))  # noqa: S311 - only spreads retries
                continue
            self._succeeded()
            if not more:
                await self.stored.wait()

    async def _deliver_batch(self) -> bool:
        """Deliver the next records; return whether there may be more."""
        if self._position < 0:
            self._position = await asyncio.to_thread(self._store.sink_position, self._name)
        last, records = await asyncio.to_thread(self._read)
        if records:
            try:
                await self._sink.deliver(records)
            except SinkError as error:
                if error.delivered:
                    await self._stands_at(records[error.delivered - 1].position)
                    self._failures = 0
                raise
        if len(records) == BATCH_RECORDS:
            await self._stands_at(records[-1].position)
            return True
        if records:
            await self._stands_at(max(records[-1].position, last))
        # What the sink does not ask for is passed over, and need not be written down.
        self._position = max(self._position, last)
        return False

    def _read(self) -> tuple[int, list[StoredRecord]]:
        # In this order, nothing up to `last` can be missed.
        last = self._store.last_position()
        return last, self._store.read(self._query, self._position)

    async def _stands_at(self, position: int) -> None:
        await asyncio.to_thread(self._store.set_sink_position, self._name, position)
        self._position = position

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        message = str(error) or type(error).__name__
        rejected = isinstance(error, SinkError) and error.rejected
        if not self._error or rejected != self._rejected:
            level = logging.ERROR if rejected else logging.WARNING
            _log.log(level, "audit sink %s fails, and is tried again: %s", self._name, message)
        self._failing_since = self._failing_since or datetime.now(UTC)
        self._error, self._rejected = message, rejected

    def _succeeded(self) -> None:
        if self._error:
            _log.info("audit sink %s works again", self._name)
        self._failures, self._error, self._failing_since, self._rejected = 0, "", None, False
