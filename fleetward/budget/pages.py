"""What a transaction of a ledger reads and is about to write.

Pots that were read stay in memory from one transaction to the next, for as long as nobody else changes the store.
"""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from fleetward.budget.amounts import CONCURRENCY
from fleetward.budget.news import News, encode_news
from fleetward.budget.pot import Pot, PotKey, decode_pot, encode_pot
from fleetward.budget.sql import LedgerStore
from fleetward.budget.store import RESERVED_STEP, HistoryRow, PotRow, ReservationRow
from fleetward.budget.windows import Window

_KEPT_POTS = 20_000
_STEPS = 120
"""Into how many steps the history of a calendar window is divided."""
_TOTAL_STEP_SECONDS = 60
_UNKNOWN_SECONDS = 32 * 86_400.0
"""For how long a calendar window may last of which it is not known when it ends: longer than any does."""
_CALENDAR = ("hour-", "day-", "week-", "month-")


class Reservation(msgspec.Struct, omit_defaults=True):
    """What one action reserved in one pot."""

    agent: str
    amounts: dict[str, int]
    at: float
    estimated: bool = False
    """Whether it was settled at this estimate, since no outcome came in time."""
    slot: int | None = None
    """The slot of a rolling window that the estimate was booked in."""


encode_reservation = msgspec.json.Encoder().encode
decode_reservation = msgspec.json.Decoder(Reservation).decode


RUN_SECONDS = 8 * 86_400
"""After so long a run is over in any case (`fleetward.run.mandate.MAX_RUN_SECONDS`), and so are its pots."""


def _over_at(key: PotKey, pot: Pot) -> float | None:
    """Say when nothing can be taken from a pot any more; None: never."""
    if pot.ends_at is None and key.scope.startswith("run-"):
        return pot.began_at + RUN_SECONDS
    return pot.ends_at


class Pages:
    """The rows of a store that a ledger works on."""

    def __init__(self, store: LedgerStore) -> None:
        self.store = store
        self._pots: dict[PotKey, Pot | None] = {}
        self._changed: set[PotKey] = set()
        self._history: dict[tuple[PotKey, int, str, str], int] = {}
        self._news: list[News] = []

    # Pots

    def load(self, keys: Iterable[PotKey]) -> None:
        """Read pots, so that each is not asked for alone."""
        missing = {key for key in keys if key not in self._pots}
        if not missing:
            return
        for row in self.store.pots(missing):
            self._pots[row.key] = decode_pot(row.body)
            missing.discard(row.key)
        self._pots.update(dict.fromkeys(missing))

    def get(self, key: PotKey) -> Pot | None:
        """Give a pot; None where nothing was ever taken from it."""
        if key not in self._pots:
            self.load((key,))
        return self._pots[key]

    def get_or_make(self, key: PotKey, window: Window | None, now: float) -> Pot:
        """Give a pot, made if need be; `window` is None where nobody knows when it was."""
        pot = self.get(key)
        if pot is None:
            began = window.began_at if window and window.began_at else now
            if window is not None:
                ends_at = window.ends_at
            else:
                ends_at = now + _UNKNOWN_SECONDS if key.window.startswith(_CALENDAR) else None
            pot = Pot(began_at=began, ends_at=ends_at)
            self._pots[key] = pot
        return pot

    def known(self, rows: Iterable[PotRow]) -> list[tuple[PotKey, Pot]]:
        """Give the pots of rows that were just read; what is in memory already is as new."""
        found = []
        for row in rows:
            pot = self._pots.get(row.key)
            if pot is None:
                pot = self._pots[row.key] = decode_pot(row.body)
            found.append((row.key, pot))
        return found

    def changed(self, key: PotKey) -> None:
        """Note that a pot is to be written."""
        self._changed.add(key)

    def drop(self, keys: Collection[PotKey]) -> None:
        """Delete pots that are over, with their history."""
        for key in keys:
            self._pots[key] = None
            self._changed.discard(key)
        self.flush()
        self.store.drop_pots(keys)

    # History and news

    def used(self, key: PotKey, at: float, agent: str, amounts: Mapping[str, int]) -> None:
        """Note in the history of a pot, which is there, that an agent used something; negative amounts correct."""
        pot = self._pots[key]
        if pot is not None:
            self._note(key, step_of(pot, at), agent, amounts, 1)

    def reserved(self, key: PotKey, agent: str, amounts: Mapping[str, int]) -> None:
        """Note what an agent has reserved, beside what it had."""
        self._note(key, RESERVED_STEP, agent, amounts, 1)

    def freed(self, key: PotKey, agent: str, amounts: Mapping[str, int]) -> None:
        """Note what an agent has not reserved any more."""
        self._note(key, RESERVED_STEP, agent, amounts, -1)

    def _note(self, key: PotKey, step: int, agent: str, amounts: Mapping[str, int], sign: int) -> None:
        for limit, amount in amounts.items():
            if step != RESERVED_STEP and limit == CONCURRENCY:
                continue  # a slot is held, and never used up
            name = (key, step, agent, limit)
            self._history[name] = self._history.get(name, 0) + sign * amount

    def tell(self, news: News) -> None:
        """Note something that is to be recorded."""
        self._news.append(news)

    # Transactions

    def flush(self) -> None:
        """Write what changed, within the transaction."""
        if self._changed:
            rows = []
            for key in sorted(self._changed):
                pot = self._pots[key]
                if pot is not None:
                    paused, leased = pot.pause is not None, bool(pot.leases)
                    rows.append(PotRow(key, _over_at(key, pot), paused, leased, encode_pot(pot)))
            self.store.save_pots(rows)
            self._changed.clear()
        if self._history:
            self.store.add_history([HistoryRow(*name, amount) for name, amount in self._history.items() if amount])
            self._history.clear()
        if self._news:
            self.store.add_news([encode_news(news) for news in self._news])
            self._news.clear()

    def forget(self) -> None:
        """Forget all that was read, and what was to be written."""
        self._pots.clear()
        self._changed.clear()
        self._history.clear()
        self._news.clear()

    def committed(self) -> None:
        """Let go of pots, where there are too many to keep in memory."""
        if len(self._pots) > _KEPT_POTS:
            self._pots.clear()

    # Reservations

    def reservations(self, decisions: Collection[str]) -> dict[str, dict[PotKey, Reservation]]:
        """Give what actions have reserved, by decision and pot."""
        found: dict[str, dict[PotKey, Reservation]] = {}
        for row in self.store.reservations(decisions):
            found.setdefault(row.decision, {})[row.key] = decode_reservation(row.body)
        return found

    def save_reservations(self, made: Iterable[tuple[str, PotKey, float, Reservation]]) -> None:
        """Write reservations, each with its decision and when it is due."""
        self.store.save_reservations(
            [ReservationRow(decision, key, due, encode_reservation(one)) for decision, key, due, one in made]
        )


def step_of(pot: Pot, at: float) -> int:
    """Give the beginning of the step of a pot's history that a moment falls in."""
    seconds = step_seconds(pot)
    within = max(at, pot.began_at)
    if pot.ends_at is not None:
        within = min(within, pot.ends_at - 1)
    return int(within // seconds * seconds)


def step_seconds(pot: Pot) -> int:
    """Give how long a step of a pot's history is."""
    if pot.ends_at is None:
        return _TOTAL_STEP_SECONDS
    return max(1, -(-int(pot.ends_at - pot.began_at) // _STEPS))
