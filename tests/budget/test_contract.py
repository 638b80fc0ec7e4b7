"""What the ledger promises of leases, records and time; every test runs on both stores."""

from collections.abc import Callable

import msgspec
import pytest
from budget.pots import BUDGET, COST, DAY, NOON, TOTAL, World, budget, granted, need, ref, short

from fleetward.budget.calls import Disown, Lease, Need, Reserve, Wish
from fleetward.budget.ledger import Entry, Ledger
from fleetward.budget.sql import LedgerStore
from fleetward.budget.store import LedgerError
from fleetward.decision.action import Spend
from fleetward.registry.slice import BudgetWindow

OpenStore = Callable[..., LedgerStore]


@pytest.fixture
def world(open_store: OpenStore) -> World:
    return World(open_store(), budget(cost=100))


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


# What makes no sense


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Need(budget="AgentBudget/reports/none", amounts={COST: 1}), "AgentBudget reports/none is not known here"),
        (Need(budget=BUDGET, amounts={COST: -1}), "makes no sense"),
        (Need(budget=BUDGET, amounts={}), "makes no sense"),
        (Need(budget=BUDGET, amounts={COST: 2**60}), "makes no sense"),
        (Need(budget=BUDGET, scope="a\0b", amounts={COST: 1}), "makes no sense"),
        (Need(budget=BUDGET, scope="x" * 600, amounts={COST: 1}), "makes no sense"),
    ],
)
def test_what_makes_no_sense_is_denied(world: World, asked: Need, words: str) -> None:
    assert words in short(world.holder().ask(asked)).reason
    assert all(not pot.leased for pot in world.pots().values())


def test_two_needs_of_one_pot_are_one(world: World) -> None:
    short(world.holder().ask(need(60), need(60)))
    answer = world.holder().ask(need(40), need(60))
    assert granted(answer) == 100


def test_a_limit_that_the_budget_does_not_have_is_not_granted(world: World) -> None:
    """The webhook may know the budget as it was, or as it will be here in a moment."""
    refused = short(world.holder().ask(need(1, limit="records")), "Throttle")
    assert refused.retry_after_seconds == 1


def test_a_budget_with_a_problem_grants_nothing(open_store: OpenStore) -> None:
    world = World(open_store(), budget(cost=100, problem="its parent is missing"))
    assert "its parent is missing" in short(world.holder().cost(1)).reason


def test_a_window_that_cannot_be_worked_out_grants_nothing(open_store: OpenStore) -> None:
    nowhere = BudgetWindow(kind="Calendar", unit="Day", time_zone="Nowhere/City")
    world = World(open_store(), budget(cost=100, window=nowhere))
    assert "Nowhere/City" in short(world.holder().cost(1)).reason


def test_records_that_make_no_sense_are_kept_as_far_as_they_do(world: World) -> None:
    odd = Spend(budget="x\0y", scope="\0", window="", amounts={COST: 5, "records": -3})
    huge = Spend(budget=BUDGET, window=DAY.kind, amounts={COST: 2**53 - 1})
    holder = world.holder()
    for _ in range(3):
        decision = Entry(
            writer="w1", seq=holder.seq + 1, agent="a", decision_id="d", spends=(odd, huge), at=float("nan"), ends=True
        )
        holder.seq += 1
        holder.fold(decision)
    assert any(pot.settled == {COST: 15} for pot in world.pots().values())


# Transactions


def test_a_batch_that_fails_has_not_happened(world: World) -> None:
    def fails() -> None:
        with world.ledger.batch():
            granted(world.holder("w2").cost(50))
            world.holder().spent(10)
            raise RuntimeError

    granted(world.holder().cost(10))
    with pytest.raises(RuntimeError):
        fails()
    assert world.stands() == (0, 0, 10)
    granted(world.holder("w3").cost(90))


def test_a_failure_within_a_batch_cannot_be_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise LedgerError("no")

    def passes_over() -> None:
        with world.ledger.batch():
            granted(world.holder().cost(10))
            with monkeypatch.context() as patch:
                patch.setattr(world.store, "writers", no)
                with pytest.raises(LedgerError, match="no"):
                    world.holder().spent(10)

    with pytest.raises(LedgerError, match="a part of the batch failed"):
        passes_over()
    assert world.pots() == {}


def test_everything_outlives_the_ledger(world: World, open_store: OpenStore) -> None:
    granted(world.holder().cost(80))
    world.holder().spent(20, 10)
    world.holder().spent(30)
    world.store.close()
    world.store = open_store()
    world.ledger = Ledger(world.store)
    assert world.stands() == (10, 30, 30)
    short(world.holder("w2").cost(31))
    granted(world.holder("w2").cost(30))


def test_two_ledgers_see_what_the_other_did(world: World, open_store: OpenStore) -> None:
    other = World(open_store(), *world.known.values())
    granted(world.holder("w1").cost(40))
    granted(other.holder("w2").cost(40))
    short(world.holder("w1").cost(21))
    granted(world.holder("w1").cost(20))
    short(other.holder("w2").cost(1))
    world.holder("w1").spent(60, 10)
    granted(other.holder("w2").cost(50))


def test_news_are_given_until_they_are_told(world: World, open_store: OpenStore) -> None:
    granted(world.holder().cost(50))
    world.holder().spent(50, 60)
    first = world.ledger.news(world.now)
    assert [one.event for one in first] == ["Overshoot"]
    assert world.ledger.news(world.now) == first
    world.store.close()
    again = Ledger(open_store())
    assert again.news(world.now + 31) == first
    again.told(first)
    assert again.news(world.now + 100) == []


def test_a_question_about_nothing_known_leaves_no_trace(world: World) -> None:
    request = Reserve(born="b", wishes=())
    assert world.ledger.reserve(request, "w1", world.terms, world.now).answers == ()
    assert world.pots() == {}


def test_a_question_that_was_overtaken_gets_nothing_and_frees_nothing(world: World) -> None:
    first = Reserve(born="b", number=1, wishes=(Wish(agent="reports/a", needs=(need(10),)),))
    second = Reserve(born="b", number=2, wishes=(Wish(agent="reports/a", needs=(need(30),)),))
    world.ledger.reserve(second, "w1", world.terms, world.now)
    (late,) = world.ledger.reserve(first, "w1", world.terms, world.now).answers
    short(late, "Throttle")
    assert world.stands() == (0, 0, 30), "what the later one got may be in use"


def test_the_pots_of_runs_are_forgotten_once_no_run_can_last_so_long(open_store: OpenStore) -> None:
    world = World(open_store(), budget(window=TOTAL, cost=100))
    granted(world.holder().ask(need(10, scope="run-abc")))
    granted(world.holder().ask(need(10, scope="reports/a")))
    world.sweep(8 * 86_400)
    assert len(world.pots()) == 2
    world.sweep(86_401)
    assert [key.scope for key in world.pots()] == ["reports/a"]
