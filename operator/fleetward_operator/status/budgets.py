"""The status of budgets: what is in force, and how far their pots are used. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fleetward.budget.amounts import limits_of
from fleetward.budget.report import LimitReport, PotReport
from fleetward.budget.windows import WindowError, window_at
from fleetward.registry import slice as sl
from fleetward.resources.base import MAX_COUNT
from fleetward_operator.status import conditions as say
from fleetward_operator.status.conditions import Json, Verdict, count
from fleetward_operator.view.observed import Observed

MOST_POTS = 16
"""How many pots a status tells of."""

_NAME = 256
"""Characters of a name in a status."""


class _Use(NamedTuple):
    """A limit of a pot, and how far it is used."""

    percent: int
    pot: PotReport
    limit: LimitReport


def budget_status(
    observed: Observed,
    budget: sl.Budget | None,
    agents: int,
    previous: Mapping[str, Any],
    now: datetime,
    *,
    report: Sequence[PotReport] = (),
) -> Json:
    """Give the status of an AgentBudget or ClusterAgentBudget, which so many `agents` share; `report`: its pots."""
    status = say.head(_verdict(observed, budget, agents), observed, previous, now)
    if budget is None:
        return status
    uses = sorted(_uses(report), key=lambda use: (-use.percent, use.pot.scope, use.limit.limit))
    status["conditions"] += [
        say.holding(type_, verdict, observed, previous, now)
        for type_, verdict in (*_exhausted(uses), *_near(budget, uses))
    ]
    status |= {"generationInForce": budget.generation, "hash": budget.hash, "agents": agents}
    status |= {"pots": len(report), "paused": sum(1 for pot in report if pot.paused)}
    return status | _window(budget, now) | _spent(budget, uses)


def _verdict(observed: Observed, budget: sl.Budget | None, agents: int) -> Verdict:
    if observed.faults:
        return say.invalid(observed)
    if budget is None:
        return say.moving("Propagating", "the operator has not taken it in yet")
    if budget.problem:
        return say.stalled("BrokenNesting", f"nothing may be spent from it: {budget.problem}")
    if not agents:
        return say.ready("NoAgents", "no agent is among its subjects")
    return say.ready("InForce", f"limits {count(agents, 'agent')}")


def _exhausted(uses: Sequence[_Use]) -> Iterator[tuple[str, Verdict]]:
    """Say whether some pot has no room left."""
    paused = {use.pot.scope: use for use in uses if use.pot.paused}
    full = {use.pot.scope: use for use in uses if use.percent >= 100}
    scopes = full | paused
    if not scopes:
        return
    first = next(iter(full.values()), None) or next(iter(paused.values()))
    words = first.pot.paused or f"{_said(first.limit)} are spent or reserved"
    others = f"; so it is with {count(len(scopes) - 1, 'other pot')}" if len(scopes) > 1 else ""
    reason = "Paused" if paused else "NoRoom"
    yield "Exhausted", say.ready(reason, f"{_of(first.pot)}{words}{_anew(first.pot)}{others}")


def _near(budget: sl.Budget, uses: Sequence[_Use]) -> Iterator[tuple[str, Verdict]]:
    """Say which threshold is passed, the highest one."""
    used = uses[0].percent if uses else 0
    passed = [each for each in budget.thresholds if each.percent <= used]
    if passed:
        last = passed[-1]
        words = f"{used}% of {uses[0].limit.limit} is used; from {last.percent}% on: {last.action}"
        yield "Near", say.ready(last.action, f"{_of(uses[0].pot)}{words}")


def _uses(report: Sequence[PotReport]) -> Iterator[_Use]:
    for pot in report:
        for limit in pot.limits:
            yield _Use((limit.spent + limit.reserved) * 100 // max(limit.max, 1), pot, limit)


def _window(budget: sl.Budget, now: datetime) -> Json:
    try:
        window = window_at(budget.window, now.timestamp())
    except WindowError:  # its time zone is not known here; then it is not in force either
        return {}
    resets = "" if window.ends_at is None else _moment(window.ends_at)
    return {"window": window.id[:_NAME]} | ({"resetsAt": resets} if resets else {})


def _spent(budget: sl.Budget, uses: Sequence[_Use]) -> Json:
    most = uses[0] if uses else None
    status: Json = {}
    if most is not None:
        status = {"used": f"{most.percent}%", "spent": say.cut(_said(most.limit), _NAME)}
    if budget.scope == "Shared":
        known = {use.limit.limit: use for use in uses}
        left_out = [
            LimitReport(limit=name, max=most, remaining=most) for name, most in limits_of(budget.limits).items()
        ]
        shown = [use.limit for use in known.values()] or left_out
        status = {"used": "0%", "spent": say.cut(_said(shown[0]), _NAME)} | status
        return status | {"limits": [_limit(limit) for limit in sorted(shown, key=lambda each: each.limit)]}
    if uses:
        tops: dict[str, _Use] = {}
        for use in uses:
            tops.setdefault(use.pot.scope, use)
        status["topPots"] = [_pot(use) for use in list(tops.values())[:MOST_POTS]]
    return status


def _limit(limit: LimitReport) -> Json:
    names = ("max", "spent", "reserved", "leased", "remaining", "overshoot")
    amounts = {name: min(max(getattr(limit, name), 0), MAX_COUNT) for name in names}
    percent = min((limit.spent + limit.reserved) * 100 // max(limit.max, 1), MAX_COUNT)
    # Whole minutes: a forecast moves with every look at it, and each change of a status is written.
    empty = {} if limit.empty_at is None else {"emptyAt": _moment(limit.empty_at // 60 * 60)}
    return {"limit": say.cut(limit.limit, _NAME), **amounts, "percent": percent} | empty


def _pot(use: _Use) -> Json:
    resets = {} if use.pot.resets_at is None else {"resetsAt": _moment(use.pot.resets_at)}
    where = {"scope": say.cut(use.pot.scope, _NAME), "window": say.cut(use.pot.window, _NAME)}
    return where | _limit(use.limit) | resets


def _said(limit: LimitReport) -> str:
    return f"{limit.limit} {limit.spent + limit.reserved} of {limit.max}"


def _of(pot: PotReport) -> str:
    return f"{pot.scope}: " if pot.scope else ""


def _anew(pot: PotReport) -> str:
    return "" if pot.resets_at is None else f"; it begins anew at {_moment(pot.resets_at)}"


def _moment(at: float) -> str:
    return say.seconds(datetime.fromtimestamp(at, UTC))
