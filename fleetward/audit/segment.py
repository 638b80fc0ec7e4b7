"""One segment of the spool: a file of records, one a line, numbered on from the number in its name."""

import os
import re
from array import array
from bisect import bisect_right
from pathlib import Path

import msgspec

MAX_SEGMENT_BYTES = 2**32 - 1
"""Offsets are kept as 32-bit numbers, four bytes of memory a record."""

_NAME = re.compile(r"^(\d{20})\.jsonl$")


class _Line(msgspec.Struct):
    """What is checked of a line when a segment is read back."""

    writer: str | None = None
    seq: int | None = None


_decode_line = msgspec.json.Decoder(_Line).decode


class Segment:
    """A segment's file, the number of its first record, and where each record ends."""

    __slots__ = ("ends", "first", "path")

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.ends = array("I")

    @classmethod
    def named(cls, directory: Path, first: int) -> "Segment":
        """Give the segment of `directory` that starts with record `first`."""
        return cls(directory / f"{first:020d}.jsonl", first)

    @property
    def next(self) -> int:
        """The number after the last record."""
        return self.first + len(self.ends)

    @property
    def size(self) -> int:
        """Bytes of whole records."""
        return self.ends[-1] if self.ends else 0

    def offset(self, seq: int) -> int:
        """Where record `seq` starts; a number before or after this segment's gives its start or end."""
        index = min(max(seq - self.first, 0), len(self.ends))
        return self.ends[index - 1] if index else 0

    def read(self, seq: int, limit_records: int, limit_bytes: int) -> list[bytes]:
        """Read lines from record `seq` on: at least one, and no more than the limits allow.

        Raises OSError, and ValueError when the file no longer holds what was written to it.
        """
        start, index = self.offset(seq), seq - self.first
        fits = bisect_right(self.ends, start + limit_bytes, index) - index
        count = max(1, min(limit_records, fits))
        end = self.ends[index + count - 1]
        with self.path.open("rb") as file:
            file.seek(start)
            lines = file.read(end - start).split(b"\n")[:-1]
        if len(lines) != count:
            raise ValueError(f"{self.path} holds {len(lines)} of the {count} records from number {seq} on")
        return lines

    def scan(self, writer: str) -> int:
        """Find the records of the file; return how many bytes at its end are not whole records.

        A record is a line of JSON ended by a newline; a writer and a number it names must be the ones
        expected.
        """
        self.ends = array("I")
        content = self.path.read_bytes()
        end = 0
        while (newline := content.find(b"\n", end)) >= 0:
            try:
                line = _decode_line(memoryview(content)[end:newline])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                break
            if line.writer not in {None, writer} or line.seq not in {None, self.next}:
                break
            end = newline + 1
            self.ends.append(end)
        return len(content) - end

    def cut(self, excess: int) -> bytes:
        """Cut `excess` bytes off the file's end, put the rest on the disk, and return what was cut off."""
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            rest = os.pread(fd, excess, self.size)
            if excess:
                os.ftruncate(fd, self.size)
            os.fsync(fd)
        finally:
            os.close(fd)
        return rest


def find_segments(directory: Path) -> list[Segment]:
    """Find the segments of a spool, in order, not yet scanned."""
    names = sorted(entry.name for entry in os.scandir(directory) if _NAME.match(entry.name))
    return [Segment(directory / name, int(name.partition(".")[0])) for name in names]
