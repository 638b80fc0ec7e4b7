"""What the ledger promises of nonsense, batches, news and sweeps; every test runs on both stores."""

from collections.abc import Callable

import pytest
from budget.pots import BUDGET, COST, DAY, TOTAL, World, budget, granted, need, short

from fleetward.budget.calls import Need, Reserve, Wish
from fleetward.budget.ledger import Entry, Ledger
from fleetward.budget.sql import LedgerStore
from fleetward.budget.store import LedgerError
from fleetward.decision.action import Spend
from fleetward.registry.slice import BudgetWindow

OpenStore = Callable[..., LedgerStore]


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
