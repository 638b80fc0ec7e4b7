"""AgentPolicy: rules for the agents of one namespace."""

from typing import ClassVar, Literal

from fleetward.resources.base import AGE, READY, REASON, WHY, Resource, column
from fleetward.resources.rule import PolicySpec
from fleetward.resources.status import AgentPolicyStatus


class AgentPolicy(Resource):
    """Rules for the agents of one namespace."""

    PLURAL: ClassVar[str] = "agentpolicies"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("apol",)
    STATUS = AgentPolicyStatus
    PRINTER_COLUMNS = (
        column("Enforcement", ".spec.enforcement"),
        READY,
        column("Rules", ".status.rules", "integer"),
        column("Agents", ".status.agents", "integer"),
        column("Roles", ".spec.subjects.roles", wide=True),
        column("Generation", ".metadata.generation", "integer", wide=True),
        column("In force", ".status.generationInForce", "integer", wide=True),
        REASON,
        AGE,
        WHY,
    )
    SELECTABLE_FIELDS = (".spec.enforcement",)

    kind: Literal["AgentPolicy"]
    spec: PolicySpec
