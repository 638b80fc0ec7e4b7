"""The ledger beside the records: what it holds as spent and reserved must be the sum of what they say."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from fleetward.audit.query import RecordQuery
from fleetward.budget.amounts import ACTIONS
from fleetward.budget.report import BudgetsReport, PotReport
from fleetward.cli.budgets.explain import counting
from fleetward.cli.budgets.read import Budgets, untouched
from fleetward.cli.budgets.spent import TYPES, Pot, Use, uses
from fleetward.cli.records import EVERYTHING
from fleetward.registry.slice import Budget

GRACE_SECONDS = 3600.0
"""For so long after its record's time something may have settled at the latest; of rolling windows alone."""

TRIES = 5
AGAIN_SECONDS = 0.5
"""A record is stored a moment before it counts, so a difference is one only where it lasts."""


class Difference(NamedTuple):
    """A limit of which the ledger holds something else than the records say."""

    budget: str
    scope: str
    window: str
    limit: str
    ledger: int
    """Spent and reserved."""
    records: int


class Verified(NamedTuple):
    """What was compared, and what differs."""

    pots: int
    limits: int
    actions: int
    """How many actions the records tell of."""
    differences: tuple[Difference, ...]


def verify(budgets: Budgets) -> Verified:
    """Compare all pots that are open with the records, some times over where they differ."""
    found = compare(budgets.report(), _uses(budgets), budgets.known)
    for _ in range(TRIES - 1):
        if not found.differences:
            break
        time.sleep(AGAIN_SECONDS)
        lasting = compare(budgets.report(), _uses(budgets), budgets.known)
        places = {difference[:4] for difference in lasting.differences}
        if not any(difference[:4] in places for difference in found.differences):
            return lasting._replace(differences=())
        kept = {difference[:4] for difference in found.differences}
        found = lasting._replace(differences=tuple(each for each in lasting.differences if each[:4] in kept))
    return found


def _uses(budgets: Budgets) -> list[Use]:
    return uses(budgets.records.each(RecordQuery(types=TYPES, limit=EVERYTHING)))


def compare(report: BudgetsReport, found: Sequence[Use], known: Mapping[str, Budget]) -> Verified:
    """Compare a report with what records say; of `known` budgets also pots that are missing in the report."""
    by_pot: dict[tuple[str, str, str], list[Use]] = {}
    for use in found:
        by_pot.setdefault(use.pot, []).append(use)
    differences: list[Difference] = []
    limits = actions = 0
    pots = [*report.pots, *_missing(report, by_pot, known)]
    for pot in pots:
        its = by_pot.get((pot.budget, pot.scope, pot.window), ())
        said, perhaps = (counting(its, pot.window, at) for at in (report.at, report.at - GRACE_SECONDS))
        actions += len({use.decision_id for use in said})
        for limit, ledger, least, most in _sums(pot, said, perhaps):
            limits += 1
            if not least <= ledger <= most:
                differences.append(Difference(pot.budget, pot.scope, pot.window, limit, ledger, least))
    return Verified(len(pots), limits, actions, tuple(differences))


def _missing(report: BudgetsReport, by_pot: Iterable[Pot], known: Mapping[str, Budget]) -> Iterator[PotReport]:
    """Give the pots in windows that are open of which records speak and the ledger knows nothing."""
    there = {(pot.budget, pot.scope, pot.window) for pot in report.pots}
    for key, scope, window in by_pot:
        if (key, scope, window) not in there and key in known:
            pot = untouched(known[key], report.at)
            if pot.window == window:
                yield replace(pot, scope=scope)


def _sums(pot: PotReport, said: Sequence[Use], perhaps: Sequence[Use]) -> Iterator[tuple[str, int, int, int]]:
    """Give each limit with what the ledger holds of it, and what the records say at least and at most.

    The two differ for rolling windows alone: what settled is free again a while after the ledger heard of it, and a
    record says when it was written.
    """
    for limit in pot.limits:
        if limit.limit != ACTIONS:  # what a rate let through is gone once it is granted, and no record says it
            least, most = (sum(use.amounts.get(limit.limit, 0) for use in each) for each in (said, perhaps))
            yield limit.limit, limit.spent + limit.reserved, least, most
