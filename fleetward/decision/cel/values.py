r"""What may stand in an activation: JSON values that a runtime reads as they are.

cel-expr-python 0.1.3 has sharp edges on Python data, all of them measured: a string is cut at its first NUL
(`"safe\0evil" == "safe"` would hold), a nesting of some thousands (or a cycle) ends the process, a lone
surrogate raises from inside the library. Such data is found here, before a runtime sees it, and makes every
expression of the request an error, which is never an allow.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

MAX_DEPTH: Final = 64
"""Containers within containers, the map of variables included."""

MAX_BYTES: Final = 1024 * 1024
"""Of all the variables together, as JSON."""

_encode = msgspec.json.Encoder().encode


def flaw(variables: Mapping[str, object]) -> str | None:
    """Say what no runtime should be shown in `variables`, with its path, or None when there is nothing.

    The common case costs one encoding in C (a fraction of a microsecond for a usual action). Only what that
    leaves in doubt is walked in Python. Integers beyond 64 bits and values of other Python types are not
    looked for: the runtimes refuse them by themselves, as an error of the evaluation.
    """
    try:
        encoded = _encode(variables)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        return _walk(variables) or f"not JSON data: {error}"
    if len(encoded) > MAX_BYTES:
        return f"the variables take {len(encoded)} bytes as JSON; at most {MAX_BYTES} are allowed"
    # Few brackets cannot nest deeply. The escape may stem from a backslash in the data: the walk decides.
    if encoded.count(b"{") + encoded.count(b"[") <= MAX_DEPTH and b"\\u0000" not in encoded:
        return None
    return _walk(variables)


def _walk(variables: Mapping[str, object]) -> str | None:
    """Look at every string and the depth, without recursion: a cycle ends at the depth limit."""
    level: list[tuple[str, object]] = [("", variables)]
    for _ in range(MAX_DEPTH + 1):
        below: list[tuple[str, object]] = []
        for path, value in level:
            if isinstance(value, str):
                if found := _string_flaw(value):
                    return f"{path}: {found}"
            elif isinstance(value, Mapping):
                for key, item in value.items():
                    if isinstance(key, str) and (found := _string_flaw(key)):
                        return f"{path or 'variables'}: a key: {found}"
                    below.append((f"{path}.{key}" if path else str(key), item))
            elif isinstance(value, list | tuple):
                below.extend((f"{path}[{index}]", item) for index, item in enumerate(value))
        if not below:
            return None
        # A container met twice on a level is looked at once, so that a cycle does not multiply.
        level = list({id(item[1]): item for item in below}.values())
    path = level[0][0]
    return f"{path[:80]}...: nested more than {MAX_DEPTH} deep"


def _string_flaw(value: str) -> str | None:
    if "\0" in value:
        return f"a NUL character at offset {value.index(chr(0))}; strings must hold none"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"a lone surrogate at offset {error.start}; strings must be valid Unicode"
    return None
