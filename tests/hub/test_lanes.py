"""The intake by itself, where no renewal of a link's comes to its aid."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import make
from support.streams import until

from fleetward.audit.store import Store
from fleetward_operator.hub.intake import Intake
from fleetward_operator.hub.lane import Lane

FULL = "CREATE TEMP TRIGGER full BEFORE INSERT ON main.records BEGIN SELECT RAISE(FAIL, 'full'); END"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "audit.db")


@pytest.fixture
async def intake(store: Store) -> AsyncIterator[Intake]:
    opened = Intake(store, lambda: None)
    working = asyncio.create_task(opened.run())
    yield opened
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    opened.shut_down()
    store.close()


def execute(store: Store, statement: str) -> None:
    assert store._writer is not None
    store._writer.execute(statement)


def lane_of(writer: str, acknowledged: list[int]) -> Lane:
    return Lane(writer, "alpha", acknowledge=acknowledged.append, refuse=pytest.fail)


async def test_a_store_that_failed_is_tried_again_by_itself(store: Store, intake: Intake) -> None:
    acknowledged: list[int] = []
    lane = lane_of("one", acknowledged)
    intake.open(lane)
    execute(store, FULL)
    intake.put(lane, [make.record("one", 1)])
    await until(lambda: intake.problem)
    assert acknowledged == []
    execute(store, "DROP TRIGGER full")
    await until(lambda: acknowledged == [1])
    await until(lambda: not intake.problem)


async def test_while_the_store_fails_nothing_is_kept_for_links_that_are_gone(store: Store, intake: Intake) -> None:
    lane, other = lane_of("one", []), lane_of("two", [])
    execute(store, FULL)
    for each in (lane, other):
        intake.open(each)
        intake.put(each, [make.record(each.writer, 1)])
    intake.close(lane)  # before the failure is known
    await until(lambda: intake.problem)
    await until(lambda: list(intake._lanes) == [other])
    intake.close(other)  # after it
    assert intake.waiting == 0
    await intake.drained()


async def test_what_still_comes_over_a_link_being_ended_is_left_to_its_sidecar(intake: Intake) -> None:
    lane = lane_of("one", [])
    intake.open(lane)
    intake.close(lane)
    intake.put(lane, [make.record("one", 1)])
    assert intake.waiting == 0
    await asyncio.wait_for(intake.drained(), 5)
