"""AgentPolicy: rules for the agents of one namespace."""

from typing import ClassVar, Literal

from fleetward.resources.base import Resource
from fleetward.resources.rule import PolicySpec


class AgentPolicy(Resource):
    """Rules for the agents of one namespace."""

    PLURAL: ClassVar[str] = "agentpolicies"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("apol",)
    PRINTER_COLUMNS = (
        {"name": "Enforcement", "type": "string", "jsonPath": ".spec.enforcement"},
        {"name": "Roles", "type": "string", "jsonPath": ".spec.subjects.roles"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    )
    SELECTABLE_FIELDS = (".spec.enforcement",)

    kind: Literal["AgentPolicy"]
    spec: PolicySpec
