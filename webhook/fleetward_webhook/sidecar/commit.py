"""Group commit: many records, one sync of the spool to the disk."""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from fleetward.audit.spool import Spool, SpoolError

INTERVAL_SECONDS = 0.05
"""How often the spool is synced at most, save when a durable decision waits for it."""

_log = logging.getLogger(__name__)


class GroupCommit:
    """Syncs the spool in a thread of its own whenever records were written. Use it as an async context manager."""

    def __init__(self, spool: Spool, interval: float = INTERVAL_SECONDS) -> None:
        self._spool = spool
        self._interval = interval
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._thread = ThreadPoolExecutor(1, "spool-sync")
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self.mark = self._dirty.set
        """Note that a record was appended."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    async def synced(self, seq: int) -> None:
        """Return once record `seq` is on the disk. Raises SpoolError when the disk refuses."""
        if self._spool.synced_seq >= seq:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, waiter))
        self._dirty.set()
        self._urgent.set()
        await waiter

    async def _run(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self._urgent.clear()
            await self._sync()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), self._interval)

    def _failed(self, error: Exception, waiting: list[tuple[int, asyncio.Future[None]]]) -> None:
        if not self._failing:
            _log.error("%s", error, exc_info=None if isinstance(error, SpoolError) else error)
        self._failing = True
        self._dirty.set()
        for _, waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error if isinstance(error, SpoolError) else SpoolError(str(error)))

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        covered = self._waiting
        self._waiting = []
        try:
            synced = await loop.run_in_executor(self._thread, self._spool.sync)
        except Exception as error:  # noqa: BLE001 - were this task to end, durable decisions would wait for ever
            self._failed(error, covered)
            return
        if self._failing:
            _log.info("the spool is synced again")
        self._failing = False
        for seq, waiter in covered:
            if synced < seq:
                self._waiting.append((seq, waiter))
                self._dirty.set()
            elif not waiter.done():
                waiter.set_result(None)
