"""Whole lists from the API server: at the start, whenever kopf had to list anew, and now and then.

kopf tells of what it sees; of an object that was deleted while a watch could not go on, nobody tells. A list does.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any

from kubernetes.aio.client import ApiClient

from fleetward.resources.base import GROUP, VERSION
from fleetward_operator.kube.rest import RequestError, request
from fleetward_operator.view.liveness import Liveness
from fleetward_operator.view.source import KIND_OF, Source

RELIST_SECONDS = 300.0
"""How often everything is listed, whether or not there is a reason to."""

PAGE = 500
LIST_SECONDS = 10.0
"""How long one page may take."""

RETRY_SECONDS = 1.0
_GONE = 410

_log = logging.getLogger(__name__)


class Relister:
    """Keeps `source` whole. `problems` says, by plural, why a list cannot be read."""

    def __init__(
        self,
        client: ApiClient,
        source: Source,
        liveness: Liveness,
        kinds: Iterable[str],
        *,
        interval: float = RELIST_SECONDS,
    ) -> None:
        self._client = client
        self._source = source
        self._liveness = liveness
        self._kinds = tuple(kinds)
        self._interval = interval
        self._wanted: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._missing = set(self._kinds)
        self._complete = asyncio.Event()
        self.problems: dict[str, str] = {}

    @property
    def missing(self) -> list[str]:
        """The kinds of which no list was read yet."""
        return sorted(self._missing)

    async def complete(self) -> None:
        """Wait until every kind was listed once: before that, nobody knows what holds."""
        await self._complete.wait()

    def want(self, plural: str) -> None:
        """Ask for a kind to be listed soon; one that is not followed is passed over."""
        if plural in self._kinds:
            self._wanted[plural] = None
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        due = time.monotonic() + self._interval
        while True:
            try:
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                self._wanted |= dict.fromkeys(self._kinds)
                due = time.monotonic() + self._interval
            self._wake.clear()
            while self._wanted:
                plural = next(iter(self._wanted))
                del self._wanted[plural]
                if not await self._list(plural):
                    self.want(plural)
                    await asyncio.sleep(RETRY_SECONDS)

    async def _list(self, plural: str) -> bool:
        began = time.monotonic()
        try:
            bodies, version = await self._pages(plural)
        except RequestError as error:
            problem = str(error)
            if self.problems.get(plural) != problem:
                _log.warning("%s", problem)
            self.problems[plural] = problem
            return False
        self.problems.pop(plural, None)
        self._source.relisted(plural, bodies, version)
        self._liveness.prove(plural, began)
        self._missing.discard(plural)
        if not self._missing:
            self._complete.set()
        return True

    async def _pages(self, plural: str) -> tuple[list[dict[str, Any]], int]:
        path = f"/apis/{GROUP}/{VERSION}/{plural}" if plural in KIND_OF else f"/api/v1/{plural}"
        query = {"limit": str(PAGE)}
        bodies: list[dict[str, Any]] = []
        while True:
            try:
                page = await request(self._client, "GET", path, f"list {plural}", query=query, seconds=LIST_SECONDS)
            except RequestError as error:
                if error.status != _GONE or "continue" not in query:
                    raise
                bodies.clear()  # the list grew too old while it was read
                del query["continue"]
                continue
            bodies += page["items"] or ()
            if not (more := page["metadata"].get("continue")):
                return bodies, int(page["metadata"]["resourceVersion"])
            query["continue"] = more
