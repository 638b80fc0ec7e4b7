"""A run's tree as a Mermaid flowchart.

Every character of a record that could mean something to Mermaid, to Markdown or to HTML is written as its number
(`#60;`), so no name can end a label, add a node or carry markup.
"""

from collections.abc import Iterator

from fleetward.audit.trace import Node, Trace
from fleetward.cli.output import printable
from fleetward.cli.traceline import line

DRAWN_EDGES = 500
"""What Mermaid draws at most, unless it is told otherwise (`maxEdges`)."""

LONGEST = 80
"""Longer texts are cut: a label is no place to read."""

_SAFE = frozenset(" ,./()_-")
_CLASSES = {
    "Allow": "fill:#e6f4ea,stroke:#137333,color:#0b3d1c",
    "Constrain": "fill:#e0f7fa,stroke:#00707f,color:#003c44",
    "Throttle": "fill:#fef7e0,stroke:#a06000,color:#4a2d00",
    "RequireApproval": "fill:#f7e8fd,stroke:#8430ce,color:#41126b",
    "Deny": "fill:#fce8e6,stroke:#b31412,color:#5c0a09",
    "Run": "fill:#e8eaed,stroke:#3c4043,color:#202124",
    "Lacking": "fill:#fff8e1,stroke:#8a6d00,color:#4a3b00,stroke-dasharray:4",
}


def flowchart(trace: Trace) -> Iterator[str]:
    """Give the lines of the chart."""
    yield "flowchart TD"
    numbers: dict[Node, int] = {}
    day = trace.opening.time[:10] if trace.opening else ""
    for node, _ in trace.walk():
        numbers[node] = len(numbers)
        yield f"  n{numbers[node]}{_box(node, day)}"
    for node, number in numbers.items():
        yield from (f"  n{number} --> n{numbers[child]}" for child in node.children)
    for name, style in _CLASSES.items():
        yield f"  classDef {name} {style}"


def escaped(text: str) -> str:
    """Write a text so that it is only text, within double quotes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in _SAFE) else f"#{ord(c)};" for c in printable(text))


def _box(node: Node, day: str) -> str:
    words = line(node, day)
    if not words.verdict:
        parts = [words.id, words.what, *words.facts]
        return f'["{_label(parts)}"]:::Lacking'
    name = words.verdict if words.verdict in _CLASSES else "Run"
    parts = [f"{words.verdict} {words.time}", words.who, words.what, *words.facts, *words.below, words.id]
    return f'["{_label(parts)}"]:::{name}'


def _label(parts: list[str]) -> str:
    cut = (part if len(part) <= LONGEST else f"{part[: LONGEST - 1]}…" for part in parts if part)
    return "<br>".join(map(escaped, cut))
