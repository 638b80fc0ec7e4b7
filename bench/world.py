"""Resources to measure with."""

from collections.abc import Iterable
from typing import Any

import yaml

from fleetward.resources import API_VERSION, KINDS, Resource

AGENT = "bench/worker"
REQUEST = {
    "agent": AGENT,
    "action": {
        "kind": "ToolCall",
        "name": "crm.customers.read",
        "riskTags": ["pii"],
        "dataClasses": ["customer"],
        "target": "crm",
        "estimate": {"calls": 1, "records": 20},
        "arguments": {"segment": "gold", "limit": 20},
    },
}
CONDITIONAL_REQUEST = {**REQUEST, "action": {**REQUEST["action"], "name": "crm.orders.read"}}  # type: ignore[dict-item]


def manifest(kind: str, name: str, spec: dict[str, Any], namespace: str | None = None, **labels: str) -> dict[str, Any]:
    """Give a resource as YAML would hold it."""
    metadata: dict[str, Any] = {"name": name} | ({"labels": labels} if labels else {})
    if namespace is not None:
        metadata["namespace"] = namespace
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def governed() -> list[dict[str, Any]]:
    """Give one agent, its fleet, a catalog and the policy that allows what is measured, in part by an expression."""
    return [
        manifest("Agent", "worker", {"role": "Worker", "owner": "bench"}, "bench", team="bench"),
        manifest("AgentFleet", "bench", {"agents": {"agentSelector": {"matchLabels": {"team": "bench"}}}}),
        manifest(
            "ActionCatalog",
            "crm",
            {
                "entries": [
                    {
                        "names": ["crm.**"],
                        "riskTags": ["pii"],
                        "dataClasses": ["customer"],
                        "target": "crm",
                        "estimate": {"calls": 1, "records": 20},
                    }
                ]
            },
        ),
        manifest(
            "AgentPolicy",
            "reading",
            {
                "rules": [
                    {"name": "read", "match": {"names": ["crm.customers.*"]}, "decision": "Allow"},
                    {
                        "name": "some-orders",
                        "match": {"names": ["crm.orders.*"], "riskTags": ["pii"]},
                        "when": "action.estimate.records <= 100 && 'customer' in action.dataClasses",
                        "decision": "Allow",
                    },
                ]
            },
            "bench",
        ),
    ]


def other_rules(count: int, per_policy: int = 50, namespace: str = "bench") -> Iterable[dict[str, Any]]:
    """Give policies with `count` rules about other actions; every fourth has an expression of its own."""
    for first in range(0, count, per_policy):
        rules = []
        for number in range(first, min(first + per_policy, count)):
            rule: dict[str, Any] = {
                "name": f"rule-{number}",
                "match": {"names": [f"service-{number}.**", f"*.area-{number}.*"], "riskTags": ["external", "bulk"]},
                "decision": ("Deny", "RequireApproval", "Allow")[number % 3],
                "message": "An action of another service",
            }
            if number % 4 == 0:
                rule["when"] = f"action.estimate.records > {number} || 'customer' in action.dataClasses"
            rules.append(rule)
        yield manifest("AgentPolicy", f"others-{first}", {"rules": rules}, namespace)


def as_resources(manifests: Iterable[dict[str, Any]]) -> list[Resource]:
    """Give manifests as resources."""
    return [KINDS[data["kind"]].model_validate(data) for data in manifests]


def as_yaml(manifests: Iterable[dict[str, Any]]) -> str:
    """Give manifests as one YAML file."""
    return yaml.safe_dump_all(manifests, sort_keys=False)
