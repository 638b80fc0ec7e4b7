"""Live reads from the API server; nothing is kept here for longer than a moment.

One object is read as it is at this moment (a quorum read). A list that must be as fresh takes some 80 ms on a cluster
that is being written to: the API server answers it from its watch cache, and waits until etcd, asked every 100 ms,
tells that the cache is up to date (KEP-2340). Where pods wait, lists are therefore taken from the cache as it is
(resourceVersion=0), which is behind by as long as an event takes from etcd, some milliseconds. While many pods come,
such a list serves for RECENT_SECONDS: it only tells where to look, and what is found there is read as it is now.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient

from fleetward.resources import GROUP, KINDS
from fleetward.resources.base import VERSION
from fleetward_webhook.admission.agents import Agent, Fleet, Metadata, Namespace, hook
from fleetward_webhook.admission.review import Camel

READ_SECONDS = 1.1
"""How long one read may take. A review waits for two at most: one under way when it came, and its own."""

RECENT_SECONDS = 0.2
"""How long a list from the cache serves others that come after."""

T = TypeVar("T")


class ReadError(Exception):
    """Why something could not be read from the API server, in words."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status; 0 where there was no answer."""


class Shared(Generic[T]):
    """One read for all who ask for the same at about the same time; each gets one that began after they asked."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    @property
    def idle(self) -> bool:
        """Whether no read is under way."""
        return self._running is None and self._next is None

    async def get(self) -> T:
        """Read. Raises what the read raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
            self._next.add_done_callback(_retrieve)
        return await asyncio.shield(self._next)  # others wait for it, too

    async def _after(self, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None  # whoever asks from here on, asks for another one
        try:
            return await self._read()
        finally:
            self._running = None


def _retrieve(task: asyncio.Task[T]) -> None:
    """Take note of an error for which nobody waits any longer, lest asyncio report it as lost."""
    if not task.cancelled():
        task.exception()


class Listing(Camel, Generic[T], frozen=True):
    """A list of anything."""

    items: list[T]


class Named(Camel, frozen=True):
    """Anything that has a name."""

    metadata: Metadata


class Secret(Camel, frozen=True):
    """A Secret."""

    data: dict[str, str] = msgspec.field(default_factory=dict)


class Reader:
    """Reads what reviews need. Every method raises ReadError."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._shared: dict[tuple[str, Any], Shared[Any]] = {}
        self._recent: dict[tuple[str, str], tuple[float, list[Any]]] = {}
        """By kind and namespace: when reading began, and what was read."""

    async def agents(self, namespace: str) -> list[Agent]:
        """Give the agents of a namespace, as the API server's cache has them."""
        return await self._read_and_keep("Agent", Agent, namespace)

    def recent_agents(self, namespace: str) -> list[Agent]:
        """Give the agents of a namespace as they were a moment ago; none where they were not read then."""
        return self._kept("Agent", namespace) or []

    async def agent(self, namespace: str, name: str) -> Agent | None:
        """Give an agent as it is now, None where it is gone."""
        return await self._one(f"{_path('Agent', namespace)}/{name}", Agent)

    async def fleets(self) -> list[Fleet]:
        """Give all fleets, as the API server's cache has them or had them a moment ago."""
        kept: list[Fleet] | None = self._kept("AgentFleet")
        return kept if kept is not None else await self._read_and_keep("AgentFleet", Fleet)

    async def fleet(self, name: str) -> Fleet | None:
        """Give a fleet as it is now, None where it is gone."""
        return await self._one(f"{_path('AgentFleet')}/{name}", Fleet)

    async def namespace(self, name: str) -> Namespace:
        """Give a namespace as it is now."""
        found: Namespace = await self._read(f"/api/v1/namespaces/{name}", Namespace)
        return found

    async def names(self, kind: str, namespace: str = "", *, now: bool) -> list[Metadata]:
        """Give the names of what there is of a kind, in one namespace or in all: now, or as the cache has them."""
        return [one.metadata for one in await self._items(kind, Named, namespace, now=now)]

    async def objects(self, kind: str, *, now: bool) -> list[dict[str, Any]]:
        """Give all there is of a kind as it is stored: now, or as the cache has it."""
        return await self._items(kind, dict[str, Any], now=now)

    async def secret(self, namespace: str, name: str) -> dict[str, str]:
        """Give a Secret's data, still in base64."""
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        return _decode(await self._fetch(path), Secret, path).data

    async def check(self, namespace: str) -> None:
        """Read a little of everything that reviews of pods need, to find out what is not there or not allowed."""
        await self._fetch(f"{_path('Agent')}?limit=1")
        await self._fetch(f"{_path('AgentFleet')}?limit=1")
        await self.namespace(namespace)
        await self.agent(namespace, "any")
        await self.fleet("any")

    async def _items(self, kind: str, item: type[T], namespace: str = "", *, now: bool = False) -> list[T]:
        path = _path(kind, namespace) + ("" if now else "?resourceVersion=0")
        listing: Listing[T] = await self._read(path, Listing[item])  # type: ignore[valid-type] # mypy takes no type from a variable
        return listing.items

    async def _read_and_keep(self, kind: str, item: type[T], namespace: str = "") -> list[T]:
        began = time.monotonic()
        items = await self._items(kind, item, namespace)
        self._recent = {other: kept for other, kept in self._recent.items() if began - kept[0] < RECENT_SECONDS}
        self._recent[kind, namespace] = (began, items)
        return items

    def _kept(self, kind: str, namespace: str = "") -> list[Any] | None:
        began, items = self._recent.get((kind, namespace), (float("-inf"), []))
        return items if time.monotonic() - began < RECENT_SECONDS else None

    async def _one(self, path: str, wanted: type[T]) -> T | None:
        try:
            found: T = await self._read(path, wanted)
        except ReadError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def _read(self, path: str, wanted: Any) -> Any:
        """GET and decode a path, together with all who ask for it now."""
        key = (path, wanted)

        async def read() -> Any:
            return _decode(await self._fetch(path), wanted, path)

        shared = self._shared.setdefault(key, Shared(read))
        try:
            return await shared.get()
        finally:
            if shared.idle:
                self._shared.pop(key, None)

    async def _fetch(self, path: str) -> bytes:
        configuration = self._client.configuration
        headers = {"Accept": "application/json", "User-Agent": self._client.user_agent}
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
            response = await self._client.rest_client.request(
                "GET",
                configuration.host + path,
                headers=headers,
                _request_timeout=aiohttp.ClientTimeout(total=READ_SECONDS),
            )
            body: bytes = await response.read()
        except TimeoutError:
            raise ReadError(f"GET {path}: no answer within {READ_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ReadError(f"GET {path}: {str(error) or type(error).__name__}") from error
        if response.status != 200:
            raise ReadError(f"GET {path}: {response.status} {_message(body)}", status=response.status)
        return body


def _path(kind: str, namespace: str = "") -> str:
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}{within}/{KINDS[kind].PLURAL}"


def _decode(body: bytes, wanted: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(body, type=wanted, dec_hook=hook)
    except msgspec.DecodeError as error:
        raise ReadError(f"GET {path}: the answer does not read: {error}") from error


def _message(body: bytes) -> str:
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    return str(said.get("message", "")) if isinstance(said, dict) else ""
