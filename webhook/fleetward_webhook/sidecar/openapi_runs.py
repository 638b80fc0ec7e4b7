"""The API's description: runs, plans and delegations."""

from typing import Any

from fleetward.run.api import CloseRequest, DelegationRequest, PlanRequest, RunAnswer, RunRequest
from fleetward_webhook.sidecar import openapi_parts as parts
from fleetward_webhook.sidecar.limits import Limits
from fleetward_webhook.sidecar.problem import Kind

BODIES = (RunRequest, RunAnswer, CloseRequest, PlanRequest, DelegationRequest)

_RUN = "run-01k9zq3v5w6x7y8z9a0b1c2d3e"
_RUN_REQUEST = {
    "agent": "reports/planner-desk",
    "mandate": {
        "requester": "ana@example.com",
        "purpose": "the weekly report on trial customers",
        "dataClasses": ["customer"],
        "targets": ["crm"],
        "limits": {"steps": 40, "agents": 4, "depth": 2, "records": 5000},
    },
}
_PLAN_REQUEST = {
    "agent": "reports/report-planner",
    "run": _RUN,
    "steps": [
        {
            "id": "read",
            "agent": "reports/data-worker",
            "action": {"kind": "ToolCall", "name": "crm.customers.read", "estimate": {"calls": 1, "records": 200}},
        },
        {
            "id": "write",
            "agent": "reports/report-writer",
            "action": {"kind": "ToolCall", "name": "docs.report.write"},
            "dependsOn": ["read"],
        },
    ],
}
_DELEGATION_REQUEST = {
    "agent": "reports/planner-desk",
    "to": "reports/data-worker",
    "run": _RUN,
    "scope": {"actions": ["crm.customers.read"], "dataClasses": ["customer"], "targets": ["crm"], "depth": 0},
    "labels": ["untrusted"],
}


def paths(limits: Limits) -> dict[str, Any]:
    """Describe the paths."""
    return {
        "/v1/runs": {"post": _open(limits)},
        "/v1/runs/{run}/close": {"post": _close(limits)},
        "/v1/plans": {"post": _plan(limits)},
        "/v1/delegations": {"post": _delegate(limits)},
    }


def _open(limits: Limits) -> dict[str, Any]:
    operation = parts.operation(
        "openRun",
        "A run begins, with what its requester authorised.",
        {"200": parts.json("RunAnswer", {"run": _RUN})},
        (*parts.WITH_BODY, *parts.UNABLE, *parts.RUN),
    )
    operation["requestBody"] = parts.body("RunRequest", limits.decision_bytes, _RUN_REQUEST)
    return operation


def _close(limits: Limits) -> dict[str, Any]:
    operation = parts.operation(
        "closeRun",
        "The run is over, and every grant of it with it.",
        {"200": parts.json("RunAnswer", {"run": _RUN})},
        (*parts.WITH_BODY, *parts.UNABLE, *parts.RUN, Kind.UNKNOWN_PATH),
    )
    operation["parameters"] = [
        {"name": "run", "in": "path", "required": True, "schema": {"type": "string"}, "example": _RUN}
    ]
    operation["requestBody"] = parts.body("CloseRequest", limits.decision_bytes, {"agent": "reports/planner-desk"})
    return operation


def _plan(limits: Limits) -> dict[str, Any]:
    operation = parts.operation(
        "checkPlan",
        "May this plan be carried out, as a whole?",
        {"200": parts.json("Answer")},
        (*parts.WITH_BODY, *parts.UNABLE, Kind.NO_HUB),
    )
    operation["requestBody"] = parts.body("PlanRequest", limits.plan_bytes, _PLAN_REQUEST)
    return operation


def _delegate(limits: Limits) -> dict[str, Any]:
    operation = parts.operation(
        "delegate",
        "May this work be handed to another agent? Where it may, the answer holds the grant to hand over with it.",
        {"200": parts.json("Answer")},
        (*parts.WITH_BODY, *parts.UNABLE, *parts.RUN),
    )
    operation["requestBody"] = parts.body("DelegationRequest", limits.decision_bytes, _DELEGATION_REQUEST)
    return operation
