"""The variables and fields an expression may name: the one table behind lint, evaluation and documentation.

The engine builds its activations to it (plain dicts, camelCase keys, absent optional fields left out),
`typed.py` builds protobuf descriptors from it, and `docs/expressions.md` carries what `markdown()` prints.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

FieldType = Literal[
    "string", "int", "list(string)", "map(string, string)", "map(string, dyn)", "dyn", "Estimate", "Actual"
]
"""A CEL type, or the name of another message of this table."""

Phase = Literal["Before", "During", "After"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `optional` means it may be absent, and reading it then is an error (`has()` asks first)."""

    name: str
    type: FieldType
    meaning: str
    optional: bool = False


_AMOUNTS: Final = (
    Field("inputTokens", "int", "tokens read by a model", optional=True),
    Field("outputTokens", "int", "tokens written by a model", optional=True),
    Field("costMicroUsd", "int", "cost in millionths of a US dollar", optional=True),
    Field("calls", "int", "calls made", optional=True),
    Field("records", "int", "records read, changed or sent", optional=True),
)

MESSAGES: Final = MappingProxyType(
    {
        "Action": (
            Field("kind", "string", "ToolCall, ModelCall, Delegation, Plan or Message"),
            Field("name", "string", "the dotted name, such as crm.customers.read"),
            Field("riskTags", "list(string)", "risk tags, such as external; empty where there are none"),
            Field("dataClasses", "list(string)", "data classes touched; empty where there are none"),
            Field("target", "string", "the system acted upon", optional=True),
            Field("reversibility", "string", "Reversible or Irreversible", optional=True),
            Field("estimate", "Estimate", "what the action is expected to use; absent amounts are not known"),
            Field("arguments", "map(string, dyn)", "the arguments, where the caller gave them", optional=True),
            Field("argumentsDigest", "string", "the digest of the arguments", optional=True),
            Field("labels", "list(string)", "provenance labels, such as untrusted or web"),
        ),
        "Estimate": _AMOUNTS,
        "Agent": (
            Field("name", "string", "the agent's name"),
            Field("namespace", "string", "the namespace of the agent"),
            Field("role", "string", "Coordinator, Planner or Worker"),
            Field("owner", "string", "who answers for the agent"),
            Field("riskTier", "string", "the agent's risk tier, such as High"),
            Field("dataClasses", "list(string)", "the data classes the agent lists; empty where it lists none"),
            Field("labels", "map(string, string)", "metadata.labels of the agent"),
            Field("fleets", "list(string)", "names of the fleets the agent belongs to"),
        ),
        "Outcome": (
            Field("status", "string", "Running, Succeeded or Failed"),
            Field("actual", "Actual", "what the action has used; absent amounts are not known"),
            Field("labels", "list(string)", "provenance labels of the result"),
            Field("result", "dyn", "the result, where the caller gave it", optional=True),
            Field("error", "string", "the error, where there was one", optional=True),
        ),
        "Actual": (*_AMOUNTS, Field("durationMs", "int", "elapsed milliseconds", optional=True)),
    }
)
"""Fields by message name."""

VARIABLES: Final = MappingProxyType({"action": "Action", "agent": "Agent", "outcome": "Outcome"})
"""The message that each variable holds."""

PHASES: Final[tuple[Phase, ...]] = ("Before", "During", "After")


def variables(phase: str) -> tuple[str, ...]:
    """Return the variables known in a phase: `outcome` exists only During and After.

    Raises ValueError for a phase that is none of PHASES.
    """
    if phase not in PHASES:
        msg = f"phase: {phase!r} is not a phase; allowed: {', '.join(PHASES)}"
        raise ValueError(msg)
    return tuple(VARIABLES) if phase != "Before" else tuple(name for name in VARIABLES if name != "outcome")


def paths() -> Iterator[tuple[str, Field]]:
    """Yield every field with its full path, such as `action.estimate.records`, in the table's order."""
    for variable, message in VARIABLES.items():
        yield from _paths(variable, message)


def _paths(prefix: str, message: str) -> Iterator[tuple[str, Field]]:
    for field in MESSAGES[message]:
        path = f"{prefix}.{field.name}"
        yield path, field
        if field.type in MESSAGES:
            yield from _paths(path, field.type)


def markdown() -> str:
    """Return the table for the documentation, one row a field, in Markdown."""
    rows = ["| field | type | may be absent | meaning |", "|---|---|---|---|"]
    for path, field in paths():
        kind = "message" if field.type in MESSAGES else f"`{field.type}`"
        rows.append(f"| `{path}` | {kind} | {'yes' if field.optional else ''} | {field.meaning} |")
    return "\n".join(rows) + "\n"
