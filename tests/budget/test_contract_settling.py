"""What the ledger promises of what is said twice or late, and of settling; every test runs on both stores."""

from collections.abc import Callable

import pytest
from budget.pots import BUDGET, COST, TOTAL, World, budget, granted, short

from fleetward.budget.calls import Disown, Need
from fleetward.budget.sql import LedgerStore
from fleetward.decision.action import Spend

OpenStore = Callable[..., LedgerStore]


# What is said twice, or never arrives


def test_what_never_arrived_is_free_again(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(30))
    granted(holder.cost(70, lost=True))
    assert world.stands() == (0, 0, 100)
    granted(holder.cost(70))
    assert world.stands() == (0, 0, 100)
    short(holder.cost(1))


def test_what_was_spent_of_a_lease_is_not_taken_back(world: World) -> None:
    """A holder that says it got less than it spent is wrong."""
    holder = world.holder()
    granted(holder.cost(30))
    holder.spent(30)
    holder.got.clear()
    granted(holder.cost(70))
    assert world.stands() == (0, 30, 70)
    short(world.holder("w2").cost(1))


def test_a_release_said_twice_counts_once(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(100))
    release = holder.give_back({COST: 40})
    world.ledger.release(release, "w1", world.now)
    assert world.stands() == (0, 0, 60)
    granted(world.holder("w2").cost(40))
    short(world.holder("w2").cost(1))


def test_no_more_comes_back_than_is_out(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(50))
    holder.spent(20)
    holder.give_back({COST: 90})
    assert world.stands() == (0, 20, 0)


def test_a_release_of_another_process_changes_nothing(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(50))
    holder.born = "other"
    holder.give_back({COST: 50})
    assert world.stands() == (0, 0, 50)


def test_records_count_once(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(60))
    decision = holder.decision(holder.spend(60))
    outcome = holder.outcome(decision, holder.spend(45))
    holder.fold(decision)
    holder.fold(decision)
    assert world.stands() == (0, 60, 0)
    holder.fold(decision, outcome)
    holder.fold(decision, outcome)
    holder.fold(outcome)
    assert world.stands() == (45, 0, 0)


def test_records_count_once_within_a_batch(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(60))
    decision = holder.decision(holder.spend(60))
    outcome = holder.outcome(decision, holder.spend(45))
    holder.fold(decision, outcome, decision, outcome)
    assert world.stands() == (45, 0, 0)


def test_records_of_different_writers_are_told_apart(world: World) -> None:
    for name in ("w1", "w2"):
        granted(world.holder(name).cost(10))
        world.holder(name).spent(10, 10)
    assert world.stands() == (20, 0, 0)


def test_a_batch_and_its_records_one_by_one_come_to_the_same(open_store: OpenStore) -> None:
    def live(world: World, *, at_once: bool) -> tuple[int, int, int]:
        holder = world.holder()
        granted(holder.cost(90))
        first = holder.decision(holder.spend(30))
        second = holder.decision(holder.spend(25))
        entries = [first, second, holder.outcome(first, holder.spend(10)), holder.decision(holder.spend(5))]
        for batch in [entries] if at_once else [[entry] for entry in entries]:
            holder.fold(*batch)
        return world.stands()

    world = World(open_store(), budget(cost=100))
    assert live(world, at_once=True) == (10, 30, 30)
    world.known = {BUDGET: budget(cost=100, window=TOTAL)}
    world.holders.clear()
    world.ledger.disown(Disown(born="none"), "w1", world.now)
    holder = world.holder()
    holder.seq = 100
    assert live(world, at_once=False) == (10, 30, 30)


# Settling


def test_what_was_not_used_is_free_again(world: World) -> None:
    granted(world.holder().cost(100))
    decision = world.holder().spent(100)
    short(world.holder("w2").cost(1))
    world.holder().fold(world.holder().outcome(decision, world.holder().spend(70)))
    assert world.stands() == (70, 0, 0)
    granted(world.holder("w2").cost(30))


def test_of_what_an_outcome_does_not_speak_the_estimate_stands(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100, records=10))
    holder = world.holder()
    spend = Spend(budget=BUDGET, window="day-2027-01-15T00:00+00:00", amounts={COST: 20, "records": 5})
    for seen in ((), (Spend(budget=BUDGET, window=spend.window, amounts={"records": 1}),)):
        granted(holder.ask(Need(budget=BUDGET, amounts=spend.amounts)))
        decision = holder.decision(spend)
        holder.fold(decision)
        holder.fold(holder.outcome(decision, *seen))
    assert world.stands(COST) == (40, 0, 0)
    assert world.stands("records") == (6, 0, 0)


def test_more_than_was_reserved_is_booked_and_flagged(world: World) -> None:
    granted(world.holder().cost(60))
    decision = world.holder().spent(60, 110)
    assert world.stands() == (110, 0, 0)
    assert world.pot().overshoot == {COST: 50}
    (news,) = world.told("Overshoot")
    assert (news.amounts, news.agent, news.decision_id) == ({COST: 50}, "reports/a", decision.decision_id)
    assert "110 costMicroUsd is used or reserved, more than the 100" in short(world.holder().cost(1)).reason


def test_what_was_spent_without_a_lease_is_booked_and_flagged(world: World) -> None:
    granted(world.holder().cost(20))
    world.holder().spent(50)
    assert world.stands() == (0, 50, 0)
    assert world.pot().overshoot == {COST: 30}
    (news,) = world.told("Overshoot")
    assert news.amounts == {COST: 30}


def test_an_outcome_of_which_nothing_was_reserved_is_booked_and_flagged(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(50))
    lost = holder.decision(holder.spend(30))
    holder.fold(holder.outcome(lost, holder.spend(20)))
    assert world.stands() == (20, 0, 50)
    assert world.pot().overshoot == {COST: 20}


def test_no_outcome_settles_at_the_estimate(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100, settle_after_seconds=600))
    granted(world.holder().cost(50))
    decision = world.holder().spent(40)
    world.sweep(599)
    assert world.stands() == (0, 40, 10)
    world.sweep(2)
    assert world.stands() == (40, 0, 10)
    (news,) = world.told("SettledAtEstimate")
    assert (news.amounts, news.decision_id, news.agent) == ({COST: 40}, decision.decision_id, "reports/a")
    world.sweep(10)
    assert not world.told("SettledAtEstimate")


@pytest.mark.parametrize(("actual", "settled", "beyond"), [(10, 10, {}), (40, 40, {}), (55, 55, {COST: 15})])
def test_a_late_outcome_corrects_the_estimate(
    open_store: OpenStore, actual: int, settled: int, beyond: dict[str, int]
) -> None:
    world = World(open_store(), budget(cost=100, window=TOTAL))
    holder = world.holder()
    granted(holder.cost(40))
    decision = holder.spent(40)
    world.sweep(3700)
    outcome = holder.outcome(decision, holder.spend(actual))
    holder.fold(outcome)
    holder.fold(outcome)
    assert world.stands() == (settled, 0, 0)
    assert world.pot().overshoot == beyond
    world.sweep(90_000)
    assert world.stands() == (settled, 0, 0)


def test_a_window_that_ended_still_takes_its_records(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(50))
    spend = holder.spend(50)
    world.now += 86_400
    granted(holder.cost(100))
    decision = holder.decision(spend)
    holder.fold(decision, holder.outcome(decision, spend))
    assert world.stands() == (0, 0, 100)
    world.now -= 86_400
    assert world.stands() == (50, 0, 0)
    world.now += 86_400
    world.sweep(86_400)
    assert len(world.pots()) == 1, "a window that ended a day ago is forgotten"


def test_records_of_a_budget_that_is_gone_are_kept(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(50))
    spend = holder.spend(50)
    terms, world.known = world.known, {}
    decision = holder.decision(spend)
    holder.fold(decision)
    world.known = terms
    assert world.stands() == (0, 50, 0)
