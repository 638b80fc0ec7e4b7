"""A node's entry in the cluster: the Node object and the Lease that shows it is alive."""

import asyncio
import contextlib
import platform
from datetime import UTC, datetime
from typing import Any

import aiohttp
from support.controlplane.nodeapi import MERGE, ApiError, NodeApi

RENEW_EVERY = 10.0
LEASE_SECONDS = 40
"""As the kubelet has them."""

CAPACITY = {"cpu": "1000", "memory": "1000Gi", "pods": "100000", "ephemeral-storage": "1000Gi"}
"""More than any test asks for: what is scheduled here is limited by the machine alone."""


class NodeRecord:
    """Makes, renews and removes the entry of one node."""

    def __init__(self, name: str, labels: dict[str, str]) -> None:
        self._name, self._labels = name, labels
        self._lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"

    async def register(self, api: NodeApi) -> None:
        """Make the Node, Ready, and free of the taint with which Kubernetes begins every node."""
        await self._replace(api, "/api/v1/nodes", self._node())
        await self._replace(api, self._lease.rpartition("/")[0], self._lease_body())
        await api.insist("PATCH", f"/api/v1/nodes/{self._name}", {"spec": {"taints": None}}, MERGE)

    async def renew(self, api: NodeApi) -> None:
        """Renew the Lease until cancelled."""
        while True:
            await asyncio.sleep(RENEW_EVERY)
            with contextlib.suppress(ApiError, aiohttp.ClientError, OSError, TimeoutError):  # next time, then
                await api.ask("PATCH", self._lease, {"spec": {"renewTime": _now()}}, MERGE)

    async def remove(self, api: NodeApi) -> None:
        """Take the node out of the cluster."""
        for path in (f"/api/v1/nodes/{self._name}", self._lease):
            with contextlib.suppress(ApiError):
                await api.ask("DELETE", path)

    async def _replace(self, api: NodeApi, path: str, body: dict[str, Any]) -> None:
        """Make an object; one of that name from an earlier life goes first."""
        with contextlib.suppress(ApiError):
            await api.insist("DELETE", f"{path}/{self._name}")
        await api.insist("POST", path, body)

    def _node(self) -> dict[str, Any]:
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        system = platform.system().lower()
        labels = {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": system,
            "kubernetes.io/arch": architecture,
            **self._labels,
        }
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "ProcessNode", "message": "runs pods as processes"}
        info = dict.fromkeys(("bootID", "kernelVersion", "kubeProxyVersion", "machineID", "systemUUID"), "")
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._name, "labels": labels},
            "status": {
                "capacity": CAPACITY,
                "allocatable": CAPACITY,
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
                "nodeInfo": {
                    **info,
                    "kubeletVersion": "process-node",
                    "containerRuntimeVersion": "process://1",
                    "osImage": platform.platform(),
                    "operatingSystem": system,
                    "architecture": architecture,
                },
            },
        }

    def _lease_body(self) -> dict[str, Any]:
        spec = {"holderIdentity": self._name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": _now()}
        metadata = {"name": self._name, "namespace": "kube-node-lease"}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
