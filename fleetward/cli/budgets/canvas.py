"""Lines drawn with characters: eight dots a character in braille where the stream can hold it, else one in ASCII."""

from collections.abc import Callable

from rich.text import Text

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a braille character, by row and column."""
_BRAILLE = 0x2800


class Canvas:
    """So many characters wide and high. Points are given as parts of the whole, from (0, 0) at the lower left."""

    def __init__(self, width: int, height: int, *, braille: bool) -> None:
        self._width, self._height = width, height
        self._braille = braille
        self._across, self._down = (2, 4) if braille else (1, 1)
        self._cells: dict[tuple[int, int], tuple[int, str, str]] = {}
        """By row and column: the dots, the character in ASCII, and the style; what is drawn last shows."""

    @property
    def steps(self) -> int:
        """How many points a line has from left to right."""
        return self._width * self._across

    def line(
        self,
        height_at: Callable[[float], float | None],
        *,
        style: str,
        plain: str,
        pattern: tuple[int, int] = (1, 0),
        joined: bool = False,
    ) -> None:
        """Draw a line: its height (0 to 1, None: nothing) at each part of the width.

        Of a pattern (a, b), a points are drawn and then b left out. Where it is `joined`, steps are drawn upright, too.
        """
        drawn, left_out = pattern
        rows = self._height * self._down
        before: int | None = None
        for step in range(self.steps):
            height = height_at((step + 0.5) / self.steps)
            if height is None:
                before = None
                continue
            row = round((1 - min(1.0, max(0.0, height))) * (rows - 1))
            if step % (drawn + left_out) < drawn:
                first, last = (min(row, before), max(row, before)) if joined and before is not None else (row, row)
                for each in range(first, last + 1):
                    self._dot(each, step, style, plain)
            before = row

    def rows(self) -> list[Text]:
        """Give what is drawn, from the top."""
        found = []
        for row in range(self._height):
            line = Text()
            for column in range(self._width):
                dots, plain, style = self._cells.get((row, column), (0, " ", ""))
                line.append(chr(_BRAILLE + dots) if self._braille and dots else plain if dots else " ", style)
            found.append(line)
        return found

    def _dot(self, row: int, step: int, style: str, plain: str) -> None:
        place = (row // self._down, step // self._across)
        bit = _DOTS[row % 4][step % 2] if self._braille else 1
        dots, *_ = self._cells.get(place, (0, "", ""))
        self._cells[place] = (dots | bit, plain, style)
