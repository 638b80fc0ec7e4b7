"""The data that a YAML tree stands for, what is doubtful about it, and how to name a value to a reader."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from fleetward.resources.finding import Path, shorten
from fleetward.resources.yamltree import Alias, Mapping, Node, Scalar, Sequence

_TAG = "tag:yaml.org,2002:"
_STR, _INT, _FLOAT, _BOOL, _NULL = (_TAG + name for name in ("str", "int", "float", "bool", "null"))
_MERGE = _TAG + "merge"
_CONSTRUCTOR = yaml.constructor.SafeConstructor()


@dataclass(frozen=True)
class Problem:
    """Something in a document that YAML allows and we do not, or whose meaning would surprise its author."""

    path: Path
    line: int
    message: str


class _Refused(Exception):  # noqa: N818  it never leaves this module
    pass


def build(root: Node) -> tuple[object, list[Problem]]:
    """Return the plain data under the node, and its problems; what has one is None or left out."""
    builder = _Builder()
    return builder.value(root, ()), builder.problems


def resolve(node: Node) -> Node:
    """Return the node itself, or what its alias stands for."""
    while isinstance(node, Alias):
        node = node.target
    return node


def entries(mapping: Mapping) -> Iterator[tuple[str, Node, Node, bool]]:
    """Yield name, key, value and whether a merge key brought it, for each text key; of one name the first."""
    seen: set[str] = set()
    for key, value in mapping.pairs:
        if is_text(key) and not _is_merge(key) and (name := _text(key)) not in seen:
            seen.add(name)
            yield name, key, value, False
    for key, value in mapping.pairs:
        if _is_merge(key):
            for source in _merged(value):
                for name, inner_key, inner, _ in entries(source):
                    if name not in seen:
                        seen.add(name)
                        yield name, inner_key, inner, True


def is_text(node: Node) -> bool:
    """Whether the node is a text."""
    node = resolve(node)
    return isinstance(node, Scalar) and node.tag in {_STR, _TAG + "value"}


def describe(node: Node) -> str:
    """Name the value as written, and what YAML makes of it: `on (a boolean: YAML reads it as true)`."""
    node = resolve(node)
    if isinstance(node, Mapping):
        return "a mapping" if node.pairs else "an empty mapping"
    if isinstance(node, Sequence):
        return "a list" if node.items else "an empty list"
    if not isinstance(node, Scalar):
        return "a value"
    if is_text(node):
        return json.dumps(shorten(node.value), ensure_ascii=False) if node.value else "an empty text"
    if node.tag == _NULL:
        return f"{node.value} (null, nothing)" if node.value else "nothing"
    written = shorten(node.value)
    kind = _KIND.get(node.tag, "not plain data")
    try:
        meaning = json.dumps(_scalar(node))
    except (_Refused, TypeError):
        meaning = written
    return f"{written} ({kind})" if meaning == written else f"{written} ({kind}: YAML reads it as {meaning})"


_KIND = {
    _INT: "a whole number",
    _FLOAT: "a number",
    _BOOL: "a boolean",
    _TAG + "timestamp": "a date",
}


class _Builder:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def value(self, node: Node, path: Path) -> object:
        node = resolve(node)
        try:
            if isinstance(node, Scalar):
                return _scalar(node)
            if isinstance(node, Sequence):
                _check_tag(node.tag, "seq")
                return [self.value(item, (*path, i)) for i, item in enumerate(node.items)]
            if isinstance(node, Mapping):
                _check_tag(node.tag, "map")
                self._check_keys(node, path)
                return {key: self.value(value, (*path, key)) for key, _, value, _ in entries(node)}
        except _Refused as refused:
            self._problem(path, node.line, str(refused))
        return None

    def _check_keys(self, node: Mapping, path: Path) -> None:
        first: dict[str, int] = {}
        for key, value in node.pairs:
            if _is_merge(key):
                self._check_merge(value, path)
            elif not is_text(key):
                self._bad_key(key, path)
            elif (name := _text(key)) in first:
                lines = f"on line {first[name]} and on line {key.line}"
                self._problem((*path, name), key.line, f"is given twice, {lines}; allowed once")
            else:
                first[name] = key.line

    def _check_merge(self, value: Node, path: Path) -> None:
        sources = resolve(value)
        for source in sources.items if isinstance(sources, Sequence) else [sources]:
            if isinstance(mapping := resolve(source), Mapping):
                self._check_keys(mapping, path)
            else:
                message = f"the merge key << takes a mapping or a list of mappings, found {describe(source)}"
                self._problem(path, value.line, message)

    def _bad_key(self, key: Node, path: Path) -> None:
        node = resolve(key)
        hint = f'; quote it: "{shorten(node.value)}"' if isinstance(node, Scalar) and node.tag in _KIND else ""
        inner = (*path, node.value) if isinstance(node, Scalar) else path
        self._problem(inner, key.line, f"found the key {describe(key)}, allowed a text as key{hint}")

    def _problem(self, path: Path, line: int, message: str) -> None:
        self.problems.append(Problem(path, line, message))


def _is_merge(key: Node) -> bool:
    return isinstance(key, Scalar) and key.tag == _MERGE


def _merged(value: Node) -> Iterator[Mapping]:
    sources = resolve(value)
    for source in sources.items if isinstance(sources, Sequence) else [sources]:
        if isinstance(mapping := resolve(source), Mapping):
            yield mapping


def _text(key: Node) -> str:
    node = resolve(key)
    return _joined(node.value) if isinstance(node, Scalar) else ""


def _check_tag(tag: str | None, usual: str) -> None:
    if tag not in {None, "!", _TAG + usual}:
        raise _Refused(f"found the tag {_tag_name(tag)}, allowed plain YAML without it; remove the tag")


def _tag_name(tag: str | None) -> str:
    text = tag or ""
    return shorten("!!" + text.removeprefix(_TAG) if text.startswith(_TAG) else text)


def _scalar(node: Scalar) -> object:
    if is_text(node):
        return _surrogates_refused(_joined(node.value))
    if node.tag == _NULL:
        return None
    written = shorten(node.value)
    if node.tag not in _KIND or (node.tag == _TAG + "timestamp" and node.style):
        raise _Refused(f"found the tag {_tag_name(node.tag)}, allowed plain YAML without it; remove the tag")
    try:
        value = _constructed(node)
    except (ValueError, KeyError, IndexError, OverflowError):
        raise _Refused(f'{written} cannot be read as {_KIND[node.tag]}; quote it: "{written}"') from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _Refused(f"found {written}, allowed a finite number")
    if isinstance(value, int) and not isinstance(value, bool) and _surprising(node.value):
        raise _Refused(
            f"found {written}, which YAML reads as the number {value}; "
            f'write {value} for the number, or "{written}" in quotes for the text'
        )
    return value


def _constructed(node: Scalar) -> object:
    make = {
        _INT: _CONSTRUCTOR.construct_yaml_int,
        _FLOAT: _CONSTRUCTOR.construct_yaml_float,
        _BOOL: _CONSTRUCTOR.construct_yaml_bool,
        _TAG + "timestamp": _CONSTRUCTOR.construct_yaml_timestamp,
    }[node.tag]
    return make(yaml.ScalarNode(node.tag, node.value))


def _surprising(written: str) -> bool:
    """Octal by a leading 0, sexagesimal: forms of a number that people write as text."""
    digits = written.lstrip("+-")
    return ":" in digits or (len(digits) > 1 and digits[0] == "0" and digits[1] not in "xXbB")


def _joined(text: str) -> str:
    """JSON writes a character beyond U+FFFF as two escapes, which a YAML parser leaves apart."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text


def _surrogates_refused(text: str) -> str:
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise _Refused("found half of a surrogate pair (an escape from \\ud800 to \\udfff), allowed whole characters")
    return text


def place_of(root: Node, path: Path) -> tuple[Node, Node | None, Path]:
    """Find the deepest node on the path: where it begins (its key, or itself), its value, and its path.

    Steps that do not exist are skipped while later ones do (a validator's own names for a union's branches
    are such); the value is None when the last step does not exist.
    """
    where, node, found = root, resolve(root), list[str | int]()
    missing = False
    for step in path:
        below = _below(node, step)
        missing = below is None
        if below is not None:
            where, node = below[0], resolve(below[1])
            found.append(step)
    return where, None if missing else node, tuple(found)


def _below(node: Node, step: str | int) -> tuple[Node, Node] | None:
    if isinstance(node, Mapping) and isinstance(step, str):
        return next(((key, value) for name, key, value, _ in entries(node) if name == step), None)
    if isinstance(node, Sequence) and isinstance(step, int) and 0 <= step < len(node.items):
        return node.items[step], node.items[step]
    return None
