"""Python values as the JSON data they stand for."""

import math
from collections.abc import Mapping
from typing import Any

from fleetward.decision.canonical import MAX_DEPTH
from fleetward.registry.text import MAX_COUNT
from fleetward.sdk.errors import InvalidAction


def plain(value: Any, path: str, depth: int = 0) -> Any:
    """Give `value` as JSON data, copied. Raises InvalidAction, which names the place, for anything JSON cannot say."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(str.__str__(value), path)
    if isinstance(value, int):
        if not -MAX_COUNT <= value <= MAX_COUNT:
            raise InvalidAction("the number is beyond 2^53 - 1, which JSON cannot hold exactly; send it as text", path)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidAction(f"found {value}, which JSON does not know", path)
        return float(value)
    if depth >= MAX_DEPTH:
        raise InvalidAction(f"nested deeper than {MAX_DEPTH} levels", path)
    if isinstance(value, Mapping):
        return {_key(key, path): plain(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise InvalidAction(f"found {type(value).__name__}, which is not JSON data; convert it, or leave it out", path)


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise InvalidAction(f"found the key {key!r:.60}; JSON has text as keys only", path)
    return _text(str.__str__(key), path)


def _text(text: str, path: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidAction("the text holds half a character (a lone surrogate)", path) from None
    return text
