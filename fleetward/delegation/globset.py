"""Sets of globs over dotted action names: whether one matches a name, and whether they cover another glob.

The globs are those of `fleetward.decision.glob`. A set of them is one automaton over characters, and a state of it is
an integer with a bit for each place within each glob that was reached. A name is read with a dot after each of its
segments, also after the last; so `**` is any number of segments with their dots, and a glob ends right after a dot.

Time never explodes: matching takes one step for each character, and a search for something that is not covered gives
up after a fixed number of steps.
"""

import string
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

MAX_STEPS = 20_000
"""How many steps a search for uncovered names takes, for all globs asked about together, before it gives up.

A step is some microseconds: one transition among a thousand places, or what takes as long.
"""

_ALPHABET = frozenset(string.ascii_letters + string.digits + "_:/@+-")
"""What segments of names are made of; see `fleetward.registry.text`."""


class _GlobSet:
    """The automaton of some globs. Places are numbered glob by glob, from left to right."""

    __slots__ = ("_firsts", "ends", "literals", "loops", "reducing", "rests", "separators", "stars", "start")

    def __init__(self, globs: Iterable[str]) -> None:
        self.literals: dict[str, int] = {}
        """The places of each character."""
        self.stars = self.loops = self.separators = self.ends = 0
        """The places of `*`, of `**`, of dots, and behind the last dot of each glob."""
        self._firsts: list[int] = []
        """For the place of each `*` and `**`: the first of the places it makes redundant."""
        self.reducing = 0
        """The places that make others redundant."""
        starts = 0
        for glob in globs:
            starts |= 1 << len(self._firsts)
            self._add(glob)
        self.reducing = sum(1 << n for n, first in enumerate(self._firsts) if first < n) & (self.stars | self.loops)
        self.rests = self.loops & (self.ends >> 1)
        """The places of each `**` that ends its glob: whatever follows, the glob matches."""
        self.start = self._begun(starts)

    def _add(self, glob: str) -> None:
        first = len(self._firsts)
        for segment in _segments(glob):
            if segment == "**":
                self.loops |= self._place(first)
                continue
            within = len(self._firsts)
            for character in segment:
                if character == "*":
                    self.stars |= self._place(within)
                else:
                    place = self._place(within)
                    self.literals[character] = self.literals.get(character, 0) | place
            self.separators |= self._place(within)
        self.ends |= self._place(first)

    def _place(self, first: int) -> int:
        place = 1 << len(self._firsts)
        self._firsts.append(first)
        return place

    def _begun(self, state: int) -> int:
        """Add what is reached at the beginning of a segment without reading: a `**` may stand for no segment."""
        state |= (state & self.loops) << 1
        return state | (state & self.stars) << 1

    def read(self, state: int, character: str | None) -> int:
        """Give the state after one more character of a segment; None: one that no glob has."""
        after = state & (self.stars | self.loops)
        if character is not None:
            after |= (state & self.literals.get(character, 0)) << 1
        return after | (after & self.stars) << 1

    def ended(self, state: int) -> int:
        """Give the state after a dot."""
        return self._begun((state & self.loops) | (state & self.separators) << 1)

    def reduced(self, state: int) -> int:
        """Drop the places that say nothing new: those before a `*` of the same segment, or a `**` of the same glob.

        Whatever can be matched from there is matched from the `*` or the `**`, too.
        """
        todo = state & self.reducing
        while todo:
            place = todo.bit_length() - 1
            redundant = (1 << place) - (1 << self._firsts[place])
            state &= ~redundant
            todo &= ~(redundant | 1 << place)
        return state

    def expected(self, state: int) -> list[str]:
        """Give the characters that a place of `state` waits for."""
        return [character for character, places in self.literals.items() if places & state]


def _segments(glob: str) -> Iterator[str]:
    """Give the segments of `glob` with nothing said twice: no `**` after a `**`, no star after a star."""
    before = ""
    for segment in glob.split("."):
        if segment == "**":
            if before != "**":
                yield segment
        elif "**" in segment:
            yield "".join(c for i, c in enumerate(segment) if c != "*" or segment[i - 1 : i] != "*")
        else:
            yield segment
        before = segment


_compiled = lru_cache(maxsize=64)(_GlobSet)


def matches(globs: Iterable[str], name: str) -> bool:
    """Say whether any of `globs` matches `name`."""
    return _matches(tuple(globs), name)


@lru_cache(maxsize=1024)
def _matches(globs: tuple[str, ...], name: str) -> bool:
    automaton = _compiled(globs)
    state = automaton.start
    for character in name:
        state = automaton.ended(state) if character == "." else automaton.read(state, character)
        if not state:
            return False
    return bool(automaton.ended(state) & automaton.ends)


def contains(outer: Iterable[str], inner: str, *, steps: int = MAX_STEPS) -> bool:
    """Say whether every name that `inner` matches is matched by one of `outer`; no if `steps` do not tell."""
    return not uncovered(outer, (inner,), steps=steps)


def uncovered(outer: Iterable[str], inner: Sequence[str], *, steps: int = MAX_STEPS) -> tuple[str, ...]:
    """Give those of `inner` that match a name which none of `outer` matches, or may, as far as `steps` tell.

    The steps are shared out evenly, so that the answer for one glob does not depend on the order of the others.
    """
    globs = tuple(outer)
    unknown = [glob for glob in dict.fromkeys(inner) if glob not in globs]
    if not unknown:
        return ()
    automaton, share = _compiled(globs), steps // len(unknown)
    return tuple(glob for glob in unknown if not _Search(automaton, glob, share).covers())


class _Search:
    """A search, through the states of both automata at once, for a name that only the inner glob matches."""

    def __init__(self, outer: _GlobSet, inner: str, steps: int) -> None:
        self._outer = outer
        self._inner = _GlobSet((inner,))
        self._others = not outer.literals.keys() | self._inner.literals.keys() >= _ALPHABET
        self._steps = steps
        self._width = 1 + (outer.ends.bit_length() + self._inner.ends.bit_length()) // 1024
        self._seen: dict[tuple[int, bool], list[int]] = {}
        self._todo: list[tuple[int, int, bool]] = []

    def covers(self) -> bool:
        """Say whether there is none."""
        self._reach(self._inner.start, self._outer.start, begins=True)
        while self._todo:
            inner, outer, begins = self._todo.pop()
            if not begins:
                ended = self._inner.ended(inner), self._outer.ended(outer)
                if ended[0] & self._inner.ends and not ended[1] & self._outer.ends:
                    return False
                self._reach(*ended, begins=True)
            for character in self._next(inner, outer):
                self._reach(self._inner.read(inner, character), self._outer.read(outer, character), begins=False)
            if self._steps < 0:
                return False
        return True

    def _next(self, inner: int, outer: int) -> Iterator[str | None]:
        """Give the characters that make a difference, the one that leads to the smallest states last.

        Last in is first out, and a small state of the outer globs is where names go uncovered.
        """
        if not inner & (self._inner.stars | self._inner.loops):
            yield from self._inner.expected(inner)
            return
        self._steps -= self._width * (len(self._outer.literals) // 16)
        yield from dict.fromkeys(self._outer.expected(outer) + self._inner.expected(inner))
        if self._others:
            yield None

    def _reach(self, inner: int, outer: int, *, begins: bool) -> None:
        """Take up a pair of states, unless all that may follow is covered or was looked at with fewer outer places."""
        self._steps -= self._width
        if not inner & ~self._inner.ends or outer & self._outer.rests:
            return
        redundant = (outer & self._outer.reducing).bit_count() + (inner & self._inner.reducing).bit_count()
        inner, outer = self._inner.reduced(inner), self._outer.reduced(outer)
        seen = self._seen.setdefault((inner, begins), [])
        self._steps -= self._width * (redundant // 4 + len(seen) // 32)
        for smaller in seen:
            if not smaller & ~outer:
                return
        seen.append(outer)
        self._todo.append((inner, outer, begins))
