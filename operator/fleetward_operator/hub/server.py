"""The hub's web server: one WebSocket per sidecar, on a unix socket, on loopback, or over TLS."""

import asyncio
import contextlib
import os
import socket
import ssl as tls
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from aiohttp import WSCloseCode, web

from fleetward.stream import messages
from fleetward.stream.address import Address, parse_address
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.link import GOODBYE_TIMEOUT, HELLO_TIMEOUT, SidecarLink

MAX_LINKS = 1000
"""How many streams may be open at once, unless told otherwise; further ones get a 503."""

ACCEPT_SECONDS = 0.02
"""How long a stopping server waits for connections that come in at its last moment."""

BACKLOG = 512
"""Connections the kernel holds until they are taken: all sidecars come at once after a restart."""


class HubServer:
    """Lets sidecars connect to `hub` at `address`, for as long as it is entered (an asynchronous context manager).

    An `https` address needs `ssl`, the context of a server; see `hub.tls`, also on how its certificate is replaced
    while the server runs. `routes` are served beside the stream. Raises ValueError for an address that is not allowed
    (see `parse_address`), OSError where it cannot be listened on.
    """

    def __init__(
        self,
        hub: Hub,
        address: str,
        *,
        ssl: tls.SSLContext | None = None,
        routes: Iterable[web.AbstractRouteDef] = (),
        max_links: int = MAX_LINKS,
    ) -> None:
        self._hub = hub
        self._address = parse_address(address, tls=True)
        if self._address.tls != (ssl is not None):
            need = "https needs a certificate" if ssl is None else "a certificate is of use with https only"
            raise ValueError(f"the hub's address is {address}: {need}")
        self._ssl = ssl
        self._max_links = max_links
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._links: dict[web.WebSocketResponse, SidecarLink] = {}
        self._left = asyncio.Event()
        """Set whenever a link has ended."""
        app = web.Application()
        app.router.add_get(messages.PATH, self._stream)
        app.add_routes(routes)
        app.on_shutdown.append(self._close_all)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE_TIMEOUT, handle_signals=False)

    @property
    def address(self) -> str:
        """Where sidecars connect; with the real port where port 0 was asked for."""
        return str(self._address)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            self._socket = await asyncio.to_thread(_listen, self._address)
            # aiohttp's own SockSite would give a handshake a minute, which strangers could use to hold on to sockets.
            self._server = await asyncio.get_running_loop().create_server(
                self._runner.server,  # type: ignore[arg-type]  # set up, so it is there
                sock=self._socket,
                backlog=BACKLOG,
                ssl=self._ssl,
                ssl_handshake_timeout=None if self._ssl is None else HELLO_TIMEOUT,
            )
        except BaseException:
            await self._runner.cleanup()
            raise
        if self._address.path is None:
            port = self._socket.getsockname()[1]
            self._address = Address(host=self._address.host, port=port, tls=self._address.tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None and self._socket is not None:
            # asyncio (CPython 3.11) loses a connection that is being accepted while its server closes, so accepting
            # ends first, and what is under way gets a moment.
            asyncio.get_running_loop().remove_reader(self._socket)
            await asyncio.sleep(ACCEPT_SECONDS)
            self._server.close()
        await self._runner.cleanup()
        if self._address.path is not None:
            Path(self._address.path).unlink(missing_ok=True)  # noqa: ASYNC240 - a socket on a local disk

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if "Origin" in request.headers:
            # Only browsers send it, and a page that a user happens to visit has no business here.
            raise web.HTTPForbidden(text="the stream is for decision webhooks, not for web pages")
        if len(self._links) >= self._max_links:
            raise web.HTTPServiceUnavailable(text=f"{self._max_links} streams are open, and no more are allowed")
        ws = web.WebSocketResponse(max_msg_size=messages.MAX_FRAME_TO_HUB, compress=False, timeout=GOODBYE_TIMEOUT)
        await ws.prepare(request)
        transport = request.transport
        peer = "" if self._address.path is not None else request.remote or ""
        link = self._links[ws] = SidecarLink(self._hub, ws, token=_bearer(request), peer=peer)
        try:
            await link.serve()
            return ws
        finally:
            del self._links[ws]
            self._left.set()
            if transport is not None:
                transport.abort()  # goodbyes are said; one that is never read must not keep the socket

    async def _close_all(self, _: web.Application) -> None:
        """Send every sidecar elsewhere, to another hub if there is one."""
        for link in self._links.values():
            link.reconnect("the hub stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_TIMEOUT):
                while self._links:
                    self._left.clear()
                    await self._left.wait()
        await asyncio.gather(*map(_close, set(self._links)))  # those that have not said hello, or do not listen


async def _close(ws: web.WebSocketResponse) -> None:
    with contextlib.suppress(OSError):
        async with asyncio.timeout(GOODBYE_TIMEOUT):
            await ws.close(code=WSCloseCode.GOING_AWAY, message=b"the hub stops")


def _bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _listen(address: Address) -> socket.socket:
    if address.path is None:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        with _closing_on_error(listening):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address.host, address.port))
        return listening
    path = Path(address.path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_directory(path.parent)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closing_on_error(listening):
        _clear(path)
        mask = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(mask)
    return listening


def _check_directory(directory: Path) -> None:
    """Refuse a directory in which somebody else could put a socket of their own in our place. Raises OSError."""
    found = directory.stat()
    open_to_others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in {0, os.geteuid()} or open_to_others:
        raise OSError(
            f"{directory} belongs to user {found.st_uid} and has mode {stat.S_IMODE(found.st_mode):o}: others could"
            " pass themselves off as the hub there; use a directory that only you can write to"
        )


def _clear(path: Path) -> None:
    """Take away a socket that a dead hub left behind. Raises OSError where a hub still listens."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(f"another hub listens on {path}; stop it, or use another path")


@contextlib.contextmanager
def _closing_on_error(listening: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        listening.close()
        raise
