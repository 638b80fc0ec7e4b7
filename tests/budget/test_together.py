"""Several hubs on one ledger at the same time: together they grant the last unit, and no more."""

import threading
from collections.abc import Callable

import pytest
from budget.pots import BUDGET, COST, World, budget, threshold

from fleetward.budget.calls import Lease
from fleetward.budget.sql import LedgerStore

HUBS = 4
MOST = 500


@pytest.mark.slow
def test_many_at_one_limit(open_store: Callable[..., LedgerStore]) -> None:
    terms = budget(cost=MOST, records=10**6, thresholds=(threshold(50, "Event"),))
    worlds = [World(open_store(), terms) for _ in range(HUBS)]
    granted: list[int] = []
    failures: list[BaseException] = []
    together = threading.Barrier(HUBS)

    def spend(number: int) -> None:
        world = worlds[number]
        holder = world.holder(f"w{number}")
        try:
            together.wait()
            for size in (7, 3, 1):
                while isinstance(answer := holder.cost(size, wanted=size * (number + 1)), Lease):
                    got = sum(grant.amounts[COST] for grant in answer.grants)
                    granted.append(got)
                    holder.spent(got, got)
        except BaseException as error:  # noqa: BLE001 - it fails the test
            failures.append(error)

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(HUBS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(granted) == MOST
    assert worlds[0].stands() == (MOST, 0, 0)
    assert not worlds[0].pot(BUDGET).overshoot
    news = [one for world in worlds for one in world.ledger.news(world.now)]
    assert {(one.event, one.number) for one in news} == {("Threshold", news[0].number)}, "it was reached once"
