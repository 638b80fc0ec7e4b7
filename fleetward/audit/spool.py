"""The spool: records wait here, beside the agent, until the hub's store has committed them.

`append` is one write to a file, so a record that it returned for survives `kill -9` of the process. `sync`
puts all that was written on the disk (a group commit), so a node that dies loses at most what came after the
last one. Records are numbered without a hole, save where some were lost: numbering then goes on behind every
number that may have been given out, so no number ever names two records, and the loss shows as a gap. The
files:

- `writer.json`: the writer's id, and the mark up to which numbers may be in use.
- `<first number>.jsonl`, the segments. The last is the current one and stays, even when all of it is
  acknowledged.
- `<first number>.damaged`: what was cut off a segment because it was not whole records.
- `lock`, held by the one process that uses the spool.
"""

import contextlib
import os
import threading
from pathlib import Path
from typing import NamedTuple, Self

from fleetward.audit.segment import MAX_SEGMENT_BYTES, Segment, find_segments
from fleetward.audit.spoolstate import SpoolError, StateFile, boot_id, lock_directory, sync_directory

__all__ = ["Pending", "Spool", "SpoolError"]

SEGMENT_BYTES = 4 * 2**20
"""A segment is closed when it would grow beyond this; what is acknowledged is deleted a segment at a time."""

MAX_BYTES = 256 * 2**20
"""How many bytes of unacknowledged records a spool takes before it refuses more."""

NUMBERS_RESERVED = 1024
"""How far the mark is set ahead of the last number: the widest gap that a node's death can leave."""


class Pending(NamedTuple):
    """What is not acknowledged yet."""

    records: int
    bytes: int


class Spool:
    """A directory of records on their way to the hub. Make one with `Spool.open`.

    One thread appends, reads and acknowledges; `sync` may run in another.
    """

    def __init__(self, directory: Path, *, segment_bytes: int, max_bytes: int) -> None:
        if not 0 < segment_bytes <= MAX_SEGMENT_BYTES:
            raise SpoolError(f"segment_bytes is {segment_bytes}; allowed are 1 to {MAX_SEGMENT_BYTES}")
        self.directory = directory
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._sync_lock = threading.Lock()
        self._lock_fd = lock_directory(directory)
        self._state: StateFile | None = None
        self._writer = ""
        self._segments: list[Segment] = []
        self._fd = -1
        """Open on the last segment; -1 when the spool is closed."""
        self._rotated: list[int] = []
        """Descriptors of earlier segments that are not synced yet."""
        self._directory_dirty = True
        self._torn = False
        """A failed append could not be taken back; nothing may be written until it is."""
        self._size = self._room = self._roll_at = 0
        self._next = 1
        self._reserved = 0
        self._acknowledged = self._sent = self._synced = self._unsafe = 0

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int = MAX_BYTES,
    ) -> Self:
        """Open the spool in `directory`, made if need be, and mend what a crash left behind.

        Raises SpoolError when another process uses it, it cannot be read or written, or its state is damaged.
        """
        path = Path(directory)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            spool = cls(path, segment_bytes=segment_bytes, max_bytes=max_bytes)
            try:
                spool._load()
            except BaseException:
                spool._release()
                raise
        except OSError as error:
            raise SpoolError(f"cannot open the spool {path}: {error.strerror} ({error.filename})") from error
        return spool

    @property
    def writer(self) -> str:
        """The id under which this spool's records are numbered."""
        return self._writer

    @property
    def next_seq(self) -> int:
        """The number that the next record gets."""
        return self._next

    @property
    def synced_seq(self) -> int:
        """Every record up to this number is safe: on the disk here, or in the hub's store."""
        return max(self._synced, self._acknowledged)

    @property
    def acknowledged_seq(self) -> int:
        """Every record up to this number is in the hub's store."""
        return self._acknowledged

    @property
    def lost(self) -> bool:
        """Whether records of earlier processes may be lost, and `accounted` was not called since."""
        return self._state is not None and self._state.state.lost

    def accounted(self) -> None:
        """Take note that what was lost is accounted for. Raises SpoolError."""
        if not self.lost:
            return
        try:
            self._write_state(durable=True, lost=False)
        except OSError as error:
            raise SpoolError(f"cannot write to the spool {self.directory}: {error.strerror}") from error

    @property
    def pending(self) -> Pending:
        """How many records, of how many bytes, are not acknowledged."""
        first = self._acknowledged + 1
        records = sum(part.next - min(max(first, part.first), part.next) for part in self._segments)
        return Pending(records, self._max_bytes - self._room)

    def append(self, line: bytes) -> int:
        """Write one record, a line of JSON without its newline, and return its number.

        Raises SpoolError when the record was not written; its number is then still the next one.
        """
        data = line + b"\n"
        size = len(data)
        if self._size + size > self._roll_at or size > self._room or self._next > self._reserved:
            self._make_way(size)
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._take_back()
            raise SpoolError(f"cannot write to the spool {self.directory}: {error.strerror}") from error
        if written != size:
            self._take_back()
            raise SpoolError(
                f"cannot write to the spool {self.directory}: only {written} of {size} bytes fitted;"
                " the disk is full, or a limit on the size of files was reached"
            )
        self._size += size
        self._room -= size
        self._segments[-1].ends.append(self._size)
        seq = self._next
        self._next = seq + 1
        return seq

    def sync(self) -> int:
        """Put all records appended so far on the disk; return the new `synced_seq`. Any thread may call it.

        Raises SpoolError when the disk refuses. The kernel may then have dropped what it could not write, so
        nothing counts as synced again before the hub has acknowledged the records in doubt.
        """
        with self._sync_lock:
            # The order matters: all up to `target` is in `current` or, if rotated away since, in `_rotated`.
            target, current = self._next - 1, self._fd
            if current < 0:
                raise SpoolError(f"the spool {self.directory} is closed")
            if self._unsafe > self._acknowledged:
                raise SpoolError(
                    f"the disk under the spool {self.directory} failed: it may not have the records up to"
                    f" number {self._unsafe}, and the hub has acknowledged only up to {self._acknowledged}"
                )
            try:
                if self._next + NUMBERS_RESERVED // 2 > self._reserved:
                    self._reserve()
                if target > self._synced:
                    self._sync_files(current)
            except OSError as error:
                self._unsafe = self._next - 1
                raise SpoolError(f"cannot sync the spool {self.directory}: {error.strerror}") from error
            self._synced = max(self._synced, target)
        return self.synced_seq

    def unacknowledged(self, limit_records: int = 1000, limit_bytes: int = 2**20) -> list[bytes]:
        """Read on from the last call: the next lines, in order; at least one if there are any.

        Raises SpoolError when a segment cannot be read back.
        """
        start = self._sent + 1
        for segment in self._segments:
            if not segment.ends or segment.next <= start:
                continue
            first = max(start, segment.first)
            try:
                lines = segment.read(first, limit_records, limit_bytes)
            except (OSError, ValueError) as error:
                raise SpoolError(f"cannot read back the spool: {error}") from error
            self._sent = first + len(lines) - 1
            return lines
        return []

    def rewind(self) -> None:
        """Let `unacknowledged` start again at the first unacknowledged record."""
        self._sent = self._acknowledged

    def acknowledge(self, seq: int) -> None:
        """Take note that the hub's store has every record up to `seq`; delete the segments done with.

        Raises SpoolError when no record of that number was ever written, or a segment cannot be deleted.
        """
        if seq >= self._next:
            raise SpoolError(
                f"record {seq} of writer {self.writer} was acknowledged, but the last one is {self._next - 1}"
            )
        if seq <= self._acknowledged:
            return
        self._acknowledged = seq
        self._sent = max(self._sent, seq)
        self._measure()
        self._delete_done()

    def close(self) -> None:
        """Sync, note that all is well, and let go of the directory. Does nothing when it is closed already.

        Raises SpoolError when the sync fails; the directory is let go of all the same.
        """
        if self._fd < 0:
            return
        try:
            self.sync()
            if self._state:
                self._state.finish(self._next - 1, self._acknowledged)
        except OSError as error:
            raise SpoolError(f"cannot close the spool {self.directory}: {error.strerror}") from error
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self) -> None:
        """Read back what is there, and decide at which number to go on."""
        segments = find_segments(self.directory)
        path = self.directory / "writer.json"
        if not path.exists():
            if segments:
                raise SpoolError(f"{path} is missing beside its segments: put it back, or move the directory aside")
            StateFile.create(path)
        self._state = file = StateFile(path)
        state, boot = file.state, boot_id()
        self._writer = state.writer
        lost = self._scan(segments)
        if state.reserved:
            node_died = not state.clean and (not boot or boot != state.boot)
            lost |= node_died or not segments or segments[-1].first < state.segment
        after = segments[-1].next if segments else 1
        self._next = max(after, state.acknowledged + 1, state.reserved + 1 if lost else 0)
        self._segments = segments
        self._acknowledged = self._sent = state.acknowledged
        self._synced = self._next - 1
        self._measure()
        state.boot, state.clean, state.lost = boot, False, state.lost or lost
        if segments and after == self._next:
            self._use(os.open(segments[-1].path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        else:
            self._start_segment()
        self._reserve()
        sync_directory(self.directory)
        self._delete_done()

    def _scan(self, segments: list[Segment]) -> bool:
        """Cut off what is not whole records; return whether records were lost by it.

        A torn line at the very end is a record that `append` never returned for, so it is no loss.
        Anything else is, and what is cut off is set aside.
        """
        lost, before = False, 0
        for segment in segments:
            excess = segment.scan(self.writer)
            if segment.first < before:
                raise SpoolError(
                    f"{segment.path} starts with a number that the segment before it holds, too:"
                    " move the directory aside; a new spool starts as a new writer"
                )
            before = segment.next
            rest = segment.cut(excess)
            if rest and (segment is not segments[-1] or b"\n" in rest or b"\0" in rest):
                lost = True
                segment.path.with_suffix(".damaged").write_bytes(rest)
        return lost

    def _release(self) -> None:
        with self._sync_lock:
            for fd in (self._fd, *self._rotated, self._lock_fd):
                if fd >= 0:
                    os.close(fd)
            if self._state:
                self._state.close()
            self._fd = self._lock_fd = self._roll_at = -1
            self._rotated.clear()
            self._state = None

    def _make_way(self, size: int) -> None:
        """Do what an append needs first once in a while: check limits, mend, reserve, start a segment."""
        if self._fd < 0:
            raise SpoolError(f"the spool {self.directory} is closed")
        if size > self._room:
            pending = self.pending
            raise SpoolError(
                f"the spool {self.directory} is full: {pending.records} records ({pending.bytes} bytes)"
                f" wait for the hub to acknowledge them, and {self._max_bytes} bytes are allowed"
            )
        try:
            if self._torn:
                os.ftruncate(self._fd, self._size)
                self._use(self._fd)
            if self._next > self._reserved:
                self._reserve()
            if self._size and self._size + size > self._segment_bytes:
                self._start_segment()
        except OSError as error:
            raise SpoolError(f"cannot write to the spool {self.directory}: {error.strerror}") from error

    def _take_back(self) -> None:
        """Cut off what a failed append left behind; if even that fails, the next append tries again first."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._torn, self._roll_at = True, -1

    def _start_segment(self) -> None:
        segment = Segment.named(self.directory, self._next)
        fd = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._write_state(segment=segment.first)
        except OSError:
            os.close(fd)
            segment.path.unlink()
            raise
        if self._fd >= 0:
            self._rotated.append(self._fd)
        self._directory_dirty = True
        self._segments.append(segment)
        self._use(fd)
        with contextlib.suppress(SpoolError):
            self._delete_done()

    def _use(self, fd: int) -> None:
        """Write to `fd`, which is open on the last segment."""
        self._size, self._roll_at = self._segments[-1].size, self._segment_bytes
        self._fd, self._torn = fd, False

    def _reserve(self) -> None:
        self._write_state(durable=True, reserved=self._next - 1 + NUMBERS_RESERVED)

    def _write_state(self, *, durable: bool = False, **changes: int | bool) -> None:
        if self._state:
            self._state.write(durable=durable, acknowledged=self._acknowledged, **changes)
            self._reserved = self._state.state.reserved

    def _sync_files(self, current: int) -> None:
        if self._directory_dirty:
            self._directory_dirty = False
            try:
                sync_directory(self.directory)
            except OSError:
                self._directory_dirty = True
                raise
        os.fdatasync(current)
        while self._rotated:
            os.fdatasync(self._rotated[0])
            os.close(self._rotated.pop(0))

    def _measure(self) -> None:
        """Work out how much more may be taken."""
        first = self._acknowledged + 1
        self._room = self._max_bytes - sum(part.size - part.offset(first) for part in self._segments)

    def _delete_done(self) -> None:
        while len(self._segments) > 1 and self._segments[0].next - 1 <= self._acknowledged:
            try:
                # Emptied first: while a descriptor waits to be synced, deleting alone would free no room.
                os.truncate(self._segments[0].path, 0)
                self._segments[0].path.unlink()
            except FileNotFoundError:
                pass
            except OSError as error:
                raise SpoolError(f"cannot delete {error.filename}: {error.strerror}") from error
            self._segments.pop(0)
