"""The book of all runs: what may go ahead in them, said once for all decision webhooks.

It has no clock and does nothing by itself: time comes with each call, in seconds since the epoch, and what happens to
runs are events, which `unsaved` collects until a journal keeps them. One thread uses it.

A request that is refused changes nothing, not even the history.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from fleetward.decision.replies import Done
from fleetward.delegation.grant import Grant
from fleetward.registry.slice import Agent
from fleetward.run.amounts import NOTHING, ONE_STEP, as_amounts, really_used, with_step
from fleetward.run.bounds import Bounds
from fleetward.run.calls import (
    CheckPlan,
    CloseRun,
    Issue,
    Learn,
    NotAllowed,
    Opened,
    OpenRun,
    PlanChecked,
    Propose,
    Proposed,
    Recorded,
    Settle,
    Step,
    Taken,
    View,
)
from fleetward.run.checks import ceilings_of, check_asks, grant_for, too_much
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
from fleetward.run.history import fingerprint
from fleetward.run.ledger import Ledger
from fleetward.run.plan import Judge, KnownFacts, check_plan, out_of_scope
from fleetward.run.standing import Place, Refusal, TooLongAgoError, go_beyond, proposed, remembered, standing, taken_up
from fleetward.run.state import EndedRun, Run

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """Give a new id: ten characters of time, so that ids sort by age, and sixteen nobody can guess."""
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return prefix + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


class Book:
    """All runs. Each request of `calls` has its method, which gives the reply.

    `webhook` is whoever asks, as the hub knows it: only the one that took an action up may settle it.
    """

    def __init__(self, bounds: Bounds | None = None, *, ids: Callable[[str], str] = new_id) -> None:
        self.bounds = bounds or Bounds()
        self.ledger = Ledger(self.bounds)
        self.unsaved: list[tuple[int, Event]] = []
        """Events, each with its run's number, that a journal has to keep before any reply is given."""
        self._ids = ids
        self._ended: list[EndedRun] = []

    def open(self, request: OpenRun, now: float) -> Opened | NotAllowed:
        """Open a run."""
        ledger, bounds = self.ledger, self.bounds
        if len(ledger.runs) >= bounds.open_runs or ledger.open_of_agent[request.agent] >= bounds.open_runs_of_agent:
            self._end_overdue(now)
        counts = (
            (len(ledger.runs), bounds.open_runs, "runs are open"),
            (ledger.open_of_agent[request.agent], bounds.open_runs_of_agent, f"runs of {request.agent} are open"),
            (len(ledger.runs) + len(ledger.ended), bounds.remembered_runs, "runs were open within the last hour"),
        )
        for found, allowed, what in counts:
            if found >= allowed:
                return NotAllowed(f"no more runs can be opened now: {found} {what}, and {allowed} may be at once")
        opened = RunOpened(now, self._ids("run-"), request.agent, request.mandate)
        self._emit(ledger.last_number + 1, opened)
        return Opened(opened.id)

    def recorded(self, request: Recorded, now: float) -> Done | NotAllowed:
        """Note which record the opening of a run is. What is said first stands."""
        try:
            run = remembered(self.ledger, request.run)
        except Refusal as refusal:
            return _refused(refusal, now)
        if run.opener == request.agent and isinstance(run, Run) and not run.cause:
            self._emit(run.number, OpeningRecorded(now, request.cause))
        return Done()

    def close(self, request: CloseRun, now: float) -> Done | NotAllowed:
        """Close a run. Closing it again says Done."""
        try:
            run = remembered(self.ledger, request.run)
        except Refusal as refusal:
            return _refused(refusal, now)
        if run.opener != request.agent:
            return NotAllowed(f"run {run.id} can only be closed by {run.opener}, which opened it")
        if isinstance(run, Run):
            self._emit(run.number, RunEnded(now, expired=False))
        return Done()

    def sweep(self, now: float) -> tuple[EndedRun, ...]:
        """End the runs whose time is over, and forget those that ended long ago; give those that ended by their time.

        To be called every few seconds. A run whose time is over allows nothing more in any case.
        """
        self._end_overdue(now)
        for run in self.ledger.forgettable(now):
            self._emit(run.number, RunForgotten(now))
        ended, self._ended = tuple(self._ended), []
        return ended

    def step(self, request: Step, now: float, webhook: str = "") -> Taken | NotAllowed:
        """Take up an action: count what it may use, if that stays within mandate and grants."""
        try:
            place = standing(self.ledger, request.run, request.agent, request.grant, now)
            amounts = with_step(request.amounts)
            facts = KnownFacts(request.kind, request.name, request.target, request.data_classes)
            outside = out_of_scope(place.run.mandate, place.scope, facts)
            violations = (*outside, *too_much(place, amounts, self.bounds))
            if violations:
                go_beyond("the action", violations, place)
            check_asks(place, self.bounds)
        except Refusal as refusal:
            return _refused(refusal, now)
        took = Took(
            at=now,
            seq=place.run.last_seq + 1,
            agent=request.agent,
            grant=request.grant,
            kind=request.kind,
            name=request.name,
            target=request.target,
            fingerprint=fingerprint(request.kind, request.name, request.target, request.digest),
            labels=request.labels,
            amounts=amounts,
            webhook=webhook,
            turns_to=request.turns_to,
            brings=request.brings,
        )
        return Taken(took.seq, self._take(place, took))

    def settle(self, request: Settle, now: float, webhook: str = "") -> Done | NotAllowed:
        """Note whether an action goes ahead; one that does not gives back what it reserved. Once for all."""
        try:
            found = taken_up(self.ledger, request.run, request.seq, webhook)
        except Refusal as refusal:
            return _refused(refusal, now)
        if found is None:
            return Done()
        run, taken = found
        if taken.settled is None:
            self._emit(run.number, Settled(now, request.seq, request.allowed))
        elif taken.settled != request.allowed:
            said = "allowed" if taken.settled else "not allowed"
            return NotAllowed(f"action {request.seq} of run {run.id} was settled before, as {said}")
        return Done()

    def learn(self, request: Learn, now: float, webhook: str = "") -> Done | NotAllowed:
        """Note what came of an action that went ahead. Saying it again changes nothing.

        Of an action too long ago to be known, the labels on its result still count, and nothing else.
        """
        try:
            found = taken_up(self.ledger, request.run, request.seq, webhook, request.agent)
        except TooLongAgoError as refusal:
            member = refusal.run.members.get(request.agent)
            if member is not None and request.labels:
                if not refusal.run.knows(request.labels, member.labels):
                    late = Learned(now, request.seq, request.agent, request.labels, (), None)
                    self._emit(refusal.run.number, late)
                return Done()
            return _refused(refusal, now)
        except Refusal as refusal:
            return _refused(refusal, now)
        if found is None:
            return Done()
        run, taken = found
        if taken.settled is False:
            return NotAllowed(f"action {request.seq} of run {run.id} did not go ahead, so nothing can come of it")
        actual = None if request.actual is None or taken.ended else really_used(taken.amounts, request.actual)
        if taken.settled is None or actual or not run.has_learned(taken, request.labels, request.cleansed):
            self._emit(run.number, Learned(now, request.seq, request.agent, request.labels, request.cleansed, actual))
        return Done()

    def propose(self, request: Propose, to: Agent | None, now: float, webhook: str = "") -> Proposed | NotAllowed:
        """Take up a delegation, and say what grant it would give; `to` is None where no such agent is governed."""
        if to is None:
            return NotAllowed(f"agent {request.to} is not governed: no Agent of that name is known")
        try:
            place = standing(self.ledger, request.run, request.agent, request.grant, now)
            grant = grant_for(place, request, now, self.bounds, self._ids)
            violations = too_much(place, ONE_STEP, self.bounds, joining=grant.to)
            if violations:
                go_beyond("the delegation", violations, place)
            check_asks(place, self.bounds)
        except Refusal as refusal:
            return _refused(refusal, now)
        took = Took(
            at=now,
            seq=place.run.last_seq + 1,
            agent=request.agent,
            grant=request.grant,
            kind="Delegation",
            name=request.to,
            target=None,
            fingerprint=fingerprint("Delegation", request.to, repr(request.scope)),
            labels=request.labels,
            amounts=ONE_STEP,
            webhook=webhook,
            turns_to=request.to,
            proposed=grant,
        )
        return Proposed(took.seq, self._take(place, took), grant, to)

    def issue(self, request: Issue, now: float, webhook: str = "") -> Grant | NotAllowed:
        """Give a proposed grant; that settles its delegation as allowed. Doing so again gives the same grant."""
        try:
            run, holding = proposed(self.ledger, request.run, request.grant, now, webhook)
        except Refusal as refusal:
            return _refused(refusal, now)
        if not holding.given:
            self._emit(run.number, GrantIssued(now, request.grant, request.cause))
        elif holding.grant.cause != request.cause:
            return NotAllowed(f"grant {request.grant} was given before, by decision {holding.grant.cause}")
        return holding.grant

    def check_plan(self, request: CheckPlan, judge: Judge, now: float, webhook: str = "") -> PlanChecked | NotAllowed:
        """Check a plan as a whole. Nothing is reserved for its steps, and the plan itself is no step of the run."""
        try:
            place = standing(self.ledger, request.run, request.agent, request.grant, now)
            check_asks(place, self.bounds)
        except Refusal as refusal:
            return _refused(refusal, now)
        checked = check_plan(request.steps, judge, ceilings_of(place, self.bounds, now))
        took = Took(
            at=now,
            seq=place.run.last_seq + 1,
            agent=request.agent,
            grant=request.grant,
            kind="Plan",
            name="plan",
            target=None,
            fingerprint=fingerprint("Plan", msgspec.json.encode(request.steps).decode()),
            labels=request.labels,
            amounts=NOTHING,
            webhook=webhook,
        )
        return PlanChecked(took.seq, self._take(place, took), checked.totals, checked.violations, checked.held)

    def _emit(self, number: int, event: Event) -> None:
        self.unsaved.append((number, event))
        self.ledger.apply(number, event)

    def _end_overdue(self, now: float) -> None:
        for run in self.ledger.overdue(now):
            self._emit(run.number, RunEnded(now, expired=True))
            self._ended.append(self.ledger.ended[run.id])

    def _take(self, place: Place, took: Took) -> View:
        """Reserve, and give what the run looked like before; of labels, what the agent has from now on."""
        run = place.run
        look = _look(place, took.at)
        look["repeats"] = run.actions.repeats(place.member.print, took.fingerprint)
        look["idle_steps"] = run.actions.idle_with(took.fingerprint)
        look["exchanges"] = run.turns.exchanges(took.agent, took.turns_to) if took.turns_to else 0
        look["on_target"] = run.marks.on(took.target)
        look["recent_on_target"] = self.ledger.recent(took.at).on(took.target)
        self._emit(run.number, took)
        return View(labels=run.labels.names(place.member.had_at(took.seq)), **look)


def _look(place: Place, now: float) -> dict[str, Any]:
    run, holding = place.run, place.holding
    return {
        "run": run.id,
        "requester": run.mandate.requester,
        "purpose": run.mandate.purpose,
        "opened_by": run.opener,
        "cause": holding.grant.cause if holding else run.cause,
        "path": run.path(holding),
        "grants": run.grants(holding),
        "used": as_amounts(run.account.used),
        "agents": run.acted,
        "depth": run.depth,
        "age_seconds": max(0, int(now - run.opened_at)),
    }


def _refused(refusal: Refusal, now: float) -> NotAllowed:
    view = None
    if refusal.place:
        labels = refusal.place.run.labels.names(refusal.place.member.reached_by)
        view = View(labels=labels, **_look(refusal.place, now))
    return NotAllowed(refusal.reason, refusal.violations, view)
