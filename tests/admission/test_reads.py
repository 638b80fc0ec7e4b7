"""Reads shared by reviews: each gets one that began after it asked."""

import asyncio
import gc

import pytest

from fleetward_webhook.admission.reads import Shared


class Source:
    """Something that changes, and takes its time to be read."""

    def __init__(self) -> None:
        self.value = 0
        self.begun = 0
        self.go_on = asyncio.Event()

    async def read(self) -> int:
        self.begun += 1
        seen = self.value
        await self.go_on.wait()
        return seen


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_those_who_ask_together_share_one_read() -> None:
    source = Source()
    shared = Shared(source.read)
    asking = [asyncio.create_task(shared.get()) for _ in range(50)]
    await settle()
    source.go_on.set()
    assert await asyncio.gather(*asking) == [0] * 50
    assert source.begun == 1
    assert shared.idle


async def test_who_asks_during_a_read_gets_the_next_one() -> None:
    source = Source()
    shared = Shared(source.read)
    early = asyncio.create_task(shared.get())
    await settle()
    source.value = 1  # changed after the read began, before the others ask
    late = [asyncio.create_task(shared.get()) for _ in range(50)]
    await settle()
    assert source.begun == 1
    source.go_on.set()
    assert await early == 0
    assert await asyncio.gather(*late) == [1] * 50
    assert source.begun == 2
    assert shared.idle


async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    source = Source()
    shared = Shared(source.read)
    hasty, patient = asyncio.create_task(shared.get()), asyncio.create_task(shared.get())
    await settle()
    hasty.cancel()
    await settle()
    source.go_on.set()
    assert await patient == 0


async def test_a_failure_is_everybodys_and_the_next_read_is_a_new_one() -> None:
    failing = True

    async def read() -> str:
        if failing:
            raise OSError("down")
        return "up"

    shared = Shared(read)
    failed = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)
    assert [str(each) for each in failed] == ["down", "down"]
    failing = False
    assert await shared.get() == "up"


async def test_a_failure_that_nobody_waits_for_is_not_reported_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        begun.set()
        await go_on.wait()
        raise OSError("down")

    shared = Shared(read)
    asking = asyncio.create_task(shared.get())
    await begun.wait()
    asking.cancel()
    del asking
    go_on.set()
    await settle()
    assert shared.idle
    gc.collect()  # a task says so when it goes
    assert not caplog.records
