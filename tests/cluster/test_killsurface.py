"""Stopping evicts by the real API server and holds, quarantine labels, resuming lets go; nothing else is touched."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client import ApiClient
from support.clusterpods import apply, get_pod, make_pod, set_mode, set_phase
from support.clusterview import View, agent
from support.controlplane.plane import ControlPlane, connected
from support.streams import until

from fleetward.resources.names import QUARANTINED_LABEL, STOPPED_GATE
from fleetward_operator.killsurface.surface import KillSurface
from fleetward_operator.kube.events import EventPoster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


class World:
    """A namespace, a view of it that is read on demand, and the kill surface at work."""

    def __init__(self, plane: ControlPlane, api: ApiClient, namespace: str) -> None:
        self.plane, self.api, self.namespace = plane, api, namespace
        self.view = View()
        self.leads = True
        self.events = EventPoster(api, "test-1", per_second=1000)
        self.surface = KillSurface(api, self.view, lambda: self.leads, self.events, resync=0.3, first_retry=0.3)

    async def see(self) -> None:
        await self.view.read(self.api, self.namespace)
        self.surface.wake()

    def there(self, name: str) -> bool:
        return get_pod(self.plane, self.namespace, name) is not None

    def gates(self, name: str) -> list[str]:
        pod = get_pod(self.plane, self.namespace, name)
        assert pod is not None
        return [gate["name"] for gate in pod["spec"].get("schedulingGates") or ()]

    def labels(self, name: str) -> dict[str, str]:
        pod = get_pod(self.plane, self.namespace, name)
        assert pod is not None
        return dict(pod["metadata"].get("labels") or {})

    def quarantined(self, name: str) -> str | None:
        return self.labels(name).get(QUARANTINED_LABEL)

    def make_pod(self, name: str, app: str = "alpha", **how: object) -> str:
        return make_pod(self.plane, self.namespace, name, app, **how)  # type: ignore[arg-type]

    def apply_agent(self, name: str, mode: str = "Running", app: str = "") -> None:
        apply(self.plane, agent(name, mode, app=app or name, namespace=self.namespace))

    def mode(self, name: str, mode: str) -> None:
        set_mode(self.plane, "Agent", name, mode, namespace=self.namespace)

    def events_about(self, name: str) -> list[dict[str, str]]:
        found = self.plane.request("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return [event for event in found if event["regarding"]["name"] == name]


@pytest.fixture
async def world(plane: ControlPlane, namespace: str) -> AsyncIterator[World]:
    async with plane.api() as api:
        world = World(plane, api, namespace)
        tasks = [asyncio.create_task(world.surface.run()), asyncio.create_task(world.events.run())]
        try:
            yield world
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)


async def test_stopping_evicts_the_agent_s_pods_and_no_others(world: World) -> None:
    world.apply_agent("alpha")
    for name, app in (("alpha-1", "alpha"), ("alpha-2", "alpha"), ("other-1", "other")):
        world.make_pod(name, app)
    world.make_pod("unscheduled", runs=False)
    await world.see()
    world.mode("alpha", "Stopped")
    await world.see()
    await until(lambda: not world.there("alpha-1") and not world.there("alpha-2"))
    assert world.there("other-1")
    assert world.there("unscheduled")
    await until(lambda: world.events_about("alpha-1"))
    (event,) = world.events_about("alpha-1")
    assert (event["reason"], event["type"]) == ("Evicted", "Normal")
    assert f"{world.namespace}/alpha" in event["note"]


@pytest.mark.parametrize("mode", ["Paused", "Quarantined"])
async def test_other_modes_keep_the_pods(world: World, mode: str) -> None:
    world.apply_agent("alpha", mode)
    world.apply_agent("beta", "Stopped")
    world.make_pod("alpha-1")
    world.make_pod("beta-1", "beta")
    await world.see()
    await until(lambda: not world.there("beta-1"))
    assert world.there("alpha-1")


async def test_a_shared_pod_goes_once_all_its_agents_are_stopped(world: World) -> None:
    world.apply_agent("alpha", "Stopped", app="crew")
    world.apply_agent("beta", app="crew")
    world.apply_agent("gamma", "Stopped")
    world.make_pod("crew-1", "crew")
    world.make_pod("gamma-1", "gamma")
    await world.see()
    await until(lambda: not world.there("gamma-1"))
    assert world.there("crew-1")
    world.mode("beta", "Stopped")
    await world.see()
    await until(lambda: not world.there("crew-1"))


async def test_resuming_takes_our_gate_off_and_leaves_foreign_ones(world: World) -> None:
    world.apply_agent("alpha", "Stopped")
    world.make_pod("held", held=True)
    world.make_pod("held-twice", held=True, gates=("example.com/quota",))
    world.apply_agent("gamma", "Stopped")
    world.make_pod("gamma-1", "gamma")
    await world.see()
    await until(lambda: not world.there("gamma-1"))
    assert world.gates("held") == [STOPPED_GATE]

    world.mode("alpha", "Running")
    await world.see()
    await until(lambda: world.gates("held") == [])
    await until(lambda: world.gates("held-twice") == ["example.com/quota"])
    await until(lambda: "Released" in {event["reason"] for event in world.events_about("held")})


async def test_a_held_pod_that_no_agent_selects_any_more_is_released(world: World) -> None:
    world.apply_agent("alpha", "Stopped")
    world.make_pod("held", held=True)
    await world.see()
    world.plane.kubectl("delete", "agent", "alpha", "-n", world.namespace)
    await world.see()
    await until(lambda: world.gates("held") == [])


async def test_quarantine_labels_the_agent_s_pods_and_no_others_and_resuming_takes_that_off(world: World) -> None:
    world.apply_agent("alpha")
    world.apply_agent("beta", app="crew")
    world.apply_agent("gamma", app="crew")
    for name, app in (("alpha-1", "alpha"), ("crew-1", "crew"), ("other-1", "other")):
        world.make_pod(name, app)
    world.make_pod("foreign", labels={QUARANTINED_LABEL: "by-hand"})
    world.make_pod("stranger", "other", labels={QUARANTINED_LABEL: "by-hand"})
    await world.see()
    before = world.labels("alpha-1")
    world.mode("alpha", "Quarantined")
    world.mode("beta", "Quarantined")
    world.make_pod("held", held=True)
    await world.see()
    for name in ("alpha-1", "held", "foreign"):
        await until(lambda name=name: world.quarantined(name) == "true")  # type: ignore[misc]
    assert world.labels("alpha-1") == {**before, QUARANTINED_LABEL: "true"}
    assert world.gates("held") == [STOPPED_GATE]
    assert (world.quarantined("crew-1"), world.quarantined("other-1")) == (None, None)
    assert world.quarantined("stranger") == "by-hand"
    await until(lambda: world.events_about("alpha-1"))
    (event,) = world.events_about("alpha-1")
    assert (event["reason"], event["type"]) == ("Quarantined", "Warning")
    assert f"{world.namespace}/alpha" in event["note"]

    world.mode("gamma", "Quarantined")
    await world.see()
    await until(lambda: world.quarantined("crew-1") == "true")

    world.plane.kubectl("label", "pod", "alpha-1", "-n", world.namespace, f"{QUARANTINED_LABEL}-")
    await world.see()
    await until(lambda: world.quarantined("alpha-1") == "true")

    world.mode("alpha", "Running")
    world.mode("beta", "Stopped")
    await world.see()
    for name in ("alpha-1", "held", "foreign"):
        await until(lambda name=name: world.quarantined(name) is None)  # type: ignore[misc]
    assert world.quarantined("crew-1") == "true", "none of its agents may act"
    world.mode("beta", "Paused")
    await world.see()
    await until(lambda: world.quarantined("crew-1") is None)
    assert world.labels("alpha-1") == before
    await until(lambda: world.gates("held") == [])
    await until(lambda: "Unquarantined" in {event["reason"] for event in world.events_about("crew-1")})
    assert world.there("crew-1"), "its agents were never all Stopped"
    assert world.quarantined("stranger") == "by-hand"


async def test_a_pod_without_any_labels_is_cut_off_too(world: World) -> None:
    everything = agent("alpha", "Quarantined", namespace=world.namespace)
    everything["spec"]["workload"]["selector"] = {}
    apply(world.plane, everything)
    world.make_pod("bare", "", injected=False)
    assert world.labels("bare") == {}
    await world.see()
    await until(lambda: world.labels("bare") == {QUARANTINED_LABEL: "true"})
    world.mode("alpha", "Running")
    await world.see()
    await until(lambda: world.labels("bare") == {})


async def test_a_pod_on_its_way_out_is_cut_off_and_one_that_is_over_is_not(world: World) -> None:
    world.make_pod("going", grace=300)
    world.plane.request("DELETE", f"/api/v1/namespaces/{world.namespace}/pods/going")
    world.make_pod("over")
    set_phase(world.plane, world.namespace, "over", "Succeeded")
    world.make_pod("marked", labels={QUARANTINED_LABEL: "true"})
    set_phase(world.plane, world.namespace, "marked", "Failed")
    world.make_pod("stranger", "other", labels={QUARANTINED_LABEL: "true"})
    world.apply_agent("alpha", "Quarantined")
    await world.see()
    await until(lambda: world.quarantined("going") == "true")
    await until(lambda: world.quarantined("stranger") is None)
    assert (world.quarantined("over"), world.quarantined("marked")) == (None, "true")
    world.plane.kubectl("delete", "agent", "alpha", "-n", world.namespace)
    await world.see()
    await until(lambda: world.quarantined("going") is None and world.quarantined("marked") is None)
    world.plane.request("DELETE", f"/api/v1/namespaces/{world.namespace}/pods/going?gracePeriodSeconds=0")


async def test_a_label_is_for_the_pod_that_was_seen_and_not_for_the_next_of_its_name(world: World) -> None:
    world.leads = False
    world.apply_agent("alpha", "Quarantined")
    world.make_pod("alpha-1")
    await world.see()
    world.plane.request("DELETE", f"/api/v1/namespaces/{world.namespace}/pods/alpha-1")
    await until(lambda: not world.there("alpha-1"))
    world.make_pod("alpha-1", "other")
    world.leads = True
    seen = world.view.pods.get(world.namespace, "alpha-1")
    assert seen is not None
    world.surface.wake()
    await until(lambda: ("Quarantine", seen.uid) in world.surface._waits)
    assert world.quarantined("alpha-1") is None
    assert world.events_about("alpha-1") == []
    assert world.surface.problems == {}


async def test_a_pod_is_let_in_again_only_once_the_view_is_younger_than_its_label(world: World) -> None:
    world.view.age = 3.0
    world.make_pod("labelled", labels={QUARANTINED_LABEL: "true"})
    world.apply_agent("gamma", "Quarantined")
    world.make_pod("gamma-1", "gamma")
    await world.see()
    await until(lambda: world.quarantined("gamma-1") == "true")
    assert world.quarantined("labelled") == "true"
    world.view.age = 0.0
    await until(lambda: world.quarantined("labelled") is None)


async def test_a_pod_is_released_only_once_the_view_is_younger_than_the_pod(world: World) -> None:
    world.view.age = 3.0
    world.make_pod("held", held=True)
    world.apply_agent("gamma", "Stopped")
    world.make_pod("gamma-1", "gamma")
    await world.see()
    await until(lambda: not world.there("gamma-1"))
    assert world.gates("held") == [STOPPED_GATE]
    world.view.age = 0.0
    await until(lambda: world.gates("held") == [])


async def test_a_disruption_budget_in_the_way_is_told_and_respected(world: World) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "alpha"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "alpha"}}},
    }
    budgets = f"/apis/policy/v1/namespaces/{world.namespace}/poddisruptionbudgets"
    world.apply_agent("alpha", "Stopped")
    world.make_pod("alpha-1")
    world.plane.request("POST", budgets, budget)
    await world.see()
    key = f"{world.namespace}/alpha-1"
    await until(lambda: key in world.surface.blocked)
    assert "disruption budget" in world.surface.blocked[key]
    assert world.there("alpha-1")
    await until(lambda: world.events_about("alpha"))
    (event,) = world.events_about("alpha")
    assert (event["reason"], event["type"]) == ("EvictionBlocked", "Warning")
    assert key in event["note"]

    world.plane.request("DELETE", f"{budgets}/alpha")
    await until(lambda: not world.there("alpha-1"))
    await world.see()
    await until(lambda: not world.surface.blocked)


async def test_a_replica_that_does_not_lead_or_does_not_see_does_nothing(world: World) -> None:
    world.leads = False
    world.apply_agent("alpha", "Stopped")
    world.make_pod("alpha-1")
    await world.see()
    await asyncio.sleep(0.5)  # nothing can be awaited where nothing is to happen
    assert world.there("alpha-1")
    world.leads, world.view.age = True, 11.0
    world.surface.wake()
    await asyncio.sleep(0.5)
    assert world.there("alpha-1")
    world.view.age = 0.0
    await until(lambda: not world.there("alpha-1"))


async def test_an_eviction_is_for_the_pod_that_was_seen_and_not_for_the_next_of_its_name(world: World) -> None:
    world.leads = False
    world.apply_agent("alpha", "Stopped")
    world.make_pod("alpha-1")
    await world.see()
    world.plane.request("DELETE", f"/api/v1/namespaces/{world.namespace}/pods/alpha-1")
    await until(lambda: not world.there("alpha-1"))
    uid = world.make_pod("alpha-1", "other")
    world.make_pod("marker")
    world.leads = True
    seen = world.view.pods.get(world.namespace, "alpha-1")
    assert seen is not None
    assert seen.uid != uid
    world.surface.wake()
    await until(lambda: ("Evict", seen.uid) in world.surface._waits)
    assert world.there("alpha-1")
    await world.see()
    await until(lambda: not world.there("marker"))
    assert world.there("alpha-1")


async def test_a_missing_right_is_named(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as admin, connected(plane.kubeconfig_for(namespace, "default")) as powerless:
        apply(plane, agent("alpha", "Stopped", namespace=namespace))
        make_pod(plane, namespace, "alpha-1", "alpha")
        make_pod(plane, namespace, "free", "other", held=True)
        view = View()
        await view.read(admin, namespace)
        surface = KillSurface(powerless, view, lambda: True, EventPoster(powerless, "test-1"))
        task = asyncio.create_task(surface.run())
        try:
            await until(lambda: len(surface.problems) == 2)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert surface.problems["create pods/eviction"].startswith(
            f"cannot evict the pod {namespace}/alpha-1 (create pods/eviction): 403"
        )
        assert surface.problems["patch pods"].startswith(f"cannot release the pod {namespace}/free (patch pods): 403")
