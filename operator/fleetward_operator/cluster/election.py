"""Who leads: one replica at a time, by a Lease.

The client's own `kubernetes.aio.leaderelection` (37.0) is not used: it counts on the wall clock, on both sides, lets a
request hang past its deadline, keeps `leaseTransitions` never, and releases nothing when it stops.

Sound without agreeing clocks: a leader leads from the moment it *sent* a renewal that succeeded, for `renew_deadline`
by its own monotonic clock. Another counts the whole `leaseDurationSeconds` from when it *saw* the record change, which
is later, by its own. As long as both clocks run at about the same speed, one has stopped before the other may begin.
The times in the record are for people. (The same scheme as client-go's leaderelection package.)
"""

import asyncio
import datetime as dt
import logging
import math
import random
import time
from collections.abc import Callable

from kubernetes.aio.client import ApiClient

from fleetward.resources.names import OPERATOR
from fleetward_operator.kube.objects import LEASE, Body, Objects
from fleetward_operator.kube.rest import RequestError

MAX_DURATION = 300
"""Seconds. A record that asks for longer is taken for damaged, or a dead leader could hold the Lease for ever."""

_log = logging.getLogger(__name__)


class Election:
    """One candidate for the Lease `fleetward-operator` in `namespace`.

    `identity` must be one process's alone; a process that starts anew in the same pod may go on with it. `duration`,
    `renew_deadline` and `retry` are seconds: how long a Lease holds for others, how long a leader counts on a renewal,
    and how long between tries. Raises ValueError where these do not fit together.
    """

    def __init__(
        self,
        api: ApiClient,
        namespace: str,
        identity: str,
        *,
        duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
    ) -> None:
        if not 0 < retry < renew_deadline < duration <= MAX_DURATION:
            raise ValueError(
                f"retry ({retry:g} s) must be shorter than renew_deadline ({renew_deadline:g} s), that shorter than "
                f"duration ({duration:g} s), and that at most {MAX_DURATION} s"
            )
        self._objects = Objects(api)
        self._namespace = namespace
        self._identity = identity
        self._duration, self._renew_deadline, self._retry = duration, renew_deadline, retry
        self._request_seconds = renew_deadline / 2  # one that hangs leaves time for another
        self._lease: Body | None = None
        self._seen: Body = {}
        """The last record seen."""
        self._others_until = -math.inf
        """Until when, on our clock, another may lead."""
        self._leads_until = -math.inf
        self._told = False
        self._listeners: list[Callable[[bool], None]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self.last_read = -math.inf
        """When (on the monotonic clock) the last request was sent that went through etcd and was answered."""
        self.continues_since: dt.datetime | None = None
        """Since when nobody else can have led, where this replica led before and goes on with it; None for a leader
        that took over."""
        self.problem = ""
        """What is wrong, in one line; empty where nothing is."""

    @property
    def leading(self) -> bool:
        """Whether this replica leads. Ask before every write: it ends by itself when a renewal fails to come."""
        return time.monotonic() < self._leads_until

    @property
    def holder(self) -> str:
        """Who holds the Lease, as last seen; empty where nobody does."""
        return str(self._seen.get("holderIdentity") or "")

    @property
    def identity(self) -> str:
        """What this candidate writes into the Lease."""
        return self._identity

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Have `listener` called, on the loop that runs `run`, with the new `leading` whenever it changes."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Stand for election until cancelled; then give the Lease back, so that another can lead at once.

        Stop what writes as leader before: from then on another may.
        """
        try:
            while True:
                await self._try()
                self._tell()
                await asyncio.sleep(self._pause())
        finally:
            self._leads_until = -math.inf
            self._tell()
            await self._release()

    async def _try(self) -> None:
        try:
            async with asyncio.timeout(self._request_seconds):
                await self._read_and_take()
        except TimeoutError:
            self._complain(f"Lease {self._namespace}/{OPERATOR}: no answer within {self._request_seconds:g} s")
        except RequestError as error:
            if error.status == 409 or (error.status == 404 and self._lease is not None):
                self._lease = None  # another was faster: look again before the next try
                _log.debug("election: %s", error)
            else:
                self._complain(str(error))
        else:
            if self.problem:
                _log.info("election: the Lease can be read and written again")
            self.problem = ""

    async def _read_and_take(self) -> None:
        if not self.leading or self._lease is None:
            await self._read()
        if time.monotonic() < self._others_until:
            return
        if self._lease is None:
            await self._write({"metadata": {"name": OPERATOR, "namespace": self._namespace}})
        else:
            await self._write(self._lease)

    async def _read(self) -> None:
        sent = time.monotonic()
        self._lease = await self._objects.get(LEASE, OPERATOR, self._namespace)
        self.last_read = sent
        if self._lease is None or _spec(self._lease) == self._seen:
            return  # a Lease that somebody deleted still counts for whoever held it
        self._seen = _spec(self._lease)
        if self.holder in {"", self._identity}:
            self._others_until = -math.inf
        else:
            self._leads_until = -math.inf
            asked = self._seen.get("leaseDurationSeconds") or 0
            self._others_until = time.monotonic() + min(max(asked, self._duration), MAX_DURATION)

    async def _write(self, lease: Body) -> None:
        old, now = _spec(lease), _timestamp()
        again = old.get("holderIdentity") == self._identity
        spec = {
            **old,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": math.ceil(self._duration),
            "acquireTime": old.get("acquireTime", now) if again else now,
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (1 if old and not again else 0),
        }
        sent = time.monotonic()
        write = self._objects.replace if "resourceVersion" in lease["metadata"] else self._objects.create
        self._lease = await write(LEASE, {**lease, "spec": spec})
        self._seen, self._others_until, self.last_read = _spec(self._lease), -math.inf, sent
        if not self._told:
            self.continues_since = _moment(spec["acquireTime"]) if again else None
        self._leads_until = sent + self._renew_deadline

    def _pause(self) -> float:
        """Until the next try; not at the same moments as the other candidates."""
        pause = self._retry * random.uniform(0.9, 1.1)  # noqa: S311 - no secret depends on it
        left = self._others_until - time.monotonic()
        return min(pause, left) if left > 0 else pause

    def _tell(self) -> None:
        """Tell listeners of a change, now or at the moment when leading ends by itself."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self.leading:
            self._alarm = asyncio.get_running_loop().call_later(
                self._leads_until - time.monotonic() + 0.001, self._tell
            )
        if self.leading != self._told:
            self._told = self.leading
            _log.info("election: %s %s", self._identity, "leads" if self._told else "leads no more")
            for listener in self._listeners:
                listener(self._told)

    async def _release(self) -> None:
        """Empty the record; one that another wrote meanwhile is left alone. Failing is no harm: a Lease runs out."""
        try:
            async with asyncio.timeout(self._request_seconds):
                lease = await self._objects.get(LEASE, OPERATOR, self._namespace)
                if lease is None or _spec(lease).get("holderIdentity") != self._identity:
                    return
                spec = {key: value for key, value in _spec(lease).items() if key != "holderIdentity"}
                spec |= {"leaseDurationSeconds": 1, "renewTime": _timestamp()}
                self._lease = await self._objects.replace(LEASE, {**lease, "spec": spec})
        except (TimeoutError, RequestError) as error:
            _log.warning("election: the Lease was not given back, it runs out by itself: %s", error)

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("election: %s", problem)
        self.problem = problem


def _spec(lease: Body | None) -> Body:
    return (lease or {}).get("spec") or {}


def _timestamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(timestamp: str) -> dt.datetime | None:
    """Read a time of the Lease, which anybody who may edit it may have spoilt."""
    try:
        return dt.datetime.fromisoformat(timestamp)
    except (TypeError, ValueError):
        return None
