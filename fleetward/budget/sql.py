"""The tables of a ledger, and the statements that SQLite and PostgreSQL both understand."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fleetward.budget.amounts import CEILING
from fleetward.budget.pot import PotKey
from fleetward.budget.store import HistoryRow, PotRow, ReservationRow

CLAIM_SECONDS = 30.0
"""For how long news that one hub was given are given to no other."""

TABLES = """
CREATE TABLE budget_pots(
  budget {text} NOT NULL, scope {text} NOT NULL, period {text} NOT NULL,
  ends_at {real}, paused INTEGER NOT NULL, leased INTEGER NOT NULL, body {blob} NOT NULL,
  PRIMARY KEY (budget, scope, period)
){options};
CREATE INDEX budget_pots_ended ON budget_pots(ends_at) WHERE ends_at IS NOT NULL;
CREATE INDEX budget_pots_paused ON budget_pots(budget) WHERE paused = 1;
CREATE INDEX budget_pots_leased ON budget_pots(budget) WHERE leased = 1;
CREATE TABLE budget_reservations(
  decision {text} NOT NULL, budget {text} NOT NULL, scope {text} NOT NULL, period {text} NOT NULL,
  due {real} NOT NULL, body {blob} NOT NULL,
  PRIMARY KEY (decision, budget, scope, period)
){options};
CREATE INDEX budget_reservations_due ON budget_reservations(due);
CREATE TABLE budget_writers(
  writer {text} NOT NULL PRIMARY KEY, seq BIGINT NOT NULL
);
CREATE TABLE budget_history(
  budget {text} NOT NULL, scope {text} NOT NULL, period {text} NOT NULL,
  step BIGINT NOT NULL, agent {text} NOT NULL, measure {text} NOT NULL, amount BIGINT NOT NULL,
  PRIMARY KEY (budget, scope, period, step, agent, measure)
){options};
CREATE TABLE budget_news(
  number {counter}, body {blob} NOT NULL, claimed_by TEXT NOT NULL, claimed_at {real} NOT NULL
)
"""

_POT = "SELECT budget, scope, period, ends_at, paused, leased, body FROM budget_pots"
_RESERVATION = "SELECT decision, budget, scope, period, due, body FROM budget_reservations"
_POT_ORDER = " ORDER BY budget, scope, period"


class LedgerStore(ABC):
    """Keeps a ledger. One thread uses it. Every method raises LedgerError when the store cannot be read or written.

    A store adds transactions, and how a statement is run; in statements, parameters are written `?`.
    """

    author: str
    """Who claims news."""

    @abstractmethod
    def begin(self) -> bool:
        """Begin a transaction, when no other is under way anywhere.

        Gives whether the store is as this object's last transaction left it: nobody else has changed it since.
        """

    @abstractmethod
    def commit(self) -> None:
        """End the transaction; what it wrote is on the disk. Raises LedgerError, also where that is not known."""

    @abstractmethod
    def rollback(self) -> None:
        """End the transaction as if it had not been. Raises nothing."""

    @abstractmethod
    def close(self) -> None:
        """Close files and connections."""

    @abstractmethod
    def _query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and give its rows. Raises LedgerError."""

    @abstractmethod
    def _many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement for each of some rows. Raises LedgerError."""

    @abstractmethod
    def _listed(self, width: int) -> str:
        """Give a SELECT of the rows of `width` texts in one parameter, a JSON array of arrays."""

    def pots(self, keys: Collection[PotKey]) -> list[PotRow]:
        """Give those of the pots that there are."""
        where = f" WHERE (budget, scope, period) IN ({self._listed(3)})"
        return _pot_rows(self._query(_POT + where + _POT_ORDER, (_json(keys),))) if keys else []

    def windows(self, names: Collection[tuple[str, str]]) -> list[PotRow]:
        """Give all windows of pots, by budget and scope."""
        where = f" WHERE (budget, scope) IN ({self._listed(2)})"
        return _pot_rows(self._query(_POT + where + _POT_ORDER, (_json(names),))) if names else []

    def all_pots(self) -> list[PotRow]:
        """Give all pots."""
        return _pot_rows(self._query(_POT + _POT_ORDER))

    def leased_pots(self) -> list[PotRow]:
        """Give the pots of which somebody has a lease."""
        return _pot_rows(self._query(_POT + " WHERE leased = 1" + _POT_ORDER))

    def paused_pots(self) -> list[PotRow]:
        """Give the pots that are paused."""
        return _pot_rows(self._query(_POT + " WHERE paused = 1" + _POT_ORDER))

    def ended_pots(self, by: float, most: int) -> list[PotRow]:
        """Give pots whose windows ended at `by` or before."""
        return _pot_rows(self._query(_POT + " WHERE ends_at <= ? ORDER BY ends_at LIMIT ?", (by, most)))

    def save_pots(self, rows: Sequence[PotRow]) -> None:
        """Write pots, new ones and others."""
        self._many(
            "INSERT INTO budget_pots(budget, scope, period, ends_at, paused, leased, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (budget, scope, period) DO UPDATE SET ends_at = excluded.ends_at, paused = excluded.paused,"
            " leased = excluded.leased, body = excluded.body",
            [(*row.key, row.ends_at, int(row.paused), int(row.leased), row.body) for row in rows],
        )

    def drop_pots(self, keys: Collection[PotKey]) -> None:
        """Delete pots and their history."""
        for table in ("budget_pots", "budget_history"):
            self._many(
                f"DELETE FROM {table} WHERE budget = ? AND scope = ? AND period = ?",  # noqa: S608 - two known names
                list(keys),
            )

    def reservations(self, decisions: Collection[str]) -> list[ReservationRow]:
        """Give all that these actions have reserved."""
        where = f" WHERE decision IN ({self._listed(1)})"
        names = [(decision,) for decision in decisions]
        return _reservation_rows(self._query(_RESERVATION + where, (_json(names),))) if names else []

    def due_reservations(self, by: float, most: int) -> list[ReservationRow]:
        """Give reservations that are due at `by` or before, those first that are due longest."""
        return _reservation_rows(self._query(_RESERVATION + " WHERE due <= ? ORDER BY due LIMIT ?", (by, most)))

    def save_reservations(self, rows: Sequence[ReservationRow]) -> None:
        """Write reservations, new ones and others."""
        self._many(
            "INSERT INTO budget_reservations(decision, budget, scope, period, due, body) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (decision, budget, scope, period) DO UPDATE SET due = excluded.due, body = excluded.body",
            [(row.decision, *row.key, row.due, row.body) for row in rows],
        )

    def drop_reservations(self, names: Collection[tuple[str, PotKey]]) -> None:
        """Delete reservations, by decision and pot."""
        self._many(
            "DELETE FROM budget_reservations WHERE decision = ? AND budget = ? AND scope = ? AND period = ?",
            [(decision, *key) for decision, key in names],
        )

    def writers(self, writers: Collection[str]) -> dict[str, int]:
        """Give the number of the last record that was folded of each writer; none where there is none."""
        names = [(writer,) for writer in writers]
        statement = f"SELECT writer, seq FROM budget_writers WHERE writer IN ({self._listed(1)})"  # noqa: S608 - as above
        return dict(self._query(statement, (_json(names),))) if names else {}

    def save_writers(self, last: Mapping[str, int]) -> None:
        """Write these numbers."""
        self._many(
            "INSERT INTO budget_writers(writer, seq) VALUES (?, ?)"
            " ON CONFLICT (writer) DO UPDATE SET seq = excluded.seq",
            sorted(last.items()),
        )

    def add_history(self, rows: Sequence[HistoryRow]) -> None:
        """Add amounts, negative ones too, to those of the same names."""
        total = "budget_history.amount + excluded.amount"
        self._many(
            "INSERT INTO budget_history(budget, scope, period, step, agent, measure, amount)"  # noqa: S608 - numbers
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (budget, scope, period, step, agent, measure) DO UPDATE"
            f" SET amount = CASE WHEN {total} > {CEILING} THEN {CEILING} ELSE {total} END",
            [(*row.key, row.step, row.agent, row.limit, min(row.amount, CEILING)) for row in rows],
        )

    def history(self, keys: Collection[PotKey]) -> list[HistoryRow]:
        """Give the history of pots, by step."""
        if not keys:
            return []
        rows = self._query(
            "SELECT budget, scope, period, step, agent, measure, amount FROM budget_history"  # noqa: S608 - as above
            f" WHERE amount <> 0 AND (budget, scope, period) IN ({self._listed(3)}) ORDER BY step",
            (_json(keys),),
        )
        return [HistoryRow(PotKey(*row[:3]), *row[3:]) for row in rows]

    def add_news(self, bodies: Sequence[bytes]) -> None:
        """Write news, to be told."""
        self._many(
            "INSERT INTO budget_news(body, claimed_by, claimed_at) VALUES (?, '', 0)", [(body,) for body in bodies]
        )

    def claim_news(self, now: float, most: int) -> list[tuple[int, bytes]]:
        """Give news with their numbers, in order; for some time no other store of the same ledger gives these."""
        if not self._query("SELECT number FROM budget_news LIMIT 1"):
            return []
        rows = self._query(
            "UPDATE budget_news SET claimed_by = ?, claimed_at = ? WHERE number IN (SELECT number FROM budget_news"
            " WHERE claimed_by = ? OR claimed_at <= ? ORDER BY number LIMIT ?) RETURNING number, body",
            (self.author, now, self.author, now - CLAIM_SECONDS, most),
        )
        return sorted((number, bytes(body)) for number, body in rows)

    def drop_news(self, numbers: Collection[int]) -> None:
        """Delete news that were told."""
        self._many("DELETE FROM budget_news WHERE number = ?", [(number,) for number in numbers])


def _json(rows: Iterable[Sequence[str]]) -> str:
    return msgspec.json.encode([list(row) for row in rows]).decode()


def _pot_rows(rows: Iterable[tuple[Any, ...]]) -> list[PotRow]:
    return [
        PotRow(PotKey(budget, scope, period), ends_at, bool(paused), bool(leased), bytes(body))
        for budget, scope, period, ends_at, paused, leased, body in rows
    ]


def _reservation_rows(rows: Iterable[tuple[Any, ...]]) -> list[ReservationRow]:
    return [
        ReservationRow(decision, PotKey(budget, scope, period), due, bytes(body))
        for decision, budget, scope, period, due, body in rows
    ]
