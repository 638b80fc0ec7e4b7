"""Events reach the API server in the shape it wants, once each, and never at anybody's cost."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from support.clusterview import View, agent, resource
from support.controlplane.plane import ControlPlane, connected
from support.streams import until

from fleetward_operator.kube import events
from fleetward_operator.kube.events import EventPoster, Reference, about

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


class World:
    """A namespace, an agent in it as the operator knows it, and what is posted about it."""

    def __init__(self, plane: ControlPlane, api: ApiClient, namespace: str) -> None:
        self.plane, self.api, self.namespace = plane, api, namespace
        self.now = 1000.0
        self.poster = EventPoster(api, "operator-1", per_second=1000, clock=lambda: self.now)
        view = View()
        view.see(agent("alpha", namespace=namespace))
        self.alpha = about(view.observed["Agent", f"{namespace}/alpha"])

    def written(self) -> list[dict[str, Any]]:
        return list(self.plane.request("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"])


@contextlib.asynccontextmanager
async def running(poster: EventPoster) -> AsyncIterator[None]:
    task = asyncio.create_task(poster.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world(plane: ControlPlane, namespace: str) -> AsyncIterator[World]:
    async with plane.api() as api:
        world = World(plane, api, namespace)
        async with running(world.poster):
            yield world


async def test_an_event_says_about_what_by_whom_and_why(world: World) -> None:
    world.poster.post(world.alpha, "Normal", "Paused", "by alice@example.com: ticket 4711")
    await until(world.written)
    (event,) = world.written()
    assert event["regarding"] == {
        "apiVersion": "fleetward.dev/v1alpha1",
        "kind": "Agent",
        "namespace": world.namespace,
        "name": "alpha",
        "uid": "Agent-alpha",
    }
    said = (event["type"], event["reason"], event["action"], event["note"])
    assert said == ("Normal", "Paused", "Paused", "by alice@example.com: ticket 4711")
    assert (event["reportingController"], event["reportingInstance"]) == ("fleetward.dev/operator", "operator-1")
    assert "series" not in event
    shown = world.plane.kubectl(
        "events", "-n", world.namespace, "--for", "agents.v1alpha1.fleetward.dev/alpha", check=False
    )
    assert "ticket 4711" in shown or "ticket 4711" in world.plane.kubectl("get", "events", "-n", world.namespace)


async def test_what_repeats_becomes_a_series(world: World) -> None:
    for _ in range(50):
        world.poster.post(world.alpha, "Warning", "EvictionBlocked", "a budget")
    await until(world.written)
    world.now += 61
    world.poster.post(world.alpha, "Warning", "EvictionBlocked", "a budget")
    await until(lambda: world.written()[0].get("series", {}).get("count") == 51)
    assert len(world.written()) == 1

    world.now += 301
    world.poster.post(world.alpha, "Warning", "EvictionBlocked", "a budget")
    await until(lambda: len(world.written()) == 2)


async def test_another_note_reason_or_object_is_another_event(world: World) -> None:
    other = Reference("v1", "Pod", world.namespace, "alpha-1", "uid-1")
    world.poster.post(world.alpha, "Normal", "Paused", "one")
    world.poster.post(world.alpha, "Normal", "Paused", "two")
    world.poster.post(world.alpha, "Normal", "Resumed", "one")
    world.poster.post(other, "Normal", "Paused", "one")
    await until(lambda: len(world.written()) == 4)


async def test_an_event_about_a_cluster_scoped_object_is_written_to_default(world: World) -> None:
    view = View()
    view.see(resource("AgentFleet", f"fleet-{world.namespace}", {"agents": {}}))
    (fleet,) = view.observed.values()
    world.poster.post(about(fleet), "Normal", "Stopped", "by alice@example.com")

    def written() -> list[dict[str, Any]]:
        found = world.plane.request("GET", "/apis/events.k8s.io/v1/namespaces/default/events")["items"]
        return [event for event in found if event["regarding"]["name"] == fleet.name]

    await until(written)
    assert "namespace" not in written()[0]["regarding"]


async def test_long_notes_are_cut_to_what_the_api_server_takes(world: World) -> None:
    world.poster.post(world.alpha, "Warning", "Invalid", "ä" * 2000)
    await until(world.written)
    note = world.written()[0]["note"]
    assert note.endswith(" [...]")
    assert 1020 <= len(note.encode()) <= 1024


async def test_what_cannot_be_written_is_logged_once_and_hurts_nobody(
    world: World, plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, events.__name__)
    async with connected(plane.kubeconfig_for(world.namespace, "default")) as powerless:
        poster = EventPoster(powerless, "operator-1", per_second=1000)
        async with running(poster):
            for number in range(20):
                poster.post(world.alpha, "Normal", "Paused", f"note {number}")
            await until(lambda: poster.dropped == 20)
    assert len(caplog.records) == 1
    assert "cannot write the Event Paused of Agent alpha: 403" in caplog.text
    assert "403" in poster.problem


async def test_too_many_are_dropped_and_counted(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        poster = EventPoster(api, "operator-1")
        regarding = Reference("v1", "Pod", namespace, "alpha-1", "uid-1")
        for number in range(events.WAITING + 10):
            poster.post(regarding, "Normal", "Evicted", f"note {number}")
        assert poster.dropped == 10
