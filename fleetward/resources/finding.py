"""Findings: what is wrong with a resource, where, and what is allowed."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches

Path = tuple[str | int, ...]
"""A place in a document: keys of mappings and, counted from 0, positions in lists."""

SHOWN = 60
"""A value in a message is cut to this many characters."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


@dataclass(frozen=True)
class Finding:
    """One mistake in a file.

    `file` is the path as it was given. `line` counts from 1; 0 means the whole file. `field` is a path such as
    `spec.rules[2].match.names[0]`, empty for the whole document. `message` says what was found and what is allowed.
    `resource` says which it is in, as `AgentPolicy reports/outside-actions`, empty where not known.
    """

    file: str
    line: int
    field: str
    message: str
    resource: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        head, *more = self.message.split("\n")
        first = f"{where}: {self.field}: {head}" if self.field else f"{where}: {head}"
        return "\n".join([first, *(f"    {line}" for line in more)])

    def to_dict(self) -> dict[str, str | int]:
        """Return the finding as JSON shows it."""
        return asdict(self)


def field_path(path: Iterable[str | int]) -> str:
    """Write the path as people write it: `spec.rules[2].name`, `metadata.annotations["a.b/c"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.match(step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(shorten(step), ensure_ascii=False)}]"
    return text


def shorten(text: str, limit: int = SHOWN) -> str:
    """Cut the text to the limit, on one line and without control characters: it may end up on a terminal."""
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() else _escape(c) for c in cut)


def _escape(character: str) -> str:
    if character in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[character]
    return f"\\u{ord(character):04x}"


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean X?` for the allowed value closest to what was found, or nothing."""
    by_folded = {_fold(name): name for name in allowed}
    close = get_close_matches(_fold(found), by_folded, n=1, cutoff=0.7)
    return f"; did you mean {by_folded[close[0]]}?" if close else ""


def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()
