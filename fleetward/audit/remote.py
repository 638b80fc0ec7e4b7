"""How records are read over HTTP from the hubs of a cluster: paths, query parameters, and the lines of an answer.

`GET /v1/records` answers with JSON lines. A line is a record, byte for byte as its writer wrote it, or one of the lines
below, told apart by `type`. An answer that is whole ends with End; an empty line says that the hub is still there.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from fleetward.audit.query import RecordQuery, RecordType, utc
from fleetward.audit.store import Gap
from fleetward.registry.slice import Decision, Wire

RECORDS_PATH = "/v1/records"
GAPS_PATH = "/v1/gaps"
STATUS_PATH = "/v1/status"
BUDGETS_PATH = "/v1/budgets"
MEDIA_TYPE = "application/x-ndjson"

MAX_LIMIT = 10_000
"""The most records that one answer can be asked for, in exact order. Without a limit (0) all come, nearly in order."""


class Notice(Wire, frozen=True, tag_field="type", tag="Notice"):
    """Something is missing from this answer: a replica does not answer, or a store cannot be read."""

    message: str
    peer: str = ""
    """The base URL of the replica that this is about; empty: the one that was asked."""


class Following(Wire, frozen=True, tag_field="type", tag="Following"):
    """What was there has been told; from here on, each record comes as it is stored."""


class End(Wire, frozen=True, tag_field="type", tag="End"):
    """The answer is whole."""

    more: bool = False
    """Whether more records would have been selected, had the limit allowed it."""
    position: int = 0
    """With `local`: where this replica's store stands; give it as `after` to read on."""


class GapReport(Wire, frozen=True):
    """Numbers that writers used and whose records no replica has."""

    gaps: tuple[Gap, ...] = ()
    last: dict[str, int] = msgspec.field(default_factory=dict)
    """With `local` and `writer`: the highest number stored of each of those writers."""
    notices: tuple[Notice, ...] = ()


Line: TypeAlias = Notice | Following | End

encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(Line).decode


class RecordLine(msgspec.Struct, frozen=True):
    """A record as it travels: its head, and the whole of it as bytes."""

    id: str
    type: str
    time: str
    body: bytes = b""


_decode_head = msgspec.json.Decoder(RecordLine).decode


def read_line(line: bytes) -> Line | RecordLine:
    """Read a line that is not empty. Raises msgspec.ValidationError, msgspec.DecodeError."""
    try:
        head = _decode_head(line)
    except msgspec.ValidationError:  # it has no id
        other: Line = _decode_line(line)
        return other
    return RecordLine(head.id, head.type, head.time, line)


class Asked(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The query parameters of `GET /v1/records`; see RecordQuery for the filters."""

    agent: str | None = None
    namespace: str | None = None
    run: str | None = None
    decision: Decision | None = None
    decision_id: str | None = None
    type: tuple[RecordType, ...] = ()
    since: Annotated[datetime, Meta(tz=True)] | None = None
    until: Annotated[datetime, Meta(tz=True)] | None = None
    id: str | None = None
    limit: Annotated[int, Meta(ge=0, le=MAX_LIMIT)] = 1000
    order: Literal["OldestFirst", "NewestFirst"] = "OldestFirst"
    after: Annotated[int, Meta(ge=0)] = 0
    """Only what this replica's store took in after this position; needs `local`."""
    follow: bool = False
    """Tell the newest `limit`, oldest first, and then each record as it is stored."""
    local: bool = False
    """Read this replica's store alone."""

    @property
    def query(self) -> RecordQuery:
        """The selection."""
        return RecordQuery(
            agent=self.agent,
            namespace=self.namespace,
            run=self.run,
            decision=self.decision,
            decision_id=self.decision_id,
            types=self.type,
            since=self.since,
            until=self.until,
            id=self.id,
            limit=self.limit,
            order=self.order,
        )


_ALLOWED = {"decision": get_args(Decision), "type": get_args(RecordType), "order": ("OldestFirst", "NewestFirst")}


def read_parameters(pairs: Iterable[tuple[str, str]]) -> Asked:
    """Read query parameters. Raises ValueError that says which, and what is allowed."""
    values: dict[str, str | list[str]] = {}
    for name, value in pairs:
        if name == "type":
            known = values.setdefault(name, [])
            assert isinstance(known, list)  # noqa: S101 - nothing else is put there
            known.append(value)
        elif name in values:
            raise ValueError(f"{name} is given twice, allowed once")
        else:
            values[name] = value
    unknown = values.keys() - {field.encode_name for field in msgspec.structs.fields(Asked)}
    if unknown:
        allowed = ", ".join(field.encode_name for field in msgspec.structs.fields(Asked))
        raise ValueError(f"found {min(unknown)}, allowed {allowed}")
    try:
        asked = msgspec.convert(values, Asked, strict=False)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`").partition("[")[0]
        allowed = f", allowed {', '.join(_ALLOWED[name])}" if name in _ALLOWED else ""
        raise ValueError(f"{name}: {what}{allowed}") from None
    if asked.after and not asked.local:
        raise ValueError("after: found it without local, allowed with local=true: each replica counts for itself")
    if not asked.limit and asked.order == "NewestFirst":
        raise ValueError("order: found NewestFirst without a limit, allowed with a limit")
    return asked


def parameters(
    query: RecordQuery, *, limit: int, follow: bool = False, local: bool = False, after: int = 0
) -> list[tuple[str, str]]:
    """Write a query as parameters."""
    pairs = {
        "agent": query.agent,
        "namespace": query.namespace,
        "run": query.run,
        "decision": query.decision,
        "decisionId": query.decision_id,
        "since": utc(query.since) if query.since else None,
        "until": utc(query.until) if query.until else None,
        "id": query.id,
        "limit": str(limit),
        "order": query.order,
        "after": str(after) if after else None,
        "follow": "true" if follow else None,
        "local": "true" if local else None,
    }
    types = [("type", type_) for type_ in query.types]
    return [*((name, value) for name, value in pairs.items() if value is not None), *types]
