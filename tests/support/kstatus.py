"""What kstatus makes of an object, by its published rules for custom resources, and what a status may hold."""

from typing import Any

import msgspec

from fleetward.resources import status as models

MODELS: dict[str, type[models.Status]] = {
    "Agent": models.AgentStatus,
    "AgentFleet": models.AgentFleetStatus,
    "AgentPolicy": models.AgentPolicyStatus,
    "ClusterAgentPolicy": models.AgentPolicyStatus,
    "AgentBudget": models.AgentBudgetStatus,
    "ClusterAgentBudget": models.AgentBudgetStatus,
    "ActionCatalog": models.ActionCatalogStatus,
    "AuditSink": models.AuditSinkStatus,
}


OWN = dict.fromkeys(("AgentBudget", "ClusterAgentBudget"), ("Exhausted", "Near"))
"""Conditions of a kind's own, which kstatus does not look at."""


def kstatus(generation: int, status: dict[str, Any]) -> str:
    """Give Current, InProgress or Failed (sigs.k8s.io/cli-utils, pkg/kstatus: the generic rules)."""
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    if conditions.get("Stalled") == "True":
        return "Failed"
    if conditions.get("Reconciling") == "True" or conditions.get("Ready") in {"False", "Unknown"}:
        return "InProgress"
    return "Current"


def check_status(kind: str, status: dict[str, Any]) -> None:
    """Fail where the CRD would not keep the whole status as it is."""
    model = MODELS[kind].model_validate_json(msgspec.json.encode(status))
    kept = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert kept == status
    types = [c["type"] for c in status["conditions"] if c["type"] not in OWN.get(kind, ())]
    assert types[0] == "Ready"
    assert types[1:] in ([], ["Reconciling"], ["Stalled"])
    assert all(c["status"] == "True" for c in status["conditions"][1:])
    assert all(c["observedGeneration"] == status["observedGeneration"] for c in status["conditions"])
