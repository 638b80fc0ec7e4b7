"""The Secret with the keys that sign grants, on a real API server: made, rotated, lost, and read by every replica."""

import asyncio
import base64
import json
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from support.controlplane.plane import ControlPlane
from support.streams import until

from fleetward.resources.names import GRANT_KEYS_SECRET
from fleetward_operator.cluster.grantkeys import SETTLE_SECONDS, ClusterKeys
from fleetward_operator.keeper.grantkeys import NEXT, PUBLISHED_SECONDS, RING, ROTATE_SECONDS
from fleetward_operator.kube.events import EventPoster
from fleetward_operator.kube.objects import NotLeadingError, Objects

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

NOW = 1_800_000_000


class Replica:
    """One replica's keys, and how often it told its sidecars of others."""

    def __init__(self, api: ApiClient, namespace: str, *, leads: bool = False) -> None:
        self.leads = leads
        self.now = float(NOW)
        self.told = 0
        self.events = EventPoster(api, "one")
        objects = Objects(api, may_write=lambda: self.leads)
        self.keys = ClusterKeys(
            objects, namespace, leading=lambda: self.leads, events=self.events, clock=lambda: self.now
        )
        self.keys.changed = self._tell

    def _tell(self) -> None:
        self.told += 1

    async def look(self, seconds: float = 0.0) -> "Replica":
        self.now += seconds
        await self.keys.look()
        return self

    def kid(self) -> str:
        ring = self.keys.ring()
        return "" if ring is None else ring.kid


def secret(plane: ControlPlane, namespace: str) -> dict[str, bytes]:
    body = json.loads(plane.kubectl("get", "secret", GRANT_KEYS_SECRET, "-n", namespace, "-o", "json"))
    return {key: base64.b64decode(value) for key, value in body["data"].items()}


def edit(plane: ControlPlane, namespace: str, body: dict[str, Any]) -> None:
    plane.kubectl("patch", "secret", GRANT_KEYS_SECRET, "-n", namespace, "--type", "merge", "-p", json.dumps(body))


async def test_the_leader_makes_them_and_every_replica_has_them(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        leader, other = Replica(api, namespace, leads=True), Replica(api, namespace)
        await other.look()
        assert (other.keys.found, other.keys.public()) == (False, {})
        assert f"Secret {namespace}/{GRANT_KEYS_SECRET}: it is not there" in other.keys.problem
        await leader.look()
        await other.look()
        assert (leader.keys.problem, other.keys.problem, other.keys.found) == ("", "", True)
        assert leader.keys.public() == other.keys.public() != {}
        assert (leader.told, other.told) == (1, 1)
        assert (leader.kid(), other.kid()) == ("", ""), "a first key signs once the others have read it"
        await leader.look(SETTLE_SECONDS)
        await other.look(SETTLE_SECONDS)
        assert leader.kid() == other.kid() != ""
        assert (leader.told, other.told) == (1, 1)
        late = await Replica(api, namespace).look(SETTLE_SECONDS)
        assert late.kid() == leader.kid(), "who starts later need not wait"


async def test_rotation_reaches_all_before_it_signs(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        leader, other = Replica(api, namespace, leads=True), Replica(api, namespace)
        await leader.look()
        await leader.look(ROTATE_SECONDS)
        await other.look(ROTATE_SECONDS)
        old = leader.kid()
        assert set(secret(plane, namespace)) == {RING, NEXT}
        assert leader.kid() == other.kid() == old != ""
        assert leader.keys.public() == other.keys.public()
        assert len(other.keys.public()) == 2
        await leader.look(PUBLISHED_SECONDS)
        assert set(secret(plane, namespace)) == {RING}
        assert leader.kid() not in {old, ""}
        assert other.kid() == old, "it has not looked; what it signs is believed"
        await other.look(PUBLISHED_SECONDS)
        assert other.kid() == leader.kid()
        assert other.told == 1
        assert old in other.keys.public()


async def test_two_who_think_that_they_lead_end_with_the_same(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        many = [Replica(api, namespace, leads=True) for _ in range(5)]
        await asyncio.gather(*(each.look() for each in many))
        await asyncio.gather(*(each.look(SETTLE_SECONDS) for each in many))
        assert len({each.kid() for each in many}) == 1


async def test_a_lost_secret_makes_all_grants_worthless_and_people_are_told(
    plane: ControlPlane, namespace: str
) -> None:
    async with plane.api() as api:
        leader, other = Replica(api, namespace, leads=True), Replica(api, namespace)
        await leader.look()
        await leader.look(SETTLE_SECONDS)
        await other.look(SETTLE_SECONDS)
        old = leader.kid()
        plane.kubectl("delete", "secret", GRANT_KEYS_SECRET, "-n", namespace)
        await other.look()
        assert (other.keys.public(), other.kid()) == ({}, "")
        assert "it is not there" in other.keys.problem
        posting = asyncio.create_task(leader.events.run())
        try:
            await leader.look()
            await other.look()
            assert old not in leader.keys.public()
            assert leader.keys.public() == other.keys.public() != {}

            def events() -> list[dict[str, Any]]:
                path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
                return [e for e in plane.request("GET", path)["items"] if e["reason"] == "GrantKeysLost"]

            await until(events)
        finally:
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
        (event,) = events()
        assert (event["regarding"]["kind"], event["regarding"]["name"]) == ("Secret", GRANT_KEYS_SECRET)
        assert "Grants given before are not believed." in event["note"]


@pytest.mark.parametrize("damage", [{"data": {RING: "e30="}}, {"data": {RING: None}}, {"data": {RING: ""}}])
async def test_a_damaged_secret_is_made_anew(plane: ControlPlane, namespace: str, damage: dict[str, Any]) -> None:
    async with plane.api() as api:
        leader = await Replica(api, namespace, leads=True).look()
        edit(plane, namespace, {**damage, "immutable": True})
        before = leader.keys.public()
        await leader.look()
        assert leader.keys.problem == ""
        assert leader.keys.public().keys().isdisjoint(before)


async def test_only_the_leader_writes(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        former = Replica(api, namespace)
        former.keys._leading = lambda: True  # it thinks so still
        with pytest.raises(NotLeadingError):
            await former.look()
        assert plane.kubectl("get", "secret", GRANT_KEYS_SECRET, "-n", namespace, "--ignore-not-found") == ""


async def test_without_an_api_server_the_keys_stay(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        leader = await Replica(api, namespace, leads=True).look()
        await leader.look(SETTLE_SECONDS)
        host, api.configuration.host = api.configuration.host, "http://127.0.0.1:1"
        running = asyncio.create_task(leader.keys.run())
        try:
            await until(lambda: leader.keys.problem)
            assert "cannot get Secret" in leader.keys.problem
            assert leader.kid() != ""
            api.configuration.host = host
            await until(lambda: not leader.keys.problem)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
