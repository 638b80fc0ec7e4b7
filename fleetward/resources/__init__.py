"""Fleetward's custom resources as pydantic models: one file a kind, and the only source of the CRDs."""

from fleetward.resources.actioncatalog import ActionCatalog
from fleetward.resources.agent import Agent
from fleetward.resources.agentbudget import AgentBudget
from fleetward.resources.agentfleet import AgentFleet
from fleetward.resources.agentpolicy import AgentPolicy
from fleetward.resources.auditsink import AuditSink
from fleetward.resources.base import API_VERSION, GROUP, Resource
from fleetward.resources.clusteragentbudget import ClusterAgentBudget
from fleetward.resources.clusteragentpolicy import ClusterAgentPolicy

KINDS: dict[str, type[Resource]] = {
    "Agent": Agent,
    "AgentFleet": AgentFleet,
    "ActionCatalog": ActionCatalog,
    "AgentPolicy": AgentPolicy,
    "ClusterAgentPolicy": ClusterAgentPolicy,
    "AgentBudget": AgentBudget,
    "ClusterAgentBudget": ClusterAgentBudget,
    "AuditSink": AuditSink,
}
"""Every kind by its name."""

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "ActionCatalog",
    "Agent",
    "AgentBudget",
    "AgentFleet",
    "AgentPolicy",
    "AuditSink",
    "ClusterAgentBudget",
    "ClusterAgentPolicy",
    "Resource",
]
