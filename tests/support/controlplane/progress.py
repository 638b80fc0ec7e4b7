"""Shows that a long build goes on."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

TERMINAL_EVERY = 0.2
PIPED_EVERY = 15.0
"""Seconds between two lines."""


class Progress:
    """A line with the time gone by and what is being done: updated in place on a terminal, repeated when piped."""

    def __init__(self, title: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._stream = stream or sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._began = self._last = clock()
        self._write_line(f"{title} ...")

    @property
    def seconds(self) -> float:
        """Time gone by."""
        return self._clock() - self._began

    def show(self, doing: str) -> None:
        """Say what is being done, unless something was said just now."""
        now = self._clock()
        if now - self._last < (TERMINAL_EVERY if self._terminal else PIPED_EVERY):
            return
        self._last = now
        line = f"  {_clock(self.seconds)}  {doing}"
        if self._terminal:
            self._stream.write(f"\r\x1b[K{line[:100]}")
            self._stream.flush()
        else:
            self._write_line(line)

    def done(self, outcome: str) -> None:
        """Say how it ended."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
        self._write_line(f"{self._title}: {outcome} after {_clock(self.seconds)}")

    def _write_line(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
