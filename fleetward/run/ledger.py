"""The ledger: all runs, as what the events so far add up to. It checks nothing; `book` does, before there is an event.

How labels travel: an agent has what it declared, what its results carried, what came with a grant from its first use
on, and what agents that sent it messages had. A message that was taken up and not settled may be on its way, so its
labels are with the receiver until it is known that it was not sent. Results go back up unseen, so whenever an agent
asks for something or learns something, all who handed that work down get its labels, too; and when a message reaches
it, all who handed it any work. A cleansing takes labels from the one agent that did it, and from nobody else.
"""

from collections import Counter
from collections.abc import Iterable
from heapq import heappop, heappush

import msgspec

from fleetward.run.amounts import NOTHING
from fleetward.run.bounds import FORGET_SECONDS, RECENT_SECONDS, Bounds
from fleetward.run.events import (
    Event,
    GrantIssued,
    Learned,
    OpeningRecorded,
    RunEnded,
    RunForgotten,
    RunOpened,
    Settled,
    Took,
)
from fleetward.run.history import Marks
from fleetward.run.state import EndedRun, Holding, Member, Reservation, Run


class Ledger:
    """The state of all runs. Only `apply` changes it, save that `recent` lets go of what is over an hour old."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.runs: dict[str, Run] = {}
        self.ended: dict[str, EndedRun] = {}
        self.of_grant: dict[str, str] = {}
        """The run of each grant, as long as it has not ended."""
        self.open_of_agent: Counter[str] = Counter()
        self.remembered_of_agent: Counter[str] = Counter()
        self.last_number = 0
        self._recent = Marks(bounds.recent_marks, bounds.marks_of_target)
        self._by_number: dict[int, Run | EndedRun] = {}
        self._expiries: list[tuple[float, int]] = []
        self._forgetting: list[tuple[float, int]] = []

    def apply(self, number: int, event: Event) -> None:
        """Take in what happened to the run with that number."""
        self.last_number = max(self.last_number, number)
        if isinstance(event, RunOpened):
            self._opened(number, event)
            return
        run = self._by_number[number]
        if isinstance(run, EndedRun):
            # Whatever is still said of an action no longer matters, and is not kept.
            if isinstance(event, RunForgotten):
                self._forgotten(run)
        elif isinstance(event, Took):
            self._took(run, event)
        elif isinstance(event, Settled):
            self._settled(run, event)
        elif isinstance(event, Learned):
            self._learned(run, event)
        elif isinstance(event, GrantIssued):
            self._issued(run, event)
        elif isinstance(event, OpeningRecorded):
            run.cause = event.cause
        elif isinstance(event, RunEnded):
            self._ended(run, event)

    def recent(self, now: float) -> Marks:
        """Give who did what on which target in any run within the last hour."""
        self._recent.forget_before(now - RECENT_SECONDS)
        return self._recent

    def overdue(self, now: float) -> list[Run]:
        """Give the runs that are open, and whose time is over."""
        found = []
        while self._expiries and self._expiries[0][0] <= now:
            run = self._by_number.get(heappop(self._expiries)[1])
            if isinstance(run, Run):
                found.append(run)
        return found

    def forgettable(self, now: float) -> list[EndedRun]:
        """Give the runs that ended long ago."""
        found = []
        while self._forgetting and self._forgetting[0][0] <= now:
            run = self._by_number.get(heappop(self._forgetting)[1])
            if isinstance(run, EndedRun):
                found.append(run)
        return found

    def state(self, now: float) -> object:
        """Give all that is kept, to compare it with another book's."""
        recent = self.recent(now)
        return (
            {key: run.state() for key, run in self.runs.items()},
            self.ended,
            self.of_grant,
            +self.open_of_agent,
            +self.remembered_of_agent,
            {target: recent.on(target) for target in recent.targets()},
        )

    def _opened(self, number: int, event: RunOpened) -> None:
        run = Run(number, event, self.bounds)
        self.runs[run.id] = self._by_number[number] = run
        self.open_of_agent[run.opener] += 1
        self.remembered_of_agent[run.opener] += 1
        heappush(self._expiries, (run.expires_at, number))

    def _ended(self, run: Run, event: RunEnded) -> None:
        ended = EndedRun(run.number, run.id, run.opener, event.expired, run.mandate, event.at)
        del self.runs[run.id]
        self.ended[run.id] = self._by_number[run.number] = ended
        for grant in run.holdings:
            del self.of_grant[grant]
        self.open_of_agent[run.opener] -= 1
        if not self.open_of_agent[run.opener]:
            del self.open_of_agent[run.opener]
        heappush(self._forgetting, (event.at + FORGET_SECONDS, run.number))

    def _forgotten(self, run: EndedRun) -> None:
        del self.ended[run.id], self._by_number[run.number]
        self.remembered_of_agent[run.opener] -= 1
        if not self.remembered_of_agent[run.opener]:
            del self.remembered_of_agent[run.opener]

    def _took(self, run: Run, event: Took) -> None:
        run.last_seq = event.seq
        member = run.claim(event.agent)
        run.count_act(member, +1)
        holding = run.holdings[event.grant] if event.grant else None
        declared = run.labels.bits(event.labels)
        if holding and not holding.begun:
            holding.begun = True
            declared |= holding.labels
        member.labels |= declared
        _hand_up(run, run.path(holding), member.reached_by)
        taken = Reservation(
            event.agent,
            holding,
            event.amounts,
            event.webhook,
            event.kind,
            event.name,
            event.target,
            event.turns_to,
        )
        run.charge(holding, event.amounts)
        run.actions.add(member.print, event.fingerprint)
        if event.kind == "Message" and (receiver := run.members.get(event.turns_to or "")):
            receiver.expect(event.seq, member.reached_by)
        member.expect(event.seq, run.labels.bits(event.brings))
        if event.turns_to:
            run.turns.add(event.agent, event.turns_to)
        if event.target is not None:
            key = (event.target, event.name, event.agent)
            taken.marks = (run.marks.take(key, event.at), self._recent.take(key, event.at))
        if grant := event.proposed:
            taken.proposed = Holding(
                grant,
                seq=event.seq,
                webhook=event.webhook,
                labels=run.labels.bits(grant.labels),
                mandate=run.account,
                under=holding,
            )
            run.holdings[grant.id] = taken.proposed
            self.of_grant[grant.id] = run.id
            run.claim(grant.to)
        run.depth = max(run.depth, len(run.path(holding)))
        run.reservations.put(event.seq, taken)

    def _settled(self, run: Run, event: Settled) -> None:
        taken = run.reservations.get(event.seq)
        if taken is not None:
            self._settle(run, event.seq, taken, event.at, allowed=event.allowed)

    def _settle(self, run: Run, seq: int, taken: Reservation, at: float, *, allowed: bool) -> None:
        member = run.members[taken.agent]
        taken.settled = allowed
        if taken.marks and taken.target is not None:
            key = (taken.target, taken.name, taken.agent)
            for marks, mark in zip((run.marks, self._recent), taken.marks, strict=True):
                if allowed:
                    marks.confirm(key, mark, at)
                else:
                    marks.undo(key, mark)
        if brought := member.incoming.pop(seq, 0):
            self._brought(run, member, taken, brought, allowed=allowed)
        if taken.kind == "Message" and (receiver := run.members.get(taken.turns_to or "")):
            labels = receiver.incoming.pop(seq, 0)
            if allowed:
                receiver.labels |= labels | member.reached_by
                _hand_up(run, receiver.above, receiver.labels)
        if allowed:
            return
        run.recharge(taken.holding, taken.amounts, NOTHING)
        run.count_act(member, -1)
        run.unclaim(member)
        if taken.proposed:
            grant = taken.proposed.grant
            del run.holdings[grant.id], self.of_grant[grant.id]
            run.unclaim(run.members[grant.to])

    def _brought(self, run: Run, member: Member, taken: Reservation, labels: int, *, allowed: bool) -> None:
        if allowed:
            member.labels |= labels
            _hand_up(run, run.path(taken.holding), member.reached_by)

    def _learned(self, run: Run, event: Learned) -> None:
        member = run.members[event.agent]
        labels = run.labels.bits(event.labels)
        taken = run.reservations.get(event.seq)
        if taken is None:
            member.labels |= labels
            return
        if taken.settled is None:
            self._settle(run, event.seq, taken, event.at, allowed=True)
        new = labels & ~taken.labels
        cleansed = run.labels.known_bits(event.cleansed) & ~taken.cleansed
        taken.labels |= new
        taken.cleansed |= cleansed
        member.labels = (member.labels & ~cleansed) | new
        _hand_up(run, run.path(taken.holding), member.reached_by)
        if event.actual and not taken.ended:
            run.recharge(taken.holding, taken.amounts, event.actual)
            taken.amounts, taken.ended = event.actual, True

    def _issued(self, run: Run, event: GrantIssued) -> None:
        holding = run.holdings[event.grant]
        taken = run.reservations.get(holding.seq)
        if taken is not None and taken.settled is None:
            self._settle(run, holding.seq, taken, event.at, allowed=True)
        holding.grant = msgspec.structs.replace(holding.grant, cause=event.cause)
        holding.given = True
        member = run.members[holding.grant.to]
        member.above.update(holding.grant.path)
        member.granted_until = max(member.granted_until, holding.grant.expires_at)
        run.depth = max(run.depth, holding.grant.depth)


def _hand_up(run: Run, agents: Iterable[str], labels: int) -> None:
    """Give labels to those who handed work down: they may read what came of it."""
    if labels:
        for agent in agents:
            run.members[agent].labels |= labels
