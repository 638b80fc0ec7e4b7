"""Pods on the real API server, which has no nodes: a test says where a pod runs and what has become of it."""

import json
from collections.abc import Mapping
from typing import Any

from support.controlplane.plane import ControlPlane

from fleetward.resources.names import AUDIENCE, CONTAINER, INJECTED_LABEL, STOPPED_GATE


def make_pod(
    plane: ControlPlane,
    namespace: str,
    name: str,
    app: str,
    *,
    account: str = "default",
    runs: bool = True,
    held: bool = False,
    injected: bool = True,
    gates: tuple[str, ...] = (),
    grace: int = 0,
    labels: Mapping[str, str] = {},
) -> str:
    """Make a pod, by default one that runs, and give its uid; with no `app`, it has no such label."""
    image = {"image": "registry.invalid/agent:1"}
    all_gates = [*gates, *([STOPPED_GATE] if held else [])]
    spec: dict[str, Any] = {
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": grace,
        "containers": [{"name": "agent", **image}],
        "schedulingGates": [{"name": gate} for gate in all_gates],
    }
    labels = {**labels, **({"app": app} if app else {})}
    if injected:
        spec["initContainers"] = [{"name": CONTAINER, "restartPolicy": "Always", **image}]
        labels[INJECTED_LABEL] = "true"
    if runs and not all_gates:
        spec["nodeName"] = "somewhere"
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    made = plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)
    if runs and not all_gates:
        set_phase(plane, namespace, name, "Running")
    return str(made["metadata"]["uid"])


def set_phase(plane: ControlPlane, namespace: str, name: str, phase: str) -> None:
    ready = {"type": "Ready", "status": "True" if phase == "Running" else "False"}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    body = plane.request("GET", path)
    body["status"] |= {"phase": phase, "conditions": [ready]}
    plane.request("PUT", f"{path}/status", body)


def get_pod(plane: ControlPlane, namespace: str, name: str) -> dict[str, Any] | None:
    for found in plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]:
        if found["metadata"]["name"] == name:
            pod: dict[str, Any] = found
            return pod
    return None


def pod_token(
    plane: ControlPlane,
    namespace: str,
    pod: str | None,
    *,
    account: str = "default",
    audience: str = AUDIENCE,
) -> str:
    """Give a token like those the kubelet mounts: bound to the pod. Without a pod, one that is bound to nothing."""
    spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 600}
    if pod is not None:
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = plane.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", body)
    return str(answer["status"]["token"])


def apply(plane: ControlPlane, *bodies: dict[str, Any]) -> None:
    """Make resources as people do."""
    for body in bodies:
        body["metadata"].pop("uid", None)
        body["metadata"].pop("generation", None)
        plane.kubectl("apply", "-f", "-", input=json.dumps(body))


def set_mode(plane: ControlPlane, kind: str, name: str, mode: str, *, namespace: str = "", reason: str = "") -> None:
    """Patch an operating mode as people do."""
    patch = json.dumps({"spec": {"operatingMode": mode, "operatingReason": reason}})
    where = ("-n", namespace) if namespace else ()
    plane.kubectl("patch", kind.lower(), name, *where, "--type", "merge", "-p", patch)
