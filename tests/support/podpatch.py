"""Pods for the tests of admission, and what a JSON Patch makes of them."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]


def pod(*, labels: Mapping[str, str] | None = None, **spec: Any) -> Json:
    """Give a pod of one container, with whatever else its spec is to have."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker", "labels": dict(labels or {"app": "worker"})},
        "spec": {"containers": [{"name": "app", "image": "example.com/app:1"}], **spec},
    }


def patched(document: Json, patch: Iterable[Json]) -> Json:
    """Apply the operations of RFC 6902 that admission makes: `add` and `remove` of members of objects."""
    result = copy.deepcopy(document)
    for operation in patch:
        *way, last = (step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:])
        target = result
        for step in way:
            target = target[step]
        if operation["op"] == "remove":
            del target[last]
        else:
            assert operation["op"] == "add"
            assert isinstance(target, dict)
            target[last] = copy.deepcopy(operation["value"])
    return result
