"""The dialect of CEL that Fleetward documents: what the type checker understood, held against a list.

A compiled expression of cel-expr-python serialises as `cel.expr.CheckedExpr`, which names for each part the
function it calls and the type it has. Only what both runtimes agree on is let through
(`docs/expressions.md`); what else the CEL specification has is refused here, at lint, with its place.

Field numbers are those of cel-spec's `cel/expr/checked.proto` and `cel/expr/syntax.proto`. The wire format
(https://protobuf.dev/programming-guides/encoding/) is simple enough to read without generated code.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from cel_expr_python import cel

from fleetward.decision.cel import lexical
from fleetward.decision.cel.runtime import ExpressionError, position

FUNCTIONS: Final = ("contains", "double", "dyn", "endsWith", "int", "matches", "size", "startsWith", "string")
MACROS: Final = ("all", "exists", "exists_one", "filter", "has", "map")

_ARITHMETIC: Final = ("_+_", "_-_", "_*_", "_/_", "_%_", "-_")
_COMPARISONS: Final = ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in")
_LOGIC: Final = ("!_", "_&&_", "_||_", "_?_:_", "_[_]", "@not_strictly_false")
_ALLOWED: Final = frozenset((*FUNCTIONS, *_ARITHMETIC, *_COMPARISONS, *_LOGIC))
_UINT, _DOUBLE, _STRING, _BYTES = 3, 4, 5, 6  # Type.PrimitiveType
_TIMESTAMP, _DURATION = 2, 3  # Type.WellKnownType
# The fields of each kind of Expr (by its number in the oneof) that hold further Exprs.
_CHILDREN: Final = {5: (1,), 6: (1, 3), 7: (1,), 8: (2,), 9: (2, 4, 5, 6, 7)}
_SELECT, _CALL, _STRUCT = 5, 6, 8

_Wire = dict[int, list[int | bytes]]


class _Node(NamedTuple):
    id: int
    kind: int
    body: _Wire


def check(checked: bytes, source: str) -> None:
    """Raise ExpressionError at the first part of a serialised CheckedExpr that is not in the dialect."""
    if lexical_flaw := lexical.flaw(source):
        raise _refused(*lexical_flaw, source)
    outer = _read(_bytes(_read(checked), 2))  # unwraps google.protobuf.Any
    info = _read(_bytes(outer, 5))
    places = {_int(entry, 1): _int(entry, 2) for entry in _all(info, 4)}
    types = {_int(entry, 1): _read(_bytes(entry, 2)) for entry in _all(outer, 3)}
    found = [
        (places.get(node.id, 0), why)
        for node in _walk(_bytes(outer, 4))
        if (why := _refusal(node, types) or _type_refusal(types.get(node.id, {})))
    ]
    if found:
        raise _refused(*min(found), source)


def _refused(offset: int, why: str, source: str) -> ExpressionError:
    line, column = position(source, offset)
    return ExpressionError(why, source=source, line=line, column=column)


def _refusal(node: _Node, types: dict[int, _Wire]) -> str | None:
    if node.kind == _CALL:
        return _call_refusal(node.body, types)
    if node.kind == _STRUCT:
        if name := _text(node.body, 1):
            return f"a message of type {name} cannot be built in an expression"
        if any(_primitive(types, _read(_bytes(entry, 3))) not in (0, _STRING) for entry in _all(node.body, 2)):
            return "the keys of a map must be strings"
    return None


def _call_refusal(call: _Wire, types: dict[int, _Wire]) -> str | None:
    name = _text(call, 2)
    if name not in _ALLOWED:
        return f"{name}() is not supported; functions: {', '.join(FUNCTIONS)}; macros: {', '.join(MACROS)}"
    if name == "matches":
        return _pattern_refusal(call)
    if name in ("_==_", "_!=_") and _compares_absent(call, types):
        return "a field that is absent is an error here, not null; ask has(...) first"
    if name == "string" and any(_primitive(types, arg) == _DOUBLE for arg in _all(call, 3)):
        return "string() of a double is not supported; compare the number itself"
    return None


def _compares_absent(call: _Wire, types: dict[int, _Wire]) -> bool:
    """Whether an optional field (a wrapper type, 4) is compared with null (2)."""
    kinds = [types.get(_int(arg, 2), {}) for arg in _all(call, 3)]
    return any(2 in kind for kind in kinds) and any(4 in kind for kind in kinds)


def _primitive(types: dict[int, _Wire], expr: _Wire) -> int:
    """Return the primitive type of an expression, 0 where it has none or any."""
    return _int(types.get(_int(expr, 2), {}), 3)


def _type_refusal(kind: _Wire) -> str | None:
    if 11 in kind:
        return "types are not values here; compare what the value is for instead"
    primitive, known = _int(kind, 3), _int(kind, 5)
    if primitive == _UINT:
        return "unsigned integers are not supported; write the number without the u"
    if primitive == _BYTES:
        return "bytes are not supported; compare strings"
    if known in (_TIMESTAMP, _DURATION):
        return "timestamps and durations are not supported; compare numbers"
    return None


def _pattern_refusal(call: _Wire) -> str | None:
    """Compile a literal pattern, so that a bad one is found before the rule runs."""
    last = list(_all(call, 3))[-1:]
    constant = _read(_bytes(last[0], 3)) if last else {}
    if 6 not in constant:
        return None
    env = cel.NewEnv(variables={"pattern": cel.Type.STRING})
    probe = env.compile("''.matches(pattern)").eval(env.Activation({"pattern": _text(constant, 6)}))
    return f"not an RE2 pattern: {probe.plain_value()}" if probe.type().name() == "ERROR" else None


def _walk(root: bytes) -> Iterator[_Node]:
    stack = [root]
    while stack:
        expr = _read(stack.pop())
        kind = next((number for number in (3, 4, *_CHILDREN) if number in expr), 0)
        body = _read(_bytes(expr, kind)) if kind else {}
        yield _Node(_int(expr, 2), kind, body)
        for number in _CHILDREN.get(kind, ()):
            for child in body.get(number, ()):
                if isinstance(child, bytes):
                    stack.extend(_entry(child) if kind == _STRUCT else (child,))


def _entry(data: bytes) -> list[bytes]:
    """Return the key and the value of an entry of a map literal."""
    entry = _read(data)
    return [_bytes(entry, number) for number in (3, 4) if number in entry]


def _read(data: bytes) -> _Wire:
    """Read one message: its values by field number."""
    message: _Wire = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire_type = tag & 7
        value: int | bytes
        if wire_type == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], at)
            value, at = data[at : at + length], at + length
        message.setdefault(tag >> 3, []).append(value)
    return message


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _all(message: _Wire, number: int) -> Iterator[_Wire]:
    return (_read(item) for item in message.get(number, ()) if isinstance(item, bytes))


def _bytes(message: _Wire, number: int) -> bytes:
    value = message.get(number, [b""])[0]
    return value if isinstance(value, bytes) else b""


def _text(message: _Wire, number: int) -> str:
    return _bytes(message, number).decode()


def _int(message: _Wire, number: int) -> int:
    value = message.get(number, [0])[0]
    return value if isinstance(value, int) else 0
