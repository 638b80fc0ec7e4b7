"""Agent: who an agent is, and whether it may act at all."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleetward.resources.base import (
    AGE,
    READY,
    REASON,
    WHY,
    AgentName,
    LabelSelector,
    Model,
    ObjectName,
    OperatingMode,
    Resource,
    Role,
    Tag,
    column,
)
from fleetward.resources.status import AgentStatus


class Workload(Model):
    """Which pods run the agent. Agents with the same workload share a pod and its decision webhook."""

    selector: LabelSelector
    """Labels of the agent's pods."""
    service_account_name: ObjectName = "default"
    """The service account the agent's pods run as."""


class MayDelegateTo(Model):
    """Whom an agent may hand work to: agents of one of the roles in its own namespace, and the agents named."""

    roles: Annotated[list[Role], Field(max_length=3)] = []
    """Roles in the agent's own namespace."""
    agents: Annotated[list[AgentName], Field(max_length=256)] = []
    """Agents by name, in the agent's own namespace, or as namespace/name."""


class AgentSpec(Model):
    """Who an agent is: its role, its pods, its owner, what it may touch, and its operating mode."""

    role: Role
    """What part the agent plays: Coordinator, Planner or Worker."""
    workload: Workload | None = None
    """Which pods run the agent; left out, it shares a pod with no other agent."""
    owner: Annotated[str, Field(max_length=253)] = ""
    """Who answers for the agent: a team or a mail address; rules read it as agent.owner."""
    risk_tier: Literal["Low", "Medium", "High", "Critical"] = "Medium"
    """How much harm the agent could do; rules read it as agent.riskTier."""
    data_classes: Annotated[list[Tag], Field(max_length=64)] | None = None
    """The data classes the agent may touch at all; left out, whatever the rules allow; empty, none."""
    may_delegate_to: MayDelegateTo | None = None
    """Whom the agent may delegate to at all; left out, whomever the rules allow."""
    operating_mode: OperatingMode = "Running"
    """Paused, Stopped and Quarantined deny every decision; Stopped also evicts the agent's pods and holds new ones.

    Quarantined keeps them for forensics, holds new ones and cuts the network by a NetworkPolicy, which needs a network
    plugin that enforces it. Patch this to stop the agent; only another patch lets it run again.
    """
    operating_reason: Annotated[str, Field(max_length=1024)] = ""
    """Why the operating mode is what it is; every refusal repeats it."""


class Agent(Resource):
    """An AI agent under governance."""

    PLURAL: ClassVar[str] = "agents"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("agt",)
    STATUS = AgentStatus
    PRINTER_COLUMNS = (
        column("Role", ".spec.role"),
        column("Mode", ".status.mode.operatingMode"),
        READY,
        column("Pods", ".status.pods.total", "integer"),
        column("Webhooks", ".status.webhooks.connected", "integer"),
        column("Last decision", ".status.lastDecision.decision"),
        column("Decided", ".status.lastDecision.time", "date"),
        column("Risk", ".spec.riskTier", wide=True),
        column("Owner", ".spec.owner", wide=True),
        column("Policies", ".status.policies", "integer", wide=True),
        column("Registry", ".status.webhooks.registryVersion", wide=True),
        column("Mode set by", ".status.mode.setBy", wide=True),
        column("Mode since", ".status.mode.since", "date", wide=True),
        REASON,
        AGE,
        WHY,
    )
    SELECTABLE_FIELDS = (".spec.role", ".spec.operatingMode", ".spec.riskTier")

    kind: Literal["Agent"]
    spec: AgentSpec
