"""The conformance cases of google/cel-spec, read with a schema of the few fields that the tests use."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from fleetward.decision.cel.runtime import Runtime, load_runtime

SPEC: Final = Path(__file__).resolve().parents[4] / "shared" / "cel-spec"

# name:number:type, repeated where the type ends with *. From cel-spec's simple.proto and value.proto.
_SCHEMA: Final = {
    "SimpleTestFile": "name:1:string section:3:SimpleTestSection*",
    "SimpleTestSection": "name:1:string test:3:SimpleTest*",
    "SimpleTest": "name:1:string expr:3:string disable_macros:4:bool disable_check:5:bool type_env:6:Opaque* "
    "container:13:string locale:14:string bindings:7:BindingsEntry* value:8:Value eval_error:10:Opaque "
    "any_eval_errors:9:Opaque unknown:11:Opaque any_unknowns:12:Opaque typed_result:16:Opaque check_only:15:bool",
    "BindingsEntry": "key:1:string value:2:ExprValue",
    "ExprValue": "value:1:Value error:2:Opaque unknown:3:Opaque",
    "Value": "null_value:1:Null bool_value:2:bool int64_value:3:int64 uint64_value:4:uint64 double_value:5:double "
    "string_value:6:string bytes_value:7:bytes enum_value:9:Opaque object_value:10:Opaque map_value:11:MapValue "
    "list_value:12:ListValue type_value:15:string",
    "ListValue": "values:1:Value*",
    "MapValue": "entries:1:MapEntry*",
    "MapEntry": "key:1:Value value:2:Value",
    "Opaque": "",
}
_SCALARS: Final = {
    name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("string", "bool", "int64", "uint64", "double", "bytes")
}


@dataclass(frozen=True)
class Case:
    """One case: what to evaluate over which variables, and what the specification expects."""

    id: str
    expr: str
    variables: dict[str, Any] = field(default_factory=dict)
    expected: tuple[str, Any] = ("error", None)


@dataclass(frozen=True)
class Spec:
    """The cases within reach, and how many are not, by reason."""

    cases: tuple[Case, ...]
    excluded: dict[str, int]


def _file_class() -> Any:
    file = FileDescriptorProto(name="simple.proto", package="spec", syntax="proto3")
    null = file.enum_type.add(name="Null")
    null.value.add(name="NULL_VALUE", number=0)
    for name, members in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for member in members.split():
            key, number, kind = member.split(":")
            label = "LABEL_REPEATED" if kind.endswith("*") else "LABEL_OPTIONAL"
            added = message.field.add(name=key, number=int(number), label=getattr(FieldDescriptorProto, label))
            kind = kind.removesuffix("*")
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            elif kind == "Null":
                added.type, added.type_name = FieldDescriptorProto.TYPE_ENUM, ".spec.Null"
            else:
                added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".spec.{kind}"
        if name == "Value":
            message.oneof_decl.add(name="kind")
            for added in message.field:
                added.oneof_index = 0
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("spec.SimpleTestFile"))


def plain(value: Any) -> tuple[str, Any]:
    """Normalise a Value message as (type, value)."""
    kind = value.WhichOneof("kind")
    match kind:
        case "null_value":
            return "null", None
        case "list_value":
            return "list", [plain(item) for item in value.list_value.values]
        case "map_value":
            return "map", sorted(((plain(e.key), plain(e.value)) for e in value.map_value.entries), key=repr)
        case "type_value":
            return "type", value.type_value
        case "int64_value" | "uint64_value" | "double_value" | "bool_value" | "string_value" | "bytes_value":
            return kind.removesuffix("_value").removesuffix("64"), getattr(value, kind)
    raise _OutOfReachError("protobuf messages and enums")


def _data(value: Any) -> Any:
    """Return a binding as the Python data of an activation."""
    kind, item = plain(value)
    if kind in ("uint", "bytes", "type"):
        raise _OutOfReachError("a binding that is no JSON data (uint, bytes, type)")
    if kind == "list":
        return [_data(entry) for entry in value.list_value.values]
    if kind == "map":
        return {_data(e.key): _data(e.value) for e in value.map_value.entries}
    return item


class _OutOfReachError(Exception):
    """Says why a case is not run."""


# Whole files, with the reason. Everything else is looked at case by case.
FILES_OUT: Final = {
    "bindings_ext": "extension libraries",
    "block_ext": "extension libraries",
    "encoders_ext": "extension libraries",
    "math_ext": "extension libraries",
    "network_ext": "extension libraries",
    "proto2_ext": "extension libraries",
    "string_ext": "extension libraries",
    "macros2": "extension libraries",
    "optionals": "extension libraries",
    "enums": "protobuf messages and enums",
    "proto2": "protobuf messages and enums",
    "proto3": "protobuf messages and enums",
    "wrappers": "protobuf messages and enums",
    "dynamic": "protobuf messages and enums",
}
_MESSAGES: Final = re.compile(r"TestAllTypes|NestedEnum|GlobalEnum|google\.protobuf|cel\.expr|NestedTestAllTypes")


def _case(file: str, section: str, test: Any) -> Case:
    if reason := FILES_OUT.get(file):
        raise _OutOfReachError(reason)
    if test.container:
        raise _OutOfReachError("containers (packages)")
    if test.check_only or test.HasField("typed_result"):
        raise _OutOfReachError("deduced types only")
    if _MESSAGES.search(test.expr):
        raise _OutOfReachError("protobuf messages and enums")
    if test.disable_macros or test.locale or test.HasField("unknown") or test.HasField("any_unknowns"):
        raise _OutOfReachError("modes that Fleetward has not (no macros, locales, unknowns)")
    names = [entry.key for entry in test.bindings]
    if any("." in name for name in names):
        raise _OutOfReachError("qualified variable names")
    if test.disable_check:
        raise _OutOfReachError("cases that the checker refuses (disable_check)")
    if any(not entry.value.HasField("value") for entry in test.bindings):
        raise _OutOfReachError("modes that Fleetward has not (no macros, locales, unknowns)")
    variables = {entry.key: _data(entry.value.value) for entry in test.bindings}
    if test.HasField("eval_error") or test.HasField("any_eval_errors"):
        expected: tuple[str, Any] = ("error", None)
    else:
        expected = plain(test.value) if test.HasField("value") else ("bool", True)
    return Case(f"{file}/{section}/{test.name}", test.expr, variables, expected)


@pytest.fixture(scope="session")
def spec() -> Spec:
    if not SPEC.is_dir():
        pytest.skip(f"the conformance cases are not here: {SPEC.parent.name}/{SPEC.name} beside the repository")
    cases: list[Case] = []
    excluded: dict[str, int] = {}
    for path in sorted(SPEC.glob("*.textproto")):
        # Any is not expanded: its type's name in brackets becomes an unknown field.
        text = re.sub(r"\[type\.googleapis\.com/[\w.]+\]", "any", path.read_text())
        # protobuf's parser for Python leaves the escape of a question mark as it is.
        text = re.sub(r"(?<!\\)((?:\\\\)*)\\\?", r"\1?", text)
        parsed = _file_class()()
        text_format.Parse(text, parsed, allow_unknown_field=True)
        for section in parsed.section:
            for test in section.test:
                try:
                    cases.append(_case(path.stem, section.name, test))
                except _OutOfReachError as reason:
                    excluded[str(reason)] = excluded.get(str(reason), 0) + 1
    return Spec(tuple(cases), dict(sorted(excluded.items())))


@pytest.fixture(params=["cel-expr", "cel-python"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return load_runtime(request.param)
