"""Digests over canonical JSON, so that whoever computes one of the same data gets the same (RFC 8785)."""

import hashlib
import math
from typing import Any

import msgspec
import rfc8785

from fleetward.decision.action import MAX_COUNT

MAX_DEPTH = 32
"""How deep arguments and results may be nested."""

_sorted = msgspec.json.Encoder(order="sorted").encode


class CanonicalError(ValueError):
    """The data has no canonical form: a number JSON cannot hold exactly, or nested too deep. Says where."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


def digest(value: Any, path: str = "$") -> str:
    """Give the SHA-256 over the canonical JSON of `value`, as `sha256:<hex>`.

    `path` is where `value` stands, for the message. Raises CanonicalError.
    """
    # The RFC's own encoder is needed only for floats and for keys outside ASCII; without those, sorting
    # the keys is all it would do, and that is forty times faster.
    encoded = _sorted(value) if _is_plain(value, path, 0) else rfc8785.dumps(value)
    return "sha256:" + hashlib.sha256(encoded).hexdigest()


def _is_plain(value: Any, path: str, depth: int) -> bool:
    """Check depth and numbers; say whether sorting keys suffices to make `value` canonical."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int or kind is float:
        return _is_plain_number(value, path)
    if depth >= MAX_DEPTH:
        raise CanonicalError(path, f"nested deeper than {MAX_DEPTH} levels")
    plain = True
    if kind is dict:
        for key, item in value.items():
            plain &= _is_plain(item, f"{path}.{key}" if depth < 3 else path, depth + 1) & key.isascii()
        return plain
    if kind is list or kind is tuple:
        for item in value:
            plain &= _is_plain(item, path, depth + 1)
        return plain
    raise CanonicalError(path, f"found {kind.__name__}, which is not JSON data")


def _is_plain_number(value: float, path: str) -> bool:
    if type(value) is float:
        if not math.isfinite(value):
            raise CanonicalError(path, f"found {value}, allowed finite numbers")
        return False
    if not -MAX_COUNT <= value <= MAX_COUNT:
        raise CanonicalError(
            path, f"found {str(value)[:24]}, allowed whole numbers up to 2^53 - 1; send it as a string"
        )
    return True
