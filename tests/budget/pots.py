"""What tests of the ledger speak in: a ledger, terms that can be changed, and holders that count as webhooks do."""

from dataclasses import dataclass, field
from typing import Any

from fleetward.budget.calls import Disown, Grant, Holding, Lease, Need, PotRef, Release, Reserve, Short, Wish
from fleetward.budget.ledger import Entry, Ledger
from fleetward.budget.pot import Pot, PotKey, decode_pot
from fleetward.budget.sql import LedgerStore
from fleetward.budget.terms import Terms
from fleetward.budget.windows import window_at
from fleetward.decision.action import Spend
from fleetward.registry.slice import BudgetWindow, Rate, Threshold

NOON = 1_800_014_400.0
"""2027-01-15 12:00 UTC."""
BUDGET = "AgentBudget/reports/day"
RULE = "AgentPolicy/reports/p#slow"
COST = "costMicroUsd"
DAY = BudgetWindow(kind="Calendar", unit="Day")
TOTAL = BudgetWindow()
Amounts = dict[str, int]


def threshold(percent: int, action: Any, per_minute: int = 1) -> Threshold:
    return Threshold(percent, action, per_minute)


def budget(name: str = BUDGET, *, window: BudgetWindow = DAY, **limits: Any) -> Terms:
    """Make terms; `cost=` is short for its limit, other keywords are fields of Terms."""
    fields = {key: limits.pop(key) for key in ("thresholds", "problem", "settle_after_seconds") if key in limits}
    named = {COST if name == "cost" else name: most for name, most in limits.items()}
    return Terms(budget=name, limits=named, window=window, **fields)


def rate(count: int, per_seconds: int, burst: int) -> Terms:
    return Terms(budget=RULE, limits={}, rate=Rate(count, per_seconds, burst))


def concurrency(most: int) -> Terms:
    return Terms(budget=RULE, limits={"concurrency": most})


class World:
    """A ledger on a store, and what holds."""

    def __init__(self, store: LedgerStore, *terms: Terms, now: float = NOON) -> None:
        self.store = store
        self.ledger = Ledger(store)
        self.known = {one.budget: one for one in terms}
        self.now = now
        self.holders: dict[str, Holder] = {}

    def terms(self, name: str) -> Terms | None:
        return self.known.get(name)

    def holder(self, name: str = "w1") -> "Holder":
        if name not in self.holders:
            self.holders[name] = Holder(self, name)
        return self.holders[name]

    def sweep(self, seconds: float = 0) -> None:
        self.now += seconds
        self.ledger.sweep(self.terms, self.now)

    def pots(self) -> dict[PotKey, Pot]:
        """Read all pots from the store, past what the ledger keeps in memory, and without a word to it."""
        if not self.store.begin():
            self.ledger._pages.forget()  # somebody else has written: the ledger would not be told again
        try:
            return {row.key: decode_pot(row.body) for row in self.store.all_pots()}
        finally:
            self.store.rollback()

    def pot(self, budget: str = BUDGET, scope: str = "") -> Pot:
        key = PotKey(budget, scope, window_at(self.known[budget].window, self.now).id)
        return self.pots()[key]

    def stands(self, limit: str = COST, budget: str = BUDGET, scope: str = "") -> tuple[int, int, int]:
        """Give what is settled, reserved and leased."""
        pot = self.pot(budget, scope)
        return pot.settled.get(limit, 0), pot.reserved.get(limit, 0), pot.leased.get(limit, 0)

    def told(self, event: str) -> list[Any]:
        """Take the news, and give those of an event."""
        news = self.ledger.news(self.now)
        self.ledger.told(news)
        return [one for one in news if one.event == event]


@dataclass
class Holder:
    """A webhook, as the ledger sees it."""

    world: World
    name: str
    born: str = "born1"
    seq: int = 0
    got: dict[PotKey, Amounts] = field(default_factory=dict)
    returned: dict[PotKey, Amounts] = field(default_factory=dict)

    def holdings(self) -> tuple[Holding, ...]:
        return tuple(
            Holding(
                budget=key.budget,
                scope=key.scope,
                window=key.window,
                got=dict(got),
                returned=dict(self.returned.get(key, {})),
            )
            for key, got in self.got.items()
        )

    def ask(self, *needs: Need, agent: str = "reports/a", lost: bool = False) -> Lease | Short:
        """Ask for one action; where the answer is lost, the holder does not know what it got."""
        (answer,) = self.ask_all(Wish(agent=agent, needs=needs), lost=lost)
        return answer

    def ask_all(self, *wishes: Wish, lost: bool = False) -> tuple[Lease | Short, ...]:
        request = Reserve(born=self.born, wishes=wishes, holdings=self.holdings())
        reply = self.world.ledger.reserve(request, self.name, self.world.terms, self.world.now)
        if not lost:
            for answer in reply.answers:
                if isinstance(answer, Lease):
                    self.take(answer)
        return reply.answers

    def take(self, lease: Lease) -> None:
        for grant in lease.grants:
            got = self.got.setdefault(key_of(grant), {})
            for limit, amount in grant.amounts.items():
                got[limit] = got.get(limit, 0) + amount

    def cost(self, amount: int, *, wanted: int = 0, agent: str = "reports/a", lost: bool = False) -> Lease | Short:
        return self.ask(need(amount, wanted=wanted), agent=agent, lost=lost)

    def give_back(self, amounts: Amounts, budget: str = BUDGET, scope: str = "") -> Release:
        """Give back, beside what was given back before; gives the message, to be said again."""
        key = PotKey(budget, scope, window_at(self.world.known[budget].window, self.world.now).id)
        returned = self.returned.setdefault(key, {})
        for limit, amount in amounts.items():
            returned[limit] = returned.get(limit, 0) + amount
        release = Release(born=self.born, holdings=self.holdings())
        self.world.ledger.release(release, self.name, self.world.now)
        return release

    def restart(self, born: str, *, lost: bool = False) -> Disown:
        self.born = born
        self.got.clear()
        self.returned.clear()
        disown = Disown(born=born, lost=lost)
        self.world.ledger.disown(disown, self.name, self.world.now, self.world.terms)
        return disown

    def decision(self, *spends: Spend, agent: str = "reports/a") -> Entry:
        self.seq += 1
        return Entry(
            writer=self.name,
            seq=self.seq,
            agent=agent,
            decision_id=f"{self.name}-{self.seq}",
            spends=spends,
            at=self.world.now,
            ends=False,
        )

    def outcome(self, of: Entry, *spends: Spend) -> Entry:
        self.seq += 1
        return Entry(
            writer=self.name,
            seq=self.seq,
            agent=of.agent,
            decision_id=of.decision_id,
            spends=spends,
            at=self.world.now,
            ends=True,
        )

    def fold(self, *entries: Entry) -> tuple[Entry, ...]:
        self.world.ledger.fold(entries, self.world.terms, self.world.now)
        return entries

    def spent(self, amount: int, actual: int | None = None, agent: str = "reports/a") -> Entry:
        """Fold a decision, and its outcome where `actual` is said."""
        decision = self.decision(self.spend(amount), agent=agent)
        self.fold(decision)
        if actual is not None:
            self.fold(self.outcome(decision, self.spend(actual)))
        return decision

    def spend(self, amount: int, limit: str = COST, budget: str = BUDGET, scope: str = "") -> Spend:
        window = window_at(self.world.known[budget].window, self.world.now).id
        return Spend(budget=budget, scope=scope, window=window, born=self.born, amounts={limit: amount})


def need(amount: int, limit: str = COST, budget: str = BUDGET, scope: str = "", wanted: int = 0) -> Need:
    return Need(budget=budget, scope=scope, amounts={limit: amount}, wanted={limit: wanted} if wanted else {})


def key_of(grant: Grant) -> PotKey:
    return PotKey(grant.budget, grant.scope, grant.window)


def ref(budget: str = BUDGET, scope: str = "") -> PotRef:
    return PotRef(budget=budget, scope=scope)


def granted(answer: Lease | Short, limit: str = COST) -> int:
    assert isinstance(answer, Lease), answer
    return sum(grant.amounts.get(limit, 0) for grant in answer.grants)


def short(answer: Lease | Short, decision: str = "Deny") -> Short:
    assert isinstance(answer, Short), answer
    assert answer.decision == decision, answer
    return answer
