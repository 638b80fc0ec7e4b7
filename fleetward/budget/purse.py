"""The purse: what one process of a decision webhook holds on lease, and may spend without asking.

Pure: no clock, no network. Times are seconds of a clock that never goes back. What was granted is in one of three
places: free, spent by an action, or given back. All that is told to the hub are totals that only grow.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from fleetward.budget.amounts import ACTIONS, add
from fleetward.budget.calls import Amounts, Grant, Holding, Lease, Need, PotRef, Release, Reserve, Wish
from fleetward.decision.action import Spend
from fleetward.registry.text import MAX_COUNT

IDLE_SECONDS = 1.5
"""After how long without use a lease is given back."""

EXPIRING_SECONDS = 0.25
"""A lease that ends within this time is given back: what is left of it would hardly be spent."""

AHEAD_SECONDS = 1.0
"""For how long a lease should last, going by recent use."""

FORGET_SECONDS = 300.0
"""After how long without use a pot is forgotten: runs come and go, and each may have pots of its own."""

GROWTH = 4
"""How many times what was spent since it was last asked for is wanted at most."""

_Pot = tuple[str, str]


class _Held:
    """The lease of one window of a pot."""

    __slots__ = (
        "asked_at",
        "budget",
        "free",
        "got",
        "made",
        "returned",
        "scope",
        "spent",
        "tokens",
        "told",
        "until",
        "used_at",
        "window",
    )

    def __init__(self, grant: Grant, now: float) -> None:
        self.budget, self.scope, self.window = grant.budget, grant.scope, grant.window
        self.got: dict[str, int] = {}
        self.free: dict[str, int] = {}
        """What may still be spent before `until`."""
        self.returned: dict[str, int] = {}
        self.told: dict[str, int] = {}
        """How much of `returned` the hub is known to know."""
        self.tokens = 0
        """Of a rate: how many were granted, less those that came to nothing."""
        self.until = 0.0
        self.used_at = self.asked_at = now
        self.made: tuple[Need, Spend] | None = None
        """The last spend and what it is for: most actions need what the one before them did."""
        self.spent: dict[str, int] = {}
        """What had been spent when more was last asked for, at `asked_at`."""

    def give_up(self, *, tokens: bool = True) -> None:
        """Count what is free as given back. Nobody takes `tokens` of a rate back: they may as well be kept."""
        left = self.free.get(ACTIONS, 0)
        kept = 0 if tokens else left
        self.tokens -= left - kept
        for limit, amount in self.free.items():
            if amount and limit != ACTIONS:
                self.returned[limit] = self.returned.get(limit, 0) + amount
        self.free.clear()
        if kept:
            self.free[ACTIONS] = kept

    def holding(self) -> Holding:
        return Holding(
            budget=self.budget,
            scope=self.scope,
            window=self.window,
            got=dict(self.got),
            returned=dict(self.returned),
        )

    def wanted(self, need: Mapping[str, int], now: float) -> Amounts:
        """Give what would last for a while, by what was spent since more was last asked for."""
        passed = max(now - self.asked_at, 1e-3)
        wanted = {}
        for limit, needed in need.items():
            total = self._spent(limit)
            spent = max(0, total - self.spent.get(limit, 0))
            self.spent[limit] = total
            ahead = min(int(spent / passed * AHEAD_SECONDS), GROWTH * spent)
            if ahead:
                wanted[limit] = min(needed + ahead, MAX_COUNT)
        self.asked_at = now
        return wanted

    def _spent(self, limit: str) -> int:
        had = self.tokens if limit == ACTIONS else self.got.get(limit, 0) - self.returned.get(limit, 0)
        return had - self.free.get(limit, 0)


class Purse:
    """The leases of the process that `born` names. Not bound to any loop or thread."""

    def __init__(self, born: str) -> None:
        self.born = born
        self._questions = 0
        self._current: dict[_Pot, _Held] = {}
        self._past: list[_Held] = []
        """Leases of earlier windows, kept until the hub knows all that was given back of them."""

    def __len__(self) -> int:
        return sum(any(held.free.values()) for held in self._current.values())

    def take(self, needs: Sequence[Need], now: float) -> tuple[Spend, ...] | None:
        """Take all that an action needs; None, with nothing taken, where a lease does not suffice."""
        spends: list[Spend] = []
        for number, need in enumerate(needs):
            held = self._current.get((need.budget, need.scope))
            if held is None or now >= held.until or _lacks(held.free, need.amounts):
                for taken in needs[:number]:
                    add(self._current[taken.budget, taken.scope].free, taken.amounts)
                return None
            free = held.free
            for limit, amount in need.amounts.items():
                if amount:
                    free[limit] -= amount
            held.used_at = now
            if held.made is None or held.made[0] is not need:
                held.made = need, self._spend(need, held.window)
            spend = held.made[1]
            if spend.amounts:
                spends.append(spend)
        return tuple(spends)

    def put_back(self, spends: Iterable[Spend]) -> None:
        """Take back what an action will not use after all, before it is on any record. Tokens of a rate are gone."""
        for spend in spends:
            held = self._of(spend.budget, spend.scope, spend.window)
            if held is not None:
                add(held.free, spend.amounts)

    def question(self, wishes: Sequence[Wish], now: float) -> Reserve:
        """Give the question for actions that the leases do not suffice for.

        What is left on lease of the pots they name is given back with it, so that the hub answers by all there is.
        """
        holdings: dict[_Pot, Holding] = {}
        asked = []
        for wish in wishes:
            needs = []
            for need in wish.needs:
                pot = (need.budget, need.scope)
                held = self._current.get(pot)
                wanted: Amounts = {}
                if held is not None and pot not in holdings:
                    held.give_up(tokens=now >= held.until)
                    holdings[pot] = held.holding()
                    wanted = held.wanted(need.amounts, now)
                needs.append(Need(budget=need.budget, scope=need.scope, amounts=need.amounts, wanted=wanted))
            asked.append(Wish(agent=wish.agent, needs=tuple(needs), run=wish.run))
        past = (held.holding() for held in self._past if (held.budget, held.scope) in holdings)
        self._questions += 1
        return Reserve(
            born=self.born, wishes=tuple(asked), holdings=(*holdings.values(), *past), number=self._questions
        )

    def granted(self, lease: Lease, asked_at: float) -> None:
        """Put a lease in; it may be spent for as long as it says from `asked_at` on, when it was asked for."""
        for grant in lease.grants:
            pot = (grant.budget, grant.scope)
            held = self._current.get(pot)
            if held is None or held.window != grant.window:
                held = self._begin(pot, grant, asked_at)
            elif held.until <= asked_at:
                held.give_up()
            add(held.free, grant.amounts)
            add(held.got, _settled(grant.amounts))
            held.tokens += grant.amounts.get(ACTIONS, 0)
            held.until = asked_at + grant.seconds
            held.used_at = max(held.used_at, asked_at)

    def release(
        self, now: float, *, everything: bool = False, pots: Collection[PotRef] | None = None
    ) -> Release | None:
        """Give back what lies idle or is about to expire, or of `pots` all, or everything.

        The answer tells this, and all that was given back before and the hub is not known to know; None: nothing.
        """
        named = None if pots is None else {(pot.budget, pot.scope) for pot in pots}

        def goes(held: _Held) -> bool:
            if everything or (named is not None and (held.budget, held.scope) in named):
                return True
            return held.until - now <= EXPIRING_SECONDS or now - held.used_at >= IDLE_SECONDS

        for held in self._all():
            if goes(held):
                held.give_up()
        holdings = tuple(held.holding() for held in self._all() if held.returned != held.told)
        return Release(born=self.born, holdings=holdings) if holdings else None

    def heard(self, holdings: Iterable[Holding]) -> None:
        """Take note that the hub knows what a question or a release told."""
        for holding in holdings:
            held = self._of(holding.budget, holding.scope, holding.window)
            if held is not None:
                for limit, amount in holding.returned.items():
                    held.told[limit] = max(amount, held.told.get(limit, 0))

    def forget(self, now: float) -> None:
        """Forget pots that were not used for long, and of which the hub knows that all is given back.

        Only while no question is under way, and once the hub has booked every spend: to say nothing of a pot tells it
        that nothing of it is held, and to count from 0.
        """

        def kept(held: _Held) -> bool:
            fresh = now - max(held.used_at, held.asked_at) < FORGET_SECONDS
            return fresh or held.returned != held.told or any(held.free.values())

        self._current = {pot: held for pot, held in self._current.items() if kept(held)}
        self._past = [held for held in self._past if kept(held)]

    def _spend(self, need: Need, window: str) -> Spend:
        amounts = _settled(need.amounts)
        return Spend(budget=need.budget, scope=need.scope, window=window, born=self.born, amounts=amounts)

    def _begin(self, pot: _Pot, grant: Grant, now: float) -> _Held:
        """Begin with another window of a pot; the one before it is over."""
        before = self._current.get(pot)
        if before is not None:
            before.give_up()
            self._past.append(before)
        held = self._of(*pot, grant.window) or _Held(grant, now)
        self._past = [past for past in self._past if past is not held]
        self._current[pot] = held
        return held

    def _of(self, budget: str, scope: str, window: str) -> _Held | None:
        held = self._current.get((budget, scope))
        if held is not None and held.window == window:
            return held
        for past in self._past:
            if (past.budget, past.scope, past.window) == (budget, scope, window):
                return past
        return None

    def _all(self) -> Iterator[_Held]:
        yield from self._current.values()
        yield from self._past


def _lacks(free: Mapping[str, int], amounts: Mapping[str, int]) -> bool:
    for limit, amount in amounts.items():  # noqa: SIM110 - `any` would take twice the time, for each action
        if free.get(limit, 0) < amount:
            return True
    return False


def _settled(amounts: Amounts) -> Amounts:
    """Leave out what is never settled: a token of a rate is gone once it is granted, spent or not."""
    if ACTIONS not in amounts:
        return amounts
    return {limit: amount for limit, amount in amounts.items() if limit != ACTIONS}
