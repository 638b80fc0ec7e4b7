"""AuditSink: where audit records go besides the store."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fleetward.resources.base import AGE, READY, REASON, WHY, Model, Resource, Validation, column
from fleetward.resources.status import AuditSinkStatus


class JsonLinesSink(Model):
    """A file that grows by one line of JSON a record."""

    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=255,
            pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
        ),
    ]
    """The file, relative to the folder `sinks` of the audit data."""


class CloudEventsSink(Model):
    """An HTTP endpoint that takes one CloudEvent 1.0 (structured mode) a record."""

    url: Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^https?://[!-~]+$")]
    """Where events are posted to; any 2xx answer acknowledges."""
    timeout_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    """How long an answer may take before the post is tried again."""


class AuditSinkSpec(Model):
    """One external target; each record reaches it at least once, in order, under a stable id."""

    VALIDATIONS = (
        Validation(
            "self.type != 'JsonLines' || has(self.jsonLines)",
            "jsonLines is missing; type JsonLines needs it",
            ".jsonLines",
            "FieldValueRequired",
        ),
        Validation(
            "self.type != 'CloudEvents' || has(self.cloudEvents)",
            "cloudEvents is missing; type CloudEvents needs it",
            ".cloudEvents",
            "FieldValueRequired",
        ),
        Validation(
            "self.type == 'JsonLines' || !has(self.jsonLines)",
            "jsonLines goes with type JsonLines only",
            ".jsonLines",
            "FieldValueForbidden",
            "self.type",
        ),
        Validation(
            "self.type == 'CloudEvents' || !has(self.cloudEvents)",
            "cloudEvents goes with type CloudEvents only",
            ".cloudEvents",
            "FieldValueForbidden",
            "self.type",
        ),
    )

    type: Literal["JsonLines", "CloudEvents"]
    """Which kind of target; the field of the same name configures it."""
    json_lines: JsonLinesSink | None = None
    """For type JsonLines."""
    cloud_events: CloudEventsSink | None = None
    """For type CloudEvents."""
    records: (
        Annotated[
            list[Literal["Decision", "Outcome", "Run", "ModeChange", "Budget", "AccessRefused"]],
            Field(min_length=1, max_length=6),
        ]
        | None
    ) = None
    """Which types of record are forwarded; left out, all."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        given = {"JsonLines": self.json_lines, "CloudEvents": self.cloud_events}
        for kind, field in (("JsonLines", "jsonLines"), ("CloudEvents", "cloudEvents")):
            if self.type == kind and given[kind] is None:
                raise ValueError(f"{field} is missing; type {kind} needs it")
            if self.type != kind and given[kind] is not None:
                raise ValueError(f"{field} goes with type {kind}, found type {self.type}")
        return self


class AuditSink(Resource):
    """An external target for audit records."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    PLURAL: ClassVar[str] = "auditsinks"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("asink",)
    STATUS = AuditSinkStatus
    PRINTER_COLUMNS = (
        column("Type", ".spec.type"),
        READY,
        column("Delivered", ".status.delivered", "integer"),
        column("Behind", ".status.behind", "integer"),
        column("Last delivered", ".status.lastDelivered", "date"),
        column("Last error", ".status.lastError", wide=True),
        column("Generation", ".metadata.generation", "integer", wide=True),
        column("In force", ".status.generationInForce", "integer", wide=True),
        REASON,
        AGE,
        WHY,
    )
    SELECTABLE_FIELDS = (".spec.type",)

    kind: Literal["AuditSink"]
    spec: AuditSinkSpec
