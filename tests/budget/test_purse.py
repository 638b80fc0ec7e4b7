"""A purse never hands out more than it was granted, nor after it expired, and what it tells only grows."""

from collections import defaultdict

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from fleetward.budget.calls import Grant, Holding, Lease, Need, PotRef, Release, Wish
from fleetward.budget.purse import AHEAD_SECONDS, EXPIRING_SECONDS, FORGET_SECONDS, GROWTH, IDLE_SECONDS, Purse
from fleetward.decision.action import Spend
from fleetward.registry.text import MAX_COUNT
from fleetward.stream import messages

DAY = "ClusterAgentBudget/day"
RATE = "AgentPolicy/reports/p#slow"
AGENT = "reports/data-worker"
COST = "costMicroUsd"


def need(amount: int, *, budget: str = DAY, limit: str = COST, scope: str = "") -> Need:
    return Need(budget=budget, scope=scope, amounts={limit: amount})


def wish(*needs: Need) -> Wish:
    return Wish(agent=AGENT, needs=needs)


def lease(amount: int, *, budget: str = DAY, limit: str = COST, window: str = "w1", seconds: float = 5.0) -> Lease:
    return Lease(grants=(Grant(budget=budget, window=window, amounts={limit: amount}, seconds=seconds),))


def holding(purse: Purse, now: float = 0.0, budget: str = DAY) -> Holding:
    found: Holding = purse.question([wish(need(1, budget=budget))], now).holdings[0]
    return found


def test_takes_from_every_pot_or_from_none() -> None:
    purse = Purse("b1")
    purse.granted(lease(10), 0.0)
    assert purse.take([need(4), need(1, scope="run-1")], 1.0) is None
    taken = purse.take([need(10)], 1.0)
    assert taken == (Spend(budget=DAY, window="w1", born="b1", amounts={COST: 10}),)
    assert purse.take([need(1)], 1.0) is None
    purse.put_back(taken)
    assert purse.take([need(4), need(6)], 1.0) is not None
    assert purse.take([need(1)], 1.0) is None


def test_two_needs_of_one_pot_are_added() -> None:
    purse = Purse("b1")
    purse.granted(lease(10), 0.0)
    assert purse.take([need(6), need(6)], 0.0) is None
    assert purse.take([need(10)], 0.0) is not None


def test_nothing_is_spent_after_the_lease_ends_and_all_of_it_is_given_back() -> None:
    purse = Purse("b1")
    purse.granted(lease(10, seconds=2.0), 100.0)
    assert purse.take([need(3)], 101.999) is not None
    assert purse.take([need(3)], 102.0) is None
    assert holding(purse, 102.0) == Holding(budget=DAY, window="w1", got={COST: 10}, returned={COST: 7})


def test_a_lease_that_came_late_counts_from_when_it_was_asked_for() -> None:
    purse = Purse("b1")
    purse.granted(lease(10, seconds=2.0), 100.0)
    assert purse.take([need(1)], 103.0) is None


def test_what_is_left_of_an_ended_lease_is_not_revived_by_the_next() -> None:
    purse = Purse("b1")
    purse.granted(lease(10, seconds=2.0), 100.0)
    purse.granted(lease(5, seconds=2.0), 102.0)
    assert purse.take([need(6)], 102.5) is None
    assert purse.take([need(5)], 102.5) is not None


def test_a_question_gives_back_what_is_left_and_asks_for_all_that_is_needed() -> None:
    purse = Purse("b1")
    purse.granted(lease(10), 0.0)
    assert purse.take([need(4)], 0.5) is not None
    asked = purse.question([wish(need(7)), wish(need(8))], 1.0)
    assert asked.born == "b1"
    assert asked.holdings == (Holding(budget=DAY, window="w1", got={COST: 10}, returned={COST: 6}),)
    assert [each.needs[0].amounts for each in asked.wishes] == [{COST: 7}, {COST: 8}]
    assert asked.wishes[0].needs[0].wanted == {COST: 7 + 4}
    assert asked.wishes[1].needs[0].wanted == {}


def test_what_is_wanted_follows_recent_use() -> None:
    purse = Purse("b1")
    purse.granted(lease(1000, seconds=100.0), 0.0)
    purse.question([wish(need(1))], 0.0)
    purse.granted(lease(1000, seconds=100.0), 0.0)
    for _ in range(100):
        assert purse.take([need(1)], 1.0) is not None
    wanted = purse.question([wish(need(1))], 10.0).wishes[0].needs[0].wanted
    assert wanted == {COST: 1 + int(100 / 10 * AHEAD_SECONDS)}
    assert purse.question([wish(need(1))], 20.0).wishes[0].needs[0].wanted == {}
    assert GROWTH > 1


def test_tokens_are_wanted_as_they_are_used() -> None:
    purse = Purse("b1")
    token = need(1, budget=RATE, limit="actions")
    for moment in range(3):
        purse.granted(lease(5, budget=RATE, limit="actions", window="total", seconds=1.0), float(moment))
        for _ in range(4):
            assert purse.take([token], moment + 0.5) is not None
        wanted = purse.question([wish(token)], moment + 1.0).wishes[0].needs[0].wanted
    assert wanted == {"actions": 1 + 4}


def test_whatever_an_agent_expects_the_hub_understands_the_question() -> None:
    purse = Purse("b1")
    for moment in range(4):
        purse.granted(lease(MAX_COUNT, seconds=100.0), float(moment))
        assert purse.take([need(MAX_COUNT)], moment + 0.001) is not None
        asked = purse.question([wish(need(MAX_COUNT))], moment + 0.002)
        read = messages.decode_to_hub(messages.encode(messages.Question(number=1, request=asked)))
        assert read == messages.Question(number=1, request=asked)
        assert asked.holdings[0].got == {COST: (moment + 1) * MAX_COUNT}


def test_idle_and_expiring_leases_are_released_until_the_hub_knows() -> None:
    purse = Purse("b1")
    purse.granted(lease(10, seconds=5.0), 0.0)
    assert purse.release(IDLE_SECONDS - 0.1) is None
    release = purse.release(IDLE_SECONDS)
    assert release is not None
    assert release.holdings == (Holding(budget=DAY, window="w1", got={COST: 10}, returned={COST: 10}),)
    assert purse.release(IDLE_SECONDS) == release
    purse.heard(release.holdings)
    assert purse.release(IDLE_SECONDS) is None
    assert purse.take([need(1)], IDLE_SECONDS) is None

    purse.granted(lease(10, seconds=5.0), 10.0)
    assert purse.take([need(1)], 15.0 - EXPIRING_SECONDS - 0.1) is not None
    assert purse.release(15.0 - EXPIRING_SECONDS - 0.1) is None
    assert purse.release(15.0 - EXPIRING_SECONDS) is not None


def test_only_the_pots_recalled_are_released() -> None:
    purse = Purse("b1")
    purse.granted(lease(10), 0.0)
    purse.granted(lease(10, budget="ClusterAgentBudget/other"), 0.0)
    release = purse.release(0.1, pots=[PotRef(budget=DAY)])
    assert release is not None
    assert [each.budget for each in release.holdings] == [DAY]
    assert purse.take([need(1, budget="ClusterAgentBudget/other")], 0.1) is not None
    everything = purse.release(0.1, everything=True)
    assert everything is not None
    assert len(everything.holdings) == 2


def test_tokens_of_a_rate_are_neither_settled_nor_given_back() -> None:
    purse = Purse("b1")
    purse.granted(lease(3, budget=RATE, limit="actions", window="total", seconds=1.0), 0.0)
    assert purse.take([need(1, budget=RATE, limit="actions")], 0.5) == ()
    assert holding(purse, 0.6, RATE) == Holding(budget=RATE, window="total", got={}, returned={})
    assert purse.take([need(2, budget=RATE, limit="actions")], 0.7) is not None
    assert purse.take([need(1, budget=RATE, limit="actions")], 0.7) is None
    assert purse.release(5.0, everything=True) is None


def test_a_token_is_not_lost_where_another_pot_lacks() -> None:
    purse = Purse("b1")
    purse.granted(lease(2, budget=RATE, limit="actions", window="total", seconds=1.0), 0.0)
    both = [need(1, budget=RATE, limit="actions"), need(1)]
    assert purse.take(both, 0.1) is None
    purse.question([wish(*both)], 0.1)
    purse.granted(lease(1), 0.1)
    assert purse.take(both, 0.2) is not None
    assert purse.take([need(1, budget=RATE, limit="actions")], 0.9) is not None
    assert purse.take([need(1, budget=RATE, limit="actions")], 0.9) is None


def test_a_new_window_takes_the_place_of_the_old_one() -> None:
    purse = Purse("b1")
    purse.granted(lease(10, window="w1"), 0.0)
    old = purse.take([need(2)], 1.0)
    assert old is not None
    purse.granted(lease(10, window="w2"), 1.0)
    taken = purse.take([need(9)], 2.0)
    assert taken is not None
    assert taken[0].window == "w2"
    purse.put_back(old)  # of the old window; it must not become room in the new one
    assert purse.take([need(2)], 2.0) is None
    release = purse.release(2.0, everything=True)
    assert release is not None
    assert {each.window: each.returned for each in release.holdings} == {"w1": {COST: 10}, "w2": {COST: 1}}


def test_a_pot_is_forgotten_only_when_the_hub_has_all_of_it_back() -> None:
    purse = Purse("b1")
    purse.granted(lease(10), 0.0)
    assert purse.take([need(4)], 1.0) is not None
    later = 1.0 + FORGET_SECONDS
    purse.forget(later)
    release = purse.release(later)
    assert release is not None
    purse.forget(later)
    assert purse.release(later) == release
    purse.heard(release.holdings)
    purse.forget(later - 1)
    assert len(purse.question([wish(need(1))], 0.0).holdings) == 1
    purse.forget(later)
    assert purse.question([wish(need(1))], later).holdings == ()


class Purses(RuleBasedStateMachine):
    """Against an account of what was granted, spent and put back."""

    taken = Bundle("taken")
    releases = Bundle("releases")

    def __init__(self) -> None:
        super().__init__()
        self.purse = Purse("b1")
        self.now = 0.0
        self.window = dict.fromkeys(("a", "b"), 0)
        self.got: dict[tuple[str, str], int] = defaultdict(int)
        self.spent: dict[tuple[str, str], int] = defaultdict(int)
        self.until: dict[tuple[str, str], float] = defaultdict(float)
        self.returned: dict[tuple[str, str], int] = defaultdict(int)

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(budget=st.sampled_from("ab"))
    def next_window(self, budget: str) -> None:
        self.window[budget] += 1

    @rule(budget=st.sampled_from("ab"), amount=st.integers(0, 20), seconds=st.floats(0, 5), late=st.floats(0, 6))
    def granted(self, budget: str, amount: int, seconds: float, late: float) -> None:
        asked_at = self.now
        self.now += late
        window = str(self.window[budget])
        self.purse.granted(lease(amount, budget=budget, window=window, seconds=seconds), asked_at)
        self.got[budget, window] += amount
        self.until[budget, window] = asked_at + seconds

    @rule(target=taken, amounts=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), min_size=1, max_size=3))
    def take(self, amounts: list[tuple[str, int]]) -> object:
        spends = self.purse.take([need(amount, budget=budget) for budget, amount in amounts], self.now)
        if spends is None:
            return multiple()
        assert [(spend.budget, spend.amounts[COST]) for spend in spends] == amounts
        for spend in spends:
            assert self.now < self.until[spend.budget, spend.window]
            self.spent[spend.budget, spend.window] += spend.amounts[COST]
        return spends

    @rule(spends=consumes(taken))
    def put_back(self, spends: tuple[Spend, ...]) -> None:
        self.purse.put_back(spends)
        for spend in spends:
            self.spent[spend.budget, spend.window] -= spend.amounts[COST]

    @rule(budgets=st.lists(st.sampled_from("ab"), min_size=1, max_size=3))
    def ask(self, budgets: list[str]) -> None:
        reserve = self.purse.question([wish(need(1, budget=budget)) for budget in budgets], self.now)
        self.check(reserve.holdings)

    @rule(target=releases, everything=st.booleans(), pots=st.none() | st.lists(st.sampled_from("ab")))
    def release(self, *, everything: bool, pots: list[str] | None) -> object:
        named = None if pots is None else [PotRef(budget=budget) for budget in pots]
        release = self.purse.release(self.now, everything=everything, pots=named)
        if release is None:
            return multiple()
        self.check(release.holdings)
        return release

    @rule(release=consumes(releases))
    def released(self, release: Release) -> None:
        self.purse.heard(release.holdings)

    def check(self, holdings: tuple[Holding, ...]) -> None:
        for told in holdings:
            pot = (told.budget, told.window)
            assert told.got.get(COST, 0) == self.got[pot]
            returned = told.returned.get(COST, 0)
            assert self.returned[pot] <= returned <= self.got[pot] - self.spent[pot]
            self.returned[pot] = returned

    @invariant()
    def never_more_than_granted(self) -> None:
        for pot, spent in self.spent.items():
            assert spent + self.returned[pot] <= self.got[pot]


TestPurses = Purses.TestCase
