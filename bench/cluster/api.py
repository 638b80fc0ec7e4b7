"""The bench's own way to the API server: as admin, over connections that stay open, as little in between as can be."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import yaml
from support.controlplane.plane import ControlPlane

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"

LONGEST_LINE = 2**22
"""Bytes of one event of a watch, at most."""


class RefusedError(Exception):
    """The API server refused a request; the message is its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """Requests as admin. Raises RefusedError for an answer that is an error."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def send(self, method: str, path: str, body: Any = None, *, content: str = JSON) -> bytes:
        """Make one request and give the answer's body."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": content}
        async with self._session.request(method, self._url + path, data=data, headers=headers) as answer:
            read = await answer.read()
            if answer.status >= 300:
                raise RefusedError(answer.status, f"{method} {path}: {read[:500].decode(errors='replace')}")
            return read

    async def get(self, path: str) -> Any:
        """Get a path's JSON."""
        return msgspec.json.decode(await self.send("GET", path))

    async def apply(self, manifest: dict[str, Any]) -> bytes:
        """Apply a resource, as `kubectl apply --server-side` does."""
        return await self.send("PATCH", f"{path_of(manifest)}?fieldManager=bench&force=true", manifest, content=APPLY)

    async def apply_all(self, manifests: Iterable[dict[str, Any]], *, at_once: int = 16) -> None:
        """Apply resources, so many at a time, each as soon as there is room for it."""
        left = iter(manifests)

        async def work() -> None:
            for manifest in left:
                await self.apply(manifest)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())

    async def watch(self, path: str, version: str) -> AsyncIterator[bytes]:
        """Give the events after a resourceVersion, one JSON line each, until the API server ends the watch."""
        query = f"?watch=1&resourceVersion={version}"
        async with self._session.get(
            self._url + path + query, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=LONGEST_LINE
        ) as answer:
            async for line in answer.content:
                yield line


@asynccontextmanager
async def connected(plane: ControlPlane) -> AsyncIterator[Api]:
    """Give the way to a plane's API server."""
    (user,) = yaml.safe_load(plane.admin_kubeconfig.read_text())["users"]
    headers = {"Authorization": f"Bearer {user['user']['token']}", "Accept": JSON}
    connector = aiohttp.TCPConnector(ssl=plane.ssl, limit=0, keepalive_timeout=300)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=60)
    ) as session:
        yield Api(session, plane.url)


PLURALS = {
    "Agent": "agents",
    "AgentFleet": "agentfleets",
    "AgentPolicy": "agentpolicies",
    "ClusterAgentPolicy": "clusteragentpolicies",
    "Namespace": "namespaces",
}


def path_of(manifest: dict[str, Any]) -> str:
    """Give the path of a resource."""
    metadata, version = manifest["metadata"], manifest["apiVersion"]
    root = "/api/v1" if version == "v1" else f"/apis/{version}"
    within = f"/namespaces/{metadata['namespace']}" if metadata.get("namespace") else ""
    return f"{root}{within}/{PLURALS[manifest['kind']]}/{metadata['name']}"
