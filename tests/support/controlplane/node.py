"""A Kubernetes node that runs pods as local processes, for tests and the demo where there is no container runtime.

What is real: scheduling, binding, volumes with their contents, tokens bound to the pod and their renewal, native
sidecars and the order of start and end, probes, restarts, the pod's status, eviction, deletion with its grace period.

What it does not do: there is no image (a container runs a program of this machine), no isolation of any kind (users,
files, network, memory are this machine's; security contexts and limits are ignored), no cluster DNS, no Service
addresses, no lifecycle hooks, no gRPC probes, no persistent volumes, no ephemeral containers, no exec. Backoffs are
shorter than the kubelet's. Each pod has a loopback address of its own (127.0.0.0/8; Linux answers on all of it).
What a process is given in place of mount paths and of its pod's loopback is said in `rewrite`.
"""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from support.controlplane.containers import Place
from support.controlplane.nodeapi import RETRY, ApiError, NodeApi
from support.controlplane.noderecord import NodeRecord
from support.controlplane.podfields import Objects
from support.controlplane.podrun import PodRun, remove_pod
from support.controlplane.simulated import SimulatedRun

SIDECAR_PORTS = frozenset({8180, 8182})
"""Ports of the injected decision webhook, which need not be declared to be the pod's own."""

Pod = dict[str, Any]


class ProcessNode:
    """One node, as an async context manager: registered on entry; on exit its pods and itself are gone.

    `services` maps `host:port` as pods name a Service to `host:port` where it is served here. `entrypoints` maps an
    image to the command it runs. `env` is set in every container. With `simulate` nothing is run: pods are reported
    Running and Ready at once, and deleted when their deletion is asked for (as kwok does).
    """

    def __init__(
        self,
        kubeconfig: Path,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        services: Mapping[str, str] | None = None,
        entrypoints: Mapping[str, Sequence[str]] | None = None,
        env: Mapping[str, str] | None = None,
        ports: frozenset[int] = SIDECAR_PORTS,
        simulate: bool = False,
    ) -> None:
        self.name = name or f"node-{secrets.token_hex(3)}"
        self.simulate = simulate
        self._api = NodeApi(kubeconfig)
        self._record = NodeRecord(self.name, dict(labels or {}))
        self._services, self._entrypoints, self._ports = dict(services or {}), dict(entrypoints or {}), set(ports)
        self._env = dict(env or {})
        self._addresses = _addresses()
        self._objects = Objects(self._api)
        self._runs: dict[str, PodRun | SimulatedRun] = {}
        """By uid, as far as they are not gone."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="fleetward-node-"))
        await self._api.__aenter__()
        try:
            await self._record.register(self._api)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        self._background = [
            asyncio.create_task(self._record.renew(self._api)),
            asyncio.create_task(self._follow()),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._background, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ApiError, aiohttp.ClientError, OSError, TimeoutError):  # the API server may be gone
            async with asyncio.timeout(10):
                await self._leave()
        await self._api.__aexit__(None, None, None)
        shutil.rmtree(self.directory, ignore_errors=True)

    def logs(self, namespace: str, pod: str, container: str) -> str:
        """Give what a container has written so far, over all its restarts; also of a pod that is gone."""
        file = self.directory / "logs" / namespace / pod / f"{container}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def pids(self, namespace: str, pod: str) -> dict[str, int]:
        """Give the process ids of a pod's running containers by container name."""
        found: dict[str, int] = {}
        for run in self._runs.values():
            if _key(run.pod) == (namespace, pod):
                found |= run.pids
        return found

    async def _follow(self) -> None:
        """See every pod bound to this node, whatever happens to the API server."""
        path = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self.name}"
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ApiError):
                listed = await self._api.ask("GET", path)
                self._only({pod["metadata"]["uid"] for pod in listed["items"]})
                for pod in listed["items"]:
                    self._see(pod)
                async for event in self._api.watch(path, listed["metadata"]["resourceVersion"]):
                    if event["type"] == "ERROR":
                        break
                    if event["type"] == "DELETED":
                        self._gone(event["object"]["metadata"]["uid"])
                    elif event["type"] != "BOOKMARK":
                        self._see(event["object"])
            await asyncio.sleep(RETRY)

    def _gone(self, uid: str) -> None:
        if uid in self._runs:
            self._runs[uid].vanish()

    def _only(self, uids: set[str]) -> None:
        for uid in self._runs.keys() - uids:
            self._gone(uid)

    def _see(self, pod: Pod) -> None:
        metadata = pod["metadata"]
        uid, deleted = metadata["uid"], "deletionTimestamp" in metadata
        if uid not in self._tasks:
            if not deleted and pod["status"].get("phase") not in {"Succeeded", "Failed"}:
                self._runs[uid] = (
                    SimulatedRun(pod, next(self._addresses), self._api) if self.simulate else self._run(pod)
                )
                self._spawn(uid, self._runs[uid].run())
            elif deleted:
                self._spawn(uid, remove_pod(self._api, pod))
        elif deleted and uid in self._runs:
            self._runs[uid].delete(float(metadata.get("deletionGracePeriodSeconds") or 0))

    def _run(self, pod: Pod) -> PodRun:
        namespace, name = _key(pod)
        directory = self.directory / "pods" / pod["metadata"]["uid"]
        base = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "HOME": str(directory),
            "HOSTNAME": name,
            "PYTHONUNBUFFERED": "1",
            **self._env,
        }
        place = Place(pod, next(self._addresses), directory, self._objects, base, self._entrypoints)
        logs = self.directory / "logs" / namespace / name
        return PodRun(pod, place, self._api, logs=logs, ports=self._ports, services=self._services)

    def _spawn(self, uid: str, life: Coroutine[Any, Any, None]) -> None:
        async def live() -> None:
            try:
                await life
            finally:
                self._runs.pop(uid, None)
                self._tasks.pop(uid, None)

        self._tasks[uid] = asyncio.create_task(live())

    async def _leave(self) -> None:
        """Take the node and its pods out of the cluster."""
        path = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self.name}"
        await self._record.remove(self._api)
        for pod in (await self._api.ask("GET", path))["items"]:
            await remove_pod(self._api, pod)


def _key(pod: Mapping[str, Any]) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _addresses() -> Iterator[str]:
    """Give loopback addresses, from a place of their own for each node."""
    chance = random.SystemRandom()
    second, third = chance.randint(64, 250), chance.randint(0, 250)
    for number in range(1, 1 << 20):
        yield f"127.{second + number // 64000}.{(third + number // 250) % 256}.{number % 250 + 1}"
