"""Thresholds, rates and limits on concurrency, on both stores."""

from collections.abc import Callable

import pytest
from budget.pots import (
    BUDGET,
    COST,
    RULE,
    TOTAL,
    World,
    budget,
    concurrency,
    granted,
    need,
    rate,
    ref,
    short,
    threshold,
)

from fleetward.budget.calls import Lease, Need, Short
from fleetward.budget.sql import LedgerStore
from fleetward.budget.terms import Terms
from fleetward.decision.action import Spend
from fleetward.registry.slice import BudgetWindow, Rate

OpenStore = Callable[..., LedgerStore]
MakeWorld = Callable[..., World]


@pytest.fixture
def make(open_store: OpenStore) -> MakeWorld:
    return lambda *terms: World(open_store(), *terms)


# Thresholds


def test_an_event_is_told_once_a_window(make: MakeWorld) -> None:
    world = make(budget(cost=100, thresholds=(threshold(80, "Event"),)))
    holder = world.holder()
    granted(holder.cost(100))
    holder.spent(79)
    assert not world.told("Threshold")
    decision = holder.spent(1)
    (news,) = world.told("Threshold")
    assert (news.percent, news.limit, news.amounts) == (80, COST, {COST: 80})
    holder.fold(holder.outcome(decision, holder.spend(0)))
    holder.spent(5, 5)
    assert not world.told("Threshold")
    world.now += 86_400
    granted(holder.cost(90))
    holder.spent(90)
    assert len(world.told("Threshold")) == 1


def test_slowed_down_from_a_threshold_on(make: MakeWorld) -> None:
    world = make(budget(cost=100, thresholds=(threshold(50, "Throttle", per_minute=6),)))
    holder = world.holder()
    assert granted(holder.cost(50, wanted=100)) == 50
    assert granted(holder.cost(1, wanted=40)) == 1, "beyond it, no more than is needed"
    refused = short(holder.cost(1), "Throttle")
    assert refused.retry_after_seconds == 10
    world.now += 9
    assert short(holder.cost(1), "Throttle").retry_after_seconds == 1
    world.now += 1
    granted(holder.cost(1))
    world.now += 600
    granted(holder.cost(48))
    world.now += 600
    assert "no room" in short(holder.cost(1)).reason


def test_no_lease_goes_past_a_threshold_that_acts(make: MakeWorld) -> None:
    for action in ("Throttle", "RequireApproval", "Pause"):
        name = f"AgentBudget/reports/{action.lower()}"
        world = make(budget(name, cost=1000, thresholds=(threshold(10, action),)))
        taken = 0
        while isinstance(answer := world.holder().ask(need(1, budget=name, wanted=500)), Lease) and taken < 100:
            taken += granted(answer)
        assert taken == 100, action
    world = make(budget(cost=1000, thresholds=(threshold(10, "Event"),)))
    assert granted(world.holder().cost(1, wanted=500)) == 500


def test_approval_from_a_threshold_on(make: MakeWorld) -> None:
    world = make(budget(cost=100, thresholds=(threshold(90, "RequireApproval"),)))
    granted(world.holder().cost(90))
    short(world.holder().cost(1), "RequireApproval")
    assert "no room" in short(world.holder().cost(11)).reason


def test_what_happens_at_the_limit_itself(make: MakeWorld) -> None:
    world = make(budget(cost=100, thresholds=(threshold(100, "RequireApproval"),)))
    granted(world.holder().cost(100))
    short(world.holder().cost(1), "RequireApproval")
    world.known[BUDGET] = budget(cost=100, thresholds=(threshold(100, "Throttle"),))
    assert short(world.holder().cost(1), "Throttle").retry_after_seconds == 3600


def test_the_hardest_threshold_counts(make: MakeWorld) -> None:
    several = (threshold(50, "RequireApproval"), threshold(80, "Throttle"), threshold(90, "Pause"))
    world = make(budget(cost=100, thresholds=several))
    granted(world.holder().cost(50))
    short(world.holder("w2").cost(35), "RequireApproval")
    short(world.holder("w2").cost(45), "Deny")
    assert world.ledger.paused(world.now) == ()


def test_a_pot_is_paused_for_the_rest_of_its_window(make: MakeWorld) -> None:
    world = make(budget(cost=100, thresholds=(threshold(100, "Pause"),)))
    holder = world.holder()
    granted(holder.cost(100))
    decision = holder.spent(100)
    short(world.holder("w2").cost(1))
    (pause,) = world.ledger.paused(world.now)
    assert (pause.budget, pause.percent, pause.until) == (BUDGET, 100, world.now + 43_200)
    holder.fold(holder.outcome(decision, holder.spend(10)))
    assert "is paused" in short(holder.cost(1)).reason
    world.sweep()
    assert world.ledger.paused(world.now)
    assert [one.event for one in world.ledger.news(world.now)] == ["Paused"]
    world.sweep(43_200)
    assert world.ledger.paused(world.now) == ()
    assert len(world.told("Resumed")) == 1
    granted(holder.cost(100))


def test_leases_alone_pause_nothing(make: MakeWorld) -> None:
    """They may come back: the hub recalls them, and asks again."""
    world = make(budget(cost=100, thresholds=(threshold(100, "Pause"),)))
    granted(world.holder("w1").cost(60))
    short(world.holder("w2").cost(60))
    assert world.ledger.paused(world.now) == ()
    assert world.ledger.lessees([ref()], but="w2") == {"w1": (ref(),)}
    world.holder("w1").give_back({COST: 60})
    granted(world.holder("w2").cost(60))


def test_an_action_that_never_fits_pauses_nobody(make: MakeWorld) -> None:
    world = make(budget(cost=100, thresholds=(threshold(90, "Pause"),)))
    short(world.holder().cost(91))
    assert world.ledger.paused(world.now) == ()
    granted(world.holder().cost(90))


def test_use_beyond_a_threshold_pauses(make: MakeWorld) -> None:
    world = make(budget(cost=100, thresholds=(threshold(90, "Pause"),)))
    granted(world.holder().cost(90))
    world.holder().spent(90, 90)
    assert world.ledger.paused(world.now) == ()
    world.holder().spent(0, 1)
    assert world.ledger.paused(world.now)[0].percent == 90
    assert "91 of 100" in world.told("Paused")[0].reason


@pytest.mark.parametrize(
    "terms",
    [
        budget(cost=200, thresholds=(threshold(100, "Pause"),)),
        budget(cost=100, thresholds=(threshold(100, "Event"),)),
        budget(records=5, thresholds=(threshold(100, "Pause"),)),
    ],
)
def test_a_change_ends_a_pause_that_no_longer_would_be(make: MakeWorld, terms: Terms) -> None:
    world = make(budget(cost=100, thresholds=(threshold(100, "Pause"),)))
    granted(world.holder().cost(100))
    world.holder().spent(100, 100)
    short(world.holder().cost(1))
    world.known[BUDGET] = budget(cost=100, thresholds=(threshold(99, "Pause"),))
    world.sweep(1)
    assert world.ledger.paused(world.now)
    world.known[BUDGET] = terms
    world.sweep(1)
    assert world.ledger.paused(world.now) == ()


def test_a_rolling_window_has_room_again(make: MakeWorld) -> None:
    hour = BudgetWindow(kind="Rolling", duration_seconds=3600)
    world = make(budget(cost=100, window=hour, thresholds=(threshold(50, "Event"), threshold(100, "Pause"))))
    for _ in range(2):
        granted(world.holder().cost(100))
        world.holder().spent(100, 100)
        short(world.holder().cost(1))
        assert world.ledger.paused(world.now)[0].until is None
        world.sweep(3700)
        assert world.ledger.paused(world.now) == ()
    assert len(world.told("Threshold")) == 2


# Rates


def test_a_rate(make: MakeWorld) -> None:
    world = make(rate(6, 60, 3))
    holder = world.holder()
    act = need(1, limit="actions", budget=RULE)
    for _ in range(3):
        answer = holder.ask(act)
        assert granted(answer, "actions") == 1
        assert isinstance(answer, Lease)
        assert answer.grants[0].seconds == 1
    assert short(holder.ask(act), "Throttle").retry_after_seconds == 10
    world.now += 10
    granted(holder.ask(act), "actions")
    short(holder.ask(act), "Throttle")
    world.now += 1000
    for _ in range(3):
        granted(holder.ask(act), "actions")
    short(holder.ask(act), "Throttle")


def test_tokens_are_gone_when_granted(make: MakeWorld) -> None:
    world = make(rate(10, 60, 10))
    answer = world.holder().ask(need(1, limit="actions", budget=RULE, wanted=8), lost=True)
    assert granted(answer, "actions") == 5, "half of what is there, as others may ask"
    for _ in range(5):
        granted(world.holder("w2").ask(need(1, limit="actions", budget=RULE)), "actions")
    short(world.holder("w2").ask(need(1, limit="actions", budget=RULE)), "Throttle")
    assert world.ledger.lessees([ref(RULE)], but="") == {}


def test_a_clock_that_goes_back_adds_no_tokens(make: MakeWorld) -> None:
    world = make(rate(1, 1, 2))
    act = need(1, limit="actions", budget=RULE)
    granted(world.holder().ask(act), "actions")
    granted(world.holder().ask(act), "actions")
    world.now -= 3600
    short(world.holder().ask(act), "Throttle")
    world.now += 3600
    short(world.holder().ask(act), "Throttle")
    world.now += 1
    granted(world.holder().ask(act), "actions")


@pytest.mark.parametrize("odd", [Rate(0, 60, 0), Rate(1, 0, 0), Rate(-1, 60, -5)])
def test_an_odd_rate_lets_nothing_through(make: MakeWorld, odd: Rate) -> None:
    world = make(Terms(budget=RULE, limits={}, rate=odd))
    short(world.holder().ask(need(1, limit="actions", budget=RULE)))


def test_a_lowered_burst_counts_at_once(make: MakeWorld) -> None:
    world = make(rate(10, 60, 10))
    act = need(1, limit="actions", budget=RULE)
    granted(world.holder().ask(act), "actions")
    world.known[RULE] = rate(1, 60, 1)
    granted(world.holder().ask(act), "actions")
    short(world.holder().ask(act), "Throttle")


# Concurrency


def test_so_many_at_once(make: MakeWorld) -> None:
    world = make(concurrency(2))
    holder = world.holder()
    for _ in range(2):
        assert granted(slot(world), "concurrency") == 1
    refused = short(slot(world), "Throttle")
    assert refused.retry_after_seconds == 1
    assert "2 of 2 actions are under way" in refused.reason
    first = holder.decision(holder.spend(1, "concurrency", RULE))
    holder.fold(first)
    short(slot(world), "Throttle")
    holder.fold(holder.outcome(first, Spend(budget=RULE, window="total", amounts={"concurrency": 1})))
    assert world.stands("concurrency", RULE) == (0, 0, 1)
    granted(slot(world), "concurrency")
    short(slot(world), "Throttle")


def test_an_outcome_that_says_nothing_of_it_frees_the_slot(make: MakeWorld) -> None:
    world = make(concurrency(1))
    holder = world.holder()
    granted(slot(world), "concurrency")
    first = holder.decision(holder.spend(1, "concurrency", RULE))
    holder.fold(first)
    holder.fold(holder.outcome(first))
    assert world.stands("concurrency", RULE) == (0, 0, 0)


def test_a_slot_is_free_after_its_deadline(make: MakeWorld) -> None:
    world = make(concurrency(1))
    holder = world.holder()
    granted(slot(world), "concurrency")
    holder.fold(holder.decision(holder.spend(1, "concurrency", RULE)))
    world.sweep(3601)
    assert world.stands("concurrency", RULE) == (0, 0, 0)
    granted(slot(world), "concurrency")


def test_a_slot_for_one_action_at_a_time(make: MakeWorld) -> None:
    world = make(concurrency(5))
    short(world.holder().ask(need(2, limit="concurrency", budget=RULE)))
    short(world.holder().ask(need(0, limit="concurrency", budget=RULE)))
    answer = world.holder().ask(need(1, limit="concurrency", budget=RULE, wanted=4))
    assert granted(answer, "concurrency") == 1


def test_agents_take_turns(make: MakeWorld) -> None:
    """One that asks a thousand times gets no more turns than others."""
    world = make(concurrency(1))
    granted(slot(world, "reports/first"), "concurrency")
    asking = ["reports/busy"] * 20 + ["reports/b", "reports/c"] * 2
    for agent in asking:
        short(slot(world, agent), "Throttle")
    served = []
    for _ in range(6):
        world.holder().give_back({"concurrency": 1}, RULE)
        world.now += 1
        for agent in asking:
            answer = slot(world, agent)
            if isinstance(answer, Lease):
                served.append(agent)
    assert served == ["reports/busy", "reports/b", "reports/c"] * 2


def test_who_does_not_come_back_loses_the_place(make: MakeWorld) -> None:
    world = make(concurrency(1))
    granted(slot(world, "reports/first"), "concurrency")
    short(slot(world, "reports/gone"), "Throttle")
    short(slot(world, "reports/b"), "Throttle")
    world.holder().give_back({"concurrency": 1}, RULE)
    waits = short(slot(world, "reports/b"), "Throttle")
    assert "1 other agent waits before this one" in waits.reason
    world.now += 4
    granted(slot(world, "reports/b"), "concurrency")


def test_no_turn_is_used_up_for_want_of_something_else(make: MakeWorld) -> None:
    world = make(concurrency(1), budget(cost=10, window=TOTAL))
    both = (need(1, limit="concurrency", budget=RULE), need(11))
    short(world.holder().ask(*both, agent="reports/a"))
    assert world.ledger.lessees([ref(RULE)], but="") == {}
    granted(slot(world, "reports/b"), "concurrency")


def test_rate_and_concurrency_of_one_rule(make: MakeWorld) -> None:
    world = make(Terms(budget=RULE, limits={"concurrency": 2}, rate=Rate(1, 10, 1)))
    both = Need(budget=RULE, amounts={"actions": 1, "concurrency": 1})
    assert isinstance(world.holder().ask(both), Lease)
    refused = short(world.holder().ask(both), "Throttle")
    assert refused.retry_after_seconds == 10
    assert world.stands("concurrency", RULE) == (0, 0, 1)
    world.now += 10
    assert isinstance(world.holder().ask(both), Lease)
    world.now += 10
    assert short(world.holder().ask(both), "Throttle").shortfall.limit == "concurrency"


def slot(world: World, agent: str = "reports/a") -> Lease | Short:
    return world.holder().ask(need(1, limit="concurrency", budget=RULE), agent=agent)
