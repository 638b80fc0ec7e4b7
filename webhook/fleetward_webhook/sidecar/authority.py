"""The authority lease: for how long this sidecar may still act on what the hub last said.

A lease counts from the moment the sidecar *asked*, on the sidecar's own clock, so an answer that was held up
somewhere on the way never lengthens it. The clock goes on while the machine is suspended.
"""

import time
from collections.abc import Callable
from functools import partial

_NEVER = float("-inf")

boottime: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds since the machine started, with suspension where the system can tell (Linux); never set back."""


class Authority:
    """One sidecar's lease, at first lapsed. Not bound to any loop or thread.

    `clock` gives seconds and never goes back. `home` is what messages call the hub.
    """

    __slots__ = ("_clock", "_heard", "_home", "_said", "_token", "_until", "_why", "now")

    def __init__(self, clock: Callable[[], float] = boottime, *, home: str = "the hub") -> None:
        self._clock = clock
        self._home = home
        self._until = self._heard = self._token = _NEVER
        self._why = self._said = ""
        self.now = clock
        """The clock that leases count on."""

    def live(self) -> bool:
        """Whether the sidecar may decide now. One clock read and one comparison: every decision asks."""
        return self._clock() < self._until

    @property
    def remaining(self) -> float:
        """For how many seconds the lease still holds; 0 when it lapsed."""
        return max(0.0, self._until - self._clock())

    def renewed(self, token: float, ttl: float) -> None:
        """Take a lease: `ttl` seconds from `token`, the clock's time when it was asked for.

        An answer to an older request than the last one changes nothing. Raises ValueError for a token from the
        future, which this sidecar cannot have sent.
        """
        if not token <= self._clock():
            raise ValueError(f"a lease was granted from {token} on, and the clock here stands at {self._clock()}")
        if token >= self._token:
            self._token, self._until = token, token + ttl
            self._why = self._said = ""

    def heard(self) -> None:
        """Note that the hub sent something."""
        self._heard = self._clock()

    def trouble(self, why: str) -> None:
        """Note why the hub cannot be reached: a clause for `lost_reason`. The next lease clears it."""
        self._why, self._said = why, ""

    def said(self, what: str) -> None:
        """Note what the hub said instead of granting a lease, such as `refuses this sidecar: ...`."""
        self._why, self._said = "", what

    def lost_reason(self) -> str:
        """Say why the sidecar may not decide; empty while it may."""
        now = self._clock()
        if now < self._until:
            return ""
        why = f" ({self._why})" if self._why else ""
        if self._said:
            head = f"{self._home} {self._said}"
        elif self._heard == _NEVER:
            head = f"no word from {self._home} yet{why}"
        else:
            head = f"no word from {self._home} for {now - self._heard:.1f} s{why}"
        if self._until == _NEVER:
            return f"{head}; there was no authority lease yet"
        return f"{head}; the last authority lease lapsed {now - self._until:.1f} s ago"
