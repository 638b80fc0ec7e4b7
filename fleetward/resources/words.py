"""A schema in words: what is allowed, in the API server's refusals and in `kubectl explain`.

The API server says of a pattern no more than the pattern; a CEL rule beside it has a message. The pattern stays: other
tools read it. `kubectl explain` shows the choices of a text, but not those of a list, nor patterns, bounds or defaults:
they go into the description.
"""

import math
from collections.abc import Iterator

from fleetward.resources.base import MAX_COUNT, Validation, cel_text
from fleetward.resources.explain import PATTERNS, one_of
from fleetward.resources.structural import VALIDATIONS, Schema

MAX_COST = 9_500_000
"""What the API server may estimate one rule to cost, counted over every place that it could stand in.

It refuses a CRD with a rule of more than 10,000,000 (k8s.io/apiextensions-apiserver, StaticEstimatedCostLimit). So the
longest lists within lists, such as the globs of all rules of a policy, show their pattern alone.
"""


def in_words(schema: Schema, places: int = 1) -> Schema:
    """Return the schema in words, save for the status; `places` is how often it can occur in an object."""
    whole = dict(schema)
    if "description" in whole:
        whole["description"] = " ".join([whole["description"], *_allowed(whole)])
    if "properties" in whole:
        fields = {name: in_words(field, places) for name, field in whole["properties"].items() if name != "status"}
        whole["properties"] = whole["properties"] | fields
    if "items" in whole:
        whole["items"] = in_words(whole["items"], places * whole["maxItems"])
    if "additionalProperties" in whole:
        whole["additionalProperties"] = in_words(whole["additionalProperties"], places * whole["maxProperties"])
    if "pattern" in whole and places * _cost(whole) <= MAX_COST:
        rule = Validation(f"self.matches({cel_text(whole['pattern'])})", f"allowed: {PATTERNS[whole['pattern']]}")
        whole[VALIDATIONS] = [rule.as_crd()]
    return whole


def _allowed(schema: Schema) -> Iterator[str]:
    values = schema.get("items", schema)
    each = "Allowed for each" if "items" in schema else "Allowed"
    if "enum" in values and "items" in schema:
        yield f"{each}: {one_of(values['enum'])}."
    if "pattern" in values:
        yield f"{each}: {PATTERNS[values['pattern']]}."
    if schema.get("maximum", MAX_COUNT) < MAX_COUNT:
        yield f"Allowed: {schema['minimum']} to {schema['maximum']}."
    if "default" in schema:
        yield f"Default: {schema['default']}."


def _cost(schema: Schema) -> int:
    """Estimate as the API server does: a tenth of the bytes by a quarter of the pattern (cel-go, `matches`)."""
    longest: int = schema["maxLength"]
    return math.ceil((4 * longest + 1) * 0.1 + 1) * math.ceil(len(schema["pattern"]) * 0.25)
