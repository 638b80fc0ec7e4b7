"""Where the hub listens, and how it stops."""

import stat

import pytest
from support import make
from support.streams import World, until

from fleetward_operator.hub.binding import WorkloadBinding
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.server import HubServer


async def test_the_socket_is_for_its_owner_only(world: World) -> None:
    await world.hub_up(make.registry())
    directory = world.directory / "run"
    async with HubServer(world.hub, f"unix://{directory}/hub.sock") as server:
        assert server.address == f"unix://{directory}/hub.sock"
        assert stat.S_IMODE((directory / "hub.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not (directory / "hub.sock").exists()


async def test_a_directory_that_others_can_write_to_is_refused(world: World) -> None:
    await world.hub_up(make.registry())
    directory = world.directory / "open"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(OSError, match="pass themselves off as the hub"):
        async with HubServer(world.hub, f"unix://{directory}/hub.sock"):
            pass


async def test_a_second_hub_cannot_take_the_socket(world: World) -> None:
    await world.hub_up(make.registry())
    with pytest.raises(OSError, match="another hub listens on"):
        async with HubServer(world.hub, world.address):
            pass
    assert (await world.connected()).link.connected


async def test_a_socket_left_behind_is_taken_over(world: World) -> None:
    path = world.directory / "left.sock"
    await world.hub_up(make.registry())
    async with HubServer(world.hub, f"unix://{path}"):
        path.rename(path.with_suffix(".kept"))
    path.with_suffix(".kept").rename(path)
    async with HubServer(world.hub, f"unix://{path}"):
        sidecar = await world.connected(address=f"unix://{path}")
        assert sidecar.link.connected


async def test_tcp_on_loopback(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    async with HubServer(world.hub, "http://127.0.0.1:0") as server:
        assert not server.address.endswith(":0")
        sidecar = await world.connected(address=server.address)
        assert sidecar.version == registry.version
        with pytest.raises(OSError, match="in use"):
            async with HubServer(world.hub, server.address):
                pass


@pytest.mark.parametrize("ttl", [0, -1, 3601])
def test_a_lease_of_senseless_length_is_refused(world: World, ttl: float) -> None:
    with pytest.raises(ValueError, match="authority lease"):
        Hub(world.store, WorkloadBinding(lambda _: {}), ttl=ttl)


async def test_a_stopping_hub_tells_its_sidecars(world: World) -> None:
    await world.hub_up(make.registry())
    sidecar = await world.connected()
    await world.hub_down()
    await until(lambda: not sidecar.link.connected and sidecar.link.problem)
    assert not (world.directory / "hub.sock").exists()
    assert sidecar.authority.live(), "it may go on for what is left of its lease"
