"""Answering a holder's wishes: all that an action needs goes on lease, or nothing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from fleetward.budget.amounts import ACTIONS, add
from fleetward.budget.calls import Grant, Holding, Lease, Need, Reserve, Reserved, Short, Wish
from fleetward.budget.pages import Pages
from fleetward.budget.pot import LEASE_SECONDS, HeldLease, PotKey
from fleetward.budget.room import Refusal, Room
from fleetward.budget.terms import Terms, named
from fleetward.budget.thresholds import may_resume, pause, resume, roll
from fleetward.budget.waiting import wait
from fleetward.budget.windows import Window, WindowError, window_at
from fleetward.decision.action import Shortfall
from fleetward.registry.text import MAX_COUNT

TOKEN_SECONDS = 1.0
"""For how long tokens of a rate may be used."""

_LONGEST_SCOPE = 512

TermsOf = Callable[[str], Terms | None]


@dataclass(slots=True)
class _Asked:
    """A pot that wishes name."""

    key: PotKey
    room: Room
    granted: dict[str, int] = field(default_factory=dict)
    """With this question, so far."""
    wanted: dict[str, int] = field(default_factory=dict)
    first: tuple[int, int] | None = None
    """The answer and the grant that tell the holder of what it gets on top."""


def reserve(pages: Pages, request: Reserve, holder: str, terms: TermsOf, now: float) -> Reserved:
    """Answer a question. Raises LedgerError where the store cannot be read."""
    return _Reserving(pages, request, holder, terms, now).answer()


class _Reserving:
    def __init__(self, pages: Pages, request: Reserve, holder: str, terms: TermsOf, now: float) -> None:
        self._pages, self._request, self._holder, self._now = pages, request, holder, now
        self._asked: dict[tuple[str, str], _Asked | Short] = {}
        self._look_up(terms)

    def answer(self) -> Reserved:
        if self._is_late():
            return Reserved(answers=tuple(_late(wish) for wish in self._request.wishes))
        self._hear()
        answers = [self._wish(index, wish) for index, wish in enumerate(self._request.wishes)]
        self._top_up(answers)
        for asked in self._asked.values():
            if isinstance(asked, _Asked):
                asked.room.pot.prune(self._now)  # not before all is granted: a lease that is added to must be known
        return Reserved(answers=tuple(answers))

    # What is asked about

    def _look_up(self, terms: TermsOf) -> None:
        found: dict[tuple[str, str], tuple[Terms, Window]] = {}
        for wish in self._request.wishes:
            for need in wish.needs:
                name = (need.budget, need.scope)
                if name in found or name in self._asked:
                    continue
                known = _terms(need, terms, self._now)
                if isinstance(known, Short):
                    self._asked[name] = known
                else:
                    found[name] = known
        keys = {name: PotKey(*name, window.id) for name, (_, window) in found.items()}
        self._pages.load(keys.values())
        for name, (its_terms, window) in found.items():
            pot = self._pages.get_or_make(keys[name], window, self._now)
            self._asked[name] = _Asked(
                keys[name], Room(pot, its_terms, window, self._now, (self._holder, self._request.born))
            )
            roll(self._pages, keys[name], pot, its_terms, self._now)
            reason = may_resume(pot, its_terms)
            if reason:
                resume(self._pages, keys[name], pot, reason, self._now)

    def _leases(self) -> Iterator[HeldLease]:
        """Give what the process has on lease of the pots that it asks about."""
        for asked in self._asked.values():
            if isinstance(asked, _Asked):
                lease = asked.room.pot.lease_of(self._holder, self._request.born)
                if lease is not None:
                    yield lease

    def _is_late(self) -> bool:
        """Say whether a later question was heard: this one was given up, and knows nothing of what came since."""
        return any(lease.number > self._request.number for lease in self._leases())

    def _hear(self) -> None:
        """Take in what the holder has of the pots that it asks about."""
        said: dict[PotKey, Holding] = {
            PotKey(one.budget, one.scope, one.window): one for one in self._request.holdings if _counts(one)
        }
        for asked in self._asked.values():
            if isinstance(asked, _Asked):
                pot = asked.room.pot
                if pot.hear(self._holder, self._request.born, said.get(asked.key), self._now):
                    self._pages.changed(asked.key)

        for lease in self._leases():
            lease.number = self._request.number

    # One wish

    def _wish(self, index: int, wish: Wish) -> Lease | Short:
        needs = _together(wish)
        if isinstance(needs, Short):
            return needs
        shorts: list[tuple[int, Short]] = []
        rooms: list[tuple[_Asked, Mapping[str, int]]] = []
        for need in needs:
            asked = self._asked[need.budget, need.scope]
            if isinstance(asked, Short):
                shorts.append((3, asked))
                continue
            refusal = asked.room.refusal(need.amounts, wish.agent)
            if refusal is None:
                rooms.append((asked, need.amounts))
            else:
                self._refused(asked, refusal, wish.agent)
                shorts.append((refusal.rank, _short(asked, refusal)))
        if shorts:
            return max(shorts, key=lambda short: short[0])[1]
        grants = [self._grant(asked, amounts, wish.agent) for asked, amounts in rooms]
        for place, need in enumerate(needs):
            asked = rooms[place][0]
            asked.first = asked.first or (index, place)
            for limit, amount in need.wanted.items():
                if limit in need.amounts:
                    asked.wanted[limit] = max(asked.wanted.get(limit, 0), amount)
        return Lease(grants=tuple(grants))

    def _refused(self, asked: _Asked, refusal: Refusal, agent: str) -> None:
        pot = asked.room.pot
        if refusal.pause is not None and pot.pause is None:
            pause(self._pages, asked.key, pot, refusal.pause)
        if refusal.waits:
            wait(pot.queue, agent, self._now, refusal.retry_after_seconds or 0)
            self._pages.changed(asked.key)

    def _grant(self, asked: _Asked, amounts: Mapping[str, int], agent: str) -> Grant:
        room = asked.room
        room.take(amounts, agent)
        room.pot.grant(self._holder, self._request.born, amounts, self._now, self._request.number)
        add(asked.granted, amounts)
        self._pages.changed(asked.key)
        seconds = TOKEN_SECONDS if ACTIONS in amounts else LEASE_SECONDS
        if room.window.ends_at is not None:
            seconds = min(seconds, max(0.0, room.window.ends_at - self._now))
        return Grant(
            budget=asked.key.budget,
            scope=asked.key.scope,
            window=asked.key.window,
            amounts=dict(amounts),
            seconds=seconds,
        )

    # More than is needed

    def _top_up(self, answers: list[Lease | Short]) -> None:
        """Let the holder have what it is about to need, as far as that is far from any limit."""
        for asked in self._asked.values():
            if isinstance(asked, Short) or asked.first is None:
                continue
            room = asked.room
            others = sum(1 for holder in room.pot.lessees() if holder != self._holder)
            extra = {
                limit: more
                for limit, wanted in asked.wanted.items()
                if (more := room.spare(limit, asked.granted.get(limit, 0), wanted, others)) > 0
            }
            if not extra:
                continue
            room.take({ACTIONS: extra.get(ACTIONS, 0)}, "")
            room.pot.grant(self._holder, self._request.born, extra, self._now, self._request.number)
            index, place = asked.first
            lease = answers[index]
            if isinstance(lease, Lease):
                add(lease.grants[place].amounts, extra)


def _terms(need: Need, terms: TermsOf, now: float) -> tuple[Terms, Window] | Short:
    """Give what holds for a pot; or the refusal, where that is not known or makes no sense."""
    known = terms(need.budget)
    if known is None:
        return _denied(need, f"{named(need.budget)} is not known here")
    if known.problem:
        return _denied(need, f"nothing may be taken from {known.name}: {known.problem}")
    if len(need.scope) > _LONGEST_SCOPE or not need.scope.isprintable():
        return _denied(need, f"the scope of {known.name} that was asked for makes no sense")
    try:
        return known, window_at(known.window, now)
    except (WindowError, ValueError, OverflowError) as error:
        return _denied(need, f"the window of {known.name} cannot be worked out: {error}")


def _together(wish: Wish) -> list[Need] | Short:
    """Give the needs of an action, one for each pot; or the refusal, where they make no sense."""
    found: dict[tuple[str, str], Need] = {}
    for need in wish.needs:
        if not need.amounts or any(not 0 <= amount <= MAX_COUNT for amount in need.amounts.values()):
            return _denied(need, f"what was asked of {named(need.budget)} makes no sense")
        name = (need.budget, need.scope)
        if name in found:
            amounts = dict(found[name].amounts)
            add(amounts, need.amounts)
            need = Need(budget=need.budget, scope=need.scope, amounts=amounts, wanted=found[name].wanted)  # noqa: PLW2901
        found[name] = need
    return list(found.values())


def _counts(holding: Holding) -> bool:
    return all(amount >= 0 for amounts in (holding.got, holding.returned) for amount in amounts.values())


def _late(wish: Wish) -> Short:
    """Answer an action of a question that its holder has given up."""
    need = wish.needs[0] if wish.needs else Need(budget="", amounts={})
    denied = _denied(need, f"what {named(need.budget)} was asked for came too late: its holder has asked again since")
    return msgspec.structs.replace(denied, decision="Throttle", retry_after_seconds=1)


def _denied(need: Need, reason: str) -> Short:
    limit, needed = next(iter(need.amounts.items()), ("", 0))
    shortfall = Shortfall(budget=need.budget, scope=need.scope, limit=limit, needed=needed, left=0)
    return Short(decision="Deny", reason=reason, shortfall=shortfall)


def _short(asked: _Asked, refusal: Refusal) -> Short:
    ends_at = asked.room.window.ends_at
    return Short(
        decision=refusal.decision,
        reason=refusal.reason,
        shortfall=Shortfall(
            budget=asked.key.budget,
            scope=asked.key.scope,
            limit=refusal.limit,
            needed=refusal.needed,
            left=refusal.left,
            resets_at=None if ends_at is None else int(ends_at),
        ),
        retry_after_seconds=refusal.retry_after_seconds,
    )
