"""Kubernetes Events (events.k8s.io/v1) about our resources and the pods they govern.

Events are for people, and never worth waiting for: posting puts them into a bounded queue, what repeats is counted
instead of written, and a failure to write one is logged once.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from kubernetes.aio.client import ApiClient

from fleetward.resources.base import API_VERSION, GROUP, Resource
from fleetward_operator.kube.rest import JSON_PATCH, RequestError, request
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.pods import Pod

SAME_SECONDS = 300.0
"""An Event that repeats within this time is the same one: it becomes a series."""

SERIES_SECONDS = 60.0
"""How often a series is written at most."""

PER_SECOND = 20.0
"""How many Events are written at most."""

WAITING = 1000
"""How many may wait to be written; further ones are dropped and counted."""

NOTE_BYTES = 1024
"""The API server takes no longer note."""

EventType = Literal["Normal", "Warning"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reference:
    """The object an Event is about."""

    api_version: str
    kind: str
    namespace: str
    """Empty for a cluster-scoped object."""
    name: str
    uid: str

    def body(self) -> dict[str, str]:
        """Give it as an ObjectReference."""
        whole = {"apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid}
        return whole | ({"namespace": self.namespace} if self.namespace else {})


def about(thing: Observed | Pod | Resource) -> Reference:
    """Refer to a resource or a pod."""
    match thing:
        case Pod():
            return Reference("v1", "Pod", thing.namespace, thing.name, thing.uid)
        case Observed():
            return Reference(API_VERSION, thing.kind, thing.namespace, thing.name, thing.uid)
        case Resource(metadata=metadata):
            return Reference(API_VERSION, thing.kind, metadata.namespace or "", metadata.name, metadata.uid)


@dataclass(slots=True)
class _Series:
    """One Event, and how often the same has happened."""

    regarding: Reference
    type: EventType
    reason: str
    note: str
    first: datetime
    count: int = 1
    last: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_at: float = 0.0
    written: int = 0
    """The count as last written."""
    written_at: float = 0.0
    queued: bool = True
    name: str = ""

    @property
    def path(self) -> str:
        """Where it is written: cluster-scoped objects have their Events in the namespace `default`."""
        return f"/apis/events.k8s.io/v1/namespaces/{self.regarding.namespace or 'default'}/events"


class EventPoster:
    """Writes Events as `instance`, this replica's name, while `run` runs."""

    def __init__(
        self,
        api: ApiClient,
        instance: str,
        *,
        per_second: float = PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._instance = instance
        self._pause = 1 / per_second
        self._clock = clock
        self._known: dict[tuple[object, ...], _Series] = {}
        self._queue: asyncio.Queue[_Series] = asyncio.Queue(WAITING)
        self._silent_until = 0.0
        self.dropped = 0
        """How many Events were not written, because too many waited or the API server did not take them."""
        self.problem = ""
        """Why the last Event was not written; empty where it was."""

    def post(self, regarding: Reference, type: EventType, reason: str, note: str) -> None:  # noqa: A002 - the API's word
        """Have an Event written. Never waits and never fails."""
        now = self._clock()
        self._forget(now)
        note = cut(note)
        key = (regarding.uid or (regarding.kind, regarding.namespace, regarding.name), type, reason, note)
        series = self._known.get(key)
        if series is None:
            series = self._known[key] = _Series(regarding, type, reason, note, first=datetime.now(UTC), last_at=now)
            self._put(series)
            return
        series.count, series.last, series.last_at = series.count + 1, datetime.now(UTC), now
        self._known[key] = self._known.pop(key)  # so that the one that was quiet for the longest comes first
        if not series.queued and now - series.written_at >= SERIES_SECONDS:
            series.queued = True
            self._put(series)

    async def run(self) -> None:
        """Write what is posted, until cancelled."""
        while True:
            series = await self._queue.get()
            series.queued, series.written_at = False, self._clock()
            try:
                await self._write(series)
                self.problem = ""
            except RequestError as error:
                self._failed(error)
            await asyncio.sleep(self._pause)

    async def _write(self, series: _Series) -> None:
        doing = f"write the Event {series.reason} of {series.regarding.kind} {series.regarding.name}"
        count = series.count
        if series.written and count > series.written:
            patch = [
                {"op": "add", "path": "/series", "value": {"count": count, "lastObservedTime": micro(series.last)}}
            ]
            path = f"{series.path}/{series.name}"
            try:
                await request(self._api, "PATCH", path, doing, body=patch, content=JSON_PATCH)
            except RequestError as error:
                if error.status != 404:  # the API server forgets Events after an hour
                    raise
                series.written = 0
        if not series.written:
            series.name = f"{series.regarding.name[:200]}.{uuid4().hex[:16]}"
            await request(self._api, "POST", series.path, doing, body=self._body(series))
        series.written = count

    def _body(self, series: _Series) -> dict[str, Any]:
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": series.name, "namespace": series.regarding.namespace or "default"},
            "eventTime": micro(series.first),
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance[:128],
            "regarding": series.regarding.body(),
            "type": series.type,
            "reason": series.reason,
            "action": series.reason,
            "note": series.note,
        }
        if series.count > 1:
            body["series"] = {"count": series.count, "lastObservedTime": micro(series.last)}
        return body

    def _put(self, series: _Series) -> None:
        try:
            self._queue.put_nowait(series)
        except asyncio.QueueFull:
            self._known = {key: known for key, known in self._known.items() if known is not series}
            self.dropped += 1

    def _failed(self, error: RequestError) -> None:
        self.dropped += 1
        if self._clock() >= self._silent_until:
            self._silent_until = self._clock() + SAME_SECONDS
            _log.warning("%s (logged once in %d minutes)", error, SAME_SECONDS // 60)
        self.problem = str(error)

    def _forget(self, now: float) -> None:
        while self._known:
            key, series = next(iter(self._known.items()))
            if series.queued or now - series.last_at < SAME_SECONDS:
                return
            del self._known[key]


def micro(moment: datetime) -> str:
    """Write a time as metav1.MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def cut(note: str) -> str:
    """Cut a note to what the API server takes, and show that something is missing."""
    data = note.encode()
    return note if len(data) <= NOTE_BYTES else data[: NOTE_BYTES - 6].decode(errors="ignore") + " [...]"
