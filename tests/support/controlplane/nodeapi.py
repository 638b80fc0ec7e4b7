"""What a node says to the API server and hears from it: plain JSON over HTTP, as the kubelet speaks."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
RETRY = 0.2
"""Seconds between two tries while the API server is away."""

Body = dict[str, Any]


class ApiError(Exception):
    """The API server's answer was an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NodeApi:
    """A client of the API server that gives and takes JSON. Use it as an async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self.url: str = cluster["server"]
        self.ca: bytes = base64.b64decode(cluster["certificate-authority-data"])
        self._headers = {"Authorization": f"Bearer {user['token']}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=self.ca.decode()), limit=200)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(self.url, headers=self._headers, connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(self, method: str, path: str, body: Body | None = None, content: str = "application/json") -> Body:
        """Make one request. Raises `ApiError`, or `aiohttp.ClientError` and `OSError` where there is no answer."""
        assert self._session is not None
        data = None if body is None else json.dumps(body)
        headers, timeout = {"Content-Type": content}, aiohttp.ClientTimeout(total=15)
        async with self._session.request(method, path, data=data, headers=headers, timeout=timeout) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise ApiError(answer.status, _message(text))
            return dict(json.loads(text))

    async def insist(self, method: str, path: str, body: Body | None = None, content: str = "application/json") -> Body:
        """Make a request until the API server has answered it. Raises `ApiError` for an answer that is final."""
        return await until_answered(lambda: self.ask(method, path, body, content))

    async def watch(self, path: str, version: str) -> AsyncIterator[Body]:
        """Give the events of a watch until the API server ends it; the path has a query already."""
        assert self._session is not None
        query = f"{path}&watch=true&allowWatchBookmarks=true&timeoutSeconds=240&resourceVersion={version}"
        rest = b""
        async with self._session.get(query) as answer:
            if answer.status >= 400:
                raise ApiError(answer.status, _message(await answer.text()))
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)


async def until_answered(ask: Callable[[], Awaitable[Body]]) -> Body:
    """Repeat a request while the API server is away or too busy."""
    while True:
        try:
            return await ask()
        except ApiError as error:
            if error.status != 429 and error.status < 500:
                raise
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        await asyncio.sleep(RETRY)


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
