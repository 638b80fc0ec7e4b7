"""Liveness, readiness and metrics: all that other machines may ask of a decision webhook.

The kubelet and Prometheus reach a pod by its address, so this may listen beyond loopback; deciding never does.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from fleetward_webhook.sidecar import metrics
from fleetward_webhook.sidecar.limits import Limits, TokenBucket
from fleetward_webhook.sidecar.problem import Kind, Problem
from fleetward_webhook.sidecar.service import Service

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

LIMITS = Limits(idle_seconds=10.0, rate=50.0, burst=100, connections=32)
"""Enough for probes and scrapes, and too little for a stranger to slow decisions down."""

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}


class Health:
    """Answers how the service is doing, by itself or as a part of the API."""

    def __init__(self, service: Service, metrics_: metrics.Metrics, limits: Limits = LIMITS) -> None:
        self._service = service
        self._metrics = metrics_
        self._bucket = TokenBucket(limits.rate, limits.burst)
        self.routes: dict[str, dict[str, Handler]] = {
            "/healthz": {"GET": self._healthz},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._render_metrics},
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, with a problem where it comes to that."""
        try:
            return await self._route(request)(request)
        except Problem as problem:
            return self.respond(problem)

    def _route(self, request: web.BaseRequest) -> Handler:
        if not self._bucket.take():
            raise Problem(Kind.RATE_LIMITED, "too many requests", retry_after=self._bucket.seconds_to_next)
        route = self.routes.get(request.path)
        if route is None:
            raise Problem(Kind.UNKNOWN_PATH, f"here is only {', '.join(self.routes)}; the API is on loopback")
        handler = route.get(request.method)
        if handler is None:
            raise Problem(Kind.METHOD_NOT_ALLOWED, f"found {request.method}, allowed GET", allow="GET")
        return handler

    def respond(self, problem: Problem) -> web.Response:
        """Give a problem as a response, and count it."""
        self._metrics.refused(problem.kind)
        return web.Response(status=problem.kind.status, body=problem.body, headers=problem.headers)

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        return web.Response(body=b"ok\n", headers=_TEXT)

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        if (problem := self._service.not_ready()) is not None:
            raise problem
        return web.Response(body=b"ready\n", headers=_TEXT)

    async def _render_metrics(self, _: web.BaseRequest) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})
