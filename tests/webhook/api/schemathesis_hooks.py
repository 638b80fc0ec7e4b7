"""Loaded by schemathesis (SCHEMATHESIS_HOOKS).

To JSON Schema 5.0 is an integer, and it has no way to say otherwise. This API wants whole numbers written as such (the
description says so in words), so generated ones are.
"""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    return _whole(body)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value
