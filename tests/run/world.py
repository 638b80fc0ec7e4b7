"""Runs for tests: a book with one call for each thing that agents do."""

import itertools
from collections.abc import Callable
from typing import Any

from fleetward.decision.replies import Done
from fleetward.delegation.grant import Grant
from fleetward.delegation.scope import Amounts, AskedScope
from fleetward.registry.slice import Agent
from fleetward.run.book import Book
from fleetward.run.bounds import Bounds
from fleetward.run.calls import (
    Issue,
    Learn,
    NotAllowed,
    Opened,
    OpenRun,
    Propose,
    Proposed,
    Recorded,
    Settle,
    Step,
    Taken,
    View,
)
from fleetward.run.mandate import Limits, Mandate

NOW = 1_700_000_000.5


def counted_ids() -> Callable[[str], str]:
    numbers = itertools.count(1)
    return lambda prefix: f"{prefix}{next(numbers)}"


def key(name: str) -> str:
    return name if "/" in name else f"reports/{name}"


def agent(name: str) -> Agent:
    namespace, _, short = key(name).partition("/")
    return Agent(name=short, namespace=namespace, role="Worker", owner="team", risk_tier="Low")


def mandate(**limits: Any) -> Mandate:
    lists = {name: limits.pop(name) for name in ("data_classes", "targets", "expires_in_seconds") if name in limits}
    return Mandate(requester="alice", purpose="the monthly report", limits=Limits(**limits), **lists)


class World:
    """One run, opened by `a`; time stands still unless a test moves `now`."""

    def __init__(self, given: Mandate | None = None, *, book: Book | None = None, bounds: Bounds | None = None) -> None:
        self.book = book or Book(bounds, ids=counted_ids())
        self.now = NOW
        self.grants: dict[str, Grant] = {}
        self.run = self.open("a", given)

    def open(self, name: str, given: Mandate | None = None) -> str:
        reply = self.book.open(OpenRun(key(name), given or mandate()), self.now)
        assert isinstance(reply, Opened), reply
        assert self.book.recorded(Recorded(reply.run, key(name), "opening-1"), self.now) == Done()
        return reply.run

    def ask(
        self, name: str, action: str = "crm.read", *, records: int | None = None, **more: Any
    ) -> Taken | NotAllowed:
        """Take an action up, under the agent's grant where it has one."""
        held = self.grants.get(name)
        more.setdefault("grant", held.id if held else None)
        more.setdefault("kind", "ToolCall")
        more.setdefault("run", self.run)
        more.setdefault("amounts", Amounts(records=records))
        return self.book.step(Step(agent=key(name), name=action, **more), self.now)

    def take(self, name: str, action: str = "crm.read", **more: Any) -> Taken:
        reply = self.ask(name, action, **more)
        assert isinstance(reply, Taken), reply
        return reply

    def act(self, name: str, action: str = "crm.read", **more: Any) -> View:
        """Take an action up and let it go ahead."""
        taken = self.take(name, action, **more)
        self.settle(taken.seq, allowed=True)
        return taken.view

    def deny(self, name: str, action: str = "crm.read", **more: Any) -> View:
        taken = self.take(name, action, **more)
        self.settle(taken.seq, allowed=False)
        return taken.view

    def refused(self, name: str, action: str = "crm.read", **more: Any) -> NotAllowed:
        reply = self.ask(name, action, **more)
        assert isinstance(reply, NotAllowed), reply
        return reply

    def send(self, name: str, to: str, **more: Any) -> View:
        return self.act(name, "mail", kind="Message", target=key(to), turns_to=key(to), **more)

    def settle(self, seq: int, *, allowed: bool) -> None:
        assert self.book.settle(Settle(self.run, seq, allowed), self.now) == Done()

    def learn(self, name: str, seq: int, **what: Any) -> None:
        assert self.book.learn(Learn(self.run, key(name), seq, **what), self.now) == Done()

    def propose(self, name: str, to: str, scope: AskedScope | None = None, **more: Any) -> Proposed | NotAllowed:
        held = self.grants.get(name)
        more.setdefault("grant", held.id if held else None)
        request = Propose(self.run, key(name), key(to), scope or AskedScope(), **more)
        return self.book.propose(request, agent(to), self.now)

    def delegate(self, name: str, to: str, scope: AskedScope | None = None, **more: Any) -> Grant:
        """Hand work down; `to` acts under that grant from now on."""
        reply = self.propose(name, to, scope, **more)
        assert isinstance(reply, Proposed), reply
        grant = self.book.issue(Issue(self.run, reply.grant.id, f"decision-{reply.seq}"), self.now)
        assert isinstance(grant, Grant), grant
        self.grants[to] = grant
        return grant

    def used(self) -> Amounts:
        return self.take_nothing().view.used

    def take_nothing(self) -> Taken:
        taken = self.take("a", "nothing")
        self.settle(taken.seq, allowed=False)
        return taken
