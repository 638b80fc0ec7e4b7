"""What the API's description is put together from."""

from typing import Any

from fleetward_webhook.sidecar.problem import MEDIA_TYPE, Kind

REF = "#/components/schemas/"

ALWAYS = (
    Kind.MALFORMED_HTTP,
    Kind.ORIGIN_REFUSED,
    Kind.METHOD_NOT_ALLOWED,
    Kind.HOST_REFUSED,
    Kind.RATE_LIMITED,
    Kind.TOO_MANY_CONNECTIONS,
    Kind.HEADERS_TOO_LARGE,
    Kind.INTERNAL,
)
WITH_BODY = (Kind.INVALID_REQUEST, Kind.SLOW_BODY, Kind.BODY_TOO_LARGE, Kind.CONTENT_TYPE)
UNABLE = (Kind.NO_SNAPSHOT, Kind.NO_AUTHORITY, Kind.SPOOL_UNAVAILABLE)
RUN = (Kind.RUN_REFUSED, Kind.NO_HUB)
OUTCOME = (Kind.UNKNOWN_PATH, Kind.UNKNOWN_DECISION, Kind.ACTION_NOT_ALLOWED, Kind.OUTCOME_CONFLICT)


def operation(operation_id: str, summary: str, answers: dict[str, Any], kinds: tuple[Kind, ...] = ()) -> dict[str, Any]:
    """Describe an operation: what it answers, and which problems it may answer with."""
    return {"operationId": operation_id, "summary": summary, "responses": answers | problems(*ALWAYS, *kinds)}


def problems(*kinds: Kind) -> dict[str, Any]:
    """Describe the problems of an operation, one response a status."""
    responses: dict[str, Any] = {}
    for status in sorted({kind.status for kind in kinds}):
        of_status = [kind for kind in kinds if kind.status == status]
        schema = {
            "allOf": [
                {"$ref": f"{REF}ProblemDetails"},
                {"properties": {"type": {"enum": [kind.urn for kind in of_status]}, "status": {"const": status}}},
            ]
        }
        response = content("; or ".join(kind.title for kind in of_status), MEDIA_TYPE, schema)
        if status in (429, 503):
            response["headers"] = {
                "Retry-After": {
                    "description": "Seconds after which to try again",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
        if status == 405:
            response["headers"] = {"Allow": {"description": "The methods the path knows", "schema": {"type": "string"}}}
        responses[str(status)] = response
    return responses


def body(schema: str, limit: int, example: dict[str, Any]) -> dict[str, Any]:
    """Describe a request body."""
    return {
        "required": True,
        "description": f"At most {limit} bytes",
        "content": {"application/json": {"schema": {"$ref": REF + schema}, "example": example}},
    }


def json(schema: str, example: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe an answer in JSON."""
    return content(schema, "application/json", {"$ref": REF + schema}, example)


def text(description: str) -> dict[str, Any]:
    """Describe an answer in plain text."""
    return content(description, "text/plain", {"type": "string"})


def content(
    description: str, media_type: str, schema: dict[str, Any], example: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Describe an answer of any type."""
    media: dict[str, Any] = {"schema": schema}
    if example is not None:
        media["example"] = example
    return {"description": description, "content": {media_type: media}}
