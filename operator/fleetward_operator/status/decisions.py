"""The last decision of each agent, read from the audit store now and then."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import DecisionRecord
from fleetward.audit.store import Store, StoredRecord, StoreError
from fleetward_operator.status.conditions import cut

EVERY_SECONDS = 5.0

PAGE = 2000
"""Records read at a time; after each, others have their turn with the store."""

LONGEST = 256

MOST = 20_000
"""Agents kept that nobody asks about any more."""

_log = logging.getLogger(__name__)


class LastDecisions:
    """Keeps the last decision of each agent ready while `run` runs; `agents` gives the agents that are of interest.

    An agent's last decision is sought once; from then on, new records are read as they come.
    """

    def __init__(self, store: Store, agents: Callable[[], Iterable[str]], *, every: float = EVERY_SECONDS) -> None:
        self._store = store
        self._agents = agents
        self._every = every
        self._last: dict[str, dict[str, Any]] = {}
        self._sought: set[str] = set()
        self._position: int | None = None
        self.problem = ""
        """Why they cannot be read; empty while they can."""

    def get(self, agent: str) -> dict[str, Any] | None:
        """Give an agent's last decision as its status has it."""
        return self._last.get(agent)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            agents = set(self._agents())
            try:
                await asyncio.to_thread(self._read, agents)
                self.problem = ""
            except (StoreError, OSError) as error:
                if not self.problem:
                    _log.warning("The last decisions cannot be read: %s", error)
                self.problem = str(error)
            await asyncio.sleep(self._every)

    def _read(self, agents: set[str]) -> None:
        if self._position is None:
            self._position = self._store.last_position()
        for agent in agents - self._sought:
            query = RecordQuery(agent=agent, types=("Decision",), limit=1, order="NewestFirst")
            self._take(self._store.read(query))
            self._sought.add(agent)
        new = RecordQuery(types=("Decision",), limit=PAGE)
        while page := self._store.read(new, self._position):
            self._take(page)
            self._position = page[-1].position
            if len(page) < PAGE:
                break
        if len(self._last) > max(MOST, 2 * len(agents)):
            self._last = {agent: last for agent, last in self._last.items() if agent in agents}
            self._sought &= agents

    def _take(self, page: Iterable[StoredRecord]) -> None:
        for stored in page:
            record = stored.record
            if isinstance(record, DecisionRecord):
                self._last[record.agent] = {
                    "id": record.id,
                    "time": record.time[:19] + "Z",
                    "decision": record.decision,
                    "action": cut(record.action.name, LONGEST),
                }
