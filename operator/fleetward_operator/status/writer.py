"""Writes statuses: those that changed, no more often than is of use, and only as the leader.

Level-triggered: each round looks at everything (`Tracker`), and a status is worked out from what holds at the moment it
is written. What was missed or failed is found again by the next look.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client import ApiClient

from fleetward.resources import KINDS
from fleetward.resources.base import API_VERSION
from fleetward.resources.names import OPERATOR, SYSTEM_NAMESPACE
from fleetward_operator.kube.events import EventPoster, about
from fleetward_operator.kube.rest import JSON_PATCH, NO_ANSWER, RequestError, request
from fleetward_operator.status.compute import Computer, Pots, RecordedMode
from fleetward_operator.status.conditions import Json, condition, gist, meaning
from fleetward_operator.status.queue import Waiting
from fleetward_operator.status.tracker import Key
from fleetward_operator.status.view import StatusView
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.workloads import left_alone

INTERVAL_SECONDS = 1.0
"""How often everything is looked at, at most, when there is a reason to."""

IDLE_SECONDS = 5.0
"""How often everything is looked at when there is none."""

LIVE_SECONDS = 10.0
"""How often numbers in a status are brought up to date at most; what holds and why is written at once."""

RECONNECT_SECONDS = 10.0
"""How long decision webhooks have to come (back) to a hub that begins to lead, before an agent that was Ready is said
not to be because they are missing."""

PER_SECOND = 200.0
AT_ONCE = 8
"""Writes a second, and writes under way, at most."""

RETRY_SECONDS = 2.0
"""After a failure that may pass by itself."""

FORBIDDEN_SECONDS = 30.0
"""After a failure that somebody must see to."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Written:
    """What was last written of an object."""

    at: float
    version: int
    """The resourceVersion it got by that."""
    sent: Json
    got: Json = field(default_factory=dict)
    """The status that the API server made of it."""


class StatusWriter:
    """Keeps the status of every object of `view.observed` right while `run` runs and `leading` says so.

    `recorded_mode` is the hub's: statuses keep which modes are on record, for whoever leads next. `pots` tells how the
    pots of a budget stand.
    """

    def __init__(
        self,
        api: ApiClient,
        view: StatusView,
        leading: Callable[[], bool],
        *,
        events: EventPoster | None = None,
        system: str = SYSTEM_NAMESPACE,
        excluded_namespaces: Iterable[str] = (),
        recorded_mode: RecordedMode = lambda _: None,
        pots: Pots = lambda _: (),
        interval: float = INTERVAL_SECONDS,
        idle: float = IDLE_SECONDS,
        live: float = LIVE_SECONDS,
        reconnect: float = RECONNECT_SECONDS,
        per_second: float = PER_SECOND,
    ) -> None:
        self._api = api
        self._view = view
        self._leading = leading
        self._events = events
        self._interval, self._idle, self._live = interval, idle, live
        self._reconnect = reconnect
        self._pause = 1 / per_second
        self._next_write = 0.0
        self._never = left_alone(system, excluded_namespaces)
        self._recorded_mode = recorded_mode
        self._pots = pots
        self._computer = self._fresh_computer()
        self._waiting = Waiting()
        self._written: dict[Key, _Written] = {}
        self._wake = asyncio.Event()
        self._forbidden: dict[str, float] = {}
        """Until when nothing is tried, by kind."""
        self.problems: dict[str, str] = {}
        """Why statuses are not written, by what was tried, such as `patch agents/status`."""
        self.writes = 0
        """How many requests were made."""

    @property
    def settled(self) -> bool:
        """Whether nothing waits to be looked at."""
        return not self._waiting and not self._wake.is_set()

    def touch(self) -> None:
        """Say that something changed."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._wake.set()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._work())
                while True:
                    self._look()
                    await asyncio.sleep(self._interval)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, self._idle - self._interval)):
                            await self._wake.wait()
        finally:
            self._waiting.clear()

    def _fresh_computer(self) -> Computer:
        return Computer(self._view, self._never, recorded_mode=self._recorded_mode, pots=self._pots)

    def _look(self) -> None:
        self._wake.clear()
        if not self._leading():
            if not self._computer.age_seconds:
                return
            # Another replica writes now. Whatever is known here is worked out anew when this one leads again.
            self._computer = self._fresh_computer()
            self._waiting.clear()
            self._written.clear()
            return
        dirty = self._computer.follow()
        for key in dirty.soon:
            self._waiting.put(key, soon=True)
        for key in dirty.later:
            self._waiting.put(key)
        if len(self._written) > 2 * len(self._view.observed):
            self._written = {k: written for k, written in self._written.items() if k in self._view.observed}

    async def _work(self) -> None:
        while True:
            key = await self._waiting.get()
            try:
                await self._settle(key)
            except Exception:  # noqa: BLE001 - one object's status must not keep all others from being written
                _log.exception("The status of %s %s cannot be worked out", *key)
                self._waiting.put_in(key, FORBIDDEN_SECONDS)
            finally:
                self._waiting.done(key)

    async def _settle(self, key: Key) -> None:
        """Bring one object's status up to date, if it is not and may be now."""
        if (planned := self._plan(key)) is None or not self._leading():
            return
        until = max(self._forbidden.get(planned[0].kind, 0.0) - time.monotonic(), 0.0)
        if until:
            self._waiting.put_in(key, until)
            return
        await self._turn()
        # Time has passed, so that it is worked out once more.
        if (planned := self._plan(key)) is not None and self._leading():
            await self._write(key, *planned)

    def _plan(self, key: Key) -> tuple[Observed, Json, Json] | None:
        """Give the object, the status it has and the one to write; None where there is nothing to do now."""
        observed = self._view.observed.get(key)
        if observed is None:
            self._written.pop(key, None)
            return None
        written = self._written.get(key)
        fresh = written is None or observed.resource_version >= written.version
        has = observed.status if written is None or fresh else written.got
        status = self._computer.status(observed, has, datetime.now(UTC))
        for fleet in self._computer.unsettled_fleets():
            self._waiting.put(("AgentFleet", fleet), soon=True)
        if (now := meaning(status)) == meaning(has):
            return None
        if (wait := self._reconnect - self._computer.age_seconds) > 0 and _falls_behind(has, status):
            self._waiting.put_in(key, wait)
            return None
        if written is not None:
            if now == meaning(written.sent) and meaning(has) == meaning(written.got):
                return None  # the API server keeps something else than was sent, and would again
            wait = written.at + self._live - time.monotonic()
            if wait > 0 and gist(status) == gist(has):
                self._waiting.put_in(key, wait)
                return None
        return observed, has, status

    async def _turn(self) -> None:
        now = time.monotonic()
        self._next_write = max(now, self._next_write) + self._pause
        await asyncio.sleep(self._next_write - self._pause - now)

    async def _write(self, key: Key, observed: Observed, has: Json, status: Json) -> None:
        plural = KINDS[observed.kind].PLURAL
        within = f"/namespaces/{observed.namespace}" if observed.namespace else ""
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": observed.uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        self.writes += 1
        try:
            answer = await request(
                self._api,
                "PATCH",
                f"/apis/{API_VERSION}{within}/{plural}/{observed.name}/status",
                f"patch {plural}/status of {observed.key}",
                query={"fieldManager": OPERATOR},
                body=patch,
                content=JSON_PATCH,
            )
        except RequestError as error:
            self._failed(key, plural, error)
            return
        self._forbidden.pop(observed.kind, None)
        for solved in (f"patch {plural}/status", "reach the API server"):
            self.problems.pop(solved, None)
        version, got = int(answer["metadata"]["resourceVersion"]), answer.get("status") or {}
        self._written[key] = _Written(time.monotonic(), version, status, got)
        self._tell(observed, has, status)

    def _failed(self, key: Key, plural: str, error: RequestError) -> None:
        match error.status:
            case 404:
                return  # it is gone, and the watch will say so
            case 409 | 422 if error.patch_misfits or error.status == 409:
                self._waiting.put_in(key, RETRY_SECONDS)  # another object has its name by now
            case 429:
                wait = error.retry_after or RETRY_SECONDS
                self._next_write = max(self._next_write, time.monotonic() + wait)
                self._waiting.put(key)
            case status if status == NO_ANSWER or status >= 500:
                self._problem("reach the API server", error)
                self._waiting.put_in(key, RETRY_SECONDS)
            case _:
                self._problem(f"patch {plural}/status", error)
                if error.status in {401, 403}:
                    self._forbidden[key[0]] = time.monotonic() + FORBIDDEN_SECONDS
                self._waiting.put_in(key, FORBIDDEN_SECONDS)

    def _problem(self, tried: str, error: RequestError) -> None:
        if tried not in self.problems:
            _log.error("Statuses are not written: %s", error)
        self.problems[tried] = str(error)

    def _tell(self, observed: Observed, has: dict[str, Any], status: Json) -> None:
        """Post an Event about a specification that has come to be wrong."""
        stalled = condition(status, "Stalled")
        if self._events is None or stalled is None or stalled["reason"] != "Invalid":
            return
        if stalled["message"] != (condition(has, "Stalled") or {}).get("message"):
            reason = "PolicyInvalid" if observed.kind.endswith("Policy") else "Invalid"
            self._events.post(about(observed), "Warning", reason, stalled["message"])


def _falls_behind(has: Json, status: Json) -> bool:
    """Say whether all that speaks against an agent that was Ready is what a new leader has not seen yet.

    That is: webhooks are missing or behind, or the NetworkPolicy for quarantine was not looked at.
    """
    before, after = condition(has, "Ready"), condition(status, "Ready")
    return (
        before is not None
        and before.get("status") == "True"
        and after is not None
        and after["reason"] in {"Propagating", "Quarantining"}
        and before.get("observedGeneration") == after["observedGeneration"]
        and (has.get("mode") or {}).get("operatingMode") == (status.get("mode") or {}).get("operatingMode")
    )
