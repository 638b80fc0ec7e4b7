"""What is asked of a decision webhook about runs, plans and delegations. The OpenAPI description is made of these."""

from typing import Annotated

from msgspec import Meta

from fleetward.delegation.scope import AskedScope
from fleetward.registry.slice import Wire
from fleetward.registry.text import AgentKey, GrantToken, Reference, Tags, TraceParent
from fleetward.run.calls import MAX_PLAN_STEPS, PlanStep
from fleetward.run.mandate import Mandate


class RunRequest(Wire, frozen=True, kw_only=True):
    """`POST /v1/runs`: a run begins, and the agent is the one that opened it."""

    mandate: Mandate
    agent: AgentKey | None = None
    parent: Reference | None = None
    traceparent: TraceParent | None = None


class RunAnswer(Wire, frozen=True, kw_only=True):
    """The run that was opened or closed."""

    run: str


class CloseRequest(Wire, frozen=True, kw_only=True):
    """`POST /v1/runs/{run}/close`: only the agent that opened the run may close it."""

    agent: AgentKey | None = None


class PlanRequest(Wire, frozen=True, kw_only=True):
    """`POST /v1/plans`: a plan is checked as a whole, before its first step."""

    run: Reference
    steps: Annotated[tuple[PlanStep, ...], Meta(min_length=1, max_length=MAX_PLAN_STEPS)]
    agent: AgentKey | None = None
    grant: GrantToken | None = None
    labels: Tags = ()
    parent: Reference | None = None
    traceparent: TraceParent | None = None


class DelegationRequest(Wire, frozen=True, kw_only=True):
    """`POST /v1/delegations`: work is to be handed to another agent, within a scope."""

    to: AgentKey
    run: Reference
    scope: AskedScope = AskedScope()
    agent: AgentKey | None = None
    grant: GrantToken | None = None
    labels: Tags = ()
    """Provenance labels of what is handed over."""
    parent: Reference | None = None
    traceparent: TraceParent | None = None
