"""Trouble on the way to an API server: a network that goes quiet, connections that drop, a server that is busy."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from support.controlplane.kubeconfig import redirected
from support.controlplane.plane import ControlPlane
from yarl import URL


class TcpProxy:
    """Passes bytes between clients and an API server, TLS and all, until told otherwise. An async context manager."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._flows, self._quiet = asyncio.Event(), False
        self._flows.set()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self.accepted = 0
        """Connections so far."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    @property
    def url(self) -> str:
        """The API server's URL through here; its certificate fits."""
        assert self._server is not None
        return f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def kubeconfig(self, source: Path | None = None) -> Path:
        """Write a copy of a kubeconfig (the admin's, if none is named) that goes through here."""
        return _through(self._plane, self.url, source)

    def quiet(self) -> None:
        """Forward nothing more, in no direction; connections stay open and new ones are taken. Nothing is lost."""
        self._flows.clear()

    def resume(self) -> None:
        """Forward again, what was held back first."""
        self._flows.set()

    async def cut(self) -> None:
        """Drop every connection, with a reset."""
        tasks = list(self._connections)
        for task, writer in list(self._connections.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        self.accepted += 1
        try:
            await self._flows.wait()
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._plane.port)
            try:
                await self._both(self._pump(reader, up_writer), self._pump(up_reader, writer))
            finally:
                up_writer.transport.abort()
        except (OSError, asyncio.CancelledError):  # one end is down or was dropped; `cut`
            pass
        finally:
            del self._connections[task]
            writer.transport.abort()

    async def _both(self, *pumps: Coroutine[None, None, None]) -> None:
        """Pass bytes in both directions until one end closes."""
        tasks = [asyncio.create_task(pump) for pump in pumps]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        await self._flows.wait()


class HttpProxy:
    """Passes requests to an API server one by one, and can refuse some as a busy server does. Watches are streamed.

    Clients trust it by the plane's own CA. An async context manager.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._refusals: list[Callable[[str, str], bool]] = []
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.requests: list[tuple[str, str]] = []
        """Method and path with query of every request so far."""
        self.refused = 0
        """How many of them were refused."""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._plane.ssl, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        directory = self._plane.directory
        context.load_cert_chain(directory / "apiserver.crt", directory / "apiserver.key")
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        assert self._runner is not None
        await self._runner.cleanup()  # first, as the requests it passes on hold connections of the session
        await self._session.close()

    @property
    def url(self) -> str:
        """The API server's URL through here."""
        assert self._runner is not None
        return f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    def kubeconfig(self, source: Path | None = None) -> Path:
        """Write a copy of a kubeconfig (the admin's, if none is named) that goes through here."""
        return _through(self._plane, self.url, source)

    def refuse(self, count: int, which: Callable[[str, str], bool] = lambda method, path: True) -> None:  # noqa: ARG005
        """Answer the next requests with 429 and `Retry-After: 1`; `which` chooses by method and path."""
        self._refusals += [which] * count

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.raw_path))
        for which in self._refusals:
            if which(request.method, request.raw_path):
                self._refusals.remove(which)
                self.refused += 1
                status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 429}
                body = {**status, "reason": "TooManyRequests", "message": "too many requests, please try again later"}
                return web.json_response(body, status=429, headers={"Retry-After": "1"})
        return await self._forward(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        own = {"host", "content-length", "transfer-encoding", "connection"}
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in own]
        target, body = URL(self._plane.url + request.raw_path, encoded=True), await request.read()
        try:
            async with self._session.request(
                request.method, target, headers=headers, data=body or None, allow_redirects=False
            ) as answer:
                kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in own]
                response = web.StreamResponse(status=answer.status, headers=CIMultiDict(kept))
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, OSError):
            if request.transport is not None:
                request.transport.abort()
            raise


def _through(plane: ControlPlane, url: str, source: Path | None) -> Path:
    source = source or plane.admin_kubeconfig
    name = f"{source.stem}-by-{url.rpartition(':')[2]}.kubeconfig"
    return redirected(source, url, plane.directory / "kubeconfigs" / name)
