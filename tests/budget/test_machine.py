"""The ledger against a model of the world around it: holders that crash, replies that get lost, messages and records
that come twice, limits that move, windows that roll. What may really be spent never goes beyond a limit, and what the
ledger says is the sum of the records."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from budget.pots import NOON, Amounts, World, budget, concurrency, key_of, rate, threshold
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.postgres import Postgres

from fleetward.budget.calls import Disown, Holding, Lease, Need, Release, Reserve, Short, Wish
from fleetward.budget.ledger import Entry, Ledger
from fleetward.budget.pot import LEASE_SECONDS, Pot, PotKey
from fleetward.budget.store import open_ledger_store
from fleetward.budget.windows import expired, slot_at, window_at
from fleetward.decision.action import Spend
from fleetward.registry.slice import BudgetWindow, Threshold

COST, RECORDS = "costMicroUsd", "records"
TOTAL, DAY, ROLLING = "AgentBudget/n/total", "AgentBudget/n/day", "AgentBudget/n/rolling"
SLOTS, RATE = "AgentPolicy/n/p#slots", "AgentPolicy/n/p#rate"
ROLLS = BudgetWindow(kind="Rolling", duration_seconds=600)
WINDOWS = {
    TOTAL: BudgetWindow(),
    DAY: BudgetWindow(kind="Calendar", unit="Hour"),
    ROLLING: ROLLS,
    SLOTS: BudgetWindow(),
    RATE: BudgetWindow(),
}
HOLDERS = ("w1", "w2", "w3")
PER_SECONDS, BURST = 30, 4
SETTLE_AFTER = 900

holders = st.sampled_from(HOLDERS)
sizes = st.integers(0, 12)


@dataclass
class Action:
    """A decision that went ahead."""

    holder: str
    seq: int
    spends: dict[PotKey, Amounts]
    made_at: float
    born: str
    outcome: dict[PotKey, Amounts] | None = None
    folded_at: float | None = None
    settled: bool = False
    """By its outcome, as the ledger knows it."""
    estimated: bool = False
    lost: bool = False
    """With the machine, before the record came in."""


@dataclass
class Purse:
    """What one process of a holder has."""

    born: str
    got: dict[PotKey, Amounts] = field(default_factory=dict)
    returned: dict[PotKey, Amounts] = field(default_factory=dict)
    unspent: dict[PotKey, Amounts] = field(default_factory=dict)
    until: dict[PotKey, float] = field(default_factory=dict)


@dataclass
class Booked:
    """What the model knows to be settled in one pot, and when."""

    amounts: Amounts
    at: float
    of: tuple[str, int] | None = None


class LedgerMachine(RuleBasedStateMachine):
    place: str

    @initialize(cost=st.integers(5, 60), records=st.integers(0, 30), slots=st.integers(1, 3), throttled=st.booleans())
    def begin(self, cost: int, records: int, slots: int, *, throttled: bool) -> None:
        steps: tuple[Threshold, ...] = (threshold(90, "Throttle", 6),) if throttled else ()
        self.world = World(
            open_ledger_store(self.place),
            budget(TOTAL, window=WINDOWS[TOTAL], costMicroUsd=cost, records=records, settle_after_seconds=SETTLE_AFTER),
            budget(DAY, window=WINDOWS[DAY], costMicroUsd=cost, thresholds=steps, settle_after_seconds=SETTLE_AFTER),
            budget(ROLLING, window=ROLLS, costMicroUsd=cost, settle_after_seconds=SETTLE_AFTER),
            concurrency(slots),
            rate(BURST, PER_SECONDS, BURST),
        )
        self.world.known = {
            TOTAL: self.world.known[TOTAL],
            DAY: self.world.known[DAY],
            ROLLING: self.world.known[ROLLING],
            SLOTS: _renamed(concurrency(slots), SLOTS),
            RATE: _renamed(rate(BURST, PER_SECONDS, BURST), RATE),
        }
        self.purses = {name: Purse(f"{name}-0") for name in HOLDERS}
        self.lives = 0
        self.seqs = dict.fromkeys(HOLDERS, 0)
        self.spools: dict[str, list[Entry]] = {name: [] for name in HOLDERS}
        self.delivered: dict[str, list[Entry]] = {name: [] for name in HOLDERS}
        self.folded: list[Entry] = []
        self.actions: list[Action] = []
        self.booked: dict[PotKey, list[Booked]] = {}
        self.most: dict[tuple[str, str], int] = {
            (name, limit): most for name, terms in self.world.known.items() for limit, most in terms.limits.items()
        }
        self.flagged: dict[tuple[PotKey, str], int] = {}
        """What was really used beyond what was reserved."""
        self.tokens: list[tuple[float, int]] = []

    # Holders

    def needs(self, amount: int, records: int, which: list[str], wanted: int) -> tuple[Need, ...]:
        found = []
        for name in which:
            amounts = {
                TOTAL: {COST: amount, RECORDS: records},
                DAY: {COST: amount},
                ROLLING: {COST: amount},
                SLOTS: {"concurrency": 1},
                RATE: {"actions": 1},
            }[name]
            more = {limit: size + wanted for limit, size in amounts.items()} if wanted else {}
            found.append(Need(budget=name, amounts=amounts, wanted=more))
        return tuple(found)

    def holdings(self, name: str) -> tuple[Holding, ...]:
        purse = self.purses[name]
        return tuple(
            Holding(
                budget=key.budget, scope=key.scope, window=key.window, got=dict(got),
                returned=dict(purse.returned.get(key, {})),
            )
            for key, got in purse.got.items()
        )  # fmt: skip

    @rule(
        name=holders,
        amount=sizes,
        records=st.integers(0, 4),
        which=st.lists(st.sampled_from(list(WINDOWS)), min_size=1, unique=True),
        wanted=st.sampled_from((0, 0, 5, 30)),
        fate=st.sampled_from(("arrives", "arrives", "arrives", "lost", "failed")),
        acts=st.booleans(),
    )
    def reserve(  # noqa: PLR0917 - hypothesis passes them by name
        self, name: str, amount: int, records: int, which: list[str], wanted: int, fate: str, *, acts: bool
    ) -> None:
        needs = self.needs(amount, records, which, wanted)
        wish = Wish(agent=f"n/{name}", needs=needs)
        request = Reserve(born=self.purses[name].born, wishes=(wish,), holdings=self.holdings(name))
        if fate == "failed":
            with suppress(ZeroDivisionError), self.world.ledger.batch():
                self.world.ledger.reserve(request, name, self.world.terms, self.world.now)
                raise ZeroDivisionError
            return
        reply = self.world.ledger.reserve(request, name, self.world.terms, self.world.now)
        (answer,) = reply.answers
        self.check_answer(answer, needs)
        if isinstance(answer, Lease):
            self.count_tokens(answer)
            if fate == "arrives":
                self.receive(name, answer)
                if acts:
                    self.act(name, {self.key(need.budget): dict(need.amounts) for need in needs})

    def check_answer(self, answer: Lease | Short, needs: tuple[Need, ...]) -> None:
        """All of it and within the limits; or nothing, and then there was no room indeed."""
        pots = self.world.pots()
        if isinstance(answer, Lease):
            for need, grant in zip(needs, answer.grants, strict=True):
                assert key_of(grant) == self.key(need.budget)
                for limit, size in need.amounts.items():
                    wanted = max(size, need.wanted.get(limit, 0))
                    assert size <= grant.amounts[limit] <= (1 if limit == "concurrency" else wanted)
                    if limit != "actions" and size:
                        pot = pots[key_of(grant)]
                        assert pot.committed(limit) <= self.world.known[need.budget].limits[limit]
            return
        tight = answer.decision == "Throttle"
        for need in needs:
            found = pots.get(self.key(need.budget))
            for limit, size in need.amounts.items():
                most = self.world.known[need.budget].limits.get(limit)
                tight = tight or (most is not None and (found.committed(limit) if found else 0) + size > most)
        assert tight, answer

    def count_tokens(self, lease: Lease) -> None:
        for grant in lease.grants:
            if grant.budget == RATE:
                self.tokens.append((self.world.now, grant.amounts["actions"]))

    def receive(self, name: str, lease: Lease) -> None:
        purse = self.purses[name]
        for grant in lease.grants:
            key = key_of(grant)
            if purse.until.get(key, 0) <= self.world.now:
                # What is left of a lease that is over is not spent with the next one.
                _add(purse.returned, key, purse.unspent.pop(key, {}))
            purse.until[key] = self.world.now + grant.seconds
            for limit, size in grant.amounts.items():
                for where in (purse.got, purse.unspent):
                    where.setdefault(key, {})[limit] = where.setdefault(key, {}).get(limit, 0) + size

    @rule(name=holders, amount=sizes, which=st.sampled_from((TOTAL, DAY, ROLLING)))
    def act_from_lease(self, name: str, amount: int, which: str) -> None:
        self.act(name, {self.key(which): {COST: amount}})

    def act(self, name: str, amounts: dict[PotKey, Amounts]) -> None:
        """Decide on an action, if the purse has what it needs."""
        purse = self.purses[name]
        for key, needed in amounts.items():
            have = purse.unspent.get(key, {})
            over = purse.until.get(key, 0) <= self.world.now
            if over or any(have.get(limit, 0) < size for limit, size in needed.items()):
                return
        for key, needed in amounts.items():
            for limit, size in needed.items():
                purse.unspent[key][limit] -= size
        self.seqs[name] += 1
        action = Action(name, self.seqs[name], amounts, self.world.now, purse.born)
        self.actions.append(action)
        self.spools[name].append(self.entry(action, amounts, ends=False, seq=action.seq))

    def entry(self, action: Action, amounts: dict[PotKey, Amounts], *, ends: bool, seq: int) -> Entry:
        spends = tuple(
            Spend(budget=key.budget, scope=key.scope, window=key.window, born=action.born, amounts=dict(sizes_))
            for key, sizes_ in amounts.items()
        )
        return Entry(
            writer=action.holder, seq=seq, agent=f"n/{action.holder}", decision_id=f"{action.holder}-{action.seq}",
            spends=spends, at=self.world.now, ends=ends,
        )  # fmt: skip

    @precondition(lambda self: any(one.outcome is None and not one.lost for one in self.actions))
    @rule(pick=st.integers(0, 1000), factor=st.sampled_from((0, 1, 1, 2, 2, 4)))
    def finish(self, pick: int, factor: int) -> None:
        """An action ends, having used nothing, half, all, or more than was reserved."""
        running = [one for one in self.actions if one.outcome is None and not one.lost]
        action = running[pick % len(running)]
        action.outcome = {
            key: {limit: size * factor // 2 for limit, size in amounts.items() if limit != "actions"}
            for key, amounts in action.spends.items()
        }
        self.seqs[action.holder] += 1
        self.spools[action.holder].append(self.entry(action, action.outcome, ends=True, seq=self.seqs[action.holder]))

    @rule(name=holders, count=st.integers(1, 8), twice=st.booleans())
    def deliver(self, name: str, count: int, *, twice: bool) -> None:
        batch, self.spools[name] = self.spools[name][:count], self.spools[name][count:]
        again = self.delivered[name][-3:] if twice else []
        self.world.ledger.fold([*again, *batch], self.world.terms, self.world.now)
        if twice:
            self.world.ledger.fold(batch, self.world.terms, self.world.now)
        self.note(batch)
        self.delivered[name] += batch

    def note(self, batch: list[Entry]) -> None:
        """Do in the model what folding does."""
        known = {f"{one.holder}-{one.seq}": one for one in self.actions}
        for entry in batch:
            self.folded.append(entry)
            action = known[entry.decision_id]
            if not entry.ends:
                action.folded_at = self.world.now
                continue
            action.settled = True
            assert action.outcome is not None
            for key, estimate in action.spends.items():
                self.settle(action, key, estimate, action.outcome[key])

    def settle(self, action: Action, key: PotKey, estimate: Amounts, actual: Amounts) -> None:
        real = {limit: size for limit, size in actual.items() if limit != "concurrency"}
        for limit, size in real.items():
            beyond = size - estimate.get(limit, 0)
            if beyond > 0:
                self.flagged[key, limit] = self.flagged.get((key, limit), 0) + beyond
        booked = self.booked.setdefault(key, [])
        if not action.estimated:
            booked.append(Booked(real, self.world.now))
            return
        for limit, size in real.items():
            difference = size - estimate.get(limit, 0)
            if difference > 0:
                booked.append(Booked({limit: difference}, self.world.now))
            elif difference < 0:
                self.take_back(key, action, limit, -difference)

    def take_back(self, key: PotKey, action: Action, limit: str, size: int) -> None:
        """An estimate was too high: of a rolling window, its slot gives back what it still holds."""
        own = next(one for one in self.booked[key] if one.of == (action.holder, action.seq))
        if key.budget != ROLLING or not self.is_past(own.at):
            own.amounts[limit] -= size

    def is_past(self, at: float) -> bool:
        return expired(slot_at(ROLLS, at), ROLLS, self.world.now)

    @rule(name=holders, twice=st.booleans(), lost=st.booleans(), part=st.booleans())
    def release(self, name: str, *, twice: bool, lost: bool, part: bool) -> None:
        purse = self.purses[name]
        for key, unspent in purse.unspent.items():
            for limit, size in unspent.items():
                back = size // 2 if part else size
                unspent[limit] -= back
                returned = purse.returned.setdefault(key, {})
                returned[limit] = returned.get(limit, 0) + back
        for _ in range((0 if lost else 1) + twice):
            request = Release(born=purse.born, holdings=self.holdings(name))
            self.world.ledger.release(request, name, self.world.now)

    @rule(name=holders, machine=st.booleans(), twice=st.booleans())
    def crash(self, name: str, *, machine: bool, twice: bool) -> None:
        """A process dies; its records come in, or are gone with the machine; then the next one says so."""
        if machine:
            gone = {entry.decision_id for entry in self.spools[name]}
            for action in self.actions:
                if f"{action.holder}-{action.seq}" in gone:
                    action.lost = action.lost or action.folded_at is None
                    if not action.settled:
                        action.outcome = None
            self.spools[name].clear()
        else:
            self.deliver(name, len(self.spools[name]), twice=twice)
        before = {key: dict(pot.leased) for key, pot in self.world.pots().items()}
        self.lives += 1
        self.purses[name] = Purse(f"{name}-{self.lives}")
        disown = Disown(born=self.purses[name].born, lost=machine)
        for _ in range(1 + twice):
            self.world.ledger.disown(disown, name, self.world.now, self.world.terms)
        if machine:
            for key, pot in self.world.pots().items():
                left = {
                    limit: size - pot.leased.get(limit, 0)
                    for limit, size in before.get(key, {}).items()
                    if limit != "concurrency"
                }
                self.booked.setdefault(key, []).append(Booked(left, self.world.now))

    # The hub, time and limits

    @rule()
    def restart(self) -> None:
        self.world.store.close()
        self.world.store = open_ledger_store(self.place)
        self.world.ledger = Ledger(self.world.store)

    @rule(name=st.sampled_from((TOTAL, DAY, ROLLING)), most=st.integers(0, 80))
    def change_limit(self, name: str, most: int) -> None:
        terms = self.world.known[name]
        self.world.known[name] = budget(
            name, window=terms.window, thresholds=terms.thresholds, settle_after_seconds=SETTLE_AFTER,
            **{**terms.limits, COST: most},
        )  # fmt: skip
        self.most[name, COST] = max(self.most[name, COST], most)

    @rule(seconds=st.sampled_from((0.5, 3, 30, 400, 1000, 3700)))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.ledger.sweep(self.world.terms, self.world.now)
        for action in self.actions:
            folded = action.folded_at
            if folded is None or action.settled or action.estimated or folded + SETTLE_AFTER > self.world.now:
                continue
            # All its pots have one deadline here, save those of rules.
            mine = {key: sizes_ for key, sizes_ in action.spends.items() if "#" not in key.budget}
            action.estimated = True
            for key, sizes_ in mine.items():
                own = Booked(dict(sizes_), self.world.now, (action.holder, action.seq))
                self.booked.setdefault(key, []).append(own)

    # What holds

    def key(self, name: str) -> PotKey:
        return PotKey(name, "", window_at(WINDOWS[name], self.world.now).id)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            pots = self.world.pots()
            self.never_beyond_a_limit(pots)
            self.what_may_be_spent_is_on_lease(pots)
            self.equals_the_sum_of_the_records(pots)
            self.rates_hold()

    def never_beyond_a_limit(self, pots: dict[PotKey, Pot]) -> None:
        for key, pot in pots.items():
            for limit in {*pot.settled, *pot.reserved, *pot.leased}:
                most = self.most[key.budget, limit]
                assert pot.committed(limit) <= most + pot.overshoot.get(limit, 0), (key, limit, pot)
            leased: Amounts = {}
            for leases in pot.leases.values():
                for lease in leases:
                    for limit, size in lease.left().items():
                        leased[limit] = leased.get(limit, 0) + size
            assert leased == {limit: size for limit, size in pot.leased.items() if size}

    def what_may_be_spent_is_on_lease(self, pots: dict[PotKey, Pot]) -> None:
        """Whatever a holder has not spent, or has spent with a record under way, the ledger keeps on lease for it."""
        for name, purse in self.purses.items():
            out: dict[PotKey, Amounts] = {}
            for key, unspent in purse.unspent.items():
                if self.world.now < purse.until[key]:
                    _add(out, key, unspent)
            for action in self.actions:
                recent = self.world.now < action.made_at + 500
                if action.holder == name and action.folded_at is None and not action.lost and recent:
                    for key, sizes_ in action.spends.items():
                        _add(out, key, sizes_)
            for key, sizes_ in out.items():
                leases = pots[key].leases.get(name, []) if key in pots else []
                left = [lease.left() for lease in leases]
                for limit, size in sizes_.items():
                    held = sum(one.get(limit, 0) for one in left)
                    assert limit == "actions" or held >= size, (name, key, limit, held, size)

    def equals_the_sum_of_the_records(self, pots: dict[PotKey, Pot]) -> None:
        for key, pot in pots.items():
            if key.budget == ROLLING:
                pot.roll(ROLLS, self.world.now)
            assert pot.reserved == self.reserved(key)
            assert pot.settled == self.settled(key)
            for limit in {*pot.settled, *pot.reserved}:
                # Besides, leases of a rolling window end with it, and what was spent of them late is flagged, too.
                flagged = self.flagged.get((key, limit), 0)
                assert pot.overshoot.get(limit, 0) >= flagged
                assert key.budget == ROLLING or pot.overshoot.get(limit, 0) == flagged

    def reserved(self, key: PotKey) -> Amounts:
        """Sum up what actions that are known and not over have reserved in a pot."""
        found: dict[PotKey, Amounts] = {}
        lasts = 3600 if "#" in key.budget else SETTLE_AFTER
        for action in self.actions:
            known = action.folded_at is not None and action.folded_at + lasts > self.world.now
            if known and not action.settled and key in action.spends:
                _add(found, key, {limit: size for limit, size in action.spends[key].items() if limit != "actions"})
        return {limit: size for limit, size in found.get(key, {}).items() if size}

    def settled(self, key: PotKey) -> Amounts:
        """Sum up what was used of a pot, and has not rolled out of its window."""
        found: dict[PotKey, Amounts] = {}
        for one in self.booked.get(key, []):
            if key.budget != ROLLING or not self.is_past(one.at):
                _add(found, key, one.amounts)
        return {limit: size for limit, size in found.get(key, {}).items() if size}

    def rates_hold(self) -> None:
        for index, (since, _) in enumerate(self.tokens):
            for until, _ in self.tokens[index:]:
                granted = sum(count for at, count in self.tokens if since <= at <= until)
                assert granted <= BURST + (until - since) * BURST / PER_SECONDS + 1e-3

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.come_to_rest()
            self.replay()
        finally:
            self.world.store.close()

    def come_to_rest(self) -> None:
        """Nothing stays on lease where everybody has said all, and gone."""
        for name in HOLDERS:
            self.crash(name, machine=False, twice=False)
        self.holds()
        assert all(not pot.leased for pot in self.world.pots().values())

    def replay(self) -> None:
        """The records, folded into a new ledger, come to the same."""
        with TemporaryDirectory() as directory:
            fresh = World(open_ledger_store(Path(directory) / "ledger.db"), *self.world.known.values())
            try:
                fresh.ledger.fold(self.folded, self.world.terms, self.world.now)
                again = fresh.pots()
                for key in [key for key in again if key.budget == TOTAL]:
                    actions = [one for one in self.actions if key in one.spends and one.folded_at is not None]
                    for limit in (COST, RECORDS):
                        settled = sum((one.outcome or {})[key].get(limit, 0) for one in actions if one.settled)
                        reserved = sum(one.spends[key].get(limit, 0) for one in actions if not one.settled)
                        assert again[key].settled.get(limit, 0) == settled
                        assert again[key].reserved.get(limit, 0) == reserved
            finally:
                fresh.store.close()


def _renamed(terms: Any, name: str) -> Any:
    return type(terms)(budget=name, limits=terms.limits, rate=terms.rate)


def _add(out: dict[PotKey, Amounts], key: PotKey, amounts: Amounts) -> None:
    total = out.setdefault(key, {})
    for limit, size in amounts.items():
        total[limit] = total.get(limit, 0) + size


def _run(places: Iterator[str], examples: int, steps: int) -> None:
    class Machine(LedgerMachine):
        def __init__(self) -> None:
            self.place = next(places)
            super().__init__()

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    )


def test_on_sqlite(tmp_path: Path) -> None:
    _run((str(tmp_path / f"{number}.db") for number in range(100_000)), 60, 40)


@pytest.mark.slow
def test_on_postgres(postgres: Postgres) -> None:
    _run((postgres.new_schema() for _ in range(100_000)), 25, 40)


assert LEASE_SECONDS < 500, "the model takes a lease of a rolling window to be kept for that long"
assert NOON % 3600 == 0
