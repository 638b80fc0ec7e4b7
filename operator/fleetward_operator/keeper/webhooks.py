"""The webhook configurations, as they are to look. Pure.

No rule matches Leases, Events or Nodes, and none holds in kube-system: whatever becomes of the admission webhook, the
cluster itself goes on. Agents and AgentFleets are never blocked, so that nothing can keep an emergency pause out.

The pods webhook is called for every pod outside of the excluded namespaces. A condition that spares it the pods of
namespaces without agents would have to be written down somewhere (a label on the namespace, say) before the first pod
comes, and the API server would not wait for that; a pod review without agents costs one LIST and a few milliseconds.
"""

import base64
from typing import Any, Literal

from fleetward.resources.base import GROUP, VERSION
from fleetward.resources.names import ADMISSION
from fleetward_operator.keeper.settings import KeeperSettings
from fleetward_operator.kube.objects import Body

PODS_PATH = "/mutate/pods"
MODES_PATH = "/mutate/modes"
RESOURCES_PATH = "/validate/resources"
TIMEOUT_SECONDS = 3

RESOURCES_WEBHOOK = f"resources.{GROUP}"
"""The webhook that may block; the API server names it in each refusal."""

BLOCKABLE = (
    "actioncatalogs",
    "agentbudgets",
    "agentpolicies",
    "auditsinks",
    "clusteragentbudgets",
    "clusteragentpolicies",
)
NEVER_BLOCKED = ("agentfleets", "agents")

FailurePolicy = Literal["Ignore", "Fail"]

_NOT_KUBE_SYSTEM = {
    "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]
}


def mutating(settings: KeeperSettings, bundle: bytes) -> Body:
    """Build the MutatingWebhookConfiguration: injection into pods, and who set a mode."""
    again = {"reinvocationPolicy": "IfNeeded"}
    pods = _webhook(
        settings, bundle, f"pods.{GROUP}", PODS_PATH, [_rule("", "v1", ("pods",), ("CREATE",), "Namespaced")]
    )
    modes = _webhook(settings, bundle, f"modes.{GROUP}", MODES_PATH, [_ours(NEVER_BLOCKED)])
    return {
        "webhooks": [
            {**pods, "namespaceSelector": settings.governed_namespaces, **again},
            {**modes, **again},
        ]
    }


def validating(settings: KeeperSettings, bundle: bytes, failure_policy: FailurePolicy) -> Body:
    """Build the ValidatingWebhookConfiguration; `failure_policy` is for what may block."""
    # Dry runs of the operator's are reviewed: by one of them it finds out whether the webhook refuses what is bad.
    others = {
        "name": "not-the-operator",
        "expression": f"request.userInfo.username != {quote(settings.user)} || request.dryRun",
    }
    blockable = _webhook(settings, bundle, RESOURCES_WEBHOOK, RESOURCES_PATH, [_ours(BLOCKABLE)])
    agents = _webhook(settings, bundle, f"agents.{GROUP}", RESOURCES_PATH, [_ours(NEVER_BLOCKED)])
    return {
        "webhooks": [
            {**blockable, "failurePolicy": failure_policy, "matchConditions": [others]},
            {**agents, "matchConditions": [others]},
        ]
    }


def quote(text: str) -> str:
    """Write a string as CEL does."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _webhook(settings: KeeperSettings, bundle: bytes, name: str, path: str, rules: list[Body]) -> Body:
    return {
        "name": name,
        "clientConfig": _client(settings, bundle, path),
        "rules": rules,
        "namespaceSelector": _NOT_KUBE_SYSTEM,
        "objectSelector": {},
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS,
        "admissionReviewVersions": ["v1"],
    }


def _client(settings: KeeperSettings, bundle: bytes, path: str) -> Body:
    where: dict[str, Any]
    if settings.admission_url:
        where = {"url": settings.admission_url.rstrip("/") + path}
    else:
        where = {"service": {"namespace": settings.namespace, "name": ADMISSION, "path": path, "port": 443}}
    return {**where, "caBundle": base64.b64encode(bundle).decode()}


def _ours(plurals: tuple[str, ...]) -> Body:
    return _rule(GROUP, VERSION, plurals, ("CREATE", "UPDATE"), "*")


def _rule(group: str, version: str, plurals: tuple[str, ...], operations: tuple[str, ...], scope: str) -> Body:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "resources": list(plurals),
        "operations": list(operations),
        "scope": scope,
    }
