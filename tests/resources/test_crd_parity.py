"""The models and the CRDs refuse the same objects: no policy passes `fleetward policy lint` and fails in the cluster.

The API server's side is played from the CRD alone: strict field validation, nulls dropped, defaults, the schema by a
JSON Schema validator, list maps, then the validations by a CEL runtime. Two differences are known, and in both the
models are stricter: null where there is a default (below), and 5.0 for a whole number, which the API server lets pass
where no validation looks at it.
"""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from cel_expr_python import cel
from pydantic import ValidationError
from support.mistakes import BAD, GOOD, Path, case_name, changed, steps

from fleetward.resources import KINDS
from fleetward.resources.crd import definition

RUNS_ON = {"pattern", "minLength", "minItems", "minProperties", "minimum", "maximum"}
"""What a value may violate and its validations are still made; after anything else there is no sense in them."""


class ApiServer:
    """What the API server does with an object of a kind."""

    def __init__(self, kind: str) -> None:
        crd = definition(KINDS[kind])
        self.kind = kind
        self.api_version = f"{crd['spec']['group']}/{crd['spec']['versions'][0]['name']}"
        self.schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        strict = closed(self.schema)
        strict["properties"]["metadata"] = self.schema["properties"]["metadata"]
        self.validator = jsonschema_rs.Draft4Validator(strict)
        self.env = cel.NewEnv(variables={"self": cel.Type.DYN})

    def refusals(self, given: dict[str, Any]) -> list[tuple[Path, str]]:
        """Where and why the object is refused; nothing where it is stored."""
        if (given["apiVersion"], given["kind"]) != (self.api_version, self.kind):
            return [((), "the server could not find the requested resource")]
        stored = defaulted(given, self.schema)
        errors = list(self.validator.iter_errors(stored))
        found: list[tuple[Path, str]] = [(tuple(error.instance_path), error.message) for error in errors]
        if any(error.schema_path[-1] not in RUNS_ON for error in errors):
            return found
        return [*found, *duplicates(stored, self.schema), *self.validations(stored, self.schema)]

    def validations(self, value: Any, schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, str]]:
        """CEL rules that do not hold; a rule that errs does not hold."""
        for check in schema.get("x-kubernetes-validations", ()):
            verdict = self.env.compile(check["rule"]).eval(data={"self": value})
            if verdict.plain_value() is not True:
                yield path, check["message"]
                if (words := check.get("messageExpression")) and verdict.plain_value() is False:
                    said = self.env.compile(words).eval(data={"self": value}).plain_value()
                    assert said.startswith(f"{check['message']}, found "), said
        for name, part, part_schema in parts(value, schema):
            yield from self.validations(part, part_schema, (*path, name))


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema under strict field validation: no field it does not know."""
    strict = {"additionalProperties": False} if "properties" in schema else {}
    whole = schema | strict
    if "properties" in schema:
        whole["properties"] = {name: closed(field) for name, field in schema["properties"].items()}
    if "items" in schema:
        whole["items"] = closed(schema["items"])
    return whole


def parts(value: Any, schema: dict[str, Any]) -> Iterator[tuple[str | int, Any, dict[str, Any]]]:
    """The parts of a value and the schema of each."""
    if isinstance(value, dict):
        for name, part in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if known:
                yield name, part, known
    elif isinstance(value, list) and "items" in schema:
        for number, part in enumerate(value):
            yield number, part, schema["items"]


def defaulted(value: Any, schema: dict[str, Any]) -> Any:
    """The value as stored: a null is as good as absent (nothing of ours is nullable), defaults are filled in."""
    if isinstance(value, list):
        return [defaulted(part, schema.get("items", {})) for part in value]
    if not isinstance(value, dict):
        return value
    fields = schema.get("properties", {})
    kept = {name: part for name, part in value.items() if part is not None or name not in fields}
    known = {name: field["default"] for name, field in fields.items() if "default" in field} | kept
    return {name: defaulted(part, fields.get(name, {})) for name, part in known.items()}


def duplicates(value: Any, schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Items of a list map with the keys of an earlier one."""
    if keys := schema.get("x-kubernetes-list-map-keys"):
        seen = [tuple(item[key] for key in keys) for item in value]
        yield from (((*path, n), "duplicate value") for n, each in enumerate(seen) if each in seen[:n])
    for name, part, part_schema in parts(value, schema):
        yield from duplicates(part, part_schema, (*path, name))


SERVERS = {kind: ApiServer(kind) for kind in KINDS}


def model_refusals(kind: str, given: dict[str, Any]) -> list[Path]:
    try:
        KINDS[kind].model_validate(given)
    except ValidationError as error:
        return [tuple(each["loc"]) for each in error.errors()]
    return []


def leads(found: Path, to: Path) -> bool:
    """Whether one of two places contains the other."""
    return found[: len(to)] == to or to[: len(found)] == found


@pytest.mark.parametrize("case", BAD, ids=case_name)
def test_both_refuse(case: tuple[str, str, Any]) -> None:
    """And for what was changed, not for something else."""
    kind, place = case[0].split()[0], steps(case[1])
    given = changed(*case)
    by_model, by_server = model_refusals(kind, given), [path for path, _ in SERVERS[kind].refusals(given)]
    assert by_model, f"the model accepts it; the API server refuses {by_server}"
    assert by_server, f"the API server accepts it; the model refuses {by_model}"
    assert all(leads(path, place) for path in (*by_model, *by_server)), (by_model, by_server)


@pytest.mark.parametrize("case", GOOD, ids=case_name)
def test_both_accept(case: tuple[str, str, Any]) -> None:
    kind, given = case[0].split()[0], changed(*case)
    assert model_refusals(kind, given) == []
    assert SERVERS[kind].refusals(given) == []


def test_every_validation_is_seen_to_refuse() -> None:
    """A validation no bad object runs into could be wrong, or too mild, without anybody noticing."""
    seen = {message for case in BAD for _, message in SERVERS[case[0].split()[0]].refusals(changed(*case))}
    for server in SERVERS.values():
        assert messages(server.schema) <= seen


def messages(schema: dict[str, Any]) -> set[str]:
    below = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    own = {check["message"] for check in schema.get("x-kubernetes-validations", ())}
    return own.union(*map(messages, below))


@pytest.mark.parametrize(
    ("path", "value"),
    [("spec.owner", None), ("spec.riskTier", None), ("spec.mayDelegateTo.roles", None), ("metadata.labels", None)],
)
def test_null_for_a_default_is_left_to_the_api_server(path: str, value: object) -> None:
    """The models ask for the field to be left out; the API server leaves it out by itself."""
    given = changed("Agent", path, value)
    assert model_refusals("Agent", given) == [steps(path)]
    assert SERVERS["Agent"].refusals(given) == []
