"""The HTTP API of the decision webhook, on aiohttp's low-level server: one table of routes, no middleware.

A decision is a 200 whatever it says. Everything else that can go wrong is a problem (`problem.py`), also what aiohttp
itself refuses while it reads a request.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, cast

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.web_protocol import RequestHandler

from fleetward.stream.address import Address
from fleetward_webhook.sidecar import agents
from fleetward_webhook.sidecar.health import Handler, Health
from fleetward_webhook.sidecar.limits import Limits, TokenBucket, check_origin, read_body
from fleetward_webhook.sidecar.metrics import Metrics
from fleetward_webhook.sidecar.problem import Kind, Problem
from fleetward_webhook.sidecar.quick import QuickAnswer
from fleetward_webhook.sidecar.service import Service

DECISIONS = "/v1/decisions"
OUTCOME = "/outcome"
RUNS = "/v1/runs"
CLOSE = "/close"
SHUTDOWN_SECONDS = 5.0
"""How long requests under way may take once the webhook is told to stop."""

_JSON = {"Content-Type": "application/json"}
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


class Answerer(Protocol):
    """What a server serves."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""

    def respond(self, problem: Problem) -> web.Response:
        """Give a problem as a response, and count it."""


class Api:
    """Routes requests to the service, within the limits."""

    def __init__(self, service: Service, metrics: Metrics, limits: Limits) -> None:
        self._service = service
        health = Health(service, metrics)
        self.respond = health.respond
        self._limits = limits
        self._bucket = TokenBucket(limits.rate, limits.burst)
        self._description: bytes | None = None
        self._routes: dict[str, dict[str, Handler]] = {
            DECISIONS: {"POST": self._decide},
            "/v1/runs": {"POST": self._answering(service.open_run, limits.decision_bytes)},
            "/v1/plans": {"POST": self._answering(service.plan, limits.plan_bytes)},
            "/v1/delegations": {"POST": self._answering(service.delegate, limits.decision_bytes)},
            "/v1/agents": {"GET": self._agents},
            **health.routes,
            "/openapi.json": {"GET": self._openapi},
        }
        self._outcome_route: dict[str, Handler] = {"POST": self._review}
        self._close_route: dict[str, Handler] = {"POST": self._close_run}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, with a problem where it comes to that."""
        try:
            check_origin(request)
            return await self._route(request)(request)
        except Problem as problem:
            return self.respond(problem)
        except ConnectionError:
            raise  # nobody is left to answer
        except Exception:  # noqa: BLE001 - whatever fails, the agent gets an answer, and that is Deny
            _log.exception("A request failed")
            return self.respond(Problem(Kind.INTERNAL, "an internal error; the webhook's log has it"))

    def _route(self, request: web.BaseRequest) -> Handler:
        if not self._bucket.take():
            raise Problem(
                Kind.RATE_LIMITED,
                f"at most {self._limits.rate:g} requests a second are taken",
                retry_after=self._bucket.seconds_to_next,
            )
        route = self._routes.get(request.raw_path) or self._find(request.path)
        handler = route.get(request.method)
        if handler is None:
            allowed = ", ".join(route)
            raise Problem(Kind.METHOD_NOT_ALLOWED, f"found {request.method}, allowed {allowed}", allow=allowed)
        return handler

    def _find(self, path: str) -> dict[str, Handler]:
        if path.startswith(DECISIONS + "/") and path.endswith(OUTCOME) and _decision_id(path):
            return self._outcome_route
        if path.startswith(RUNS + "/") and path.endswith(CLOSE) and _run_id(path):
            return self._close_route
        if (route := self._routes.get(path)) is not None:  # a query was attached
            return route
        raise Problem(Kind.UNKNOWN_PATH, f"found {path[:200]!r}; GET /openapi.json lists what there is")

    async def _decide(self, request: web.BaseRequest) -> web.StreamResponse:
        limits = self._limits
        body = await read_body(request, limits.decision_bytes, limits.body_seconds)
        return _json(request, await self._service.decide(body))

    async def _review(self, request: web.BaseRequest) -> web.StreamResponse:
        limits = self._limits
        body = await read_body(request, limits.outcome_bytes, limits.body_seconds)
        return _json(request, await self._service.review(_decision_id(request.path), body))

    def _answering(self, answer: Callable[[bytes], Awaitable[bytes]], most: int) -> Handler:
        """Give the handler of requests whose bodies, of at most so many bytes, `answer` answers."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return _json(request, await answer(await read_body(request, most, self._limits.body_seconds)))

        return handle

    async def _close_run(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await read_body(request, self._limits.decision_bytes, self._limits.body_seconds)
        return _json(request, await self._service.close_run(_run_id(request.path), body))

    async def _agents(self, _: web.BaseRequest) -> web.Response:
        return web.Response(body=_encode(agents.describe(self._service.engine)), headers=_JSON)

    async def _openapi(self, _: web.BaseRequest) -> web.Response:
        if self._description is None:
            from fleetward_webhook.sidecar.openapi import describe  # noqa: PLC0415 - few processes are ever asked

            self._description = describe(self._limits)
        return web.Response(body=self._description, headers=_JSON)


class Server(web.Server):
    """Serves one address, to a bounded number of connections."""

    def __init__(self, api: Answerer, limits: Limits) -> None:
        super().__init__(
            api.handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.idle_seconds,
            lingering_time=2.0,
        )
        self.api = api
        self.max_connections = limits.connections
        self._listener: asyncio.Server | None = None
        self._socket_path: Path | None = None

    def __call__(self) -> RequestHandler:
        """Make the protocol of one connection."""
        return _Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)

    async def listen(self, address: Address) -> Address:
        """Start serving; return the address with the port it really got. Raises OSError."""
        loop = asyncio.get_running_loop()
        if address.path is not None:
            _refuse_if_alive(address.path)
            self._listener = await loop.create_unix_server(self, address.path)
            self._socket_path = Path(address.path)
            return address
        self._listener = await loop.create_server(self, address.host, address.port)
        return Address(host=address.host, port=self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no new connection, answer what is under way, close."""
        if self._listener is not None:
            self._listener.close()
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
        self.pre_shutdown()
        await self.shutdown(SHUTDOWN_SECONDS)


class _Connection(RequestHandler):
    """One connection; what cannot be read as a request is answered with a problem, too."""

    __slots__ = ("_server",)

    def __init__(self, server: Server, **options: object) -> None:
        super().__init__(server, **options)  # type: ignore[arg-type] # aiohttp's own options, as Server got them
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._server
        if len(server.connections) < server.max_connections:
            super().connection_made(transport)
            return
        self._force_close = True
        problem = Problem(
            Kind.TOO_MANY_CONNECTIONS,
            f"at most {server.max_connections} connections are taken; reuse them",
            retry_after=1,
        )
        if isinstance(transport, asyncio.Transport):
            transport.write(_raw_response(server.api.respond(problem)))
            transport.close()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp could not read."""
        if isinstance(exc, LineTooLong):
            problem = Problem(Kind.HEADERS_TOO_LARGE, "the request line or a header has more than 8190 bytes")
        elif (message or "").startswith("Too many headers"):
            problem = Problem(Kind.HEADERS_TOO_LARGE, "there are more than 128 headers")
        elif isinstance(exc, BadHttpMessage) or status == 400:
            said = " ".join((message or "").split())
            problem = Problem(Kind.MALFORMED_HTTP, f"it cannot be read: {said[:200]}" if said else "it cannot be read")
        else:
            _log.error("A request failed", exc_info=exc)
            problem = Problem(Kind.INTERNAL, "an internal error; the webhook's log has it")
        response = self._server.api.respond(problem)
        response.force_close()
        return response


def _json(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    if QuickAnswer.fits(request):
        return cast("web.StreamResponse", QuickAnswer(body))
    return web.Response(body=body, headers=_JSON)


def _raw_response(response: web.Response) -> bytes:
    body = response.body if isinstance(response.body, bytes) else b""
    lines = [f"HTTP/1.1 {response.status} {response.reason}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name != "Content-Length"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _decision_id(path: str) -> str:
    found = path[len(DECISIONS) + 1 : -len(OUTCOME)]
    return "" if "/" in found else found


def _run_id(path: str) -> str:
    found = path[len(RUNS) + 1 : -len(CLOSE)]
    return "" if "/" in found else found


def _refuse_if_alive(path: str) -> None:
    """Raise OSError where another process listens at `path`; a socket that nobody listens at is taken over."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
    raise OSError(98, os.strerror(98), path)
