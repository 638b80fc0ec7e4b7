"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): what the API's description says in words, as JSON Schema has no way to.

To JSON Schema 5.0 is an integer; this API wants whole numbers written as such. A part is not more than the whole, and
what is said twice is said alike: cached input tokens, reasoning tokens, the model of a model call.
"""

from typing import Any

import schemathesis

_PARTS = {"cachedInputTokens": "inputTokens", "reasoningTokens": "outputTokens"}


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    return _said_right(body)


def _said_right(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return _as_one({key: _said_right(item) for key, item in value.items()})
    if isinstance(value, list):
        return [_said_right(item) for item in value]
    return value


def _as_one(data: dict[str, Any]) -> dict[str, Any]:
    for part, whole in _PARTS.items():
        if type(data.get(part)) is int and type(data.get(whole)) is int and 0 <= data[whole] < data[part]:
            data[part] = data[whole]
    arguments = data.get("arguments")
    if isinstance(arguments, dict) and "model" in arguments and isinstance(data.get("model"), str):
        arguments["model"] = data["model"]
    return data
