"""Whatever is published, and wherever the connection is cut, a sidecar ends up with the slice the registry cuts."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import make
from support.streams import World, until

from fleetward.registry.registry import Registry, RegistryChange, Remove, Upsert

AGENTS = ("alpha", "beta")
POLICIES = ("one", "two", "three")
MODES = ("Running", "Paused", "Stopped")

changes = st.one_of(
    st.tuples(st.just("agent"), st.sampled_from(AGENTS), st.sampled_from(MODES)),
    st.tuples(st.just("no agent"), st.sampled_from(AGENTS)),
    st.tuples(st.just("policy"), st.sampled_from(POLICIES), st.integers(0, 3)),
    st.tuples(st.just("no policy"), st.sampled_from(POLICIES)),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.lists(changes, min_size=1, max_size=3)),
        st.tuples(st.just("cut"), st.integers(0, 3000)),
        st.tuples(st.just("restart")),
        st.tuples(st.just("settle")),
        st.tuples(st.just("new sidecar")),
    ),
    max_size=12,
)


def change_of(what: tuple[Any, ...]) -> RegistryChange:
    match what:
        case ("agent", name, mode):
            return Upsert(make.agent(name, operatingMode=mode))
        case ("no agent", name):
            return Remove("Agent", f"reports/{name}")
        case ("policy", name, variant):
            return Upsert(make.policy(name, f"variant-{variant}.**"))
        case ("no policy", name):
            return Remove("AgentPolicy", f"reports/{name}")
    raise AssertionError(what)


@settings(max_examples=30)
@given(steps=steps)
def test_the_slice_is_the_registrys_cut(steps: list[tuple[Any, ...]]) -> None:
    async def scenario(directory: Path) -> None:
        world = World(directory)
        registry: Registry = make.registry(("alpha",), policies=1)
        try:
            await world.hub_up(registry)
            await world.proxy.start()
            sidecar = world.sidecar("everyone", name="model", address=world.proxy.address)
            for step in steps:
                match step:
                    case ("publish", found):
                        registry = registry.apply([change_of(what) for what in found])
                        world.hub.publish(registry)
                    case ("cut", after):
                        world.proxy.cut_after = after
                    case ("restart",):
                        await world.hub_down()
                        await world.hub_up(registry)
                    case ("settle",):
                        await sidecar.reaches(registry)
                    case ("new sidecar",):
                        await sidecar.stop()
                        sidecar.spool.close()
                        world._sidecars.remove(sidecar)
                        sidecar = world.sidecar("everyone", name="model", address=world.proxy.address)
                await asyncio.sleep(0)
            await sidecar.reaches(registry)
            await until(sidecar.authority.live)
            assert sidecar.link.slice == registry.cut(registry.agents)
        finally:
            await world.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scenario(Path(directory)))
