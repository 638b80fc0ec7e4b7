"""Many decision webhooks of real pods, in this process: real links over TLS with the pods' own tokens, no HTTP."""

import asyncio
import base64
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from support.chart import NAMESPACE
from support.controlplane.node import ProcessNode

from bench.cluster.api import Api, RefusedError
from bench.cluster.cluster import Cluster
from fleetward.audit.spool import Spool
from fleetward.registry.slice import Slice
from fleetward.resources.names import AUDIENCE, HUB_TLS_SECRET
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.credentials import Credentials
from fleetward_webhook.sidecar.link import Link

AT_ONCE = 10
"""How many pods are made, and links are opened, at a time."""

WITHIN = 120.0


class Sidecar:
    """The part of a webhook that matters here: a real link, and whatever takes its slices."""

    def __init__(self, hub: str, pod: str, home: Path, ca_file: Path, on_slice: Callable[[Slice], None]) -> None:
        self._spool = Spool.open(home / "spool")
        self.authority = Authority()
        self.link = Link(
            hub,
            workload=pod,
            spool=self._spool,
            on_slice=on_slice,
            authority=self.authority,
            credentials=Credentials(ca_file, home / "token"),
        )
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and wait for authority."""
        self._running = asyncio.create_task(self.link.run())
        deadline = time.monotonic() + WITHIN
        while not self.authority.live():
            assert time.monotonic() < deadline, f"a sidecar has no authority: {self.link.problem}"
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Let go of everything."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._spool.close()


@asynccontextmanager
async def pods(own: Cluster, api: Api, namespace: str, labels: Sequence[dict[str, str]]) -> AsyncIterator[list[str]]:
    """Have pods with these labels in a governed namespace, on a node that reports them Running as kwok does.

    Admission injects into them. Gives their names as `namespace/name`.
    """
    async with ProcessNode(own.plane.admin_kubeconfig, simulate=True) as node:
        names = [f"pod-{number}" for number in range(len(labels))]

        async def make(name: str, of: dict[str, str]) -> None:
            spec = {"nodeName": node.name, "containers": [{"name": "agent", "image": "registry.invalid/agent:1"}]}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": of}, "spec": spec}
            await _insist(api, f"/api/v1/namespaces/{namespace}/pods", body)

        await _some_at_a_time([make(name, of) for name, of in zip(names, labels, strict=True)])
        yield [f"{namespace}/{name}" for name in names]


@asynccontextmanager
async def connected_sidecars(
    own: Cluster, api: Api, hub: str, on_slice: Mapping[str, Callable[[Slice], None]]
) -> AsyncIterator[list[Sidecar]]:
    """Have the sidecar of each pod connected and in authority; `on_slice` says by pod what takes its slices."""
    ca_file = own.directory / "ca.crt"
    secret = await api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{HUB_TLS_SECRET}")
    ca_file.write_bytes(base64.b64decode(secret["data"]["ca.crt"]))
    made: list[Sidecar] = []

    async def connect(pod: str, take: Callable[[Slice], None]) -> None:
        home = own.directory / f"sidecar-{pod.replace('/', '-')}"
        home.mkdir()
        (home / "token").write_text(await _token(api, pod))
        sidecar = Sidecar(hub, pod, home, ca_file, take)
        made.append(sidecar)
        await sidecar.start()

    try:
        await _some_at_a_time([connect(pod, take) for pod, take in on_slice.items()])
        # Together they hold what a thousand processes would. No one of these would stop for seconds to look through it.
        gc.collect()
        gc.freeze()
        yield made
    finally:
        gc.unfreeze()
        await asyncio.gather(*(sidecar.stop() for sidecar in made))


async def _insist(api: Api, path: str, body: dict[str, Any]) -> None:
    """Create a pod, again and again as controllers do: it is refused where admission takes longer than it may."""
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            await api.send("POST", path, body)
        except RefusedError as error:
            if error.status != 403 or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            return


async def _token(api: Api, pod: str) -> str:
    """Have a token made as the kubelet does, bound to the pod."""
    namespace, _, name = pod.partition("/")
    bound = {"kind": "Pod", "apiVersion": "v1", "name": name}
    spec = {"audiences": [AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await api.send("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", body)
    return str(msgspec.json.decode(answer)["status"]["token"])


async def _some_at_a_time(works: Sequence[Coroutine[None, None, None]]) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(work: Coroutine[None, None, None]) -> None:
        async with room:
            await work

    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(one(work))
