"""A run's tree as JSON. The structs are the shape: fields are added to it, and none is renamed or dropped.

A field that has nothing to say is left out, save those without a default.
"""

from collections.abc import Sequence

import msgspec

from fleetward.audit.record import DecisionRecord, OutcomeRecord, Record, RunRecord
from fleetward.audit.trace import Node, NodeKind, Said, Trace


class JsonNode(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """A node and what hangs under it."""

    kind: NodeKind
    """`Opening`, `Closing` and `Decision` have a record. `NotInStore` stands for the record that others name as their
    cause, or outcomes as their decision; `NotAuthorised` holds what has no cause; `Circle` what causes itself."""
    id: str = ""
    trace_id: str = ""
    """Of the record's traceparent: OpenTelemetry's ids, in hexadecimal. The record has the traceparent itself."""
    span_id: str = ""
    record: DecisionRecord | RunRecord | None = None
    """The record as `fleetward audit show -o json` gives it."""
    outcomes: list[OutcomeRecord] = []
    said: Said | None = None
    """Why the node does not hang under the record's `parent`: what the agent says is not taken for true."""
    notes: list[str] = []
    """What a reader must know of where the node hangs, in words."""
    children: list["JsonNode"] = []


class JsonTrace(msgspec.Struct, kw_only=True, rename="camel"):
    """`fleetward trace RUN -o json`."""

    run: str
    records: int
    """How many records the tree is made of; each is in it once."""
    roots: list[JsonNode]


class JsonLink(msgspec.Struct, kw_only=True, rename="camel"):
    """One link of a chain; without a record where it is not in the store."""

    id: str
    record: Record | None


class JsonChain(msgspec.Struct, kw_only=True, rename="camel"):
    """`fleetward trace --why RECORD -o json`: what authorised the record, the run's opening first, the record last."""

    run: str | None
    chain: list[JsonLink]


def tree(trace: Trace) -> JsonTrace:
    """Give the tree as it is written."""
    written: dict[Node, JsonNode] = {}
    for node, _ in trace.walk():
        written[node] = _node(node)
    for node, its in written.items():
        its.children = [written[child] for child in node.children]
    return JsonTrace(run=trace.run, records=trace.records, roots=[written[root] for root in trace.roots])


def chain(links: Sequence[tuple[str, Record | None]]) -> JsonChain:
    """Give the chain as it is written."""
    run = getattr(links[-1][1], "run", None)
    return JsonChain(run=run, chain=[JsonLink(id=id_, record=record) for id_, record in links])


def encode(value: JsonTrace | JsonChain) -> bytes:
    """Write it, indented."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)


def _node(node: Node) -> JsonNode:
    parts = (node.record.traceparent or "").split("-") if node.record is not None else []
    trace_id, span_id = parts[1:3] if len(parts) >= 4 else ("", "")
    return JsonNode(
        kind=node.kind,
        id=node.id,
        trace_id=trace_id,
        span_id=span_id,
        record=node.record,
        outcomes=node.outcomes,
        said=node.said,
        notes=node.notes,
    )
