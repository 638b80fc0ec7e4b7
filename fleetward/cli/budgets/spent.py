"""Who spent what, by the audit records alone: what decisions reserved, and what their outcomes put in its place."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from fleetward.audit.query import RecordType
from fleetward.audit.store import StoredRecord
from fleetward.budget.amounts import ACTIONS, CONCURRENCY
from fleetward.budget.sweeping import KEPT_SECONDS
from fleetward.decision.action import Spend

TYPES: tuple[RecordType, ...] = ("Decision", "Outcome", "Budget")
"""The records that say something of spending."""

LOST = "(lost with a webhook)"
"""Stands for an agent where nobody knows who used what a webhook held on lease when its machine died."""


Pot = tuple[str, str, str]
"""Budget, scope and window."""


class Use(NamedTuple):
    """What one action took out of one window of a pot."""

    budget: str
    scope: str
    window: str
    agent: str
    run: str | None
    decision_id: str
    amounts: dict[str, int]
    at: float
    """When it was last said, in seconds since the epoch."""
    settled: bool
    """Whether this is what was used, and not what was reserved for it."""

    @property
    def pot(self) -> Pot:
        """Where it counts."""
        return self.budget, self.scope, self.window


class _Said(msgspec.Struct, rename="camel"):
    """Of a record, what is needed here; other fields are passed over."""

    type: str
    id: str
    time: str
    writer: str
    seq: int
    agent: str | None = None
    run: str | None = None
    decision_id: str | None = None
    spends: tuple[Spend, ...] = ()
    event: str = ""
    budget: str = ""
    scope: str = ""
    window: str = ""
    amounts: dict[str, int] = {}


_decode = msgspec.json.Decoder(_Said).decode

Wanted = Callable[[str, str], bool]
"""Says of a budget and a scope whether they are asked for."""


def uses(records: Iterable[StoredRecord], wanted: Wanted = lambda *_: True) -> list[Use]:
    """Give what each action took out of the pots wanted, in whatever order the records come.

    What an outcome says takes the place of what its decision reserved; where it says nothing, the estimate stands.
    """
    reserved: dict[str, _Said] = {}
    ended: dict[str, _Said] = {}
    at_estimate: dict[tuple[str, Pot], float] = {}
    found: list[Use] = []
    for stored in records:
        said = _decode(stored.body)
        if said.type == "Decision" and said.spends:
            reserved[said.id] = said
        elif said.type == "Outcome" and said.spends and said.decision_id:
            ended[said.decision_id] = said
        elif said.event == "SettledAtEstimate" and said.decision_id:
            at_estimate[said.decision_id, (said.budget, said.scope, said.window)] = _epoch(said)
        elif said.event == "Forfeited" and wanted(said.budget, said.scope):
            pot = (said.budget, said.scope, said.window)
            found.append(Use(*pot, LOST, None, said.id, _settled(said.amounts), _epoch(said), settled=True))
    for decision_id in {**reserved, **ended}:
        decision, outcome = reserved.get(decision_id), ended.get(decision_id)
        estimates, actuals = _by_pot(decision, wanted), _by_pot(outcome, wanted)
        for pot in {**estimates, **actuals}:
            estimate, actual = estimates.get(pot, {}), actuals.get(pot, {})
            action = _Action(decision_id, pot, decision, outcome, at_estimate.get((decision_id, pot)))
            found += action.uses(estimate, actual)
    return sorted(found, key=lambda use: use.at)


class _Action(NamedTuple):
    """What is recorded of an action in one pot."""

    id: str
    pot: Pot
    decision: _Said | None
    outcome: _Said | None
    estimated_at: float | None
    """When its estimate was settled, as no outcome came in time."""

    def uses(self, estimate: dict[str, int], actual: dict[str, int]) -> Iterator[Use]:
        """Give what it took: one use, or two where its outcome came far too late."""
        ended_at = _epoch(self.outcome) if self.outcome is not None else None
        estimated_at = self.estimated_at
        if ended_at is not None and estimated_at is not None and ended_at > estimated_at + KEPT_SECONDS:
            # The ledger knew of no estimate any more, and booked the outcome beside it.
            yield self._use(self.outcome, _settled(actual), ended_at, settled=True)
            ended_at = None
        if ended_at is not None:
            yield self._use(self.outcome, _settled({**estimate, **actual}), ended_at, settled=True)
        elif estimated_at is not None:
            yield self._use(self.decision, _settled(estimate), estimated_at, settled=True)
        elif self.decision is not None:
            yield self._use(self.decision, estimate, _epoch(self.decision), settled=False)

    def _use(self, said: _Said | None, amounts: dict[str, int], at: float, *, settled: bool) -> Use:
        known = [each for each in (said, self.decision) if each is not None]
        agent = next((each.agent for each in known if each.agent), None)
        run = next((each.run for each in known if each.run), None)
        return Use(*self.pot, agent or "-", run, self.id, amounts, at, settled)


def _by_pot(said: _Said | None, wanted: Wanted) -> dict[Pot, dict[str, int]]:
    """Give what a record says, by pot; what a rate let through counts nowhere."""
    found: dict[Pot, dict[str, int]] = {}
    for spend in said.spends if said is not None else ():
        amounts = {limit: value for limit, value in spend.amounts.items() if limit != ACTIONS and value >= 0}
        if wanted(spend.budget, spend.scope) and amounts:
            its = found.setdefault((spend.budget, spend.scope, spend.window), {})
            for limit, value in amounts.items():
                its[limit] = its.get(limit, 0) + value
    return found


def _settled(amounts: dict[str, int]) -> dict[str, int]:
    """Leave out what is free again with the outcome: a place among those who act at once."""
    return {limit: value for limit, value in amounts.items() if limit != CONCURRENCY}


class Share(NamedTuple):
    """What an agent, or a run, has of one limit."""

    who: str
    spent: int
    reserved: int
    actions: int
    last_at: float
    others: tuple[str, ...]
    """Of a run, its agents; of an agent, the runs it spent in."""

    @property
    def amount(self) -> int:
        """Spent and reserved."""
        return self.spent + self.reserved


def by_agent(found: Iterable[Use], limit: str) -> list[Share]:
    """Sum up a limit by agent, the largest share first."""
    return _shares(found, limit, lambda use: use.agent, lambda use: use.run)


def by_run(found: Iterable[Use], limit: str) -> list[Share]:
    """Sum up a limit by run, the largest share first; what was done outside any run is left out."""
    return _shares((use for use in found if use.run), limit, lambda use: use.run or "", lambda use: use.agent)


def _shares(
    found: Iterable[Use], limit: str, who: Callable[[Use], str], other: Callable[[Use], str | None]
) -> list[Share]:
    groups: dict[str, list[Use]] = {}
    for use in found:
        if use.amounts.get(limit):
            groups.setdefault(who(use), []).append(use)
    shares = [_share(name, group, limit, other) for name, group in groups.items()]
    return sorted(shares, key=lambda share: (-share.amount, share.who))


def _share(name: str, group: list[Use], limit: str, other: Callable[[Use], str | None]) -> Share:
    def total(*, settled: bool) -> int:
        return sum(use.amounts[limit] for use in group if use.settled is settled)

    return Share(
        who=name,
        spent=total(settled=True),
        reserved=total(settled=False),
        actions=len({use.decision_id for use in group}),
        last_at=max(use.at for use in group),
        others=tuple(dict.fromkeys(filter(None, map(other, group)))),
    )


def totals(found: Iterable[Use]) -> dict[Pot, dict[str, int]]:
    """Sum up what is spent or reserved, by pot and window, and by limit."""
    sums: dict[Pot, dict[str, int]] = {}
    for use in found:
        its = sums.setdefault(use.pot, {})
        for limit, value in use.amounts.items():
            its[limit] = its.get(limit, 0) + value
    return sums


def _epoch(said: _Said) -> float:
    return datetime.fromisoformat(said.time).timestamp()
