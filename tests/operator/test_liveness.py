"""A watch proves by ending in time; whatever ends it otherwise proves nothing, and silence least of all."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from support.streams import until

from fleetward_operator.view.liveness import Liveness, Observer


class ApiServer:
    """Answers watches the way a test says."""

    def __init__(self) -> None:
        self.ending = "clean"
        self.seconds = 0.2
        self.port = 0

    async def agents(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"items": []})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "BOOKMARK"}\n')
        await asyncio.sleep(self.seconds)
        if self.ending == "cut":
            assert request.transport is not None
            request.transport.abort()
        return response


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    fake = ApiServer()
    app = web.Application()
    app.router.add_get("/apis/fleetward.dev/v1alpha1/agents", fake.agents)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.port = runner.addresses[0][1]
    yield fake
    await runner.cleanup()


async def watch(server: ApiServer, observer: Observer, query: str) -> None:
    url = f"http://127.0.0.1:{server.port}/apis/fleetward.dev/v1alpha1/agents{query}"
    async with aiohttp.ClientSession(middlewares=(observer,)) as session, session.get(url) as response:
        async for _ in response.content:
            pass


async def test_a_watch_that_lasted_its_time_proves_all_of_it(server: ApiServer) -> None:
    liveness = Liveness(["agents"])
    assert liveness.age_seconds() == float("inf")
    server.seconds = 0.25
    began = time.monotonic()
    await watch(server, Observer(liveness, lambda _: None), "?watch=true&timeoutSeconds=0.2")
    await until(lambda: liveness.age_seconds() < float("inf"))
    proven = time.monotonic() - liveness.age_seconds()
    assert began + 0.2 <= proven <= time.monotonic()


async def test_one_that_ended_early_proves_its_beginning_only(server: ApiServer) -> None:
    liveness = Liveness(["agents"])
    began = time.monotonic()
    await watch(server, Observer(liveness, lambda _: None), "?watch=true&timeoutSeconds=60")
    await until(lambda: liveness.age_seconds() < float("inf"))
    proven = time.monotonic() - liveness.age_seconds()
    assert began <= proven <= time.monotonic() - server.seconds


async def test_a_connection_that_broke_proves_nothing(server: ApiServer) -> None:
    liveness = Liveness(["agents"])
    server.ending = "cut"
    with pytest.raises(aiohttp.ClientPayloadError):
        await watch(server, Observer(liveness, lambda _: None), "?watch=true&timeoutSeconds=0.1")
    assert liveness.age_seconds() == float("inf")


async def test_a_list_is_told_of(server: ApiServer) -> None:
    listed: list[str] = []
    liveness = Liveness(["agents"])
    await watch(server, Observer(liveness, listed.append), "?limit=500")
    await until(lambda: listed == ["agents"])
    assert liveness.age_seconds() == float("inf"), "our own list proves, not kopf's"


def test_the_stalest_kind_counts() -> None:
    now = 100.0
    liveness = Liveness(["agents", "pods"], clock=lambda: now)
    liveness.prove("agents", 99.0)
    assert liveness.age_seconds() == float("inf")
    liveness.prove("pods", 90.0)
    liveness.prove("pods", 80.0)
    liveness.prove("leases", 100.0)
    assert liveness.age_seconds() == 10.0
    assert liveness.stalest() == "pods"
