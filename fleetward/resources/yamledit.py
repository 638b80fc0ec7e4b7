"""Changing single values of a YAML text in place: everything else stays as its author wrote it."""

import json
import re

from fleetward.resources.finding import Path, field_path
from fleetward.resources.yamltree import Alias, Mapping, Node, Scalar, Sequence, plain_tag
from fleetward.resources.yamlvalue import entries, is_text

_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9 _./@()+-]*[A-Za-z0-9_./@()+-])?\Z")
"""Texts that need no quotes wherever they stand; others may do without, but quotes never harm."""
_UNPRINTABLE = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
_COMMENT = re.compile(r"(?:^|[ \t])#")


class EditError(Exception):
    """The text cannot be changed in place; the message says why and what to do. Nothing was written."""


def set_text(text: str, root: Node, path: Path, value: str, after: str = "") -> str:
    """Set the text value at the path of keys, below the document's root; mappings on the way are made.

    A key that is new is written after the key `after` of the same mapping, where that is there. EditError where the
    place belongs to an alias or a merge key.
    """
    node = root
    for depth, step in enumerate(path):
        mapping = _own_mapping(node, path[:depth])
        found = next((each for each in entries(mapping) if each[0] == step), None)
        last = depth == len(path) - 1
        if found is None or (found[3] and last):
            return _insert(text, mapping, [str(key) for key in path[depth:]], value, after)
        if found[3]:
            raise _shared(path[: depth + 1], "comes from a merge key <<")
        node = found[2]
    return _replace(text, node, value)


def remove(text: str, root: Node, path: Path) -> str:
    """Remove the key at the end of the path, if it is there; its comment stays. EditError as in `set_text`."""
    node = root
    for depth, step in enumerate(path):
        mapping = _own_mapping(node, path[:depth])
        found = next((each for each in entries(mapping) if each[0] == step), None)
        if found is None:
            return text
        _, key, node, merged = found
        if merged:
            raise _shared(path[: depth + 1], "comes from a merge key <<")
    if mapping.flow:
        return _remove_in_flow(text, mapping, key, node)
    return _remove_in_block(text, key, node)


def quoted(value: str, style: str = "") -> str:
    """Write the value so that YAML reads just this text: in the style (`"`, `'` or plain) where that can be."""
    if not style and _PLAIN.match(value) and plain_tag(value) == "tag:yaml.org,2002:str":
        return value
    if style == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return _UNPRINTABLE.sub(lambda c: f"\\u{ord(c.group()):04x}", json.dumps(value, ensure_ascii=False))


def _own_mapping(node: Node, path: Path) -> Mapping:
    if isinstance(node, Alias):
        raise _shared(path, f"is the alias *{node.anchor}")
    if not isinstance(node, Mapping):
        raise EditError(f"{field_path(path) or 'the document'} is no mapping (line {node.line}); make it one first")
    return node


def _shared(path: Path, why: str) -> EditError:
    field = field_path(path)
    return EditError(
        f"{field} {why}, so an edit of it would change every place that uses it; "
        f"write {field} out in this document, then try again"
    )


def _replace(text: str, node: Node, value: str) -> str:
    if isinstance(node, Scalar) and node.style in {"|", ">"}:
        comment = _header_comment(text, node)
        written = quoted(value) + (f" {comment}" if comment else "")
        return text[: node.start] + written + text[_content_end(text, node) :]
    style = node.style if isinstance(node, Scalar) else ""
    space = " " if node.start == node.end and text[node.start - 1] == ":" else ""
    return text[: node.start] + space + quoted(value, style) + text[node.end :]


def _insert(text: str, mapping: Mapping, keys: list[str], value: str, after: str) -> str:
    style = '"' if mapping.pairs and all(_double_quoted(key) for key, _ in mapping.pairs) else ""
    if mapping.flow:
        return _insert_in_flow(text, mapping, _flow_item(keys, value, style), after)
    newline = "\r\n" if "\r\n" in text else "\n"
    first, _ = mapping.pairs[0]
    item = _block_item(keys, value, style, newline + " " * first.column, _step(mapping))
    anchor = _line_before(mapping, after)
    if anchor is None:
        return f"{text[: first.start]}{item}{newline}{' ' * first.column}{text[first.start :]}"
    end = _line_end(text, anchor.end)
    return f"{text[:end]}{newline}{' ' * first.column}{item}{text[end:]}"


def _double_quoted(key: Node) -> bool:
    return isinstance(key, Scalar) and key.style == '"'


def _flow_item(keys: list[str], value: str, style: str) -> str:
    written = quoted(value, style)
    for key in reversed(keys[1:]):
        written = f"{{{quoted(key, style)}: {written}}}"
    return f"{quoted(keys[0], style)}: {written}"


def _block_item(keys: list[str], value: str, style: str, line_start: str, step: int) -> str:
    item = f"{quoted(keys[0], style)}:"
    for depth, key in enumerate(keys[1:], start=1):
        item += f"{line_start}{' ' * step * depth}{quoted(key, style)}:"
    return f"{item} {quoted(value, style)}"


def _step(mapping: Mapping) -> int:
    """By how much the author indents a mapping in this one."""
    for key, value in mapping.pairs:
        if isinstance(value, Mapping) and not value.flow and value.pairs:
            return max(1, value.pairs[0][0].column - key.column)
    return 2


def _line_before(mapping: Mapping, after: str) -> Node | None:
    """Find the value after whose line a new key goes: one that ends there, so that no comment changes its owner."""
    named = [value for name, _, value, merged in entries(mapping) if name == after and not merged]
    for value in [*named, *(value for _, value in reversed(mapping.pairs))]:
        if _ends_on_its_line(value):
            return value
    leaf: Node = mapping
    while not _ends_on_its_line(leaf):
        below = leaf.pairs[-1][1] if isinstance(leaf, Mapping) and leaf.pairs else None
        below = leaf.items[-1] if isinstance(leaf, Sequence) and leaf.items else below
        if below is None:
            return None
        leaf = below
    return leaf


def _ends_on_its_line(node: Node) -> bool:
    if isinstance(node, Scalar):
        return node.style not in {"|", ">"}
    return isinstance(node, Alias) or (isinstance(node, Mapping | Sequence) and node.flow)


def _insert_in_flow(text: str, mapping: Mapping, item: str, after: str) -> str:
    if not mapping.pairs:
        start = text.index("{", mapping.start) + 1
        return f"{text[:start]}{item}{text[start:]}"
    key, value = mapping.pairs[-1]
    for each_key, each_value in mapping.pairs:
        if is_text(each_key) and isinstance(each_key, Scalar) and each_key.value == after:
            key, value = each_key, each_value
    line_start = text.rfind("\n", 0, key.start) + 1
    indent = text[line_start : key.start]
    rest_of_line = text[value.end : _line_end(text, value.end)]
    separator = ", "
    if line_start and not indent.strip() and "#" not in rest_of_line:
        separator = ("\r\n" if "\r\n" in text else "\n").join([",", indent])
    return f"{text[: value.end]}{separator}{item}{text[value.end :]}"


def _remove_in_flow(text: str, mapping: Mapping, key: Node, value: Node) -> str:
    ends = [each.end for _, each in mapping.pairs if each.end <= key.start]
    start = ends[-1] if ends else key.start
    if ends and re.fullmatch(r"\s*,\s*", text[start : key.start]):
        return text[:start] + text[value.end :]
    # First of the mapping, or with a comment before it: then the comma behind it goes.
    behind = re.match(r"\s*,[ \t]*", text[value.end :])
    return text[: key.start] + text[value.end + (behind.end() if behind else 0) :]


def _remove_in_block(text: str, key: Node, value: Node) -> str:
    line_start = text.rfind("\n", 0, key.start) + 1
    if text[line_start : key.start].strip():
        raise EditError(f"line {key.line} holds more than this one field; put it on a line of its own, then try again")
    comment = ""
    end = value.end
    if isinstance(value, Scalar) and value.style in {"|", ">"}:
        comment = _header_comment(text, value)
        end = _content_end(text, value)
    line_end = _line_end(text, end)
    comment = comment or text[end:line_end].strip()
    if comment:
        return text[: key.start] + comment + text[line_end:]
    if line_end == len(text):
        return text[:line_start].removesuffix("\n").removesuffix("\r")
    return text[:line_start] + text[text.index("\n", line_end) + 1 :]


def _line_end(text: str, position: int) -> int:
    """Where the position's line ends, before its line break."""
    end = text.find("\n", position)
    end = len(text) if end < 0 else end
    return end - 1 if end > position and text[end - 1] == "\r" else end


def _content_end(text: str, block: Scalar) -> int:
    """Where a block scalar's last line with text ends: the parser counts the empty lines after it in."""
    return block.start + len(text[block.start : block.end].rstrip())


def _header_comment(text: str, block: Scalar) -> str:
    header = text[block.start : _line_end(text, block.start)]
    found = _COMMENT.search(header)
    return header[found.start() :].strip() if found else ""
