"""AgentFleet: agents governed together."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleetward.resources.base import LabelSelector, Model, OperatingMode, Resource


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
    operating_mode: OperatingMode = "Running"
    """The operating mode of all agents of the fleet; the stronger of this and the agent's own counts."""
    operating_reason: Annotated[str, Field(max_length=1024)] = ""
    """Why the operating mode is what it is; every refusal repeats it."""


class AgentFleet(Resource):
    """A fleet of agents governed together."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    PLURAL: ClassVar[str] = "agentfleets"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("fleet",)
    PRINTER_COLUMNS = (
        {"name": "Default", "type": "string", "jsonPath": ".spec.defaultDecision"},
        {"name": "Declared", "type": "string", "jsonPath": ".spec.declaredFacts", "priority": 1},
        {"name": "Mode", "type": "string", "jsonPath": ".spec.operatingMode"},
        {"name": "Reason", "type": "string", "jsonPath": ".spec.operatingReason"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    )
    SELECTABLE_FIELDS = (".spec.operatingMode", ".spec.defaultDecision")

    kind: Literal["AgentFleet"]
    spec: AgentFleetSpec
