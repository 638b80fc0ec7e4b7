"""Provenance labels in a run, each a bit of a number, so that handing them up a long chain costs next to nothing."""

from collections.abc import Iterable

_MAX_KNOWN = 256
"""Combinations of labels whose names are kept ready."""


class Labels:
    """The labels of one run by number. No more than `most`: `overflowed` says that there were more."""

    __slots__ = ("_bits", "_known", "_most", "_names", "overflowed")

    def __init__(self, most: int) -> None:
        self._most = most
        self._bits: dict[str, int] = {}
        self._names: list[str] = []
        self._known: dict[int, tuple[str, ...]] = {}
        self.overflowed = False

    def bits(self, names: Iterable[str]) -> int:
        """Give the labels as bits; new ones get one, as long as there is room."""
        bits = 0
        for name in names:
            bit = self._bits.get(name)
            if bit is None:
                if len(self._names) >= self._most:
                    self.overflowed = True
                    continue
                bit = self._bits[name] = 1 << len(self._names)
                self._names.append(name)
            bits |= bit
        return bits

    def known_bits(self, names: Iterable[str]) -> int:
        """Give the labels that the run has seen as bits."""
        return sum(self._bits[name] for name in set(names) if name in self._bits)

    def names(self, bits: int) -> tuple[str, ...]:
        """Give the labels by name, in order."""
        found = self._known.get(bits)
        if found is None:
            found = tuple(sorted(name for index, name in enumerate(self._names) if bits >> index & 1))
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[bits] = found
        return found
