"""The decision API's data: what is asked, and what is answered. The OpenAPI description is made of these."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from fleetward.delegation.scope import Scope, Violation
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
from fleetward.registry.text import (
    ActionName,
    AgentKey,
    Count,
    Digest,
    GrantToken,
    Reference,
    Tags,
    Target,
    TraceParent,
)


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
    model: Target | None = None
    """Of a model call whose arguments are not sent: the model; else `arguments.model` says it."""


class DecisionRequest(Wire, frozen=True):
    """`POST /v1/decisions`."""

    action: Action
    agent: AgentKey | None = None
    run: Reference | None = None
    grant: GrantToken | None = None
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


class Shortfall(Wire, frozen=True, kw_only=True):
    """What has no room for an action: a budget, or a rule that throttles."""

    budget: str
    """`KIND/NAME` of a budget; of a rule, `KIND/NAME#RULE` of its policy."""
    scope: str = ""
    """Whose pot it is: an agent, a run, a grant; empty where all share one."""
    limit: str
    """Such as costMicroUsd, `calls crm.**`, actions (of a rate), concurrency."""
    needed: int
    left: int
    """What is left of it: neither used, nor reserved, nor leased."""
    resets_at: int | None = None
    """When it begins anew, in seconds since the epoch; None: never by itself."""


class Spend(Wire, frozen=True, kw_only=True):
    """What one action takes out of one pot: reserved with its decision, settled with its outcome."""

    budget: str
    scope: str = ""
    window: str = ""
    """Identifies the window of the pot that it counts in."""
    born: str = ""
    """Identifies the process of the webhook whose lease it came from (`born` in `fleetward.budget.calls`)."""
    amounts: dict[str, Count]
    """By limit: inputTokens, outputTokens, costMicroUsd, records, wallMilliseconds, `calls GLOB,...`, concurrency."""


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
    shortfall: Shortfall | None = None
    """The budget, or the throttled rule, that has no room for the action."""
    violations: tuple[Violation, ...] = ()
    """Where the action or the plan goes beyond the run's mandate, or the grant."""
    grant: str | None = None
    """Of an allowed delegation: the signed grant (compact JWS) that the other agent presents."""


class Actual(DeclaredEstimate, frozen=True):
    """What an action really used; durations in milliseconds."""

    cached_input_tokens: Count | None = None
    """Of the input tokens, those that the provider had in its cache."""
    reasoning_tokens: Count | None = None
    """Of the output tokens, those that the model spent on reasoning."""
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


class Handover(Wire, frozen=True, kw_only=True):
    """What a delegation asked to hand over, as it is recorded."""

    to: str
    scope: Scope
    labels: tuple[str, ...] = ()
    grant: str | None = None
    """The id of the grant that was given; None where none was."""
    expires_at: int | None = None
    """When it ends, in seconds since the epoch."""


class PlannedStep(Wire, frozen=True, kw_only=True):
    """One step of a plan, as it is recorded."""

    id: str
    agent: str
    kind: ActionKind
    name: str
    depends_on: tuple[str, ...] = ()


class RecordedAction(Wire, frozen=True):
    """The action as it was judged."""

    kind: ActionKind
    name: str
    trusted: Facts
    declared: Facts | None = None
    arguments_digest: str | None = None
