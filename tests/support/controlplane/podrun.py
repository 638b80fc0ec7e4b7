"""One pod on a node, from its binding to its deletion."""

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.controlplane.containers import Container, Place, stamp
from support.controlplane.kubeconfig import kubeconfig_of_files, write_kubeconfig
from support.controlplane.nodeapi import STRATEGIC, ApiError, NodeApi
from support.controlplane.podfields import MissingError
from support.controlplane.podstatus import Conditions, pod_status
from support.controlplane.rewrite import Rewriter, ports_of
from support.controlplane.volumes import Volumes

MOUNT_RETRY = 0.25
"""Seconds between two looks for what a volume needs."""

ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

SIDECAR_GRACE = 2.0
"""Seconds that a native sidecar has at least once the containers have ended, as the kubelet gives it."""


class PodRun:
    """Runs the containers of one pod as processes and keeps its status.

    `run` is its whole life; `delete` ends it as a deletion does. Cancelling `run` kills every process at once.
    """

    def __init__(
        self,
        pod: Mapping[str, Any],
        place: Place,
        api: NodeApi,
        *,
        logs: Path,
        ports: set[int],
        services: Mapping[str, str],
    ) -> None:
        self.pod, self.place = pod, place
        metadata, spec = pod["metadata"], pod["spec"]
        self.path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._api, self._logs = api, logs
        self._dirty, self._deleted = asyncio.Event(), asyncio.Event()
        self._grace = 30.0
        self._initialized, self._phase = False, "Pending"
        self._began, self._conditions = stamp(datetime.now(UTC)), Conditions()
        self._volumes = Volumes(pod, place.address, place.directory / "volumes", api, place.objects)
        self._tasks: dict[str, asyncio.Task[int]] = {}
        self._account: Path | None = None
        self._kubeconfig = place.directory / "kubeconfig"
        init, main = spec.get("initContainers") or [], spec["containers"]
        own = ports | ports_of([*init, *main])

        def container(given: Mapping[str, Any]) -> Container:
            mounts, address = self._volumes.mounts(given), place.address
            rewrite = Rewriter(mounts=mounts, address=address, ports=own, services=services)
            self._account = mounts.get(ACCOUNT_MOUNT, self._account)
            env = {"KUBECONFIG": str(self._kubeconfig)} if ACCOUNT_MOUNT in mounts else {}
            log = logs / f"{given['name']}.log"
            return Container(given, place, rewrite, log=log, env=env, changed=self._dirty.set)

        self.init = [container(given) for given in init]
        self.containers = [container(given) for given in main]

    def delete(self, grace: float) -> None:
        """End the pod as its deletion asks: containers first, then native sidecars, by force after the grace period."""
        self._grace = grace
        self._deleted.set()

    def vanish(self) -> None:
        """End the pod at once, as it is no more in the API server."""
        self.delete(0.0)
        for one in (*self.containers, *self.init):
            one.signal(signal.SIGKILL)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the running containers by container name."""
        return {one.name: one.pid for one in (*self.init, *self.containers) if one.pid is not None}

    async def run(self) -> None:
        """Live. Returns when the pod is gone from the API server."""
        await asyncio.to_thread(self._logs.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(self.place.directory.mkdir, parents=True, exist_ok=True)
        reporting = asyncio.create_task(self._report())
        living = asyncio.create_task(self._live())
        deletion: asyncio.Task[Any] = asyncio.create_task(self._deleted.wait())
        try:
            await asyncio.wait({living, deletion}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()  # a fault of this program is not a pod that ended
            await deletion
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            await self._stop_all(self._grace)
            if self._phase not in {"Succeeded", "Failed"}:
                self._phase = self._outcome()
            await self._write_status()
            await self._remove()
        finally:
            for task in (reporting, living, deletion):
                task.cancel()
            for one in (*self.containers, *self.init):
                one.signal(signal.SIGKILL)
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(reporting, living, deletion, *self._tasks.values(), return_exceptions=True)
            shutil.rmtree(self.place.directory, ignore_errors=True)

    def _write_kubeconfig(self) -> None:
        """Write the kubeconfig for containers with the API's token mounted: in-cluster clients look at fixed paths."""
        if self._account is not None:
            token, ca = self._account / "token", self._account / "ca.crt"
            content = kubeconfig_of_files(self._api.url, ca, token, namespace=self.pod["metadata"]["namespace"])
            write_kubeconfig(self._kubeconfig, content)

    async def _live(self) -> None:
        """Start everything in its order, wait until the containers are over, and then end the native sidecars."""
        await self._mount()
        self._write_kubeconfig()
        refreshing = asyncio.create_task(self._volumes.keep_current())
        try:
            if await self._initialize():
                self._initialized = True
                await self._main()
            else:
                self._phase = "Failed"
            await self._stop([one for one in self.init if one.sidecar][::-1], self._grace)
        finally:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)
        if self._initialized:
            self._phase = self._outcome()
        self._dirty.set()

    async def _mount(self) -> None:
        """Write the volumes, waiting for what they need; an event says what is waited for."""
        said = ""
        while True:
            try:
                await self._volumes.write()
            except MissingError as error:
                if str(error) != said:
                    said = str(error)
                    await self._event("FailedMount", said)
                await asyncio.sleep(MOUNT_RETRY)
            else:
                return

    async def _initialize(self) -> bool:
        """Run the init containers one after the other; says whether all did their work."""
        policy = "Never" if self.pod["spec"].get("restartPolicy") == "Never" else "OnFailure"
        for one in self.init:
            if one.sidecar:
                self._start(one, "Always")
                await one.up.wait()
            elif await asyncio.shield(self._start(one, policy)) != 0:
                return False
        return True

    async def _main(self) -> None:
        policy = self.pod["spec"].get("restartPolicy") or "Always"
        running = [self._start(one, policy) for one in self.containers]
        self._phase = "Running"
        self._dirty.set()
        await asyncio.wait(running)

    def _start(self, container: Container, policy: str) -> "asyncio.Task[int]":
        task = self._tasks[container.name] = asyncio.create_task(container.run(policy))
        return task

    async def _stop_all(self, grace: float) -> None:
        until = asyncio.get_running_loop().time() + grace
        await self._stop([*self.containers, *(one for one in self.init if not one.sidecar)], grace)
        left = max(SIDECAR_GRACE, until - asyncio.get_running_loop().time())
        for sidecar in [one for one in self.init if one.sidecar][::-1]:
            await self._stop([sidecar], min(left, grace) if grace else 0.0)

    async def _stop(self, containers: Sequence[Container], grace: float) -> None:
        started = [one for one in containers if one.name in self._tasks]
        await _all(one.stop(grace) for one in started)
        await asyncio.gather(*(self._tasks[one.name] for one in started), return_exceptions=True)

    def _outcome(self) -> str:
        ends = [one.state.terminated for one in self.containers]
        return "Succeeded" if all(end is not None and end["exitCode"] == 0 for end in ends) else "Failed"

    async def _report(self) -> None:
        """Write the status whenever something has changed; changes in quick succession are written once."""
        while True:
            self._dirty.clear()
            await self._write_status()
            await self._dirty.wait()

    async def _write_status(self) -> None:
        status = pod_status(
            phase=self._phase,
            address=self.place.address,
            began=self._began,
            conditions=self._conditions,
            init=self.init,
            containers=self.containers,
            initialized=self._initialized,
        )
        body = {"metadata": {"uid": self.pod["metadata"]["uid"]}, "status": status}
        await allowing_gone(self._api.insist("PATCH", f"{self.path}/status", body, STRATEGIC))

    async def _remove(self) -> None:
        await remove_pod(self._api, self.pod)

    async def _event(self, reason: str, message: str) -> None:
        await allowing_gone(self._api.insist("POST", *warning(self.pod, reason, message)))


async def _all(waits: "Sequence[Awaitable[None]] | Any") -> None:
    await asyncio.gather(*waits)


async def remove_pod(api: NodeApi, pod: Mapping[str, Any]) -> None:
    """Delete a pod for good, as a node does once its processes have ended."""
    metadata = pod["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
    options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
    await allowing_gone(api.insist("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options}))


async def allowing_gone(answer: Awaitable[Any]) -> None:
    """Take an answer that the object is gone, replaced, or may not be made any more, as good."""
    try:
        await answer
    except ApiError as error:
        if error.status not in {403, 404, 409}:
            raise


def warning(pod: Mapping[str, Any], reason: str, message: str) -> tuple[str, dict[str, Any]]:
    """Give the path and body that make a warning event about a pod."""
    metadata, now = pod["metadata"], stamp(datetime.now(UTC))
    about = {"apiVersion": "v1", "kind": "Pod", **{key: metadata[key] for key in ("name", "namespace", "uid")}}
    return f"/api/v1/namespaces/{metadata['namespace']}/events", {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": about,
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": {"component": "process-node", "host": pod["spec"].get("nodeName", "")},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
