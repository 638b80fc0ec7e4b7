"""Statuses on the real API server: kept right, written as seldom as can be, and by the leader alone."""

import asyncio
import contextlib
import functools
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from support.clusterpods import apply, make_pod, set_mode
from support.clusterview import Body, View, agent, resource
from support.controlplane.plane import ControlPlane, connected
from support.kstatus import check_status, kstatus
from support.streams import until

from fleetward.audit.forward import SinkStatus
from fleetward.resources import API_VERSION, KINDS
from fleetward_operator.kube.events import EventPoster
from fleetward_operator.status.writer import StatusWriter

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

RULES = {"rules": [{"name": "all", "match": {}, "decision": "Allow"}]}


class World:
    """A namespace, a view of it that is read on demand, and a writer at work."""

    def __init__(self, plane: ControlPlane, api: ApiClient, namespace: str) -> None:
        self.plane, self.api, self.namespace = plane, api, namespace
        self.view = View()
        self.leads = True
        self.events = EventPoster(api, "test-1", per_second=1000)
        self.writer = StatusWriter(
            api, self.view, lambda: self.leads, events=self.events, interval=0.05, idle=0.2, reconnect=0.0
        )

    async def see(self) -> None:
        await self.view.read(self.api, self.namespace)
        self.writer.touch()

    def get(self, kind: str, name: str) -> Body:
        model = KINDS[kind]
        within = f"/namespaces/{self.namespace}" if model.SCOPE == "Namespaced" else ""
        body: Body = self.plane.request("GET", f"/apis/{API_VERSION}{within}/{model.PLURAL}/{name}")
        return body

    def status(self, kind: str = "Agent", name: str = "alpha") -> dict[str, Any]:
        status: dict[str, Any] = self.get(kind, name).get("status") or {}
        return status

    def ready(self, kind: str = "Agent", name: str = "alpha") -> tuple[str, str]:
        conditions = self.status(kind, name).get("conditions")
        return (conditions[0]["status"], conditions[0]["reason"]) if conditions else ("", "")

    def kstatus(self, kind: str = "Agent", name: str = "alpha") -> str:
        body = self.get(kind, name)
        return kstatus(body["metadata"]["generation"], body.get("status") or {})

    def apply(self, *bodies: Body) -> None:
        apply(self.plane, *bodies)

    def agent(self, name: str = "alpha", mode: str = "Running") -> None:
        self.apply(agent(name, mode, namespace=self.namespace))

    async def quiet(self) -> int:
        """Wait until nothing is left to write with everything seen; give the number of writes so far."""
        while True:
            before = self.writer.writes
            await self.see()
            await until(lambda: self.writer.settled)
            if self.writer.writes == before:
                return before


@pytest.fixture
async def world(plane: ControlPlane, namespace: str) -> AsyncIterator[World]:
    async with plane.api() as api:
        world = World(plane, api, namespace)
        tasks = [asyncio.create_task(world.writer.run()), asyncio.create_task(world.events.run())]
        try:
            yield world
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)


async def test_every_kind_gets_a_status_that_kstatus_calls_current(world: World) -> None:
    name = f"all-{secrets.token_hex(4)}"
    bodies = [
        resource("AgentFleet", name, {"agents": {"agentSelector": {"matchLabels": {"run": name}}}}),
        resource("AgentPolicy", "rules", RULES, namespace=world.namespace),
        resource("ClusterAgentPolicy", name, RULES),
        resource("ActionCatalog", name, {"entries": [{"names": ["crm.**"]}]}),
        resource("AgentBudget", "day", {"limits": {"records": 1}}, namespace=world.namespace),
        resource("ClusterAgentBudget", name, {"limits": {"records": 1}, "scope": "Run"}),
        resource("AuditSink", name, {"type": "JsonLines", "jsonLines": {"path": "records.jsonl"}}),
    ]
    assert {body["kind"] for body in bodies} | {"Agent"} == KINDS.keys()
    world.view.sinks[name] = SinkStatus(name, "JsonLines", position=5, lag=2)
    world.agent()
    try:
        world.apply(*bodies)
        await world.see()
        for body in bodies:
            kind, key = body["kind"], body["metadata"]["name"]
            await until(functools.partial(world.status, kind, key))
            status = world.status(kind, key)
            check_status(kind, status)
            assert world.kstatus(kind, key) == "Current"
            managers = world.get(kind, key)["metadata"]["managedFields"]
            assert [m["manager"] for m in managers if m.get("subresource") == "status"] == ["fleetward-operator"]
        await until(world.status)
        check_status("Agent", world.status())
        assert world.writer.problems == {}
    finally:
        for body in bodies:
            if KINDS[body["kind"]].SCOPE == "Cluster":
                world.plane.kubectl("delete", body["kind"].lower(), name)


async def test_an_agent_s_life_can_be_read_from_its_status(world: World) -> None:
    world.agent()
    make_pod(world.plane, world.namespace, "alpha-1", "alpha")
    await world.see()
    await until(lambda: world.ready() == ("False", "Propagating"))
    assert world.kstatus() == "InProgress"

    world.view.connect(f"{world.namespace}/alpha-1")
    world.writer.touch()
    await until(lambda: world.ready() == ("True", "InForce"))
    assert [c["type"] for c in world.status()["conditions"]] == ["Ready"]

    set_mode(world.plane, "Agent", "alpha", "Stopped", namespace=world.namespace, reason="ticket 4711")
    await world.see()
    await until(lambda: world.ready() == ("False", "Draining"))
    assert world.status()["mode"]["reason"] == "ticket 4711"
    assert world.kstatus() == "InProgress"

    world.plane.request("DELETE", f"/api/v1/namespaces/{world.namespace}/pods/alpha-1?gracePeriodSeconds=0")
    make_pod(world.plane, world.namespace, "alpha-2", "alpha", held=True)
    await world.see()
    await until(lambda: world.ready() == ("True", "Stopped"))
    assert world.kstatus() == "Current"
    assert world.status()["conditions"][0]["message"] == "0 pods run, 1 is held"


async def test_its_own_writes_cause_no_more_and_neither_does_a_second_writer(world: World) -> None:
    names = [f"agent-{number}" for number in range(20)]
    world.apply(*(agent(name, namespace=world.namespace) for name in names))
    writes = await world.quiet()
    assert writes == len(names)
    stamps = {name: world.get("Agent", name)["metadata"]["resourceVersion"] for name in names}

    second = StatusWriter(world.api, world.view, lambda: True, interval=0.05, idle=0.2, reconnect=0.0)
    task = asyncio.create_task(second.run())
    try:
        await until(lambda: second._computer.age_seconds > 0.5)
        await until(lambda: second.settled)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert second.writes == 0
    assert {name: world.get("Agent", name)["metadata"]["resourceVersion"] for name in names} == stamps


async def test_what_somebody_else_wrote_into_a_status_is_put_right(world: World) -> None:
    world.agent()
    await world.quiet()
    right = world.status()
    body = world.get("Agent", "alpha")
    body["status"] = {"conditions": [{**right["conditions"][0], "status": "False"}], "webhooks": {"connected": 99}}
    world.plane.request("PUT", f"/apis/{API_VERSION}/namespaces/{world.namespace}/agents/alpha/status", body)
    await world.see()
    await until(lambda: world.ready() == ("True", "NoPods"))
    assert world.status()["webhooks"] == right["webhooks"]


async def test_numbers_wait_and_what_holds_does_not(world: World) -> None:
    world.agent()
    await world.quiet()
    world.writer._live = 2.0
    make_pod(world.plane, world.namespace, "alpha-1", "alpha", runs=False)
    await world.see()
    loop = asyncio.get_running_loop()
    began = loop.time()
    set_mode(world.plane, "Agent", "alpha", "Paused", namespace=world.namespace)
    await world.see()
    await until(lambda: world.ready() == ("True", "Paused"))
    paused = world.status()
    assert paused["pods"]["total"] == 1

    writes = world.writer.writes
    make_pod(world.plane, world.namespace, "alpha-2", "alpha", runs=False)
    began = loop.time()
    await world.see()
    await until(lambda: world.status()["pods"]["total"] == 2)
    assert loop.time() - began > 1.0
    assert world.writer.writes == writes + 1


async def test_a_fault_stalls_posts_an_event_and_passes(world: World) -> None:
    world.apply(resource("AgentPolicy", "rules", RULES, namespace=world.namespace))
    await world.quiet()
    wrong = {"rules": [{**RULES["rules"][0], "when": "action.nme == 'x'"}]}
    world.apply(resource("AgentPolicy", "rules", wrong, namespace=world.namespace))
    await world.see()
    await until(lambda: world.kstatus("AgentPolicy", "rules") == "Failed")
    status = world.status("AgentPolicy", "rules")
    assert [c["type"] for c in status["conditions"]] == ["Ready", "Stalled"]
    assert (status["observedGeneration"], status["generationInForce"]) == (2, 1)

    def told() -> list[dict[str, Any]]:
        found = world.plane.request("GET", f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events")["items"]
        return [event for event in found if event["reason"] == "PolicyInvalid"]

    await until(told)
    assert "spec.rules[0].when" in told()[0]["note"]
    world.apply(resource("AgentPolicy", "rules", RULES, namespace=world.namespace))
    await world.see()
    await until(lambda: world.kstatus("AgentPolicy", "rules") == "Current")
    assert [c["type"] for c in world.status("AgentPolicy", "rules")["conditions"]] == ["Ready"]


async def test_only_the_leader_writes_and_takes_up_where_the_last_one_stood(world: World) -> None:
    world.leads = False
    world.agent()
    await world.see()
    await asyncio.sleep(0.5)  # nothing can be awaited where nothing is to happen
    assert world.status() == {}
    world.leads = True
    await until(world.status)
    world.leads = False
    set_mode(world.plane, "Agent", "alpha", "Paused", namespace=world.namespace)
    await world.see()
    await asyncio.sleep(0.5)
    assert world.status()["mode"]["operatingMode"] == "Running"
    world.leads = True
    await until(lambda: world.status()["mode"]["operatingMode"] == "Paused")


async def test_an_object_that_was_replaced_does_not_get_the_old_one_s_status(world: World) -> None:
    world.leads = False
    world.agent()
    await world.see()
    world.plane.kubectl("delete", "agent", "alpha", "-n", world.namespace)
    world.agent("alpha", "Paused")
    world.agent("beta")
    world.leads = True
    await until(lambda: world.writer.writes > 0)
    await until(lambda: world.writer.settled)
    assert world.status() == {}
    await world.see()
    await until(lambda: world.ready() == ("True", "Paused"))
    assert world.writer.problems == {}


async def test_a_missing_right_is_named_and_not_asked_for_again_and_again(
    plane: ControlPlane, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with plane.api() as admin, connected(plane.kubeconfig_for(namespace, "default")) as powerless:
        apply(plane, *(agent(f"agent-{number}", namespace=namespace) for number in range(30)))
        view = View()
        await view.read(admin, namespace)
        writer = StatusWriter(powerless, view, lambda: True, interval=0.05, idle=0.2)
        task = asyncio.create_task(writer.run())
        try:
            await until(lambda: writer.problems)
            await until(lambda: writer.settled)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert writer.problems["patch agents/status"].startswith("cannot patch agents/status of ")
        assert 'cannot patch resource "agents/status"' in writer.problems["patch agents/status"]
        assert writer.writes <= 8
        assert sum("agents/status" in record.message for record in caplog.records) == 1


async def test_a_status_is_for_the_object_that_was_seen_and_not_for_the_next_of_its_name(world: World) -> None:
    world.leads = False
    world.agent()
    world.agent("marker")
    await world.see()
    world.plane.kubectl("delete", "agent", "alpha", "-n", world.namespace)
    world.agent()
    world.leads = True
    world.writer.touch()
    await until(lambda: world.status(name="marker"))
    await until(lambda: world.writer.writes >= 2)
    assert world.status() == {}
    await world.see()
    await until(lambda: world.ready() == ("True", "NoPods"))
    assert world.writer.problems == {}
