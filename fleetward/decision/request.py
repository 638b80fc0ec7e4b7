"""Request bodies, read strictly: what is wrong is told by field, found and allowed."""

import difflib
import json
import re
from typing import Any, TypeVar, get_args

import jiter
import msgspec

from fleetward.decision.action import DecisionRequest, OutcomeRequest
from fleetward.registry.text import PATTERNS

T = TypeVar("T", bound=msgspec.Struct)


class RequestError(ValueError):
    """A request that cannot be read: `field` (a dotted path, empty for the body as a whole) and `message`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


def parse_json(body: bytes) -> Any:
    """Read JSON strictly (RFC 8259): no duplicate keys, no NaN, no endless nesting. Raises RequestError."""
    try:
        return jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError("", f"not valid JSON: {error}") from None


def parse(body: bytes, shape: type[T]) -> T:
    """Read a request body of any shape. Raises RequestError."""
    return read(parse_json(body), shape)


def parse_request(body: bytes) -> DecisionRequest:
    """Read the body of `POST /v1/decisions`. Raises RequestError."""
    return parse(body, DecisionRequest)


def parse_outcome(body: bytes) -> OutcomeRequest:
    """Read the body of `POST /v1/decisions/{id}/outcome`. Raises RequestError."""
    outcome = parse(body, OutcomeRequest)
    if (actual := outcome.actual) is not None:
        _check_part("cachedInputTokens", actual.cached_input_tokens, "inputTokens", actual.input_tokens)
        _check_part("reasoningTokens", actual.reasoning_tokens, "outputTokens", actual.output_tokens)
    return outcome


def _check_part(name: str, part: int | None, of: str, whole: int | None) -> None:
    """Refuse a part that is more than the whole. Raises RequestError."""
    if part is not None and whole is not None and part > whole:
        raise RequestError(f"actual.{name}", f"found {part}, allowed at most {whole}: it is a part of {of}")


def read(data: Any, shape: type[T]) -> T:
    """Give JSON data the shape of a request. Raises RequestError."""
    try:
        return msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        raise _explain(str(error), data, shape) from None
    except RecursionError:
        raise RequestError("", "nested too deep") from None


_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_PATTERN = re.compile(r"Expected `str` matching regex '(.*)'", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<kinds>[\w |]+)`(?P<bound>.*?)(?:, got `(?P<got>\w+)`)?$")

_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
"""JSON's types, in words, by the names msgspec gives them."""


def _explain(text: str, data: Any, shape: type[msgspec.Struct]) -> RequestError:
    """Turn msgspec's message into a field and what is wrong with it."""
    at = _AT.match(text)
    what, path = (at["what"], (at["path"] or "").lstrip(".")) if at else (text, "")

    def error(name: str, message: str) -> RequestError:
        return RequestError(f"{path}.{name}".strip(".")[:200], message)

    if named := _MISSING.match(what):
        return error(named[1], "is missing")
    if named := _UNKNOWN.match(what):
        return error(named[1], f"unknown field{_allowed_fields(named[1], path, shape)}")
    value = _value_at(data, path)
    found = "" if value is None else f"found {_shorten(value)}; "
    if pattern := _PATTERN.match(what):
        words = PATTERNS.get(pattern[1].encode().decode("unicode_escape"), f"text that matches {pattern[1]}")
        return error("", f"{found}allowed: {words}")
    if what.startswith("Invalid enum value"):
        return error("", f"{found}allowed: {', '.join(_choices(path, shape))}")
    if expected := _EXPECTED.match(what):
        kinds = " or ".join(_KINDS.get(kind, kind) for kind in expected["kinds"].split(" | "))
        if not found and expected["got"]:
            found = f"found {_KINDS.get(expected['got'], expected['got'])}; "
        return error("", f"{found}allowed: {kinds}{expected['bound']}")
    return error("", f"{found}{what[0].lower()}{what[1:]}")


def _choices(path: str, shape: type[msgspec.Struct]) -> tuple[str, ...]:
    """Give the values allowed at `path`, a field that holds one of a few names."""
    *parents, name = path.split(".")
    part = _struct_at(".".join(parents), shape)
    kind = next((f.type for f in msgspec.structs.fields(part) if f.encode_name == name), None) if part else None
    return get_args(kind)


def _allowed_fields(unknown: str, path: str, shape: type[msgspec.Struct]) -> str:
    """List the fields that are known at `path`, the likeliest first."""
    part = _struct_at(path, shape)
    if part is None:
        return ""
    names = [f.encode_name for f in msgspec.structs.fields(part)]
    close = difflib.get_close_matches(unknown, names, n=1)
    return (f"; did you mean {close[0]}?" if close else ";") + f" allowed: {', '.join(names)}"


def _struct_at(path: str, shape: type[msgspec.Struct]) -> type[msgspec.Struct] | None:
    """Give the type of the object at `path`."""
    part: type[msgspec.Struct] | None = shape
    for step in path.split(".") if path else ():
        if part is None:
            return None
        kinds = {f.encode_name: f.type for f in msgspec.structs.fields(part)}
        part = _struct_in(kinds.get(step.partition("[")[0]))
    return part


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """Give the type of an object that a field holds, by itself or in a list."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for each in get_args(kind) if (found := _struct_in(each)) is not None), None)


def _value_at(data: Any, path: str) -> Any:
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        else:
            return None
    return data if isinstance(data, str | int | float | bool) else None


def _shorten(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)  # as the client wrote it, control characters escaped
    return text if len(text) <= 60 else text[:57] + "..."
