"""`/healthz`, `/readyz` and `/metrics` of the operator, for the kubelet and Prometheus: plain HTTP, nothing secret."""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class HealthServer:
    """Serves at `HOST:PORT` while entered (an asynchronous context manager).

    `alive` and `ready` give what is wrong, in words; empty: nothing. `problems` gives what does not work, by what, and
    yet is no reason to send nobody here; `/readyz` says it, too. Raises OSError where it cannot be listened on.
    """

    def __init__(
        self,
        listen: str,
        metrics: CollectorRegistry,
        *,
        alive: Callable[[], str],
        ready: Callable[[], str],
        problems: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._metrics = metrics
        app = web.Application()
        self._alive, self._ready, self._problems = alive, ready, problems
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    @property
    def port(self) -> int:
        """The port; the real one where 0 was asked for."""
        return self._port

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host.strip("[]"), self._port).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self._alive()
        return _answer([problem or "ok"], failing=bool(problem))

    async def _readyz(self, _: web.Request) -> web.Response:
        problem = self._ready()
        others = (f"does not work: {what}: {why}" for what, why in sorted(self._problems().items()))
        return _answer([problem or "ok", *others], failing=bool(problem))

    async def _render(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics), headers={"Content-Type": CONTENT_TYPE})


def _answer(lines: Sequence[str], *, failing: bool) -> web.Response:
    return web.Response(text="".join(f"{line}\n" for line in lines), status=503 if failing else 200)
