"""A limit as a bar: spent, reserved, leased and what is left, in as many cells as there is room for."""

import sys

from rich.text import Text

from fleetward.budget.report import LimitReport

_BLOCKS = "█▓▒░"
_PLAIN = "#=-."
STYLES = ("green", "yellow", "cyan", "dim")
"""Of what is spent, reserved, leased and left."""

NEARLY = 80
"""Percent from which on what is spent is shown in yellow; all of it, in red."""


def can_show(characters: str) -> bool:
    """Say whether standard output can hold the characters."""
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def parts(limit: LimitReport, width: int) -> tuple[int, int, int, int]:
    """Divide a bar: cells for what is spent, reserved, leased and left.

    What is not nothing has a cell where there are enough, so a bar looks full only where nothing is left.
    """
    amounts = [max(0, each) for each in (limit.spent, limit.reserved, limit.leased, limit.remaining)]
    total = sum(amounts)
    if total == 0:
        return (width, 0, 0, 0) if limit.max <= 0 else (0, 0, 0, width)
    exact = [each * width / total for each in amounts]
    cells = [max(int(each), 1 if each else 0) for each in exact]
    while sum(cells) < width:
        cells[max(range(4), key=lambda i: exact[i] - cells[i])] += 1
    while sum(cells) > width:
        cells[max(range(4), key=lambda i: (cells[i] > 1, cells[i] - exact[i]))] -= 1
    return cells[0], cells[1], cells[2], cells[3]


def bar(limit: LimitReport, width: int, percent: int) -> Text:
    """Draw a limit."""
    characters = _BLOCKS if can_show(_BLOCKS) else _PLAIN
    spent = "red" if percent >= 100 else "yellow" if percent >= NEARLY else STYLES[0]
    drawn = Text()
    for count, character, style in zip(parts(limit, width), characters, (spent, *STYLES[1:]), strict=True):
        drawn.append(character * count, style)
    return drawn


def legend() -> Text:
    """Say what the parts of a bar are."""
    characters = _BLOCKS if can_show(_BLOCKS) else _PLAIN
    words = ("spent", "reserved", "leased", "left")
    drawn = Text()
    for character, word, style in zip(characters, words, STYLES, strict=True):
        drawn.append("  " if drawn else "").append(character * 2, style).append(f" {word}")
    return drawn
