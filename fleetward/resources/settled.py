"""Reading a file that somebody may be writing.

A policy cut off in the middle is often still valid YAML, with fewer rules than its author wrote. So a file that is
being written must not be taken for a finished one.
"""

import os
import signal
import stat
from pathlib import Path
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # not on every system; then only size and time of change tell
    fcntl = None  # type: ignore[assignment]


class Read(NamedTuple):
    """What a file held, and whether nobody was writing it meanwhile, as far as the system can tell."""

    data: bytes
    settled: bool


def read_file(path: Path, limit: int) -> Read:
    """Read at most `limit` bytes of a regular file. OSError where that cannot be done."""
    # O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(0, "it is not a regular file")
        busy = open_for_writing(descriptor)
        data = _read(descriptor, limit)
        # Asked again: whoever opened it between the first look and the read is still there, or has changed it.
        busy = busy or open_for_writing(descriptor)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    whole = len(data) == min(after.st_size, limit)
    return Read(data, settled=same and whole and not busy)


def open_for_writing(descriptor: int) -> bool:
    """Tell whether some process has the file, open here for reading, open for writing; False where unknown.

    Linux grants a read lease (fcntl(2), F_SETLEASE) only on a file that nobody has open for writing, and only to the
    file's owner or a process with CAP_LEASE. The lease is given back at once.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # Somebody who opens the file while we hold the lease makes the kernel send us a signal. By default that is
        # SIGIO, which would end the process; SIGURG is ignored unless somebody asks for it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _read(descriptor: int, limit: int) -> bytes:
    parts, left = [], limit
    while left > 0 and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
