"""The book against a model of it: whatever is asked in whatever order, no limit is ever gone beyond, and replaying its
events gives the same book."""

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from run.world import World, key, mandate

from fleetward.delegation.grant import Grant
from fleetward.delegation.scope import Amounts, AskedScope
from fleetward.run.book import Book
from fleetward.run.bounds import FORGET_SECONDS
from fleetward.run.calls import CloseRun, Issue, Learn, NotAllowed, Proposed, Settle, Taken
from fleetward.run.events import decode_event, encode_event

NAMES = ("a", "b", "c", "d", "e")
limits = st.none() | st.integers(0, 12)
names = st.sampled_from(NAMES)
amounts = st.integers(0, 6)
label_sets = st.sets(st.sampled_from(("web", "raw", "untrusted")), max_size=2).map(lambda found: tuple(sorted(found)))


@dataclass
class Action:
    agent: str
    chain: tuple[str, ...]
    """The grants that are charged."""
    steps: int
    records: int
    settled: bool | None = None
    ended: bool = False


class BookMachine(RuleBasedStateMachine):
    @initialize(steps=limits, records=limits, agents=st.none() | st.integers(1, 4), depth=st.none() | st.integers(0, 3))
    def begin(self, **given: Any) -> None:
        self.world = World(mandate(**given))
        self.limits = given
        self.actions: dict[int, Action] = {}
        self.grants: dict[str, Grant] = {}
        self.open_proposals: dict[str, Grant] = {}
        self.exceeded = False
        """Whether somebody really used more than was reserved: the one way beyond a limit."""
        self.closed = False

    def chain(self, grant: Grant | None) -> tuple[str, ...]:
        found = []
        while grant is not None:
            found.append(grant.id)
            grant = self.grants.get(grant.parent) if grant.parent else None
        return tuple(found)

    def used(self, grant: str | None = None) -> tuple[int, int]:
        counted = [
            one for one in self.actions.values() if one.settled is not False and (not grant or grant in one.chain)
        ]
        return sum(one.steps for one in counted), sum(one.records for one in counted)

    def fits(self, grant: Grant | None, steps: int, records: int) -> bool:
        ceilings: list[tuple[str | None, int | None, int | None]] = [
            (None, self.limits["steps"], self.limits["records"])
        ]
        ceilings += [
            (id_, self.grants[id_].scope.limits.steps, self.grants[id_].scope.limits.records)
            for id_ in self.chain(grant)
        ]
        for id_, most_steps, most_records in ceilings:
            have_steps, have_records = self.used(id_)
            if most_steps is not None and have_steps + steps > most_steps:
                return False
            if most_records is not None and have_records + records > most_records:
                return False
        return True

    def grant_of(self, agent: str, pick: int) -> Grant | None:
        held = [grant for grant in self.grants.values() if grant.to == key(agent)]
        return held[pick % len(held)] if held and agent != "a" else None

    @rule(agent=names, pick=st.integers(0, 5), records=amounts, labels=label_sets, on=st.sampled_from((None, "x")))
    def step(self, agent: str, pick: int, records: int, labels: tuple[str, ...], on: str | None) -> None:
        grant = self.grant_of(agent, pick)
        reply = self.world.ask(agent, grant=grant.id if grant else None, records=records, labels=labels, target=on)
        may = not self.closed and (agent == "a" or grant is not None) and self.fits(grant, 1, records)
        assert isinstance(reply, Taken) == may, reply
        if isinstance(reply, Taken):
            assert set(labels) <= set(reply.view.labels)
            self.actions[reply.seq] = Action(agent, self.chain(grant), 1, records)

    @rule(agent=names, to=names, pick=st.integers(0, 5), steps=limits, records=limits, now=st.booleans())
    def delegate(self, agent: str, to: str, pick: int, steps: int | None, records: int | None, *, now: bool) -> None:
        grant = self.grant_of(agent, pick)
        scope = AskedScope(limits=Amounts(steps, records=records))
        reply = self.world.propose(agent, to, scope, grant=grant.id if grant else None)
        if not isinstance(reply, Proposed):
            return
        path = (*grant.path, key(agent)) if grant else (key(agent),)
        assert reply.grant.path == path
        assert key(to) not in path
        assert self.limits["depth"] is None or len(path) <= self.limits["depth"]
        above = grant.scope.limits if grant else Amounts(self.limits["steps"], records=self.limits["records"])
        for field in ("steps", "records"):
            most, given = getattr(above, field), getattr(reply.grant.scope.limits, field)
            assert most is None or given <= most
        assert self.fits(grant, 1, 0)
        self.actions[reply.seq] = Action(agent, self.chain(grant), 1, 0)
        self.open_proposals[reply.grant.id] = reply.grant
        if now:
            self.issue(reply.grant.id, reply.seq)

    def issue(self, id_: str, seq: int) -> None:
        issued = self.world.book.issue(Issue(self.world.run, id_, "decision"), self.world.now)
        assert isinstance(issued, Grant)
        self.actions[seq].settled = True
        self.grants[id_] = issued
        del self.open_proposals[id_]

    @precondition(lambda self: self.actions)
    @rule(pick=st.integers(0, 1000), allowed=st.booleans())
    def settle(self, pick: int, *, allowed: bool) -> None:
        seq = sorted(self.actions)[pick % len(self.actions)]
        one = self.actions[seq]
        reply = self.world.book.settle(Settle(self.world.run, seq, allowed), self.world.now)
        if self.closed:
            return
        assert isinstance(reply, NotAllowed) == (one.settled is not None and one.settled != allowed)
        if one.settled is None:
            one.settled = allowed

    @precondition(lambda self: self.actions)
    @rule(pick=st.integers(0, 1000), records=st.none() | amounts, labels=label_sets, cleansed=label_sets)
    def learn(self, pick: int, records: int | None, labels: tuple[str, ...], cleansed: tuple[str, ...]) -> None:
        seq = sorted(self.actions)[pick % len(self.actions)]
        one = self.actions[seq]
        actual = None if records is None else Amounts(records=records)
        learn = Learn(self.world.run, key(one.agent), seq, labels=labels, cleansed=cleansed, actual=actual)
        reply = self.world.book.learn(learn, self.world.now)
        if self.closed:
            return
        assert isinstance(reply, NotAllowed) == (one.settled is False)
        if one.settled is False:
            return
        one.settled = True
        if records is not None and not one.ended:
            self.exceeded |= records > one.records
            one.records, one.ended = records, True

    @rule(seconds=st.sampled_from((0.5, 60, 4000)))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.book.sweep(self.world.now)
        late = [id_ for id_, grant in self.grants.items() if grant.expires_at <= self.world.now]
        for id_ in late:
            grant = self.grants[id_]
            name = grant.to.partition("/")[2]
            assert "expired" in self.world.refused(name, grant=id_).reason or self.closed
        if late:  # the model does not follow who holds what after that
            self.grants = {}
            self.closed = True
            self.world.book.close(CloseRun(self.world.run, key("a")), self.world.now)

    @rule(sure=st.integers(0, 20))
    def close(self, sure: int) -> None:
        if sure == 0:
            self.world.book.close(CloseRun(self.world.run, key("a")), self.world.now)
            self.closed = True

    @invariant()
    def counts_agree(self) -> None:
        run = self.world.book.ledger.runs.get(self.world.run)
        if run is None:
            return
        assert (run.account.used[0], run.account.used[2]) == self.used()
        for id_, holding in run.holdings.items():
            account = holding.accounts[0] if holding.accounts else None
            if account and account.by == f"grant {id_}":
                used = dict(zip((0, 2), self.used(id_), strict=True))
                assert all(account.used[index] == used[index] for index, _ in account.limits)
        if not self.exceeded:
            for index, limit in run.account.limits:
                assert run.account.used[index] <= limit
            for holding in run.holdings.values():
                for account in holding.accounts:
                    assert all(account.used[index] <= limit for index, limit in account.limits)
        if self.limits["agents"] is not None:
            assert run.agents <= self.limits["agents"]

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        lived = self.world.book
        replayed = Book()
        for number, event in lived.unsaved:
            replayed.ledger.apply(number, decode_event(encode_event(event)))
        assert replayed.ledger.state(self.world.now) == lived.ledger.state(self.world.now)
        later = self.world.now + 2 * FORGET_SECONDS + 86_400
        lived.sweep(later)
        lived.sweep(later + FORGET_SECONDS)
        assert lived.ledger.state(later + FORGET_SECONDS) == Book().ledger.state(0)


BookMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBook = BookMachine.TestCase
