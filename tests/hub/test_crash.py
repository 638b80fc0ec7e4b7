"""The hub's process is killed with kill -9: no record is lost, none is doubled, and leases come back."""

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from support.streams import World, until

SCRIPT = Path(__file__).with_name("hub_process.py")


@contextlib.asynccontextmanager
async def hub_process(directory: Path, moment: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    arguments = [moment] if moment else []
    process = await asyncio.create_subprocess_exec(sys.executable, str(SCRIPT), str(directory), *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_around_the_commit(world: World, moment: str) -> None:
    async with hub_process(world.directory, moment) as process:
        sidecar = world.sidecar()
        await until(sidecar.authority.live)
        sidecar.write(50)
        await until(lambda: process.returncode is not None)
        assert process.returncode == -signal.SIGKILL
        assert sidecar.spool.pending.records == 50, "nothing was acknowledged"
    stored = world.stored(sidecar.spool.writer)
    # Records travel in batches, so the one transaction before the kill holds the first batch at least.
    assert stored == list(range(1, len(stored) + 1))
    assert bool(stored) == (moment == "after")
    async with hub_process(world.directory):
        await until(lambda: sidecar.spool.pending.records == 0)
    assert world.stored(sidecar.spool.writer) == list(range(1, 51))


@pytest.mark.slow
async def test_killed_again_and_again_under_load(world: World) -> None:
    sidecars = [world.sidecar("alpha", name=f"load-{number}") for number in range(3)]
    stop = asyncio.Event()

    def grown(before: int) -> bool:
        return world.store.last_position() > before

    async def write() -> None:
        while not stop.is_set():
            for sidecar in sidecars:
                sidecar.write(7)
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(write())
    lucky = random.Random(20260301)  # noqa: S311 - picks moments
    try:
        for _ in range(4):
            async with hub_process(world.directory) as process:
                before = world.store.last_position()
                await until(partial(grown, before))
                await asyncio.sleep(lucky.uniform(0, 0.3))
                assert process.returncode is None
                process.kill()
    finally:
        stop.set()
        await writing
    async with hub_process(world.directory):
        await until(lambda: not any(sidecar.spool.pending.records for sidecar in sidecars), within=60)
        await until(lambda: all(sidecar.authority.live() for sidecar in sidecars))
    for sidecar in sidecars:
        assert world.stored(sidecar.spool.writer) == list(range(1, sidecar.spool.next_seq))
    assert world.store.gaps() == []
