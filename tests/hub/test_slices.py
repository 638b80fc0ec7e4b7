"""What sidecars hold of the registry: snapshots, changes, resumption."""

import asyncio
import time
from functools import partial

import aiohttp
import pytest
from support import make
from support.streams import World, until

from fleetward.registry.registry import Registry, Remove, Upsert
from fleetward.registry.slice import Slice, apply
from fleetward.stream import messages


async def test_a_sidecar_gets_the_slice_of_its_agents_and_every_change_of_it(world: World) -> None:
    registry = make.registry(("alpha", "beta"))
    await world.hub_up(registry)
    sidecar = await world.connected("alpha")
    assert sidecar.slices == [registry.cut(["reports/alpha"])]

    for change in (
        Upsert(make.agent("alpha", operatingMode="Paused", operatingReason="look into it")),
        Upsert(make.policy("another", "mail.**")),
        Remove("AgentPolicy", "reports/policy-0"),
    ):
        registry = registry.apply([change])
        world.hub.publish(registry)
        await sidecar.reaches(registry)
        assert sidecar.slices[-1] == registry.cut(["reports/alpha"])


async def test_an_agent_that_joins_or_leaves_a_workload_changes_the_slice(world: World) -> None:
    registry = make.registry(("alpha",))
    await world.hub_up(registry)
    sidecar = await world.connected("everyone")
    both = registry.apply([Upsert(make.agent("beta"))])
    for published in (both, registry):
        world.hub.publish(published)
        await sidecar.reaches(published)
        assert sorted(sidecar.slices[-1].items.agents) == sorted(published.agents)


async def test_a_workload_without_agents_gets_an_empty_slice_and_waits_for_its_first(world: World) -> None:
    registry = make.registry(("alpha",))
    await world.hub_up(registry)
    sidecar = await world.connected("later")
    assert sidecar.slices[-1].items.agents == {}
    registry = registry.apply([Upsert(make.agent("later"))])
    world.hub.publish(registry)
    await until(lambda: list(sidecar.slices[-1].items.agents) == ["reports/later"])


async def test_a_change_that_concerns_other_agents_moves_only_the_version(world: World) -> None:
    registry = make.registry(("alpha", "beta"), policies=100)
    await world.hub_up(registry)
    await world.proxy.start()
    sidecar = await world.connected("alpha", address=world.proxy.address)
    before = world.proxy.down_bytes
    registry = registry.apply([Upsert(make.agent("beta", operatingMode="Paused"))])
    world.hub.publish(registry)
    await sidecar.reaches(registry)
    assert sidecar.slices[-1].items == sidecar.slices[0].items
    assert world.proxy.down_bytes - before < 600


async def test_after_a_restart_of_the_hub_only_the_difference_travels(world: World) -> None:
    registry = make.registry(("alpha",), policies=200)
    await world.hub_up(registry)
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    whole = world.proxy.down_bytes
    assert whole > 20_000

    await world.hub_down()
    await until(lambda: not sidecar.link.connected)
    registry = registry.apply([Upsert(make.policy("policy-7", "other.**"))])
    await world.hub_up(registry)
    await sidecar.reaches(registry)
    assert sidecar.slices[-1] == registry.cut(["reports/alpha"])
    assert world.proxy.down_bytes - whole < 1_000

    before = world.proxy.down_bytes
    count = len(sidecar.slices)
    world.proxy.cut()
    await until(lambda: not sidecar.link.connected)
    await until(lambda: sidecar.link.connected and world.proxy.down_bytes - before > 200)
    assert len(sidecar.slices) == count, "nothing changed, so no slice came"
    assert world.proxy.down_bytes - before < 800


async def test_a_change_for_others_while_the_hub_was_down_moves_only_the_version(world: World) -> None:
    registry = make.registry(("alpha", "beta"), policies=100)
    await world.hub_up(registry)
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    await world.hub_down()
    before = world.proxy.down_bytes
    registry = registry.apply([Upsert(make.agent("beta", operatingMode="Paused"))])
    await world.hub_up(registry)
    await sidecar.reaches(registry)
    await until(sidecar.authority.live)
    assert world.proxy.down_bytes - before < 1_000


async def test_what_was_removed_while_the_hub_was_down_is_gone_after_it(world: World) -> None:
    registry = make.registry(("alpha", "beta"))
    await world.hub_up(registry)
    sidecar = await world.connected("everyone")
    await world.hub_down()
    registry = registry.apply([Remove("AgentPolicy", "reports/policy-0"), Remove("Agent", "reports/beta")])
    await world.hub_up(registry)
    await sidecar.reaches(registry)
    assert sidecar.slices[-1] == registry.cut(["reports/alpha"])


async def test_links_of_one_workload_share_the_encoded_change(world: World) -> None:
    registry = make.registry(("alpha",), policies=50)
    await world.hub_up(registry)
    sidecars = [await world.connected("alpha") for _ in range(3)]
    registry = registry.apply([Upsert(make.policy("policy-1", "other.**"))])
    world.hub.publish(registry)
    await until(lambda: all(sidecar.version == registry.version for sidecar in sidecars))
    view = world.hub.view
    assert view is not None
    assert len(view._frames) == 1


async def test_a_hundred_links_get_a_pause(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"agent-{number}" for number in range(100)]
    registry = make.registry(names, policies=100)
    await world.hub_up(registry)
    sidecars = [world.sidecar(name) for name in names]
    await until(lambda: all(sidecar.authority.live() for sidecar in sidecars), within=60)
    assert len(world.hub.status().links) == 100

    arrived: list[float] = []
    for sidecar in sidecars:
        sidecar.hook = lambda: arrived.append(time.perf_counter())
    figures = []
    for mode in ("Paused", "Running", "Paused"):
        registry = registry.apply([Upsert(make.fleet("all", operatingMode=mode))])
        arrived.clear()
        began = time.perf_counter()
        world.hub.publish(registry)
        await until(lambda: len(arrived) == 100)
        figures.append(max(arrived) - began)
    with capsys.disabled():
        print(f"\n100 links, 100 policies each: last one paused after {[f'{f * 1e3:.1f} ms' for f in figures]}")  # noqa: T201 - a figure to look at
    for sidecar in sidecars:
        (agent,) = sidecar.slices[-1].items.agents.values()
        assert agent.mode.operating_mode == "Paused"


async def test_the_sidecar_whose_agent_is_paused_hears_of_it_first(world: World) -> None:
    names = [f"agent-{number}" for number in range(20)]
    registry = make.registry(names)
    await world.hub_up(registry)
    heard: list[str] = []
    for name in names:
        sidecar = await world.connected(name)
        sidecar.hook = partial(heard.append, name)
    world.hub.publish(registry.apply([Upsert(make.agent("agent-13", operatingMode="Paused"))]))
    await until(lambda: len(heard) == 20)
    assert heard[0] == "agent-13"


async def test_a_slow_link_gets_the_latest_state_and_holds_nobody_up(world: World) -> None:
    """Its socket is full, so what it misses is folded into one change; nothing is queued."""

    def registry_of(round_: int) -> Registry:
        return make.registry(("alpha",), policies=0).apply(
            [Upsert(make.policy(f"policy-{number}", f"round-{round_}.**")) for number in range(300)]
        )

    registries = [registry_of(round_) for round_ in range(2)] * 20
    await world.hub_up(registries[0])
    quick = await world.connected()
    connector = aiohttp.UnixConnector(f"{world.directory}/hub.sock")
    async with aiohttp.ClientSession(connector=connector) as session:
        slow = await session.ws_connect("http://hub/v1/stream", max_msg_size=0)
        hello = messages.Hello(protocol=messages.PROTOCOL, workload="alpha", writer="slow", spooled=0)
        await slow.send_str(messages.encode(hello).decode())
        await until(lambda: len(world.hub.status().links) == 2)
        for registry in registries:
            world.hub.publish(registry)
            await quick.reaches(registry)

        world.hub.publish(registries[0].apply([Remove("AgentPolicy", "reports/policy-0")]))
        held, updates = Slice(version=""), 0
        while "AgentPolicy/reports/policy-0" in held.items.policies or not updates:
            match messages.decode_to_sidecar((await slow.receive()).data):
                case messages.Snapshot(slice=slice_):
                    held = slice_
                case messages.Update(base=base, change=change):
                    assert base == held.version
                    held, updates = apply(held, change), updates + 1
        assert held == world.registry.cut(["reports/alpha"])
        assert updates < len(registries) - 1, "some were skipped"
        await slow.close()


@pytest.mark.parametrize("renews", [False, True], ids=["silent", "renewing"])
async def test_a_link_that_never_reads_is_dropped(world: World, *, renews: bool) -> None:
    await world.hub_up(make.registry(("alpha",), policies=3000), ttl=0.5)
    reader, writer = await asyncio.open_unix_connection(f"{world.directory}/hub.sock")
    writer.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]

    def send(message: messages.ToHub) -> None:
        """Write a masked text frame (RFC 6455); the mask is zero."""
        payload = messages.encode(message)
        writer.write(bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    send(messages.Hello(protocol=messages.PROTOCOL, workload="alpha", writer="deaf", spooled=0))
    await until(lambda: len(world.hub.status().links) == 1)
    other = await world.connected()

    def dropped() -> bool:
        if renews and not writer.is_closing():
            send(messages.Renew(token=0.0, spooled=0))
        return [link.writer for link in world.hub.status().links] == [other.spool.writer]

    await until(dropped)
    writer.transport.abort()
