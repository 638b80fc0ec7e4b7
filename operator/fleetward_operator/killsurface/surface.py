"""Sees to it that what the plan says is done to pods (`deeds`).

A PodDisruptionBudget in the way is respected for as long as it stands: the eviction is tried again, and never replaced
by a deletion. Every action is idempotent, and whatever failed is in the next plan again.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from kubernetes.aio.client import ApiClient

from fleetward.resources.names import SYSTEM_NAMESPACE
from fleetward_operator.killsurface.deeds import RIGHT, Deeds
from fleetward_operator.killsurface.plan import Action, plan
from fleetward_operator.kube.events import EventPoster, about
from fleetward_operator.kube.rest import NO_ANSWER, RequestError
from fleetward_operator.status.view import ClusterView
from fleetward_operator.view.workloads import Workloads, left_alone

AT_ONCE = 8
"""Actions under way at most."""

RESYNC_SECONDS = 5.0
"""How often the plan is made when nothing calls for it."""

GATHER_SECONDS = 0.05
"""The least time between two plans."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
"""The wait after a first failure, doubled by each further one up to the longest."""

DONE_SECONDS = 10.0
"""How long a pod's new state may take to be seen; an action that was done is not done again before."""

MAX_AGE_SECONDS = 10.0
"""With a view of the cluster that may be older, nothing is done: what it says may be long undone."""

_FREEING = frozenset({"Release", "Unquarantine"})
"""What must not be done by a view that has not seen yet why it is otherwise."""

Doing = tuple[str, str]
"""A verb, and the pod's uid."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Wait:
    """When an action may be tried again."""

    until: float
    failures: int = 0


class KillSurface:
    """Evicts, releases and cuts off pods while `run` runs and `leading` says so."""

    def __init__(
        self,
        api: ApiClient,
        view: ClusterView,
        leading: Callable[[], bool],
        events: EventPoster,
        *,
        system: str = SYSTEM_NAMESPACE,
        excluded_namespaces: Iterable[str] = (),
        resync: float = RESYNC_SECONDS,
        first_retry: float = FIRST_RETRY_SECONDS,
    ) -> None:
        self._deeds = Deeds(api, events)
        self._view = view
        self._leading = leading
        self._events = events
        self._never = left_alone(system, excluded_namespaces)
        self._resync = resync
        self._first_retry = first_retry
        self._workloads = Workloads()
        self._wake = asyncio.Event()
        self._under_way: dict[Doing, asyncio.Task[None]] = {}
        self._waits: dict[Doing, _Wait] = {}
        self._since: dict[Doing, float] = {}
        """When each action that frees a pod was first planned."""
        self.blocked: dict[str, str] = {}
        """Why evictions are refused, by pod."""
        self.problems: dict[str, str] = {}
        """What the operator may not do or cannot, by what was tried, such as `create pods/eviction`."""

    def wake(self) -> None:
        """Say that something changed."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._wake.clear()
                due = self._look()
                await asyncio.sleep(GATHER_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, min(due, self._resync) - GATHER_SECONDS)):
                        await self._wake.wait()
        finally:
            tasks = list(self._under_way.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self) -> float:
        """Begin what may be done now; give the seconds until something more may be."""
        if not self._leading() or self._view.age_seconds() > MAX_AGE_SECONDS:
            self.blocked.clear()
            self._waits.clear()
            return self._resync
        now, due = time.monotonic(), self._resync
        actions = plan(self._view.registry, self._view.pods, self._workloads, self._never)
        self._forget(actions)
        for action in actions:
            doing = (action.verb, action.pod.uid)
            if doing in self._under_way:
                continue
            wait = self._wait(action, now)
            if wait > 0:
                due = min(due, wait)
            elif len(self._under_way) < AT_ONCE:
                task = self._under_way[doing] = asyncio.create_task(self._do(action))
                task.add_done_callback(functools.partial(self._ended, doing))
        return due

    def _wait(self, action: Action, now: float) -> float:
        """Give the seconds before an action may begin."""
        wait = self._waits.get((action.verb, action.pod.uid))
        until = wait.until - now if wait is not None else 0.0
        if action.verb in _FREEING:
            # Admission, or who led before, may have known of a mode sooner than this view. What the view lacks is no
            # older than its age, so once it has been whole at a time when the pod was so already, it knows it, too.
            since = self._since.setdefault((action.verb, action.pod.uid), now)
            until = max(until, self._view.age_seconds() - (now - since))
        return until

    def _forget(self, actions: list[Action]) -> None:
        planned = {(action.verb, action.pod.uid) for action in actions}
        evicted = {action.pod.key for action in actions if action.verb == "Evict"}
        self._waits = {doing: wait for doing, wait in self._waits.items() if doing in planned}
        self._since = {doing: at for doing, at in self._since.items() if doing in planned}
        for pod in self.blocked.keys() - evicted:
            del self.blocked[pod]

    def _ended(self, doing: Doing, _: asyncio.Task[None]) -> None:
        self._under_way.pop(doing, None)
        self._wake.set()

    async def _do(self, action: Action) -> None:
        doing = (action.verb, action.pod.uid)
        try:
            await self._deeds.do(action)
        except RequestError as error:
            self._failed(action, error)
        except Exception:  # noqa: BLE001 - one pod must not keep all others from being stopped
            _log.exception("%s of the pod %s failed", action.verb, action.pod.key)
            self._waits[doing] = _Wait(time.monotonic() + LONGEST_RETRY_SECONDS)
        else:
            if action.verb == "Evict":
                self.blocked.pop(action.pod.key, None)
            self.problems.pop(RIGHT[action.verb], None)
            self._waits[doing] = _Wait(time.monotonic() + DONE_SECONDS)

    def _failed(self, action: Action, error: RequestError) -> None:
        doing = (action.verb, action.pod.uid)
        failures = self._waits[doing].failures + 1 if doing in self._waits else 1
        wait = min(self._first_retry * 2 ** (failures - 1), LONGEST_RETRY_SECONDS)
        self._waits[doing] = _Wait(time.monotonic() + max(wait, error.retry_after or 0.0), failures)
        if action.verb == "Evict" and _by_budget(error):
            self._block(action, error)
            return
        if error.status == 429:
            return
        if action.verb == "Evict" and error.status == HTTPStatus.FORBIDDEN:
            self._block(action, error)
        tried = "reach the API server" if error.status == NO_ANSWER else RIGHT[action.verb]
        if tried not in self.problems:
            _log.error("%s", error)
        self.problems[tried] = str(error)

    def _block(self, action: Action, error: RequestError) -> None:
        pod = action.pod.key
        if pod not in self.blocked:
            for key in action.agents:
                if (observed := self._view.observed.get(("Agent", key))) is not None:
                    note = f"the pod {pod} cannot be evicted, which is tried again: {error.message}"
                    self._events.post(about(observed), "Warning", "EvictionBlocked", note)
        self.blocked[pod] = error.message


def _by_budget(error: RequestError) -> bool:
    """Say whether a PodDisruptionBudget stands in the way; several for one pod are a server error (500)."""
    return (error.status == 429 and "DisruptionBudget" in error.causes) or (
        error.status == 500 and "PodDisruptionBudget" in error.message
    )
