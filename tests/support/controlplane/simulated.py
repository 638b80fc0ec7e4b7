"""A pod that is only said to run."""

import asyncio
from collections.abc import Mapping
from typing import Any

from support.controlplane.nodeapi import STRATEGIC, NodeApi
from support.controlplane.podrun import allowing_gone, remove_pod
from support.controlplane.podstatus import simulated_status


class SimulatedRun:
    """Has the same life as a `PodRun`, without processes."""

    def __init__(self, pod: Mapping[str, Any], address: str, api: NodeApi) -> None:
        self.pod = pod
        self.pids: dict[str, int] = {}
        self._address, self._api = address, api
        self._deleted = asyncio.Event()

    def delete(self, grace: float) -> None:  # noqa: ARG002 - nothing runs that would need the time
        """End the pod as its deletion asks."""
        self._deleted.set()

    def vanish(self) -> None:
        """End the pod, as it is no more in the API server."""
        self._deleted.set()

    async def run(self) -> None:
        """Live. Returns when the pod is gone from the API server."""
        metadata = self.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        body = {"metadata": {"uid": metadata["uid"]}, "status": simulated_status(self.pod, self._address)}
        await allowing_gone(self._api.insist("PATCH", path, body, STRATEGIC))
        await self._deleted.wait()
        await remove_pod(self._api, self.pod)
