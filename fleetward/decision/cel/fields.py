"""The variables and fields an expression may name: the one table behind lint, evaluation and documentation.

The engine builds its activations to it (plain dicts, camelCase keys, absent optional fields left out),
`typed.py` builds protobuf descriptors from it, and `docs/expressions.md` carries what `markdown()` prints.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

FieldType = Literal[
    "string", "int", "list(string)", "map(string, string)", "map(string, dyn)", "dyn", "Estimate", "Actual", "Amounts"
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
            Field("key", "string", "namespace/name"),
            Field("name", "string", "the agent's name"),
            Field("namespace", "string", "the namespace of the agent"),
            Field("role", "string", "Coordinator, Planner or Worker"),
            Field("owner", "string", "who answers for the agent"),
            Field("riskTier", "string", "the agent's risk tier, such as High"),
            Field("dataClasses", "list(string)", "the data classes the agent lists; empty where it lists none"),
            Field("labels", "map(string, string)", "metadata.labels of the agent"),
            Field("fleets", "list(string)", "names of the fleets the agent belongs to"),
        ),
        "Run": (
            Field("id", "string", "the run; absent where the action belongs to none", optional=True),
            Field("requester", "string", "who asked for the run", optional=True),
            Field("purpose", "string", "what the run is for", optional=True),
            Field("openedBy", "string", "the agent that opened it, as namespace/name", optional=True),
            Field("steps", "int", "actions that the run was allowed so far"),
            Field("used", "Amounts", "what the run has used and reserved so far; absent amounts are none"),
            Field("agents", "list(string)", "the agents that have acted in the run, as namespace/name"),
            Field("depth", "int", "the longest chain of delegations in the run so far"),
            Field("ageSeconds", "int", "how long ago the run was opened"),
            Field("repeats", "int", "how often this agent asked for the very same action before, in the run"),
            Field("idleSteps", "int", "how many actions of the run in a row were nothing new"),
            Field("exchanges", "int", "how often this agent and the one it turns to turned to each other in a row"),
            Field("onTarget", "map(string, dyn)", "agents that acted on the same target in the run, by action name"),
            Field("recentOnTarget", "map(string, dyn)", "the same, in any run, within the last hour"),
        ),
        "Amounts": _AMOUNTS,
        "Delegation": (
            Field("depth", "int", "how often the work was handed on; 0 where it was not"),
            Field("path", "list(string)", "who handed it down, whoever began first, as namespace/name"),
        ),
        "Delegate": (
            Field(
                "key", "string", "of a delegation or message: the agent it goes to, as namespace/name", optional=True
            ),
            Field("name", "string", "its name", optional=True),
            Field("namespace", "string", "its namespace", optional=True),
            Field("role", "string", "its role", optional=True),
            Field("owner", "string", "who answers for it", optional=True),
            Field("riskTier", "string", "its risk tier", optional=True),
            Field("dataClasses", "list(string)", "the data classes it lists; empty where it lists none"),
            Field("labels", "map(string, string)", "metadata.labels of it"),
            Field("fleets", "list(string)", "names of the fleets it belongs to"),
        ),
        "Plan": (
            Field("steps", "int", "of a plan: how many steps it has; 0 of any other action"),
            Field("agents", "list(string)", "the agents that are to act, as namespace/name"),
            Field("fanOut", "int", "the most steps that wait for one and the same step, or for none"),
            Field("depth", "int", "the longest chain of steps that wait for each other"),
            Field("dataClasses", "list(string)", "the data classes of all steps together"),
            Field("targets", "list(string)", "the targets of all steps together"),
            Field("used", "Amounts", "what all steps together are expected to use"),
        ),
        "Outcome": (
            Field("status", "string", "Running, Succeeded or Failed"),
            Field("actual", "Actual", "what the action has used; absent amounts are not known"),
            Field("labels", "list(string)", "provenance labels of the result"),
            Field("result", "dyn", "the result, where the caller gave it", optional=True),
            Field("error", "string", "the error, where there was one", optional=True),
        ),
        "Actual": (
            *_AMOUNTS,
            Field("cachedInputTokens", "int", "of the tokens read, those the provider had in its cache", optional=True),
            Field("reasoningTokens", "int", "of the tokens written, those spent on reasoning", optional=True),
            Field("durationMs", "int", "elapsed milliseconds", optional=True),
        ),
    }
)
"""Fields by message name."""

VARIABLES: Final = MappingProxyType(
    {
        "action": "Action",
        "agent": "Agent",
        "run": "Run",
        "delegation": "Delegation",
        "to": "Delegate",
        "plan": "Plan",
        "outcome": "Outcome",
    }
)
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
