"""Which budget stopped an action, and who had spent it up to then: by the audit records alone."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from fleetward.audit.query import RecordQuery, utc
from fleetward.audit.record import DecisionRecord
from fleetward.budget.amounts import limits_of
from fleetward.budget.windows import Window, WindowError, expired, slot_at, window_at
from fleetward.cli.budgets import words
from fleetward.cli.budgets.read import Budgets
from fleetward.cli.budgets.spent import TYPES, Share, Use, by_agent, by_run, uses
from fleetward.cli.output import CliError, printable
from fleetward.cli.records import EVERYTHING, Records
from fleetward.registry.slice import Budget, BudgetWindow

LOOKED_THROUGH = 1000
"""So many decisions, the newest, are looked through before all of them are."""

CLOCKS = timedelta(hours=1)
"""By how much the clocks of a webhook and of its hub may differ at most for its records to be found."""

LONGEST_OPEN = timedelta(days=2)
"""An action without an outcome is settled at its estimate within a day, so what is older is in no rolling window."""


class Sharing(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """What one agent, or one run, had taken of the limit."""

    agent: str | None = None
    run: str | None = None
    spent: int
    reserved: int
    actions: int
    last_at: str
    agents: tuple[str, ...] = ()
    """Of a run."""
    runs: tuple[str, ...] = ()
    """Of an agent."""


class Explained(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """`fleetward budgets explain -o json`. Amounts are in the unit of the limit."""

    decision: DecisionRecord | None
    """What was stopped; null where nothing was, and the use up to now is told."""
    budget: str
    scope: str
    window: str
    limit: str
    max: int | None
    """As the limit is now; null where there is no such limit any more."""
    resets_at: float | None
    until: str
    """Up to when use is told: the time of the decision."""
    spent: int
    reserved: int
    agents: list[Sharing]
    runs: list[Sharing]


def find_stop(records: Records, agent: str | None, budget: str | None) -> DecisionRecord | None:
    """Find the newest decision that a budget stopped, of an agent or by a budget; None where there is none."""
    query = RecordQuery(agent=agent, types=("Decision",))
    for limit in (LOOKED_THROUGH, 0):
        found, more = records.newest(query, limit)
        for stored in reversed(found):
            if b'"shortfall"' not in stored.body:
                continue
            record = stored.record
            short = record.shortfall if isinstance(record, DecisionRecord) else None
            if isinstance(record, DecisionRecord) and short is not None and budget in {None, short.budget}:
                return record
        if not more:
            break
    return None


def explain_stop(budgets: Budgets, record: DecisionRecord) -> Explained:
    """Say who had spent what stopped an action. CliError where no budget did."""
    short = record.shortfall
    if short is None:
        raise CliError(
            f"no budget stopped {printable(record.id)}: {record.decision}, {printable(record.reason)}; "
            "`audit show` has all of it"
        )
    until = datetime.fromisoformat(record.time)
    budget = budgets.known.get(short.budget)
    found, window = used(budgets.records, short.budget, short.scope, budget, until)
    return _explained(
        found,
        decision=record,
        budget=short.budget,
        scope=short.scope,
        window=window,
        limit=short.limit,
        max=max_of(budget, short.limit),
        resets_at=short.resets_at,
        until=utc(until),
    )


def explain_use(budgets: Budgets, key: str, scope: str, limit: str) -> Explained:
    """Say who has spent a budget up to now, where it stopped nothing."""
    until = datetime.now(UTC)
    budget = budgets.known.get(key)
    found, window = used(budgets.records, key, scope, budget, until)
    now = _window(budget, until.timestamp())
    return _explained(
        found,
        decision=None,
        budget=key,
        scope=scope,
        window=window,
        limit=limit,
        max=max_of(budget, limit),
        resets_at=now.ends_at if now is not None else None,
        until=utc(until),
    )


def used(records: Records, key: str, scope: str, budget: Budget | None, until: datetime) -> tuple[list[Use], str]:
    """Give what was taken out of a pot in the window that was open at `until`, up to then, and the window's id."""
    window = _window(budget, until.timestamp())
    to = until + timedelta(microseconds=1)  # times go no finer, and a query's `until` is exclusive
    query = RecordQuery(types=TYPES, since=_since(budget, window, until), until=to, limit=EVERYTHING)
    found = uses(records.each(query), lambda budget, its_scope: (budget, its_scope) == (key, scope))
    id_ = window.id if window is not None else found[-1].window if found else ""
    return counting([use for use in found if use.window == id_], id_, until.timestamp()), id_


def counting(found: Sequence[Use], window: str, at: float) -> list[Use]:
    """Leave out what a rolling window holds no more at some moment."""
    seconds = words.rolling_seconds(window)
    if not seconds:
        return list(found)
    rolling = BudgetWindow(kind="Rolling", duration_seconds=seconds)
    return [use for use in found if not use.settled or not expired(slot_at(rolling, use.at), rolling, at)]


def _window(budget: Budget | None, at: float) -> Window | None:
    """Give the window of a budget that was open at some moment, if the budget is still there."""
    try:
        return window_at(budget.window, at) if budget is not None else None
    except WindowError:
        return None


def _since(budget: Budget | None, window: Window | None, until: datetime) -> datetime | None:
    """Say from when on records can matter; None: all."""
    if budget is None or window is None:
        return None
    if budget.window.duration_seconds:
        return until - timedelta(seconds=budget.window.duration_seconds * 2) - LONGEST_OPEN
    return datetime.fromtimestamp(window.began_at, UTC) - CLOCKS if window.began_at else None


def _explained(found: Sequence[Use], *, limit: str, **facts: Any) -> Explained:
    agents, runs = by_agent(found, limit), by_run(found, limit)
    return Explained(
        **facts,
        limit=limit,
        spent=sum(share.spent for share in agents),
        reserved=sum(share.reserved for share in agents),
        agents=[_sharing(share, agent=share.who, runs=share.others) for share in agents],
        runs=[_sharing(share, run=share.who, agents=share.others) for share in runs],
    )


def _sharing(share: Share, **who: Any) -> Sharing:
    last_at = utc(datetime.fromtimestamp(share.last_at, UTC))
    return Sharing(**who, spent=share.spent, reserved=share.reserved, actions=share.actions, last_at=last_at)


def max_of(budget: Budget | None, limit: str) -> int | None:
    """Give a limit as it is now."""
    return limits_of(budget.limits).get(limit) if budget is not None else None
