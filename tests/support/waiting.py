"""Waiting for what comes true in another process."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait for a condition; the failure says which."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s, still not: {what}"
        time.sleep(0.02)
