"""A file that grows by one line of JSON a record. Every line in it is whole, also after a crash."""

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from fleetward.audit.sinks.base import SinkError
from fleetward.audit.spoolstate import sync_directory
from fleetward.audit.store import StoredRecord

_CHUNK = 2**16


class JsonLines:
    """Appends records to the file at `path`, made if need be, and syncs it to the disk once a batch.

    The file may be moved away (log rotation); the next batch then starts a new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        # A cancelled delivery may still be writing in its thread.
        self._busy = threading.Lock()

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """Append the records, all of them or none. Raises SinkError."""
        data = b"".join(record.body + b"\n" for record in records)
        await asyncio.to_thread(self._append, data)

    async def close(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self._close)

    def _append(self, data: bytes) -> None:
        try:
            with self._busy:
                self._open()
                size = os.fstat(self._fd).st_size
                try:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[os.write(self._fd, rest) :]
                    os.fsync(self._fd)
                except OSError:
                    # If even this fails, the next to open the file cuts off what is not a whole line.
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._fd, size)
                    self._let_go()
                    raise
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from error

    def _open(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._fd), self._path.stat()):
                    return
            self._let_go()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._cut_torn_line()
            sync_directory(self._path.parent)
        except BlockingIOError as error:
            self._let_go()
            raise SinkError(f"{self._path} is being written by another sink: give each its own path") from error
        except OSError:
            self._let_go()
            raise

    def _cut_torn_line(self) -> None:
        """Cut off what follows the last newline; its record was not acknowledged, so it comes again."""
        size = end = os.fstat(self._fd).st_size
        while end:
            start = max(0, end - _CHUNK)
            newline = os.pread(self._fd, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._fd, end)

    def _close(self) -> None:
        with self._busy:
            self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
