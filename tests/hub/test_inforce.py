"""What the hub knows of what each sidecar runs, and how long a mode takes to be in force everywhere."""

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support import make
from support.rawstream import stream
from support.streams import World, until

from fleetward.registry.registry import Registry, Upsert
from fleetward.registry.slice import Mode
from fleetward.stream import messages
from fleetward_operator.hub.inforce import ModeInForce, ModesInForce
from fleetward_operator.hub.link import SidecarLink

Seen = list[ModeInForce]


def paused(registry: Registry, *agents: str, mode: str = "Paused") -> Registry:
    return registry.apply([Upsert(make.agent(agent, operatingMode=mode)) for agent in agents])


async def test_status_says_what_is_in_force_at_each_sidecar(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    sidecar = await world.connected()
    await until(lambda: [link.running for link in world.hub.status().links] == [registry.version])
    changed = registry.apply([Upsert(make.agent("alpha", owner="x"))])

    def fails() -> None:
        raise RuntimeError("cannot be")

    sidecar.hook = fails
    world.hub.publish(changed)
    # It has been sent, and the sidecar cannot put it in force: it comes again, still running the version before.
    await until(lambda: "cannot be put in force" in sidecar.link.problem)
    await until(lambda: world.hub.status().links)
    assert world.hub.status().links[0].running == registry.version
    sidecar.hook = lambda: None
    await until(lambda: [link.running for link in world.hub.status().links] == [changed.version])


async def test_a_sidecar_that_comes_with_the_current_version_runs_it(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    sidecar = await world.connected()
    await world.hub_down()
    await world.hub_up(registry)
    await until(lambda: [link.running for link in world.hub.status().links] == [registry.version])
    assert len(sidecar.slices) == 1, "nothing was sent, so nothing was answered"


async def test_a_pause_is_timed_until_the_last_sidecar_that_serves_the_agent_has_it(world: World) -> None:
    seen: Seen = []
    registry = make.registry(("alpha", "beta"))
    await world.hub_up(registry, observe=seen.append)
    await world.proxy.start()
    await world.connected()
    slow = await world.connected("everyone", address=world.proxy.address)
    other = await world.connected("beta")
    world.proxy.hold_down()
    at = time.monotonic()
    registry = paused(registry, "alpha")
    world.hub.publish(registry, at - 1.0)
    await other.reaches(registry)
    await until(lambda: sum(link.running == registry.version for link in world.hub.status().links) == 2)
    assert seen == []
    world.proxy.release()
    await slow.reaches(registry)
    await until(lambda: seen)
    (mode,) = seen
    assert (mode.agent, mode.mode, mode.source) == ("reports/alpha", "Paused", "Agent reports/alpha")
    assert (mode.version, mode.links, mode.lost) == (registry.version, 2, 0)
    assert 1.0 < mode.seconds <= 1.0 + time.monotonic() - at


async def test_a_fleets_pause_is_told_for_each_agent_and_a_weaker_mode_too(world: World) -> None:
    seen: Seen = []
    registry = make.registry(("alpha", "beta"))
    await world.hub_up(registry, observe=seen.append)
    await world.connected("everyone")
    for mode in ("Quarantined", "Paused"):
        registry = registry.apply([Upsert(make.fleet("all", operatingMode=mode))])
        world.hub.publish(registry)
        await until(lambda: len(seen) == 2)
        assert sorted((one.agent, one.mode, one.source) for one in seen) == [
            ("reports/alpha", mode, "AgentFleet all"),
            ("reports/beta", mode, "AgentFleet all"),
        ]
        seen.clear()


async def test_what_does_not_stop_an_agent_is_not_told(world: World) -> None:
    seen: Seen = []
    registry = paused(make.registry(("alpha", "beta")), "alpha")
    await world.hub_up(registry, observe=seen.append)
    await world.connected("everyone")
    for next_ in (
        make.registry(("alpha", "beta")),  # it runs again
        registry,  # told
        registry.apply([Upsert(make.agent("alpha", operatingMode="Paused", owner="x"))]),
    ):
        world.hub.publish(next_)
        await until(lambda: world.hub.status().links[0].running == next_.version)  # noqa: B023 - awaited at once
    assert [one.version for one in seen] == [registry.version]


async def test_a_sidecar_that_is_gone_is_not_waited_for(world: World) -> None:
    seen: Seen = []
    registry = make.registry()
    await world.hub_up(registry, observe=seen.append, ttl=1.0)
    await world.proxy.start()
    await world.connected()
    await world.connected(address=world.proxy.address, name="away")
    world.proxy.hold_down()
    world.hub.publish(paused(registry, "alpha"))
    await until(lambda: seen)
    assert (seen[0].links, seen[0].lost) == (1, 1)


async def test_versions_that_come_and_go_are_told_apart(world: World) -> None:
    """Two registries of the same content have the same version: a pause, its end and the same pause again."""
    seen: Seen = []
    registry = make.registry()
    await world.hub_up(registry, observe=seen.append)
    await world.proxy.start()
    sidecar = await world.connected(address=world.proxy.address)
    world.proxy.hold_down()
    again = paused(registry, "alpha")
    for published in (again, registry, again):
        world.hub.publish(published)
        await until(lambda: world.hub.status().links[0].version == published.version)  # noqa: B023 - awaited at once
    world.proxy.release()
    await sidecar.reaches(again)
    await until(lambda: len(seen) == 2)
    await until(lambda: world.hub.status().links[0].running == again.version)
    assert sidecar.link.connected


async def test_a_sidecar_that_claims_what_it_was_not_sent_is_refused(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    async with stream(world) as raw:
        await raw.hello()
        await raw.until(messages.Snapshot)
        await raw.send(messages.Applied(version="another"))
        assert f"version another is in force, and {registry.version} is due" in await raw.refusal()
    async with stream(world) as raw:
        await raw.hello()
        await raw.until(messages.Snapshot)
        for _ in range(2):
            await raw.send(messages.Applied(version=registry.version))
        assert f"version {registry.version} is in force, and none is due" in await raw.refusal()


# The bookkeeping by itself


class Holder:
    def __init__(self) -> None:
        self.applied = 0


class Model:
    """Awaits by looking at everything each time."""

    def __init__(self) -> None:
        self.open: list[tuple[str, int, set[Holder], int, int]] = []
        self.done: list[tuple[str, int, int]] = []

    def step(self, gone: Holder | None = None) -> None:
        still = []
        for agent, number, holders, links, lost in self.open:
            has = {holder for holder in holders if holder is not gone and holder.applied >= number}
            left = holders - has - ({gone} if gone else set())
            links, lost = links + len(has), lost + (gone in holders)  # noqa: PLW2901 - the counts go on
            if left:
                still.append((agent, number, left, links, lost))
            else:
                self.done.append((agent, links, lost))
        self.open = still


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 3), min_size=1))),
        st.tuples(st.just("apply"), st.integers(0, 3)),
        st.tuples(st.just("go"), st.integers(0, 3)),
    ),
    max_size=40,
)


@given(STEPS)
def test_every_mode_is_told_once_and_when_nobody_is_left(steps: list[tuple[str, Any]]) -> None:
    told: list[tuple[str, int, int]] = []
    modes = ModesInForce(lambda mode: told.append((mode.agent, mode.links, mode.lost)))
    model, links, number = Model(), [Holder() for _ in range(4)], 0
    for step, given_ in steps:
        if step == "publish":
            number += 1
            chosen = {agent: [links[index] for index in sorted(indices)] for agent, indices in given_.items()}
            changes = {agent: (Mode(operating_mode="Paused"), holders) for agent, holders in chosen.items()}
            modes.expect(number, "v", 0.0, changes)
            model.open += [(agent, number, set(holders), 0, 0) for agent, holders in chosen.items()]
        elif step == "apply":
            links[given_].applied = number
            modes.applied(links[given_])
            model.step()
        else:
            gone, links[given_] = links[given_], Holder()
            modes.gone(gone)
            model.step(gone)
        assert sorted(told) == sorted(model.done)
    assert sum(map(len, modes._awaited.values())) == sum(len(holders) for _, _, holders, *_ in model.open)


def test_a_link_is_a_holder() -> None:
    holder: type[Any] = SidecarLink
    assert "applied" in holder.__init__.__code__.co_names
