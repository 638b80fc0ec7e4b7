"""Digests over canonical JSON, so that whoever computes one of the same data gets the same (RFC 8785)."""

import hashlib
import math
from typing import Any

import msgspec
import rfc8785

from fleetward.registry.text import MAX_COUNT

MAX_DEPTH = 32
"""How deep arguments and results may be nested."""

MAX_VALUES = 10_000
"""How many values arguments, or a result, may hold: an expression may compare each with each, and must end soon."""

_sorted = msgspec.json.Encoder(order="sorted").encode


class CanonicalError(ValueError):
    """The data has no canonical form: no JSON, a number JSON cannot hold exactly, nested too deep. Says where."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


def digest(value: Any, path: str = "$", *, big_integers: bool = False) -> str:
    """Give the SHA-256 over the canonical JSON of `value`, as `sha256:<hex>`.

    `path` is where `value` stands, for the message. With `big_integers`, whole numbers that the RFC has no form for are
    taken as they are written: a result may hold them, and nobody has to compute its digest anew. Raises CanonicalError.
    """
    # The RFC's own encoder is needed only for floats and for keys outside ASCII; without those, sorting
    # the keys is all it would do, and that is forty times faster.
    try:
        walk = _Walk(path, big_integers=big_integers)
        plain = walk.is_plain(value, path, 0)
        encoded = _sorted(value) if plain or walk.met_big_integers else rfc8785.dumps(value)
    except (UnicodeEncodeError, rfc8785.CanonicalizationError):  # numbers, types and depth were looked at before
        raise CanonicalError(path, "found text with a lone surrogate, allowed Unicode") from None
    return "sha256:" + hashlib.sha256(encoded).hexdigest()


class _Walk:
    """One walk over data: checks depth, number of values and numbers."""

    def __init__(self, path: str, *, big_integers: bool) -> None:
        self._path = path
        self._values = 0
        self._big_integers = big_integers
        self.met_big_integers = False

    def is_plain(self, value: Any, path: str, depth: int) -> bool:
        """Say whether sorting keys suffices to make `value` canonical. Raises CanonicalError."""
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return True
        if kind is int or kind is float:
            return self._is_plain_number(value, path)
        if kind is not dict and kind is not list and kind is not tuple:
            raise CanonicalError(path, f"found {kind.__name__}, which is not JSON data")
        self._values += len(value)
        if self._values > MAX_VALUES:
            raise CanonicalError(self._path, f"holds more than {MAX_VALUES} values")
        if depth >= MAX_DEPTH:
            raise CanonicalError(path, f"nested deeper than {MAX_DEPTH} levels")
        plain = True
        if kind is dict:
            for key, item in value.items():
                if type(key) is not str:
                    raise CanonicalError(path, f"found a key of type {type(key).__name__}, allowed text")
                plain &= self.is_plain(item, f"{path}.{key}" if depth < 3 else path, depth + 1) & key.isascii()
            return plain
        for item in value:
            plain &= self.is_plain(item, path, depth + 1)
        return plain

    def _is_plain_number(self, value: float, path: str) -> bool:
        if type(value) is float:
            if not math.isfinite(value):
                raise CanonicalError(path, f"found {value}, allowed finite numbers")
            return False
        if not -MAX_COUNT <= value <= MAX_COUNT:
            if not self._big_integers:
                raise CanonicalError(
                    path, f"found {str(value)[:24]}, allowed whole numbers up to 2^53 - 1; send it as a string"
                )
            self.met_big_integers = True
        return True
