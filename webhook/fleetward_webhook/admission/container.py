"""The decision webhook as a container and volumes of a pod.

Every field the API server would fill in is written out, so that what is stored compares equal to what is made here.
"""

from typing import Any

from fleetward.resources.names import (
    AUDIENCE,
    CA_CONFIG_MAP,
    CA_FILE,
    CONTAINER,
    HUB_MOUNT,
    HUB_VOLUME,
    SPOOL_MOUNT,
    SPOOL_VOLUME,
    TOKEN_FILE,
)
from fleetward_webhook.admission.settings import Sidecar

API_PORT = 8180
"""Where agents ask: on the pod's loopback only."""
HEALTH_PORT = 8182
"""Where the kubelet probes."""
URL = f"http://127.0.0.1:{API_PORT}"
API_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a directory, no secret
USER = 65532
START_SECONDS = 600
"""How long a decision webhook may take to hear from the hub before the kubelet starts it anew."""


def container(sidecar: Sidecar, *, host_network: bool = False) -> dict[str, Any]:
    """Give the container: a native sidecar, so that it is there before the agent's containers and after them."""
    return {
        "name": CONTAINER,
        "image": sidecar.image,
        "imagePullPolicy": sidecar.image_pull_policy,
        "restartPolicy": "Always",
        "ports": [_port("fleetward-probe", HEALTH_PORT, host_network=host_network)],
        "env": _environment(sidecar),
        "resources": _resources(sidecar),
        "volumeMounts": [
            {"name": HUB_VOLUME, "mountPath": HUB_MOUNT, "readOnly": True},
            # Where the API server would mount the pod's own API token, which a decision webhook has no use for.
            {"name": HUB_VOLUME, "mountPath": API_TOKEN_MOUNT, "readOnly": True},
            {"name": SPOOL_VOLUME, "mountPath": SPOOL_MOUNT},
        ],
        "startupProbe": _probe("/readyz", period=1, failures=START_SECONDS),
        "livenessProbe": _probe("/healthz", period=10, failures=3),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def volumes(sidecar: Sidecar) -> list[dict[str, Any]]:
    """Give the volumes: how the webhook proves who it is and knows the hub, and where records wait.

    An emptyDir is open to every user of the pod, so the spool needs no fsGroup, which would concern the agent's files.
    """
    token = {"audience": AUDIENCE, "expirationSeconds": sidecar.token_seconds, "path": TOKEN_FILE}
    trust = {"name": CA_CONFIG_MAP, "items": [{"key": CA_FILE, "path": CA_FILE}]}
    return [
        {
            "name": HUB_VOLUME,
            "projected": {"defaultMode": 0o644, "sources": [{"serviceAccountToken": token}, {"configMap": trust}]},
        },
        {"name": SPOOL_VOLUME, "emptyDir": {"sizeLimit": sidecar.spool_size}},
    ]


def _environment(sidecar: Sidecar) -> list[dict[str, Any]]:
    plain = {
        "FLEETWARD_WORKLOAD": "$(POD_NAMESPACE)/$(POD_NAME)",  # a generated name is not known at admission
        "FLEETWARD_LISTEN": URL,
        "FLEETWARD_HUB": sidecar.hub_url,
        "FLEETWARD_HUB_CA": f"{HUB_MOUNT}/{CA_FILE}",
        "FLEETWARD_HUB_TOKEN": f"{HUB_MOUNT}/{TOKEN_FILE}",
        "FLEETWARD_SPOOL": SPOOL_MOUNT,
        "FLEETWARD_HEALTH_LISTEN": f"0.0.0.0:{HEALTH_PORT}",
    }
    return [
        _from_field("POD_NAMESPACE", "metadata.namespace"),
        _from_field("POD_NAME", "metadata.name"),
        *({"name": name, "value": value} for name, value in plain.items()),
    ]


def _from_field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _port(name: str, number: int, *, host_network: bool) -> dict[str, Any]:
    port = {"name": name, "containerPort": number, "protocol": "TCP"}
    return port | {"hostPort": number} if host_network else port


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": HEALTH_PORT, "scheme": "HTTP"},
        "timeoutSeconds": 2,
        "periodSeconds": period,
        "successThreshold": 1,
        "failureThreshold": failures,
    }


def _resources(sidecar: Sidecar) -> dict[str, Any]:
    wanted = {
        "requests": {"cpu": sidecar.cpu_request, "memory": sidecar.memory_request},
        "limits": {"cpu": sidecar.cpu_limit, "memory": sidecar.memory_limit},
    }
    given = {part: {name: value for name, value in one.items() if value} for part, one in wanted.items()}
    return {part: one for part, one in given.items() if one}
