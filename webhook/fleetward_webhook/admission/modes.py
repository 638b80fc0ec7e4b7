"""Who set an operating mode: an annotation that only this webhook can make, since it knows who asks."""

from typing import Any

from fleetward.resources import GROUP
from fleetward.resources.base import SET_BY_ANNOTATION
from fleetward.resources.finding import shorten
from fleetward_webhook.admission.review import Answer, MalformedError, Request, read_object

KINDS = ("Agent", "AgentFleet")
WHO_CHARACTERS = 253

_PATH = f"/metadata/annotations/{SET_BY_ANNOTATION.replace('~', '~0').replace('/', '~1')}"


def review_mode(request: Request) -> Answer:
    """Answer for one Agent or AgentFleet: put right who set its mode. Raises MalformedError."""
    if request.kind.group != GROUP or request.kind.kind not in KINDS:
        raise MalformedError(f"request.kind: found {request.kind.kind[:100]}, allowed {' or '.join(KINDS)}")
    if request.operation not in {"CREATE", "UPDATE"}:
        return Answer("unchanged")
    new = read_object(request.object, "object")
    old = read_object(request.old_object, "oldObject") if request.operation == "UPDATE" else None
    patch = stamp(new, old, request.user_info.username)
    return Answer("changed" if patch else "unchanged", patch=patch)


def stamp(new: dict[str, Any], old: dict[str, Any] | None, username: str) -> list[dict[str, Any]]:
    """Give the JSON Patch that makes the annotation true.

    A mode that changed was set by whoever asks now. One that did not was set by whoever the old object says, whatever
    the new one claims; a new object in mode Running was not set by anybody.
    """
    mode, before = _mode(new), "Running" if old is None else _mode(old)
    if mode != before:
        truth: str | None = f"{mode} by {shorten(username, WHO_CHARACTERS) or 'somebody unknown'}"
    else:
        said = None if old is None else _annotations(old).get(SET_BY_ANNOTATION)
        truth = said if isinstance(said, str) and said.startswith(f"{mode} by ") else None
    annotations = _annotations(new)
    if annotations.get(SET_BY_ANNOTATION) == truth:
        return []
    if truth is None:
        return [{"op": "remove", "path": _PATH}]
    if not annotations:
        return [{"op": "add", "path": "/metadata/annotations", "value": {SET_BY_ANNOTATION: truth}}]
    return [{"op": "add", "path": _PATH, "value": truth}]


def _mode(resource: dict[str, Any]) -> str:
    return str(resource["spec"].get("operatingMode") or "Running")


def _annotations(resource: dict[str, Any]) -> dict[str, Any]:
    found = resource["metadata"].get("annotations")
    return found if isinstance(found, dict) else {}
