"""One program of the control plane as a process: started on a leash, logged, stopped."""

import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from support.controlplane.leash import leashed

STARTER = ThreadPoolExecutor(1, "starter")
"""One thread, there until the interpreter ends: a program on a leash dies with the thread that started it."""

TAIL = 25
"""Lines of a log that an error shows."""


class Program:
    """A process that never outlives this one. Its log grows over restarts."""

    def __init__(self, path: Path, arguments: Sequence[str], log: Path) -> None:
        self.name = path.name
        self.log = log
        self._command = leashed(str(path), *arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self.running and self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; whether it gets ready is for the caller to see."""
        with self.log.open("ab") as log:
            self._process = STARTER.submit(self._popen, log).result()

    def _popen(self, log: BinaryIO) -> "subprocess.Popen[bytes]":
        null, home = subprocess.DEVNULL, self.log.parent
        # In a process group of its own, Ctrl-C is for us alone, and we end it.
        return subprocess.Popen(self._command, stdin=null, stdout=log, stderr=log, cwd=home, process_group=0)

    def stop(self, seconds: float = 10.0) -> None:
        """Ask the process to end, and make it end after some seconds."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process as a crash does, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def tail(self) -> str:
        """Give the last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-TAIL:])
