"""AgentFleet: agents governed together."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleetward.resources.base import AGE, READY, REASON, WHY, LabelSelector, Model, OperatingMode, Resource, column
from fleetward.resources.status import AgentFleetStatus


class FleetAgents(Model):
    """Which agents belong to a fleet: both selectors must hold; one left out selects everything."""

    namespace_selector: LabelSelector = LabelSelector()
    """Labels of the agents' namespaces."""
    agent_selector: LabelSelector = LabelSelector()
    """Labels of the agents."""


class AgentFleetSpec(Model):
    """Which agents belong to the fleet, and what holds for all of them. In several fleets, the strictest counts."""

    agents: FleetAgents
    """Which agents belong."""
    default_decision: Literal["Allow", "RequireApproval", "Deny"] = "Deny"
    """The decision for an action that no rule matches."""
    declared_facts: Literal["RestrictOnly", "Trusted"] = "RestrictOnly"
    """Whether what agents declare about an action is believed (Trusted) or can only tighten (RestrictOnly)."""
    delegation: Literal["Inherit", "Intersection"] = "Inherit"
    """Inherit: restrictions of whoever handed work down count for it.

    Intersection: where an agent of the fleet has a part in a chain, every agent of the chain must itself be allowed.
    """
    operating_mode: OperatingMode = "Running"
    """The operating mode of all agents of the fleet; the stronger of this and the agent's own counts.

    Patch this to stop them all at once. Quarantined also cuts their pods off the network, which needs a network plugin
    that enforces NetworkPolicy.
    """
    operating_reason: Annotated[str, Field(max_length=1024)] = ""
    """Why the operating mode is what it is; every refusal repeats it."""


class AgentFleet(Resource):
    """A fleet of agents governed together."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    PLURAL: ClassVar[str] = "agentfleets"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("fleet",)
    STATUS = AgentFleetStatus
    PRINTER_COLUMNS = (
        column("Mode", ".status.mode.operatingMode"),
        READY,
        column("Default", ".spec.defaultDecision"),
        column("Agents", ".status.agents.total", "integer"),
        column("Running", ".status.agents.running", "integer"),
        column("Paused", ".status.agents.paused", "integer"),
        column("Stopped", ".status.agents.stopped", "integer"),
        column("Quarantined", ".status.agents.quarantined", "integer"),
        column("Declared", ".spec.declaredFacts", wide=True),
        column("Delegation", ".spec.delegation", wide=True),
        column("Mode set by", ".status.mode.setBy", wide=True),
        column("Mode since", ".status.mode.since", "date", wide=True),
        REASON,
        AGE,
        WHY,
    )
    SELECTABLE_FIELDS = (".spec.operatingMode", ".spec.defaultDecision")

    kind: Literal["AgentFleet"]
    spec: AgentFleetSpec
