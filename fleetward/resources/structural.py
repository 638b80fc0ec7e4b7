"""The models' JSON schemas in the form Kubernetes calls structural: a type everywhere, no null, no alternatives.

The rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from typing import Any

from fleetward.resources.base import Metadata, Model, Resource, Validation, cel_text
from fleetward.resources.explain import PATTERNS

Schema = dict[str, Any]

VALIDATIONS = "x-kubernetes-validations"

_DROPPED = {"title", "additionalProperties", "patternProperties", "propertyNames"}
_KEPT = {
    "$ref",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    VALIDATIONS,
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
}


def schemas(model: type[Resource]) -> dict[str, Schema]:
    """Return the schemas of the kind, of its status and of all their parts by class name; a `$ref` holds such a name.

    apiVersion, kind and metadata are left out: they are the API server's own to describe and to check. So is a default
    that says no more than absence (null, empty). TypeError for a keyword that has no structural form, so that nothing
    the models check gets lost on the way.
    """
    top, parts = _with_parts(model)
    del parts[Metadata.__name__]
    status, status_parts = _with_parts(model.STATUS)
    name = model.STATUS.__name__
    top |= {"properties": {"spec": top["properties"]["spec"], "status": {"$ref": name}}, "required": ["spec"]}
    every = {model.__name__: top, **parts, name: status, **status_parts}
    return {name: _clean(schema) for name, schema in every.items()}


def _with_parts(model: type[Model]) -> tuple[Schema, dict[str, Schema]]:
    schema = model.model_json_schema(by_alias=True, ref_template="{model}")
    return schema, schema.pop("$defs", {})


def inlined(schema: Schema, parts: dict[str, Schema]) -> Schema:
    """Return the schema with its references replaced by the parts.

    Defaults stay in: the API server writes them into the object, so that printer columns and selectable fields see
    them. Flux and Argo CD leave such fields alone, save inside an atomic list or map.
    """
    whole = dict(schema)
    if reference := whole.pop("$ref", None):
        whole = parts[reference] | whole
    if "properties" in whole:
        whole["properties"] = {name: inlined(field, parts) for name, field in whole["properties"].items()}
    for under in whole.keys() & {"items", "additionalProperties"}:
        whole[under] = inlined(whole[under], parts)
    return whole


def _clean(node: Schema) -> Schema:
    node = _not_null(node)
    if "const" in node:  # a choice of one
        node = {name: value for name, value in node.items() if name != "const"} | {"enum": [node["const"]]}
    if strange := node.keys() - _KEPT - _DROPPED:
        raise TypeError(f"no structural form for {', '.join(sorted(strange))} in {node}")
    clean = {name: value for name, value in node.items() if name in _KEPT}
    if "description" in clean:
        clean["description"] = " ".join(clean["description"].split())
    if not isinstance(clean.get("default"), (str, int)) or clean["default"] == "":
        clean.pop("default", None)
    if "properties" in clean:
        clean["properties"] = {name: _clean(field) for name, field in clean["properties"].items()}
    elif clean.get("type") == "object":
        clean |= _map(node)
    if clean.get("type") == "array":
        clean["items"] = _clean(clean["items"])
        # A list is one author's statement: merged with what others applied, a data class taken away could stay.
        clean.setdefault("x-kubernetes-list-type", "atomic")
    if clean.get("type") == "integer":
        clean["format"] = "int32" if clean["maximum"] < 2**31 else "int64"
    return clean


def _not_null(node: Schema) -> Schema:
    """Return the one alternative to null: the API server drops null where a field is not nullable."""
    if "anyOf" not in node:
        return node
    branches: list[Schema] = [branch for branch in node["anyOf"] if branch != {"type": "null"}]
    if len(branches) != 1:
        raise TypeError(f"no structural form for alternatives in {node}")
    return branches[0] | {name: value for name, value in node.items() if name != "anyOf"}


def _map(node: Schema) -> Schema:
    """Say a map's keys in CEL, the values in the schema: a structural schema cannot speak of keys."""
    if "patternProperties" not in node:
        raise TypeError(f"no structural form for an object without fields or keys: {node}")
    ((pattern, values),) = node["patternProperties"].items()
    longest = node["propertyNames"]["maxLength"]
    right = f"key.size() <= {longest} && key.matches({cel_text(pattern)})"
    check = Validation(
        f"self.all(key, {right})",
        f"each key may have at most {longest} characters, and is {PATTERNS[pattern]}",
        found=f"'\"' + self.filter(key, !({right}))[0] + '\"'",
    )
    return {"additionalProperties": _clean(values), VALIDATIONS: [check.as_crd()]}
