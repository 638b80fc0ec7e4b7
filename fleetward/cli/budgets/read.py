"""Where `fleetward budgets` reads: the ledger and the records of a folder, or a cluster's hub."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from time import time
from typing import Protocol

from fleetward.budget.amounts import limits_of
from fleetward.budget.ledger import Ledger
from fleetward.budget.report import BudgetsReport, LimitReport, PotReport
from fleetward.budget.store import LedgerError, open_ledger_store
from fleetward.budget.terms import terms_in
from fleetward.budget.windows import WindowError, window_at
from fleetward.cli.output import CliError
from fleetward.cli.records import Records, open_store
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Budget

LEDGER_FILE = "budgets.db"
"""In the data folder of `fleetward serve`."""


class Budgets(Protocol):
    """Budgets of a folder or a cluster. Every method raises CliError where that cannot be read."""

    where: str
    """What is read, in words."""

    def report(self) -> BudgetsReport:
        """Say how every pot stands now that something was taken out of."""

    @property
    def known(self) -> Mapping[str, Budget]:
        """The resources by `KIND/NAME`, those that nobody spent from included."""

    @property
    def records(self) -> Records:
        """The audit records, of all namespaces."""


@contextlib.contextmanager
def open_ledger(data: Path, url: str | None, registry: Callable[[], Registry]) -> Iterator[Budgets]:
    """Open the ledger of a data folder for reading, or the one at `url`. CliError where it cannot be read."""
    with contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(
                contextlib.closing(open_ledger_store(url or data / LEDGER_FILE, read_only=True))
            )
            yield _FolderBudgets(Ledger(store), data, registry, stack)
        except LedgerError as error:
            raise CliError(str(error)) from None


class _FolderBudgets:
    def __init__(
        self, ledger: Ledger, data: Path, registry: Callable[[], Registry], stack: contextlib.ExitStack
    ) -> None:
        self._ledger = ledger
        self._data = data
        self._registry = registry
        self._stack = stack
        self.where = str(data / LEDGER_FILE)

    def report(self) -> BudgetsReport:
        """Read the ledger."""
        now = time()
        return BudgetsReport(at=now, pots=self._ledger.report(partial(terms_in, self._governing), now))

    @property
    def known(self) -> Mapping[str, Budget]:
        """The budgets of the folder."""
        return self._governing.budgets

    @cached_property
    def records(self) -> Records:
        """The audit store."""
        return self._stack.enter_context(open_store(self._data / "audit.db"))

    @cached_property
    def _governing(self) -> Registry:
        return self._registry()


def with_untouched(report: BudgetsReport, known: Mapping[str, Budget]) -> BudgetsReport:
    """Add the budgets that one pot is enough for and that nobody took anything out of, so far."""
    there = {pot.budget for pot in report.pots}
    pots = [
        untouched(budget, report.at) for key, budget in known.items() if key not in there and budget.scope == "Shared"
    ]
    ordered = sorted([*report.pots, *pots], key=lambda pot: (pot.budget, pot.scope))
    return BudgetsReport(at=report.at, pots=tuple(ordered))


def untouched(budget: Budget, now: float) -> PotReport:
    """Give the pot of a budget that nobody took anything out of."""
    limits = [LimitReport(limit=name, max=max_, remaining=max_) for name, max_ in limits_of(budget.limits).items()]
    try:
        window = window_at(budget.window, now)
    except WindowError as error:
        return PotReport(budget=budget.key, window="-", began_at=now, limits=tuple(limits), paused=str(error))
    return PotReport(
        budget=budget.key,
        window=window.id,
        began_at=window.began_at or now,
        resets_at=window.ends_at,
        limits=tuple(limits),
        paused=budget.problem,
    )
