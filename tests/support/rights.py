"""What the manifests let a service account do, and what it asked the API server for, by the API server's audit log."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.chart import NAMESPACE, Object

Right = tuple[str, str]
"""A verb, and a resource with its subresource: `create`, `pods/eviction`."""


@dataclass
class Asked:
    """What a service account asked for."""

    allowed: set[Right] = field(default_factory=set)
    forbidden: set[Right] = field(default_factory=set)


def audit_options(directory: Path) -> tuple[str, ...]:
    """Give the API server's options by which it keeps a log of what Fleetward's own service accounts ask for."""
    rules: list[dict[str, Any]] = [
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{NAMESPACE}"], "omitStages": ["RequestReceived"]},
        {"level": "None"},
    ]
    policy = directory / "audit-policy.json"
    policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}))
    return (f"--audit-policy-file={policy}", f"--audit-log-path={directory / 'audit.log'}")


def granted(manifests: Iterable[Object], account: str) -> set[Right]:
    """Give what the roles of this name let the service account of this name do."""
    roles = [o for o in manifests if o["kind"] in {"ClusterRole", "Role"} and o["metadata"]["name"] == account]
    return {
        (verb, resource)
        for role in roles
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }


def asked(directory: Path, account: str) -> Asked:
    """Read what a service account asked for, and whether RBAC let it."""
    found = Asked()
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    for line in (directory / "audit.log").read_text().splitlines():
        event = json.loads(line)
        target = event.get("objectRef")
        if event["user"]["username"] != user or target is None:
            continue
        name = "/".join(part for part in (target.get("resource"), target.get("subresource")) if part)
        let = event["annotations"].get("authorization.k8s.io/decision") == "allow"
        (found.allowed if let else found.forbidden).add((event["verb"], name))
    return found
