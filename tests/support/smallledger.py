"""The real ledger, for the budgets and throttled rules of one slice, as a hub of a few lines keeps it."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from fleetward.audit import record
from fleetward.budget import calls
from fleetward.budget.ledger import Ledger
from fleetward.budget.report import LimitReport
from fleetward.budget.store import open_ledger_store
from fleetward.budget.terms import Terms, terms_in
from fleetward.registry.slice import Slice
from fleetward_operator.hub.settling import entry_of


class SmallLedger:
    """Answers what webhooks ask about budgets, and settles by their records. For one thread."""

    def __init__(self, path: Path, slice_: Slice) -> None:
        self.slice = slice_
        self.ledger = Ledger(open_ledger_store(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()

    def terms(self, budget: str) -> Terms | None:
        return terms_in(self.slice.items, budget)

    def answer(self, request: calls.Request, holder: str) -> calls.Reply:
        match request:
            case calls.Reserve():
                return self.ledger.reserve(request, holder, self.terms, time.time())
            case calls.Release():
                return self.ledger.release(request, holder, time.time())
            case calls.Disown():
                return self.ledger.disown(request, holder, time.time(), self.terms)

    def fold(self, lines: Iterable[bytes]) -> None:
        records = [record.decode(line) for line in lines]
        kinds = (record.DecisionRecord, record.OutcomeRecord)
        entries = [entry_of(each) for each in records if isinstance(each, kinds)]
        self.ledger.fold([entry for entry in entries if entry is not None], self.terms, time.time())

    def standing(self, budget: str, limit: str, scope: str = "") -> LimitReport | None:
        """Say how one limit of a pot stands; None where nothing was ever taken from the pot."""
        for pot in self.ledger.report(self.terms, time.time(), [budget], history=False):
            if pot.scope == scope:
                return next((each for each in pot.limits if each.limit == limit), None)
        return None
