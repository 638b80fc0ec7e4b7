"""What the ledger promises of leases, of who holds them, and of limits and windows; every test runs on both stores."""

from collections.abc import Callable

import msgspec
import pytest
from budget.pots import BUDGET, COST, NOON, World, budget, granted, need, ref, short

from fleetward.budget.calls import Disown, Lease, Need, Wish
from fleetward.budget.sql import LedgerStore
from fleetward.registry.slice import BudgetWindow

OpenStore = Callable[..., LedgerStore]


# Leases


def test_the_last_unit_can_be_spent_and_no_more(world: World) -> None:
    one, other = world.holder("w1"), world.holder("w2")
    for _ in range(50):
        assert granted(one.cost(1)) == 1
        assert granted(other.cost(1)) == 1
    refused = short(one.cost(1))
    assert refused.shortfall.left == 0
    # What the one who asks had on lease is spent, or it would not ask.
    assert "50 is used or reserved and 50 on lease" in refused.reason
    assert "2027-01-16T00:00:00Z" in refused.reason
    assert refused.shortfall.resets_at == NOON + 43_200
    assert world.stands() == (0, 0, 100)


def test_exactly_what_is_left_fits(world: World) -> None:
    assert granted(world.holder().cost(100)) == 100
    short(world.holder("w2").cost(1))


def test_one_more_than_the_limit_does_not_fit(world: World) -> None:
    assert short(world.holder().cost(101)).shortfall.left == 100
    assert all(not pot.leased for pot in world.pots().values())
    assert granted(world.holder().cost(100)) == 100


def test_leases_shrink_towards_the_limit(world: World) -> None:
    holder = world.holder()
    sizes = []
    while isinstance(answer := holder.cost(1, wanted=40), Lease):
        sizes.append(granted(answer))
    assert sizes[0] == 40
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert sum(sizes) == 100


def test_a_lease_leaves_room_for_other_holders(world: World) -> None:
    assert granted(world.holder("w1").cost(1, wanted=100)) == 50
    assert granted(world.holder("w2").cost(1, wanted=100)) == 12  # a quarter of the 50 that are left


def test_all_pots_or_nothing(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100), budget("AgentBudget/reports/small", cost=5))
    answer = world.holder().ask(need(10), need(10, budget="AgentBudget/reports/small"))
    assert short(answer).shortfall.budget == "AgentBudget/reports/small"
    assert all(not pot.leased for pot in world.pots().values())
    granted(world.holder().ask(need(5), need(5, budget="AgentBudget/reports/small")))
    assert world.stands() == (0, 0, 5)


def test_all_limits_of_a_pot_or_nothing(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100, records=3))
    short(world.holder().ask(Need(budget=BUDGET, amounts={COST: 1, "records": 4})))
    assert all(not pot.leased for pot in world.pots().values())


def test_wishes_of_one_question_are_answered_one_by_one(world: World) -> None:
    wishes = [Wish(agent="reports/a", needs=(need(60, wanted=90),)) for _ in range(2)]
    first, second = world.holder().ask_all(*wishes)
    assert granted(first) == 60
    short(second)
    small = Wish(agent="reports/a", needs=(need(20),))
    assert [granted(answer) for answer in world.holder().ask_all(small, small)] == [20, 20]
    assert world.stands() == (0, 0, 100)


def test_each_scope_has_a_pot_of_its_own(world: World) -> None:
    for scope in ("", "reports/a", "run1/grant"):
        granted(world.holder().ask(need(100, scope=scope)))
        short(world.holder().ask(need(1, scope=scope)))


def test_a_lease_ends_with_its_window(world: World) -> None:
    world.now = NOON + 43_200 - 2
    answer = world.holder().cost(60)
    assert isinstance(answer, Lease)
    assert answer.grants[0].seconds == pytest.approx(2)
    world.now += 2
    answer = world.holder().cost(60)
    assert isinstance(answer, Lease)
    assert answer.grants[0].seconds == 5
    assert answer.grants[0].window == "day-2027-01-16T00:00+00:00"


# Holders that come and go


def test_a_restart_gives_back_what_was_not_spent(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(80))
    holder.spent(30)
    disown = holder.restart("born2")
    assert world.stands() == (0, 30, 0)
    granted(holder.cost(70))
    world.ledger.disown(disown, "w1", world.now, world.terms)
    assert world.stands() == (0, 30, 70)
    assert not world.told("Forfeited")
    holder.give_back({COST: 60})
    assert world.stands() == (0, 30, 10)


def test_what_a_lost_machine_held_counts_as_used(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(80))
    holder.spent(30)
    disown = holder.restart("born2", lost=True)
    world.ledger.disown(disown, "w1", world.now, world.terms)
    assert world.stands() == (50, 30, 0)
    (news,) = world.told("Forfeited")
    assert news.amounts == {COST: 50}


def test_another_holders_leases_are_its_own(world: World) -> None:
    granted(world.holder("w1").cost(30))
    granted(world.holder("w2").cost(30))
    world.holder("w2").restart("born2", lost=True)
    assert world.stands() == (30, 0, 30)


def test_a_holder_that_never_comes_back_keeps_its_lease(world: World) -> None:
    granted(world.holder("w1").cost(60))
    world.sweep(7000)
    short(world.holder("w2").cost(50))


def test_old_decisions_are_taken_off_the_old_lease(world: World) -> None:
    """A new process may hold a lease before the records of the old one have come."""
    holder = world.holder()
    granted(holder.cost(40))
    old = holder.decision(holder.spend(30))
    holder.born = "born2"
    holder.got.clear()
    granted(holder.cost(20))
    new = holder.decision(holder.spend(15))
    holder.fold(old)
    holder.fold(new)
    assert world.stands() == (0, 45, 15)
    world.ledger.disown(Disown(born="born2"), "w1", world.now)
    assert world.stands() == (0, 45, 5)
    assert not world.pot().overshoot


def test_a_lease_that_may_still_be_spent_is_not_another_ones(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(40))
    late = holder.decision(holder.spend(30))
    holder.restart("born2")
    granted(holder.cost(20))
    holder.fold(late)
    assert world.stands() == (0, 30, 20)
    assert world.pot().overshoot == {COST: 30}


def test_where_the_process_is_not_said_the_oldest_lease_is_spent_first(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(40))
    unsaid = msgspec.structs.replace(holder.spend(30), born="")
    holder.born = "born2"
    holder.got.clear()
    granted(holder.cost(20))
    holder.fold(holder.decision(unsaid))
    world.ledger.disown(Disown(born="born2"), "w1", world.now)
    assert world.stands() == (0, 30, 20)


def test_a_holder_that_says_nothing_of_a_pot_counts_from_0(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(40))
    holder.spent(30)
    holder.give_back({COST: 10})
    holder.got.clear()
    holder.returned.clear()
    granted(holder.cost(20))
    granted(holder.cost(20))
    assert world.stands() == (0, 30, 40)


def test_who_holds_what(world: World) -> None:
    granted(world.holder("w1").cost(20))
    granted(world.holder("w2").cost(20))
    granted(world.holder("w2").ask(need(20, scope="run1")))
    found = world.ledger.lessees([ref(), ref(scope="run1")], but="w1")
    assert found == {"w2": (ref(), ref(scope="run1"))}
    world.holder("w2").give_back({COST: 20})
    assert world.ledger.lessees([ref()], but="w1") == {}


# Limits that change


def test_a_limit_lowered_below_what_is_spent_stops_at_once(world: World) -> None:
    holder = world.holder()
    granted(holder.cost(70))
    holder.spent(60, 60)
    world.known[BUDGET] = budget(cost=50)
    refused = short(world.holder("w2").cost(1))
    assert "60 costMicroUsd is used or reserved, more than the 50 that AgentBudget reports/day now allows" in (
        refused.reason
    )
    assert refused.shortfall.left == 0
    assert world.ledger.crowded(world.terms, world.now) == (ref(),)
    holder.give_back({COST: 10})
    assert world.ledger.crowded(world.terms, world.now) == ()


def test_a_raised_limit_has_room(world: World) -> None:
    granted(world.holder().cost(100))
    short(world.holder().cost(1))
    world.known[BUDGET] = budget(cost=101)
    granted(world.holder().cost(1))
    short(world.holder().cost(1))


# Windows


def test_a_rolling_window_frees_what_is_past(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100, window=BudgetWindow(kind="Rolling", duration_seconds=3600)))
    holder = world.holder()
    granted(holder.cost(100))
    holder.spent(60, 60)
    world.now += 1800
    holder.spent(40, 40)
    short(holder.cost(1))
    world.now += 1700
    short(holder.cost(1))
    world.now += 161  # an hour, and the minute that the first slot lasted
    assert granted(holder.cost(60)) == 60
    short(holder.cost(1))
    world.now += 1800
    assert granted(holder.cost(40)) == 40
    short(holder.cost(1))


def test_a_lease_of_a_rolling_window_is_over_with_it(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100, window=BudgetWindow(kind="Rolling", duration_seconds=3600)))
    granted(world.holder("w1").cost(100))
    world.now += 3600
    short(world.holder("w2").cost(1))
    world.now += 130
    granted(world.holder("w2").cost(100))


def test_what_never_arrived_of_a_rolling_window_is_told_from_what_did(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100, window=BudgetWindow(kind="Rolling", duration_seconds=600)))
    holder = world.holder()
    granted(holder.cost(1))
    granted(holder.cost(10, lost=True))
    world.now += 1000
    granted(holder.cost(90))
    granted(holder.cost(5))
    assert world.stands() == (0, 0, 95)
    short(world.holder("w2").cost(6))


def test_the_late_record_of_a_rolling_window_is_not_taken_off_a_new_lease(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100, window=BudgetWindow(kind="Rolling", duration_seconds=600)))
    holder = world.holder()
    granted(holder.cost(30))
    late = holder.decision(holder.spend(20))
    world.now += 1000
    granted(holder.cost(40))
    holder.fold(late)
    assert world.stands() == (0, 20, 40)
    assert world.pot().overshoot == {COST: 20}
    holder.give_back({COST: 10})
    assert world.stands() == (0, 20, 40), "that was left of the old one"
    holder.give_back({COST: 40})
    assert world.stands() == (0, 20, 0)


def test_a_lease_that_nothing_is_left_of_counts_on_from_its_totals(open_store: OpenStore) -> None:
    """Also where its first grant in a long time is one that the action itself does not need."""
    world = World(open_store(), budget(window=BudgetWindow(kind="Rolling", duration_seconds=600), cost=5))
    holder = world.holder()
    granted(holder.cost(0, wanted=5))
    (got,) = holder.got.values()
    holder.give_back(dict(got))
    world.now += 3700
    granted(holder.cost(0, wanted=5))
    granted(holder.cost(0))
    (got,) = holder.got.values()
    (returned,) = holder.returned.values()
    assert world.stands()[2] == got[COST] - returned[COST] > 0
