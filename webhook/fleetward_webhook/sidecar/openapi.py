"""The API's own description (OpenAPI 3.1), made from the types that requests are read into and answers written from."""

from typing import Any

import msgspec

from fleetward import __version__
from fleetward.decision.action import Answer, DecisionRequest, OutcomeRequest
from fleetward.decision.canonical import MAX_DEPTH
from fleetward.registry.text import MAX_COUNT
from fleetward_webhook.sidecar import openapi_parts as parts
from fleetward_webhook.sidecar import openapi_runs
from fleetward_webhook.sidecar.agents import AgentsView
from fleetward_webhook.sidecar.limits import Limits
from fleetward_webhook.sidecar.problem import Kind, ProblemDetails

_ABOUT = f"""\
Asked before an agent acts, on loopback only. A decision is a 200 whatever it says; whatever is not a 200 with decision
Allow or Constrain means: do not act. Requests from web pages are refused. Bodies are nested at most {MAX_DEPTH} levels
deep, a repeated key in an object is an error, and whole numbers are written without a fraction.
"""
_ABOUT_OUTCOMES = """\
Running asks the rules of phase During. Succeeded and Failed ask those of phase After and check that the obligations
were carried out; the result may be used only where the answer is Allow. Where it is Constrain, carry the obligations
out and report again. A final outcome is accepted once; repeating it gives the same answer, another one is a 409.
"""

_RULE = {
    "policy": "reports/customer-data",
    "kind": "AgentPolicy",
    "uid": "6f0c2f0e-6d3c-5c43-9f0a-0d6f5f3f7c11",
    "generation": 3,
    "hash": "9b2f6c1d",
    "rule": "read-some",
    "decision": "Constrain",
    "enforcement": "Enforce",
    "principal": "reports/data-worker",
}
_DECISION_REQUEST = {
    "agent": "reports/data-worker",
    "action": {
        "kind": "ToolCall",
        "name": "crm.customers.read",
        "riskTags": ["pii"],
        "estimate": {"calls": 1, "records": 20},
        "arguments": {"segment": "trial", "limit": 500},
    },
}
_ANSWER = {
    "id": "k3f5q2m7ab4xwz6n-812",
    "decision": "Constrain",
    "reason": "allowed with obligations by rule read-some of AgentPolicy reports/customer-data",
    "rules": [_RULE],
    "obligations": [{"type": "Clamp", "field": "arguments.limit", "maximum": 100}],
    "registryVersion": "17",
}
_REFUSED = {
    "id": "k3f5q2m7ab4xwz6n-814",
    "decision": "Deny",
    "reason": "AgentBudget reports/reporting-day has no room for it: it needs 20 records, and 12 of 1000 are left",
    "rules": [_RULE | {"decision": "Allow"}],
    "obligations": [],
    "registryVersion": "17",
    "shortfall": {
        "budget": "AgentBudget/reports/reporting-day",
        "limit": "records",
        "needed": 20,
        "left": 12,
        "resetsAt": 1795302000,
    },
}
_OUTCOME_REQUEST = {
    "status": "Succeeded",
    "argumentsDigest": "sha256:" + "3c" * 32,
    "actual": {"calls": 1, "records": 100, "durationMs": 184},
}
_OUTCOME_ANSWER = {
    "id": "k3f5q2m7ab4xwz6n-813",
    "decision": "Allow",
    "reason": "no rule for outcomes speaks against it",
    "rules": [],
    "obligations": [],
    "registryVersion": "17",
}


def describe(limits: Limits) -> bytes:
    """Give the description as JSON."""
    return msgspec.json.format(msgspec.json.encode(_document(limits)), indent=1)


def _document(limits: Limits) -> dict[str, Any]:
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Fleetward decision webhook",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": _ABOUT,
        },
        "paths": {
            "/v1/decisions": {"post": _decide(limits)},
            "/v1/decisions/{id}/outcome": {"post": _outcome(limits)},
            **openapi_runs.paths(limits),
            "/v1/agents": {
                "get": parts.operation(
                    "listAgents", "What are the agents here, and what concerns them?", {"200": parts.json("AgentsView")}
                )
            },
            "/healthz": {"get": parts.operation("healthz", "Is the process alive?", {"200": parts.text("It is.")})},
            "/readyz": {
                "get": parts.operation(
                    "readyz",
                    "Does the webhook decide: does it have policies and a live authority lease?",
                    {"200": parts.text("It does.")},
                    (Kind.NO_SNAPSHOT, Kind.NO_AUTHORITY),
                )
            },
            "/metrics": {"get": parts.operation("metrics", "Prometheus metrics.", {"200": parts.text("The metrics.")})},
            "/openapi.json": {
                "get": parts.operation(
                    "openapi",
                    "This description.",
                    {"200": parts.content("This description.", "application/json", {"type": "object"})},
                )
            },
        },
        "components": {"schemas": _schemas()},
    }


def _decide(limits: Limits) -> dict[str, Any]:
    operation = parts.operation(
        "decide",
        "May this agent do this?",
        {"200": parts.json("Answer", _ANSWER)},
        (*parts.WITH_BODY, *parts.UNABLE, Kind.NO_HUB),
    )
    answers = operation["responses"]["200"]["content"]["application/json"]
    del answers["example"]
    answers["examples"] = {
        "allowed": {"summary": "It may be run as constrained", "value": _ANSWER},
        "noRoom": {"summary": "A budget has no room for it", "value": _REFUSED},
    }
    operation["requestBody"] = parts.body("DecisionRequest", limits.decision_bytes, _DECISION_REQUEST)
    operation["responses"]["200"]["links"] = {
        "outcome": {
            "operationId": "reportOutcome",
            "parameters": {"id": "$response.body#/id"},
            "description": "Where the decision is Allow or Constrain, report what came of the action",
        }
    }
    return operation


def _outcome(limits: Limits) -> dict[str, Any]:
    operation = parts.operation(
        "reportOutcome",
        "It goes on, or it ended: may it go on, may its result be used?",
        {"200": parts.json("Answer", _OUTCOME_ANSWER)},
        (*parts.WITH_BODY, *parts.OUTCOME, *parts.UNABLE, *parts.RUN),
    )
    operation["description"] = _ABOUT_OUTCOMES
    operation["parameters"] = [
        {
            "name": "id",
            "in": "path",
            "required": True,
            "description": "The id of the decision that allowed the action",
            "schema": {"type": "string", "pattern": "^[a-z0-9]+-[0-9]+$"},
            "example": _ANSWER["id"],
        }
    ]
    operation["requestBody"] = parts.body("OutcomeRequest", limits.outcome_bytes, _OUTCOME_REQUEST)
    return operation


def _schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(
        [DecisionRequest, OutcomeRequest, Answer, AgentsView, ProblemDetails, *openapi_runs.BODIES],
        ref_template=parts.REF + "{name}",
    )
    # What arguments and results may hold is checked when their digest is made, so the types alone do not show it.
    value = {"$ref": parts.REF + "JsonValue"}
    schemas["JsonValue"] = {
        "title": "JsonValue",
        "description": "Any JSON whose numbers every reader keeps exact.",
        "anyOf": [
            {"type": ["null", "boolean", "string"]},
            {"type": "number", "minimum": -MAX_COUNT, "maximum": MAX_COUNT},
            {"type": "array", "items": value},
            {"type": "object", "additionalProperties": value},
        ],
    }
    schemas["Action"]["properties"]["arguments"]["anyOf"][0] = {"type": "object", "additionalProperties": value}
    schemas["OutcomeRequest"]["properties"]["result"] = value
    schemas["Action"]["not"] = {
        "description": "The digest is for arguments that are not sent",
        "required": ["arguments", "argumentsDigest"],
        "properties": {"arguments": {"type": "object"}, "argumentsDigest": {"type": "string"}},
    }
    return _portable(schemas)  # type: ignore[no-any-return] # a dict stays one


def _portable(schema: Any) -> Any:
    r"""Write patterns in the dialect that JSON Schema names (ECMA-262): it has no `\Z`, and its `$` is as strict."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\Z", "$") if key == "pattern" and isinstance(value, str) else _portable(value)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_portable(item) for item in schema]
    return schema
