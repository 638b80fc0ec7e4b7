"""What of a spool outlives its segments: the writer's id, and how far its numbers may be in use."""

import fcntl
import os
import sys
import threading
import time
from pathlib import Path

import msgspec

LOCK_SECONDS = 4.0
"""How long a decision webhook that was told to stop may still have its spool: it delivers what it can."""

STATE_BYTES = 512
"""The state fits one disk sector, which is written whole or not at all."""

_WRITER_CHARACTERS = "abcdefghijklmnopqrstuvwxyz234567"


class SpoolError(Exception):
    """The spool is full, in use, damaged or closed, or the disk failed; the message says what to do."""


class State(msgspec.Struct, forbid_unknown_fields=True):
    """The content of the state file."""

    writer: str
    reserved: int = 0
    """No number above this has been given out."""
    segment: int = 0
    """The first number of the current segment."""
    acknowledged: int = 0
    """The last acknowledgement known when this was written; there may have been later ones."""
    boot: str = ""
    """The boot of the machine in which the spool was last open."""
    clean: bool = False
    """Whether it was closed and synced then; `reserved` is exact in that case."""
    lost: bool = False
    """Whether records may have been lost that nobody has accounted for yet."""


class StateFile:
    """The file `writer.json`: one small block, rewritten in place, so it needs no room on a full disk."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.state = msgspec.json.decode(os.pread(self._fd, STATE_BYTES, 0), type=State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            os.close(self._fd)
            raise SpoolError(
                f"{path} is damaged ({error}): move the directory aside; a new spool starts as a new writer"
            ) from error

    @staticmethod
    def create(path: Path) -> None:
        """Make the file for a new writer; it is there whole, and on the disk, or not at all."""
        draft = path.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _padded(State(new_writer_id())))
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(path)
        sync_directory(path.parent)

    def write(self, *, durable: bool = False, **changes: int | bool) -> None:
        """Change the state; it counts once it is written, never before. `reserved` only ever grows here."""
        with self._lock:
            if "reserved" in changes:
                changes["reserved"] = max(changes["reserved"], self.state.reserved)
            self._write(msgspec.structs.replace(self.state, **changes), durable=durable)

    def finish(self, last: int, acknowledged: int) -> None:
        """Note that all is on the disk and that `last` is the last number given out."""
        with self._lock:
            changes = {"reserved": last, "acknowledged": acknowledged, "clean": True}
            self._write(msgspec.structs.replace(self.state, **changes), durable=True)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _write(self, state: State, *, durable: bool) -> None:
        os.pwrite(self._fd, _padded(state), 0)
        if durable:
            os.fdatasync(self._fd)
        self.state = state


def new_writer_id() -> str:
    """Make a writer's id: 50 random bits."""
    return "".join(_WRITER_CHARACTERS[byte & 31] for byte in os.urandom(10))


def lock_directory(directory: Path) -> int:
    """Lock a spool's directory for this process and return the descriptor that holds the lock.

    One that is in use is waited for as long as its last owner may take to stop. Raises SpoolError, saying who has it,
    when it is in use after that.
    """
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for_lock(fd)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} ({Path(sys.argv[0]).name})\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(fd)
        raise SpoolError(
            f"the spool {directory} is in use by {holder}; stop that one, or use another directory"
        ) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _wait_for_lock(fd: int) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def sync_directory(directory: Path) -> None:
    """Put a directory's entries on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def boot_id() -> str:
    """Give the kernel's id of this boot; where there is none, every unclean end counts as the node's."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _padded(state: State) -> bytes:
    return msgspec.json.encode(state).ljust(STATE_BYTES - 1) + b"\n"
