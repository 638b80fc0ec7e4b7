"""Records of a cluster as they are stored, also over a hub that ends its answer or goes away for a while."""

import contextlib
import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from msgspec.structs import replace

from fleetward.audit import remote
from fleetward.audit.query import RecordQuery
from fleetward.audit.remote import Following, Line, Notice, RecordLine
from fleetward.audit.store import Gap, StoredRecord
from fleetward.cli.cluster.hubclient import HubClient
from fleetward.cli.output import CliError

AGAIN_SECONDS = 1.0
"""Before a hub that went away is asked again."""

OVERLAP = timedelta(minutes=2)
"""So far back a new answer begins before the end of the last one; what was told already is left out."""

GAPS_SECONDS = 5.0
"""How often gaps are asked for, while records come."""

REMEMBERED = 50_000
END_SECONDS = 2.0


class Trail(Protocol):
    """What is needed of HubRecords."""

    def newest(self, query: RecordQuery, limit: int) -> tuple[list[StoredRecord], bool]:
        """Give the newest records; without a limit (0), all."""

    def gaps(self) -> list[Gap]:
        """Give the numbers that no hub has stored."""

    def tell(self, notices: Sequence[Notice]) -> None:
        """Tell the user what is missing."""


class FollowedHub:
    """Follows the hub while it is entered; see `fleetward.cli.records.Following`. A thread reads, `more` gives."""

    def __init__(self, client: HubClient, trail: Trail, query: RecordQuery, limit: int) -> None:
        self._client = client
        self._trail = trail
        self._query = query
        self._limit = limit
        self._came: queue.SimpleQueue[RecordLine | Notice] = queue.SimpleQueue()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._ending = threading.Event()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._heard = datetime.now(UTC)
        self._asked_gaps = time.monotonic()
        self._stirred = False
        self._gaps: list[Gap] = []
        self.newest: Sequence[StoredRecord] = ()

    def __enter__(self) -> Self:
        self._gaps = self._trail.gaps()
        at_once = self._limit if self._limit <= remote.MAX_LIMIT else 0
        lines = self._client.lines(remote.parameters(self._query, limit=at_once, follow=True), self._opened)
        newest: list[RecordLine] = []
        for item in lines:
            if isinstance(item, Following):
                break
            if isinstance(item, RecordLine):
                newest.append(item)
            elif isinstance(item, Notice):
                self._trail.tell([item])
        # More than one answer may hold is asked for once the hub is being followed, so that nothing falls in between.
        found = [stored(line) for line in newest] if at_once else self._trail.newest(self._query, self._limit)[0]
        self.newest = [record for record in found if self._is_new(record.id)]
        self._thread = threading.Thread(target=self._run, args=(lines,), name="follow-hub", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if (open_socket := self._socket) is not None:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def more(self) -> Iterator[Sequence[StoredRecord]]:
        """Give what came. CliError where nothing can come any more."""
        if self._thread is None or not self._thread.is_alive():
            raise CliError("following the hub ended; start again")
        records = []
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._came.get_nowait()
                if isinstance(item, Notice):
                    self._trail.tell([item])
                elif self._is_new(item.id):
                    records.append(stored(item))
        if records:
            self._stirred = True
            yield records

    def lost(self) -> Sequence[Gap]:
        """Give the new gaps."""
        if not self._stirred or time.monotonic() - self._asked_gaps < GAPS_SECONDS:
            return ()
        self._stirred, self._asked_gaps = False, time.monotonic()
        try:
            gaps = [gap for gap in self._trail.gaps() if gap.state == "Missing"]
        except CliError:  # the thread says what is wrong
            return ()
        told, self._gaps = self._gaps, gaps
        return [gap for gap in gaps if gap not in told]

    def _is_new(self, record_id: str) -> bool:
        if record_id in self._seen:
            return False
        self._seen[record_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def _run(self, lines: "Lines") -> None:
        told = False
        while True:
            try:
                for item in lines:
                    self._heard, told = datetime.now(UTC), False
                    if isinstance(item, RecordLine | Notice):
                        self._came.put(item)
                problem = ""  # the hub ended its answer: there are other replicas than before
            except CliError as error:
                problem = error.message
            since = self._heard - OVERLAP
            if problem and not told and not self._ending.is_set():
                told = True
                text = f"{problem}; trying again. What came in meanwhile about times before {since:%H:%M:%S} UTC may be"
                self._came.put(Notice(message=f"{text} missing here: `audit list` has it"))
            if self._ending.wait(AGAIN_SECONDS if problem else 0):
                return
            lines = self._client.lines(self._again(since), self._opened)

    def _again(self, since: datetime) -> list[tuple[str, str]]:
        since = max(since, self._query.since) if self._query.since else since
        return remote.parameters(replace(self._query, since=since), limit=remote.MAX_LIMIT, follow=True)

    def _opened(self, connection: socket.socket) -> None:
        self._socket = connection


Lines: TypeAlias = Iterator[Line | RecordLine | None]


def stored(line: RecordLine) -> StoredRecord:
    """Give a record as if it were read from a store of one's own; it has no position there."""
    return StoredRecord(0, line.id, line.type, line.body)  # type: ignore[arg-type]  # a newer hub may know more types
