"""Linting an expression: types, fields, dialect. For the CLI and the operator, never on the decision path.

Lint compiles twice. The typed environment, built from `fields.py` as protobuf descriptors, refuses a misspelt
field, an operator that does not fit its operands and a result that is not a boolean. The untyped one is what
evaluates later, so it must accept the expression, too. Optional scalars become wrapper messages: they compare
with their type, and with null.

This module pulls protobuf in. Nothing that the decision webhook loads may import it.
"""

import re
from difflib import get_close_matches
from functools import cache
from typing import Final

from cel_expr_python import cel
from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from fleetward.decision.cel import dialect, fields
from fleetward.decision.cel.google import compile_in
from fleetward.decision.cel.runtime import ExpressionError, load_runtime

_PACKAGE: Final = "fleetward.cel"
_UNDEFINED: Final = re.compile(r"undefined field '(?P<field>[^']*)' not found in struct '(?P<struct>[^']*)'")
_UNDECLARED: Final = re.compile(r"undeclared reference to '(?P<name>[^']*)'")
_WRAPPED: Final = {"string": ".google.protobuf.StringValue", "int": ".google.protobuf.Int64Value"}
_DYNAMIC: Final = {"map(string, dyn)": ".google.protobuf.Struct", "dyn": ".google.protobuf.Value"}


def check(source: str, phase: str) -> None:
    """Lint `source` as a rule's `when` in `phase` (Before, During or After).

    Raises ExpressionError for what must not ship, at its line and column; ValueError for an unknown phase.
    """
    try:
        expression = compile_in(_environment(fields.variables(phase)), source)
    except ExpressionError as error:
        raise _explained(error, phase) from None
    dialect.check(expression.serialize(), source)
    result = expression.return_type().name()
    if result == "DYN":
        msg = "the result may be of any type; it must be bool: compare it, for example `... == true`"
        raise ExpressionError(msg, source=source)
    if result != "BOOL":
        msg = f"the result is of type {result.lower()}; it must be bool: compare it with something"
        raise ExpressionError(msg, source=source)
    load_runtime("cel-expr").compile(source)


@cache
def _environment(variables: tuple[str, ...]) -> cel.Env:
    types = {name: cel.Type(f"{_PACKAGE}.{fields.VARIABLES[name]}") for name in variables}
    return cel.NewEnv(descriptor_pool=_pool(), variables=types)


@cache
def _pool() -> DescriptorPool:
    """Describe the messages of `fields.py` to protobuf."""
    file = FileDescriptorProto(name="fleetward/cel/fields.proto", package=_PACKAGE, syntax="proto3")
    pool = DescriptorPool()
    for known in (struct_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR):
        pool.AddSerializedFile(known.serialized_pb)
        file.dependency.append(known.name)
    for name, members in fields.MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(members, start=1):
            _add_field(message, field, number)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(message: DescriptorProto, field: fields.Field, number: int) -> None:
    added = message.field.add(name=field.name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    added.type = FieldDescriptorProto.TYPE_MESSAGE
    if field.type in _DYNAMIC:
        added.type_name = _DYNAMIC[field.type]
    elif field.type in fields.MESSAGES:
        added.type_name = f".{_PACKAGE}.{field.type}"
    elif field.type == "map(string, string)":
        added.label = FieldDescriptorProto.LABEL_REPEATED
        added.type_name = f".{_PACKAGE}.{message.name}.{_add_entry(message, field.name)}"
    elif field.type == "list(string)":
        added.label, added.type = FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.TYPE_STRING
    elif field.optional:
        added.type_name = _WRAPPED[field.type]
    else:
        scalar = {"string": FieldDescriptorProto.TYPE_STRING, "int": FieldDescriptorProto.TYPE_INT64}
        added.type = scalar[field.type]


def _add_entry(message: DescriptorProto, name: str) -> str:
    """Add the entry message that protobuf wants behind a map, and return its name."""
    entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
    entry.options.map_entry = True
    for number, part in enumerate(("key", "value"), start=1):
        entry.field.add(
            name=part,
            number=number,
            type=FieldDescriptorProto.TYPE_STRING,
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    return entry.name


def _explained(error: ExpressionError, phase: str) -> ExpressionError:
    """Say what is allowed where a field or a variable is not known."""
    message, column = error.message, error.column
    if found := _UNDEFINED.search(message):
        struct = found["struct"].removeprefix(f"{_PACKAGE}.")
        allowed = [field.name for field in fields.MESSAGES.get(struct, ())]
        message = f"unknown field {found['field']!r} of {_path(struct)}{_hint(found['field'], allowed)}"
        # The checker points at the dot; the field's name follows it.
        column = error.source.split("\n")[error.line - 1].find(found["field"], column - 1) + 1 or column
    elif found := _UNDECLARED.search(message):
        message, column = _undeclared(found["name"], error, phase)
    return ExpressionError(message, source=error.source, line=error.line, column=column)


def _undeclared(name: str, error: ExpressionError, phase: str) -> tuple[str, int]:
    """Explain an unknown variable or function; the column moves from the dot or parenthesis to the name."""
    line = error.source.split("\n")[error.line - 1]
    is_call = line[error.column - 1 : error.column] == "("
    first, _, rest = name.partition(".")
    before = name if is_call else first
    column = error.column - len(before) if line[: error.column - 1].endswith(before) else error.column
    known = fields.variables(phase)
    if first == "outcome" and not is_call:
        return f"outcome is known in the phases During and After only; this rule's phase is {phase}", column
    if is_call:
        allowed = f"functions: {', '.join(dialect.FUNCTIONS)}; macros: {', '.join(dialect.MACROS)}"
        close = get_close_matches(rest or first, [*dialect.FUNCTIONS, *dialect.MACROS], n=1)
    else:
        allowed, close = f"variables: {', '.join(known)}", get_close_matches(first, known, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    kind, shown = ("function", name) if is_call else ("variable", first)
    return f"unknown {kind} {shown!r}{meant} {allowed}", column


def _path(struct: str) -> str:
    """Return where a message stands, such as action.estimate."""
    for variable, message in fields.VARIABLES.items():
        if message == struct:
            return variable
    return next((path for path, field in fields.paths() if field.type == struct), struct)


def _hint(found: str, allowed: list[str]) -> str:
    close = get_close_matches(found, allowed, n=1) or [
        name for name in allowed if name.lower() == found.replace("_", "").lower()
    ]
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{meant} allowed: {', '.join(allowed)}"
