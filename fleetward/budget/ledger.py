"""The ledger: the only place that grants.

For each limit of each pot in each window, at all times:

    settled + reserved + leased <= limit

save for what was used beyond what was reserved, which is counted as overshoot, and for limits lowered meanwhile.

    with ledger.batch():
        replies = [ledger.reserve(request, holder, terms, now) for request, holder in waiting]
        ledger.fold(entries, terms, now)
    # The batch is committed here; only now may a reply be given, or a record be acknowledged.

What a transaction began and could not finish has not happened: every answer of its batch has to be "cannot be said
now". A holder that says it got less than was granted puts right what it was never told.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from fleetward.budget import folding, reporting, reserving, sweeping
from fleetward.budget.amounts import in_words, some
from fleetward.budget.calls import Disown, PotRef, Release, Reserve, Reserved
from fleetward.budget.folding import Entry
from fleetward.budget.news import News, Pause, decode_news
from fleetward.budget.pages import Pages
from fleetward.budget.pot import Pot, PotKey
from fleetward.budget.report import PotReport
from fleetward.budget.reserving import TermsOf
from fleetward.budget.sql import LedgerStore
from fleetward.budget.store import LedgerError
from fleetward.budget.terms import named
from fleetward.budget.thresholds import watch
from fleetward.decision.replies import Done

__all__ = ["Entry", "Ledger", "LedgerError", "News", "Pause"]

_NEWS_AT_ONCE = 500

_Given = TypeVar("_Given")


class Ledger:
    """A ledger on a store. One thread uses it; times are passed in, in seconds since the epoch.

    Each method is one transaction, unless it is called within a `batch`. Every method raises LedgerError where the
    store cannot be read or written; nothing of the transaction has happened then, save that a commit may have been
    done whose success could not be learnt.
    """

    def __init__(self, store: LedgerStore) -> None:
        self._pages = Pages(store)
        self._store = store
        self._open = False
        self._failure: BaseException | None = None

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Do all that is done within in one transaction. Raises LedgerError where that cannot be committed."""
        if self._open:
            yield
            return
        self._failure = None
        try:
            if not self._store.begin():
                self._pages.forget()
            self._open = True
            yield
            self._commit()
        except BaseException:
            self._store.rollback()
            self._pages.forget()
            raise
        finally:
            self._open = False
        self._pages.committed()

    def _commit(self) -> None:
        if self._failure is not None:
            raise LedgerError(f"a part of the batch failed: {self._failure}") from self._failure
        self._pages.flush()
        self._store.commit()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    # Holders

    def reserve(self, request: Reserve, holder: str, terms: TermsOf, now: float) -> Reserved:
        """Grant what actions need, each all of it or nothing. `terms` gives what holds for a budget; None: unknown."""
        return self._do(lambda: reserving.reserve(self._pages, request, holder, terms, now))

    def release(self, request: Release, holder: str, now: float) -> Done:
        """Take back what a holder gives back."""
        return self._do(lambda: self._release(request, holder, now))

    def disown(self, request: Disown, holder: str, now: float, terms: TermsOf = lambda _: None) -> Done:
        """Drop what earlier processes of a holder had on lease, or count it as used where their records are lost."""
        return self._do(lambda: self._disown(request, holder, terms, now))

    def lessees(self, pots: Iterable[PotRef], but: str) -> dict[str, tuple[PotRef, ...]]:
        """Say who has unspent leases of these pots, other than one holder."""
        names = {(pot.budget, pot.scope) for pot in pots}
        return self._do(lambda: self._lessees(names, but))

    # Records and time

    def fold(self, entries: Sequence[Entry], terms: TermsOf, now: float) -> None:
        """Book what records say; only records that no fold has seen, by their writers' numbers, which go up."""
        self._do(lambda: folding.fold(self._pages, entries, terms, now))

    def folded(self, writer: str) -> int:
        """Give the number of the last record of a writer that was folded; 0 where there is none."""
        return self._do(lambda: self._store.writers((writer,)).get(writer, 0))

    def sweep(self, terms: TermsOf, now: float) -> None:
        """Settle what had no outcome in time, end pauses, forget windows that are over. Call it every second or so."""
        self._do(lambda: sweeping.sweep(self._pages, terms, now))

    # What is known

    def paused(self, now: float) -> tuple[Pause, ...]:
        """Give the pots that are paused."""
        return self._do(lambda: self._paused(now))

    def crowded(self, terms: TermsOf, now: float) -> tuple[PotRef, ...]:
        """Give the pots of which more is taken than a limit now allows, as it was lowered: leases are to come back."""
        return self._do(lambda: self._crowded(terms, now))

    def news(self, now: float) -> list[News]:
        """Give what is to be recorded, in order; the same again until it is `told`, or another hub's turn comes."""
        return self._do(lambda: self._news(now))

    def told(self, news: Iterable[News]) -> None:
        """Forget news that were recorded."""
        numbers = [one.number for one in news]
        if numbers:
            self._do(lambda: self._store.drop_news(numbers))

    def report(
        self, terms: TermsOf, now: float, budgets: Collection[str] | None = None, *, history: bool = True
    ) -> tuple[PotReport, ...]:
        """Say how pots stand in the windows that are open now; `history`: who spent, when, and when it is empty."""
        return self._do(lambda: reporting.report(self._pages, terms, now, budgets, history=history))

    # How

    def _do(self, work: Callable[[], _Given]) -> _Given:
        with self.batch():
            try:
                return work()
            except BaseException as error:
                # Whoever catches this within a batch must not commit what was half done.
                self._failure = error
                raise

    def _release(self, request: Release, holder: str, now: float) -> Done:
        holdings = {PotKey(one.budget, one.scope, one.window): one for one in request.holdings}
        self._pages.load(holdings)
        for key, one in holdings.items():
            pot = self._pages.get(key)
            if pot is not None and pot.give_back(holder, request.born, one.returned):
                pot.prune(now)
                self._pages.changed(key)
        return Done()

    def _disown(self, request: Disown, holder: str, terms: TermsOf, now: float) -> Done:
        for key, pot in self._leased():
            left, any_were = pot.disown(holder, request.born)
            if not any_were:
                continue
            self._pages.changed(key)
            if request.lost and some(left):
                self._forfeit(key, pot, left, terms, now)
        return Done()

    def _forfeit(self, key: PotKey, pot: Pot, left: dict[str, int], terms: TermsOf, now: float) -> None:
        known = terms(key.budget)
        pot.settle(left, known.window if known else None, now)
        self._pages.used(key, now, "", left)
        reason = f"a webhook died with its machine: {in_words(left)} of {named(key.budget)} on lease counts as used"
        self._pages.tell(folding.news("Forfeited", key, reason, now, amounts=left))
        if known is not None:
            watch(self._pages, key, pot, known, now)

    def _leased(self) -> list[tuple[PotKey, Pot]]:
        self._pages.flush()
        return self._pages.known(self._store.leased_pots())

    def _lessees(self, names: set[tuple[str, str]], but: str) -> dict[str, tuple[PotRef, ...]]:
        self._pages.flush()
        found: dict[str, dict[PotRef, None]] = {}
        for key, pot in self._pages.known(self._store.windows(names)):
            for holder in pot.lessees():
                if holder != but:
                    found.setdefault(holder, {})[PotRef(budget=key.budget, scope=key.scope)] = None
        return {holder: tuple(pots) for holder, pots in found.items()}

    def _paused(self, now: float) -> tuple[Pause, ...]:
        self._pages.flush()
        return tuple(
            Pause(
                budget=key.budget,
                scope=key.scope,
                window=key.window,
                percent=pot.pause.percent,
                reason=pot.pause.reason,
                until=pot.ends_at,
            )
            for key, pot in self._pages.known(self._store.paused_pots())
            if pot.pause is not None and (pot.ends_at is None or pot.ends_at > now)
        )

    def _crowded(self, terms: TermsOf, now: float) -> tuple[PotRef, ...]:
        found = []
        for key, pot in self._leased():
            known = terms(key.budget)
            if known is None or (pot.ends_at is not None and pot.ends_at <= now):
                continue
            if any(pot.leased.get(limit) and pot.committed(limit) > most for limit, most in known.limits.items()):
                found.append(PotRef(budget=key.budget, scope=key.scope))
        return tuple(found)

    def _news(self, now: float) -> list[News]:
        self._pages.flush()
        return [
            msgspec.structs.replace(decode_news(body), number=number)
            for number, body in self._store.claim_news(now, _NEWS_AT_ONCE)
        ]
