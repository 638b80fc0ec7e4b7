"""AdmissionReview, admission.k8s.io/v1: what the API server asks, and what it is answered."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

API_VERSION = "admission.k8s.io/v1"
WARNING_CHARACTERS = 120
"""How long a warning may be, as the Kubernetes documentation advises; the API server cuts far longer ones."""

Outcome = Literal["unchanged", "changed", "held", "allowed", "warned", "refused"]


class MalformedError(Exception):
    """Why a request is no AdmissionReview that can be answered, in words."""


class Camel(msgspec.Struct, frozen=True, rename="camel"):
    """A part of what the API server sends; fields nobody reads here are passed over."""


class Kind(Camel, frozen=True):
    """What kind of object is reviewed."""

    group: str
    version: str
    kind: str


class UserInfo(Camel, frozen=True):
    """Who makes the request, after any impersonation."""

    username: str = ""


class Request(Camel, frozen=True):
    """What is asked about one object."""

    uid: str
    kind: Kind
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    namespace: str = ""
    name: str = ""
    user_info: UserInfo = UserInfo()
    object: msgspec.Raw = msgspec.Raw(b"null")
    old_object: msgspec.Raw = msgspec.Raw(b"null")


class _Review(Camel, frozen=True):
    api_version: str
    kind: str
    request: Request


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong with an object."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: a patch and warnings, or a refusal."""

    outcome: Outcome
    patch: Sequence[dict[str, Any]] = ()
    """JSON Patch (RFC 6902) operations."""
    warnings: Sequence[str] = ()
    refusal: str = ""
    """Why the object is refused; empty: it is not."""
    causes: Sequence[Cause] = ()
    """What is wrong, by field; given, the refusal counts as an invalid object, and else as a forbidden one."""


_reviews = msgspec.json.Decoder(_Review)


def read_review(body: bytes) -> Request:
    """Read an AdmissionReview. Raises MalformedError."""
    try:
        review = _reviews.decode(body)
    except msgspec.DecodeError as error:  # a ValidationError is one, too
        raise MalformedError(f"the body is no AdmissionReview: {error}") from None
    if (review.api_version, review.kind) != (API_VERSION, "AdmissionReview"):
        found = f"{review.api_version} {review.kind}"
        raise MalformedError(f"found {found[:100]}, allowed {API_VERSION} AdmissionReview")
    return review.request


def read_object(raw: msgspec.Raw, field: str) -> dict[str, Any]:
    """Read the object (or old object) of a request. Raises MalformedError."""
    try:
        found = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise MalformedError(f"request.{field}: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(found.get(part), dict) for part in ("metadata", "spec")):
        raise MalformedError(f"request.{field}: is no object with metadata and spec")
    return found


def answer_review(request: Request, answer: Answer) -> bytes:
    """Write the AdmissionReview that answers a request."""
    response: dict[str, Any] = {"uid": request.uid, "allowed": not answer.refusal}
    if answer.refusal:
        response["status"] = _status(request, answer)
    elif answer.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(answer.patch)).decode()
    if answer.warnings:
        response["warnings"] = [_cut(warning) for warning in answer.warnings]
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})


def _status(request: Request, answer: Answer) -> dict[str, Any]:
    if not answer.causes:
        return {"code": 403, "reason": "Forbidden", "message": answer.refusal}
    causes = [{"reason": "FieldValueInvalid", "field": c.field, "message": c.message} for c in answer.causes]
    details = {"group": request.kind.group, "kind": request.kind.kind, "name": request.name, "causes": causes}
    return {"code": 422, "reason": "Invalid", "message": answer.refusal, "details": details}


def _cut(warning: str) -> str:
    line = " ".join(warning.split())
    return line if len(line) <= WARNING_CHARACTERS else line[: WARNING_CHARACTERS - 3] + "..."
