"""ClusterAgentPolicy: rules for agents of any namespace."""

from typing import ClassVar, Literal

from fleetward.resources.agentpolicy import AgentPolicy
from fleetward.resources.base import LabelSelector, Resource
from fleetward.resources.rule import PolicySpec, PolicySubjects


class ClusterPolicySubjects(PolicySubjects):
    """Whose actions a cluster policy is about: all the fields given must hold; empty, every agent."""

    namespace_selector: LabelSelector = LabelSelector()
    """Labels of the agents' namespaces."""


class ClusterPolicySpec(PolicySpec):
    """Rules, whom they concern in which namespaces, and whether they are enforced."""

    subjects: ClusterPolicySubjects = ClusterPolicySubjects()
    """Whose actions; left out, every agent."""


class ClusterAgentPolicy(Resource):
    """Rules for agents of any namespace."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    PLURAL: ClassVar[str] = "clusteragentpolicies"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("capol",)
    STATUS = AgentPolicy.STATUS
    PRINTER_COLUMNS = AgentPolicy.PRINTER_COLUMNS
    SELECTABLE_FIELDS = AgentPolicy.SELECTABLE_FIELDS

    kind: Literal["ClusterAgentPolicy"]
    spec: ClusterPolicySpec
