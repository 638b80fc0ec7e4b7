"""What is wrong with a request, or with this webhook, told as problem details (RFC 9457)."""

from enum import Enum
from typing import Literal

import msgspec

from fleetward.registry.slice import Wire

MEDIA_TYPE = "application/problem+json"
_URN = "urn:fleetward:problem:"


class Kind(Enum):
    """Every kind of problem this API can answer with: its name in the URN, its status and its title."""

    MALFORMED_HTTP = ("malformed-http", 400, "The request is not well-formed HTTP")
    INVALID_REQUEST = ("invalid-request", 400, "The request body cannot be accepted")
    ORIGIN_REFUSED = ("origin-refused", 403, "Browsers may not use this API")
    UNKNOWN_PATH = ("unknown-path", 404, "There is nothing at this path")
    UNKNOWN_DECISION = ("unknown-decision", 404, "No open decision has this id")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "The path does not know this method")
    SLOW_BODY = ("slow-body", 408, "The request body did not arrive in time")
    ACTION_NOT_ALLOWED = ("action-not-allowed", 409, "The decision did not allow the action")
    RUN_REFUSED = ("run-refused", 409, "The run cannot be opened, closed or gone on with")
    OUTCOME_CONFLICT = ("outcome-conflict", 409, "Another outcome was reported already")
    BODY_TOO_LARGE = ("body-too-large", 413, "The request body is too large")
    CONTENT_TYPE = ("content-type", 415, "The request body must be plain application/json")
    HOST_REFUSED = ("host-refused", 421, "The Host header names another server")
    RATE_LIMITED = ("rate-limited", 429, "Too many requests at once")
    TOO_MANY_CONNECTIONS = ("too-many-connections", 429, "Too many connections at once")
    HEADERS_TOO_LARGE = ("headers-too-large", 431, "The request line or a header is too large")
    INTERNAL = ("internal", 500, "The webhook failed; the action is denied")
    NO_SNAPSHOT = ("no-snapshot", 503, "The policies have not arrived yet; the action is denied")
    NO_AUTHORITY = ("no-authority", 503, "The webhook may not decide at present; the action is denied")
    NO_HUB = ("no-hub", 503, "The hub, which keeps runs and budgets, cannot be asked; the action is denied")
    SPOOL_UNAVAILABLE = ("spool-unavailable", 503, "The decision cannot be recorded; the action is denied")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title

    @property
    def urn(self) -> str:
        """The problem's `type`."""
        return _URN + self.slug


class ProblemDetails(Wire, frozen=True, kw_only=True):
    """Problem details (RFC 9457), with the field at fault; where it stands for a decision, that decision is Deny."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    """The field at fault as a dotted path, where one is."""
    decision: Literal["Deny"] | None = None
    reason: str | None = None
    """Why the action is denied."""


class Problem(Exception):  # noqa: N818 - it is what RFC 9457 calls it
    """An answer that is a problem. `retry_after` is in seconds; `allow` lists a path's methods."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.field = field
        self.retry_after = retry_after
        self.allow = allow

    @property
    def details(self) -> ProblemDetails:
        """The body. A 5xx is always a Deny: what cannot be decided or recorded is not allowed."""
        denies = self.kind.status >= 500
        return ProblemDetails(
            type=self.kind.urn,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            field=self.field or None,
            decision="Deny" if denies else None,
            reason=self.detail if denies else None,
        )

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        headers = {"Content-Type": MEDIA_TYPE}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.allow is not None:
            headers["Allow"] = self.allow
        return headers

    @property
    def body(self) -> bytes:
        """The details as JSON."""
        return _encode(self.details)


_encode = msgspec.json.Encoder().encode
