"""Globs over dotted action names, many matched at once.

`*` stands for anything within one segment, a whole `**` for any number of segments (none included). All globs of an
agent's rules lie in one trie over segments, so finding those that match costs in proportion to the name, not to them.
"""

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("any_segment", "any_segments", "literal", "loops", "partial", "values")

    def __init__(self, *, loops: bool = False) -> None:
        self.literal: dict[str, _Node[T]] = {}
        self.partial: dict[str, tuple[re.Pattern[str], _Node[T]]] = {}
        self.any_segment: _Node[T] | None = None
        self.any_segments: _Node[T] | None = None
        self.loops = loops
        self.values: list[T] = []

    def child(self, segment: str) -> "_Node[T]":
        """Give the node that `segment` of a glob leads to, made if need be."""
        if segment == "**":
            if self.loops:
                return self  # `**.**` says no more than `**`
            if self.any_segments is None:
                self.any_segments = _Node(loops=True)
            return self.any_segments
        if segment == "*":
            if self.any_segment is None:
                self.any_segment = _Node()
            return self.any_segment
        if "*" in segment:
            if segment not in self.partial:
                first, *middle, last = map(re.escape, segment.split("*"))
                # Atomic groups: where a part was found first is where it counts, so time stays linear for any glob.
                pattern = first + "".join(f"(?>[^.]*?{part})" for part in middle if part) + "[^.]*" + last
                self.partial[segment] = (re.compile(pattern), _Node())
            return self.partial[segment][1]
        return self.literal.setdefault(segment, _Node())

    def step(self, segment: str) -> Iterable["_Node[T]"]:
        """Give the nodes one segment of a name leads to."""
        if self.loops:
            yield self
        if self.any_segment is not None:
            yield self.any_segment
        if (node := self.literal.get(segment)) is not None:
            yield node
        for pattern, node in self.partial.values():
            if pattern.fullmatch(segment):
                yield node


class GlobIndex(Generic[T]):
    """Values filed under globs, found by name."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, glob: str, value: T) -> None:
        """File `value` under `glob`."""
        node = self._root
        for segment in glob.split("."):
            node = node.child(segment)
        node.values.append(value)

    def find(self, name: str) -> list[T]:
        """Give every value with a glob that matches `name`, in no particular order; once for each such glob."""
        nodes = _with_empty_runs([self._root])
        for segment in name.split("."):
            nodes = _with_empty_runs([after for node in nodes for after in node.step(segment)])
            if not nodes:
                return []
        return [value for node in nodes for value in node.values]


def _with_empty_runs(nodes: list[_Node[T]]) -> list[_Node[T]]:
    """Add the nodes that `**` reaches by standing for no segment at all; each node once."""
    reached: dict[int, _Node[T]] = {}
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if id(node) not in reached:
            reached[id(node)] = node
            if node.any_segments is not None:
                todo.append(node.any_segments)
    return list(reached.values())


def glob_index(globs: Iterable[str]) -> GlobIndex[bool]:
    """Give an index that only says whether any of `globs` matches."""
    index: GlobIndex[bool] = GlobIndex()
    for glob in globs:
        index.add(glob, True)
    return index
