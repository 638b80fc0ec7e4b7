"""YAML text as a tree that knows where each value stands.

PyYAML's parser does the reading (its C form where it is there). The tree built from its events is ours, so
that positions are kept, keys given twice are seen, and depth and size are bounded before anything is expanded.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from fleetward.resources.yamlerror import YamlError, in_words

MAX_BYTES = 1024 * 1024
"""The largest file read."""
MAX_VALUES = 100_000
"""The most values in one file, counted as if each alias were written out."""
MAX_DEPTH = 64
"""The deepest nesting of lists and mappings, counted in the same way."""

_PARSER: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SURROGATE = re.compile(r"\\u[dD][89abAB]")

_REFUSED = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|\r(?!\n)"
)
"""What YAML forbids, and line breaks of YAML 1.1 no editor shows: they could end a comment unseen."""


@dataclass(slots=True, eq=False)
class Node:
    """A value in the text: `start` and `end` count characters from 0, `line` from 1, `column` from 0."""

    start: int
    end: int
    line: int
    column: int
    anchor: str | None


@dataclass(slots=True, eq=False)
class Scalar(Node):
    """Text with the tag YAML gives it; `style` is the quote or block indicator, empty for plain."""

    value: str
    tag: str
    style: str


@dataclass(slots=True, eq=False)
class Sequence(Node):
    """A list."""

    tag: str | None
    flow: bool
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Mapping(Node):
    """A mapping; the pairs as written, merge keys included."""

    tag: str | None
    flow: bool
    pairs: list[tuple[Node, Node]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Alias(Node):
    """A use of an anchor."""

    target: Node


def decode(data: bytes) -> str:
    """Decode a file without its byte order mark; YamlError where it is not clean UTF-8 of bounded size."""
    if len(data) > MAX_BYTES:
        raise YamlError(0, f"the file is larger than {MAX_BYTES // 1024} KiB, the most allowed; split it")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise YamlError(1, "found UTF-16, allowed UTF-8; save the file as UTF-8")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlError(line, f"found the byte 0x{data[error.start]:02x}, allowed UTF-8 text") from None


def compose(text: str) -> list[Node]:
    """Return the root of each document in the text.

    YamlError where it is no YAML, or larger or deeper than allowed with its aliases written out.
    """
    if bad := _REFUSED.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise YamlError(line, f"found the character U+{ord(bad.group()):04X}, allowed printable text; remove it")
    return _Composer(text).documents()


class _Composer:
    def __init__(self, text: str) -> None:
        self._text = text
        # libyaml refuses what JSON writes for characters beyond U+FFFF.
        self._parser = yaml.SafeLoader(text) if _SURROGATE.search(text) else _PARSER(text)
        self._values = 0
        self._anchors: dict[str, tuple[Node, int, int]] = {}
        self._open: set[str] = set()

    def documents(self) -> list[Node]:
        roots: list[Node] = []
        try:
            while not self._parser.check_event(yaml.StreamEndEvent):
                if self._parser.check_event(yaml.StreamStartEvent, yaml.DocumentEndEvent):
                    self._parser.get_event()
                elif self._parser.check_event(yaml.DocumentStartEvent):
                    self._parser.get_event()
                    self._anchors.clear()
                    roots.append(self._node(0)[0])
        except yaml.MarkedYAMLError as error:
            raise in_words(error, self._text) from None
        finally:
            self._parser.dispose()
        return roots

    def _node(self, depth: int) -> tuple[Node, int]:
        """Read the next node; return it and how deep it is in itself."""
        if self._parser.check_event(yaml.AliasEvent):
            return self._alias(self._event(), depth)
        scalar = self._parser.check_event(yaml.ScalarEvent)
        sequence = self._parser.check_event(yaml.SequenceStartEvent)
        event = self._event()
        line = event.start_mark.line + 1
        self._count(1, depth, line)
        mark, end = event.start_mark, event.end_mark.index
        place = (mark.index, end, line, mark.column, event.anchor)
        before = self._values
        if event.anchor:
            self._open.add(event.anchor)
        node: Node
        height = 0
        if scalar:
            node = Scalar(*place, event.value, _scalar_tag(event), event.style or "")
        elif sequence:
            node, height = self._sequence(Sequence(*place, event.tag, bool(event.flow_style)), depth)
        else:
            node, height = self._mapping(Mapping(*place, event.tag, bool(event.flow_style)), depth)
        if event.anchor:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = (node, self._values - before + 1, height)
        return node, height

    def _alias(self, event: Any, depth: int) -> tuple[Node, int]:
        mark, name = event.start_mark, event.anchor
        if name in self._open:
            raise YamlError(mark.line + 1, f"the alias *{name} stands inside its own anchor &{name}; write it out")
        if name not in self._anchors:
            known = ", ".join(f"&{anchor}" for anchor in self._anchors) or "no anchor"
            raise YamlError(mark.line + 1, f"found the alias *{name}, but this document has {known} before it")
        target, values, height = self._anchors[name]
        self._count(values, depth + height, mark.line + 1)
        return Alias(mark.index, event.end_mark.index, mark.line + 1, mark.column, name, target), height

    def _sequence(self, node: Sequence, depth: int) -> tuple[Node, int]:
        height = 0
        while not self._parser.check_event(yaml.SequenceEndEvent):
            item, inner = self._node(depth + 1)
            node.items.append(item)
            height = max(height, inner)
        node.end = self._event().end_mark.index
        return node, height + 1

    def _mapping(self, node: Mapping, depth: int) -> tuple[Node, int]:
        height = 0
        while not self._parser.check_event(yaml.MappingEndEvent):
            key, _ = self._node(depth + 1)
            value, inner = self._node(depth + 1)
            node.pairs.append((key, value))
            height = max(height, inner)
        node.end = self._event().end_mark.index
        return node, height + 1

    def _event(self) -> Any:
        return self._parser.get_event()

    def _count(self, values: int, depth: int, line: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise YamlError(
                line, f"the file holds more than {MAX_VALUES:,} values with its aliases written out; split it"
            )
        if depth > MAX_DEPTH:
            raise YamlError(line, f"found nesting deeper than {MAX_DEPTH}, the most allowed")


def _scalar_tag(event: Any) -> str:
    if event.tag is not None and event.tag != "!":
        return str(event.tag)
    if event.tag is None and event.implicit[0]:
        return plain_tag(event.value)
    return "tag:yaml.org,2002:str"


def plain_tag(text: str) -> str:
    """Return the tag that YAML 1.1 gives the text when it stands without quotes."""
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, pattern in resolvers.get(text[:1], []) + resolvers.get(None, []):
        if pattern.match(text):
            return str(tag)
    return "tag:yaml.org,2002:str"
