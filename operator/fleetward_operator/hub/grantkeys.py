"""The keys that sign grants, where one hub alone keeps them: a file, and a new key every day."""

import time
from pathlib import Path

from fleetward.delegation.keys import KeyRing, open_key_file, write_key_file

ROTATE_SECONDS = 86_400
"""How long one key signs. What it signed is believed until it expires, whatever key signs meanwhile."""


class FileKeys:
    """Keys in a file that only its owner can read, made if need be. Raises KeyRingError, and OSError."""

    def __init__(self, path: Path, *, rotate_seconds: int = ROTATE_SECONDS) -> None:
        self._path = path
        self._rotate_seconds = rotate_seconds
        self._ring = open_key_file(path, int(time.time()))
        self._public = self._ring.public()

    def ring(self) -> KeyRing:
        """Give the keys."""
        return self._ring

    def public(self) -> dict[str, str]:
        """Give the public keys."""
        return self._public

    def renew(self, now: int) -> bool:
        """Begin with a new key where it is time to; say whether it was. Raises OSError."""
        if now - self._ring.since < self._rotate_seconds:
            return False
        ring = self._ring.rotated(now)
        write_key_file(self._path, ring)
        self._ring, self._public = ring, ring.public()
        return True
