"""The decision API's data: what is asked, and what is answered. The OpenAPI description is made of these."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from fleetward.registry.slice import (
    ActionKind,
    Decision,
    Enforcement,
    Estimate,
    Mode,
    Obligation,
    Reversibility,
    Wire,
)

MAX_COUNT = 2**53 - 1
"""The largest number every JSON reader keeps exact (RFC 8259, section 6)."""

_NAME = r"^[A-Za-z0-9_:/@+-]+(\.[A-Za-z0-9_:/@+-]+)*\Z"
_TAG = r"^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?\Z"
_TARGET = r"^[A-Za-z0-9]([A-Za-z0-9._:/@-]*[A-Za-z0-9])?\Z"
_AGENT = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z"
_DIGEST = r"^sha256:[0-9a-f]{64}\Z"
_REFERENCE = r"^[A-Za-z0-9._:/-]+\Z"
_TRACEPARENT = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"

PATTERNS = {
    _NAME: "a dotted name of letters, digits and _ : / @ + -, such as crm.customers.read",
    _TAG: "letters, digits and . _ : / - within, such as customer",
    _TARGET: "letters, digits and . _ : / @ - within, such as crm",
    _AGENT: "an agent as namespace/name, such as reports/data-worker",
    _DIGEST: "sha256: and 64 hexadecimal digits",
    _REFERENCE: "letters, digits and . _ : / -",
    _TRACEPARENT: "a traceparent of W3C Trace Context",
}
"""What each pattern allows, in words."""

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
ActionName = Annotated[str, Meta(max_length=256, pattern=_NAME, description=PATTERNS[_NAME])]
Tag = Annotated[str, Meta(max_length=63, pattern=_TAG)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=64)]
Target = Annotated[str, Meta(max_length=253, pattern=_TARGET)]
AgentKey = Annotated[str, Meta(max_length=127, pattern=_AGENT, description=PATTERNS[_AGENT])]
Digest = Annotated[
    str, Meta(pattern=_DIGEST, description="SHA-256 over the canonical JSON (RFC 8785), as sha256:<hex>")
]
Reference = Annotated[str, Meta(max_length=128, pattern=_REFERENCE)]
TraceParent = Annotated[str, Meta(pattern=_TRACEPARENT, description=PATTERNS[_TRACEPARENT])]


class DeclaredEstimate(Wire, frozen=True):
    """What the agent expects an action to use: tokens, millionths of a US dollar, calls, data records."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cost_micro_usd: Count | None = None
    calls: Count | None = None
    records: Count | None = None


class Action(Wire, frozen=True):
    """What an agent is about to do. All but kind, name and arguments is declared, and can only tighten."""

    kind: ActionKind
    name: ActionName
    risk_tags: Tags = ()
    data_classes: Tags = ()
    target: Target | None = None
    estimate: DeclaredEstimate | None = None
    arguments: dict[str, Any] | None = None
    arguments_digest: Digest | None = None
    labels: Tags = ()


class DecisionRequest(Wire, frozen=True):
    """`POST /v1/decisions`."""

    action: Action
    agent: AgentKey | None = None
    run: Reference | None = None
    parent: Reference | None = None
    traceparent: TraceParent | None = None


class RuleRef(Wire, frozen=True):
    """A rule that counted, identified down to the very version of its policy."""

    policy: str
    kind: Literal["AgentPolicy", "ClusterAgentPolicy"]
    uid: str
    generation: int
    hash: str
    rule: str
    decision: Decision
    enforcement: Enforcement
    principal: str
    """Whose policies the rule counted for."""
    error: str | None = None
    """Why the rule's expression could not be evaluated; such a rule counts as Deny."""


class Answer(Wire, frozen=True, kw_only=True):
    """The answer to a decision request."""

    id: str
    decision: Decision
    reason: str
    rules: tuple[RuleRef, ...]
    obligations: tuple[Obligation, ...]
    registry_version: str
    retry_after_seconds: int | None = None
    mode: Mode | None = None
    """The operating mode that denied the action."""
    advice: tuple[str, ...] = ()
    """Where a declared fact would have changed something, and where to put it instead."""


class Actual(DeclaredEstimate, frozen=True):
    """What an action really used; durations in milliseconds."""

    duration_ms: Count | None = None


class OutcomeRequest(Wire, frozen=True):
    """`POST /v1/decisions/{id}/outcome`: progress (Running) or the end of an action."""

    status: Literal["Running", "Succeeded", "Failed"] = "Succeeded"
    actual: Actual | None = None
    arguments_digest: Digest | None = None
    """Digest of the arguments really used; needed where obligations concern the arguments."""
    result: Any | UnsetType = UNSET
    """The result as it is about to be used; needed where obligations or rules concern the result."""
    error: Annotated[str, Meta(max_length=4096)] | None = None
    labels: Tags = ()


class Facts(Wire, frozen=True):
    """What is held to be true of an action: trusted facts, and beside them what the agent only declared."""

    risk_tags: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()
    target: str | None = None
    reversibility: Reversibility | None = None
    estimate: Estimate | None = None
    labels: tuple[str, ...] = ()


class RecordedAction(Wire, frozen=True):
    """The action as it was judged."""

    kind: ActionKind
    name: str
    trusted: Facts
    declared: Facts | None = None
    arguments_digest: str | None = None
