"""Authority: who may decide, until when, and what a cut-off sidecar does."""

import asyncio
from functools import partial

import aiohttp
import pytest
from support import make
from support.streams import World, until

from fleetward.registry.registry import Upsert
from fleetward.stream import messages
from fleetward_webhook.sidecar.authority import Authority


async def test_a_lease_lapses_when_the_hub_falls_silent_and_comes_back_with_it(world: World) -> None:
    await world.hub_up(make.registry(), ttl=1.0)
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    world.proxy.hold()
    await until(lambda: not sidecar.authority.live(), within=5)
    assert "the last authority lease lapsed" in sidecar.authority.lost_reason()
    world.proxy.release()
    await until(sidecar.authority.live)


async def test_a_silent_connection_is_given_up_for_a_new_one(world: World) -> None:
    """The old one stays silent for good, as behind a lost route; a new one goes through."""
    await world.hub_up(make.registry(), ttl=1.0)
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    old = set(world.proxy._tasks)
    world.proxy.hold()
    await until(lambda: "was silent for" in sidecar.link.problem)
    await until(lambda: world.proxy._tasks - old)
    world.proxy.release()
    await until(sidecar.authority.live)


async def test_a_pause_binds_a_partitioned_sidecar_within_one_lease(world: World) -> None:
    ttl = 1.5
    registry = make.registry()
    await world.hub_up(registry, ttl=ttl)
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    world.proxy.hold()
    paused_at = sidecar.authority.now()
    world.hub.publish(registry.apply([Upsert(make.agent("alpha", operatingMode="Paused"))]))
    # The sidecar does not know of the pause, and every lease it can still have ends within one lease's length of it.
    assert sidecar.authority.now() + sidecar.authority.remaining <= paused_at + ttl
    await until(lambda: not sidecar.authority.live())
    assert sidecar.version == registry.version
    # When the partition heals, no lease comes before the pause.
    world.proxy.release()
    await until(sidecar.authority.live)
    assert sidecar.slices[-1].items.agents["reports/alpha"].mode.operating_mode == "Paused"


async def test_an_answer_held_up_on_the_way_does_not_lengthen_the_lease(world: World) -> None:
    ttl = 1.0
    await world.hub_up(make.registry(), ttl=ttl)
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    authority = sidecar.authority
    granted: list[tuple[float, float, float]] = []

    class Watching(Authority):
        """Notes when a lease arrives and how much of it is left then."""

        def renewed(self, token: float, ttl: float) -> None:
            super().renewed(token, ttl)
            granted.append((token, self.now(), self.remaining))

    world.proxy.hold_down()
    sidecar.link._authority = Watching()
    held_at = authority.now()
    await until(lambda: authority.now() - held_at > 0.8 * ttl)
    world.proxy.release()
    await until(lambda: granted)
    token, arrived, remaining = granted[0]
    assert arrived - token > 0.3 * ttl, "it was held up"
    assert remaining <= token + ttl - arrived + 0.01


async def test_a_hub_that_lost_sight_of_the_resources_withholds_authority(world: World) -> None:
    await world.hub_up(make.registry(), ttl=1.0)
    sidecar = await world.connected()
    world.live = False
    await until(lambda: not sidecar.authority.live())
    assert "the hub withholds authority: the hub has lost sight of the resources" in sidecar.authority.lost_reason()
    assert sidecar.link.connected
    assert world.hub.status().withheld
    world.live = True
    await until(sidecar.authority.live)
    assert sidecar.link.problem == ""


async def test_a_hub_that_has_read_nothing_yet_gives_neither_slice_nor_authority(world: World) -> None:
    await world.hub_up(None)
    sidecar = world.sidecar()
    await until(lambda: "has not read the resources yet" in sidecar.authority.lost_reason())
    assert not sidecar.slices
    registry = make.registry()
    world.hub.publish(registry)
    await until(sidecar.authority.live)
    assert sidecar.version == registry.version


async def test_a_lease_never_overtakes_a_change_behind_a_stalled_one(world: World) -> None:
    """While a long change is being sent, a pause is published, then a lease asked for: the pause comes first."""
    registries = [
        make.registry(("alpha",), policies=0).apply(
            [Upsert(make.policy(f"policy-{number}", f"{word}.**")) for number in range(300)]
        )
        for word in ("one", "other")
    ]
    await world.hub_up(registries[0])
    await world.proxy.start()
    connector = aiohttp.UnixConnector(f"{world.directory}/proxy.sock")
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect("http://hub/v1/stream", max_msg_size=0) as ws,
    ):
        hello = messages.Hello(protocol=messages.PROTOCOL, workload="alpha", writer="asker", spooled=0)
        await ws.send_str(messages.encode(hello).decode())
        await until(lambda: world.hub.status().links)
        link = world.hub._links["asker"]
        world.proxy.hold_down()
        for number in range(1000):
            world.hub.publish(registries[number % 2])
            for _ in range(5):
                await asyncio.sleep(0)
            if link._seen is not world.hub.view:
                break
        else:
            pytest.fail("the link never stalled")
        paused = registries[0].apply([Upsert(make.agent("alpha", operatingMode="Paused"))])
        world.hub.publish(paused)
        await ws.send_str(messages.encode(messages.Renew(token=1.0, spooled=0)).decode())
        await until(lambda: link._renew is not None)
        world.proxy.release()
        while True:
            message = messages.decode_to_sidecar((await ws.receive(timeout=20)).data)
            if isinstance(message, messages.Renewed):
                break
        assert message.version == paused.version


async def test_a_lease_vouches_for_every_change_published_before_it_was_asked_for(world: World) -> None:
    """The token says how many registries were published when it was sent; the answer must name that one or a later."""
    registry = make.registry()
    await world.hub_up(registry)
    versions = [registry.version]
    answers: list[tuple[int, str]] = []
    connector = aiohttp.UnixConnector(f"{world.directory}/hub.sock")
    async with aiohttp.ClientSession(connector=connector) as session, session.ws_connect("http://hub/v1/stream") as ws:

        async def send(message: messages.ToHub) -> None:
            await ws.send_str(messages.encode(message).decode())

        async def ask() -> None:
            while True:
                await send(messages.Renew(token=len(versions) - 1, spooled=0))
                await asyncio.sleep(0)

        async def read() -> None:
            async for frame in ws:
                message = messages.decode_to_sidecar(frame.data)
                if isinstance(message, messages.Renewed):
                    answers.append((int(message.token), message.version))

        def answered(before: int) -> bool:
            return len(answers) > before

        await send(messages.Hello(protocol=messages.PROTOCOL, workload="alpha", writer="asker", spooled=0))
        tasks = [asyncio.create_task(ask()), asyncio.create_task(read())]
        for number in range(100):
            registry = registry.apply([Upsert(make.agent("alpha", owner=f"owner-{number}"))])
            seen = len(answers)
            world.hub.publish(registry)
            versions.append(registry.version)
            await until(partial(answered, seen))
        await until(lambda: answers[-1][0] == 100)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert all(versions.index(version) >= token for token, version in answers)
