"""How streams end and begin again: by age, by a stop of the hub, by the caller, and what a recheck changes."""

import asyncio

import pytest
from support import make
from support.gate import Gate
from support.streams import Sidecar, World, until

from fleetward.registry.registry import Upsert
from fleetward_operator.hub.binding import WorkloadBinding
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.server import HubServer


def since(world: World) -> list[str]:
    return [link.since for link in world.hub.status().links]


async def test_a_stream_that_has_its_age_begins_again_and_authority_has_no_gap(world: World) -> None:
    await world.hub_up(make.registry(), ttl=2.0, max_link_age=0.5)
    sidecar = await world.connected()
    streams: set[str] = set()
    gaps: list[str] = []
    problems: set[str] = set()

    def three_streams() -> bool:
        streams.update(since(world))
        problems.add(sidecar.link.problem)
        if not sidecar.authority.live():
            gaps.append(sidecar.authority.lost_reason())
        return len(streams) > 3

    await until(three_streams)
    assert gaps == []
    assert problems == {""}
    assert len(sidecar.slices) == 1, "it resumed from what it held"


async def test_a_token_that_is_no_longer_good_ends_with_its_stream(world: World) -> None:
    class Fickle(WorkloadBinding):
        revoked = False

        async def authenticate(self, workload: str, token: str | None) -> None:  # noqa: ARG002 - as bindings have it
            if self.revoked:
                raise PermissionError("the token was revoked")

    binding = Fickle(lambda registry: {"alpha": list(registry.agents)})
    await world.hub_up(make.registry(), binding=binding, ttl=1.0, max_link_age=1.0)
    sidecar = await world.connected()
    binding.revoked = True
    await until(lambda: not sidecar.authority.live())
    assert "the hub refuses this sidecar: the token was revoked" in sidecar.authority.lost_reason()


@pytest.mark.parametrize("age", [0, -1.0])
def test_an_age_of_senseless_length_is_refused(world: World, age: float) -> None:
    with pytest.raises(ValueError, match="greatest age of a stream"):
        Hub(world.store, WorkloadBinding(lambda _: {}), max_link_age=age)


async def test_a_stopping_hub_sends_its_sidecars_to_another_before_their_leases_lapse(world: World) -> None:
    """Two hubs behind one address, as behind a Kubernetes Service: connections go to whichever listens."""
    registry = make.registry()
    await world.hub_up(registry, ttl=2.0)
    sidecars = [await world.connected(name=f"s{number}") for number in range(20)]
    lapsed: list[Sidecar] = []
    async with Hub(world.store, WorkloadBinding(lambda r: {"alpha": list(r.agents)}), ttl=2.0) as other:
        other.publish(registry)
        await world.hub_down()
        async with HubServer(other, world.address):

            def all_moved() -> bool:
                lapsed.extend(sidecar for sidecar in sidecars if not sidecar.authority.live())
                return len(other.status().links) == len(sidecars)

            await until(all_moved)
        assert lapsed == []


async def test_a_hub_that_asks_for_a_new_connection_at_once_is_not_obeyed_at_once(world: World) -> None:
    await world.hub_up(make.registry(), max_link_age=0.05)
    sidecar = world.sidecar()
    asked: set[str] = set()

    def times_asked() -> int:
        asked.update(since(world))
        return len(asked)

    await until(lambda: times_asked() > 3)
    assert sidecar.link.problem == ""
    loop = asyncio.get_running_loop()
    began = loop.time()
    count = len(asked)
    await until(lambda: times_asked() and loop.time() - began > 2)
    assert len(asked) - count < 10


async def test_a_workload_that_is_closed_is_told_why_and_may_come_again(world: World) -> None:
    await world.hub_up(make.registry(("alpha", "beta")))
    closed, other = await world.connected(), await world.connected("beta")
    world.hub.close_workload("alpha", "its pod was deleted")
    await until(lambda: closed.link.problem == "the hub refuses this sidecar: its pod was deleted")
    assert other.link.connected
    await until(lambda: closed.link.connected and closed.link.problem == "")


async def test_a_recheck_brings_what_changed_without_a_new_registry(world: World) -> None:
    gate = Gate()
    registry = make.registry(("alpha", "beta"))
    serves = {"everyone": ["reports/alpha"], "beta": ["reports/beta"]}
    await world.hub_up(registry, binding=WorkloadBinding(lambda _: {}))
    world.hub.binding = gate
    gate.tokens[""] = "everyone"
    gate.serves = serves
    sidecar = await world.connected("everyone")
    assert list(sidecar.slices[-1].items.agents) == ["reports/alpha"]
    gate.serves["everyone"] = ["reports/alpha", "reports/beta"]
    world.hub.recheck("another")
    world.hub.recheck("everyone")
    await until(lambda: sorted(sidecar.slices[-1].items.agents) == ["reports/alpha", "reports/beta"])
    assert sidecar.version == registry.version
    gate.serves["everyone"] = []
    world.hub.recheck()
    await until(lambda: not sidecar.slices[-1].items.agents)
    count = len(sidecar.slices)
    world.hub.recheck()
    world.hub.publish(registry.apply([Upsert(make.agent("alpha", owner="x"))]))
    await until(lambda: sidecar.version == world.registry.version)
    assert len(sidecar.slices) == count + 1, "a recheck that changes nothing sends nothing"
    assert sidecar.link.connected
    assert sidecar.authority.live()


async def test_a_workload_found_gone_at_a_recheck_is_refused(world: World) -> None:
    gate = Gate()
    gate.tokens[""] = "alpha"
    await world.hub_up(make.registry(), binding=gate)
    sidecar = await world.connected()
    gate.gone["alpha"] = LookupError("pod alpha is gone")
    world.hub.recheck("alpha")
    await until(lambda: sidecar.link.problem == "the hub refuses this sidecar: pod alpha is gone")
    del gate.gone["alpha"]
    await until(lambda: sidecar.link.problem == "" and sidecar.link.connected)
