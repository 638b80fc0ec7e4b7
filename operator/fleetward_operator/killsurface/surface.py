"""Does to pods what the plan says: evictions through the Eviction API, and our gate taken off.

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

from kubernetes.aio.client import ApiClient

from fleetward.resources.names import OPERATOR, STOPPED_GATE, SYSTEM_NAMESPACE
from fleetward_operator.killsurface.plan import Action, plan
from fleetward_operator.kube.events import EventPoster, about
from fleetward_operator.kube.rest import JSON_PATCH, NO_ANSWER, RequestError, request
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

Doing = tuple[str, str]
"""A verb, and the pod's uid."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Wait:
    """When an action may be tried again."""

    until: float
    failures: int = 0


class KillSurface:
    """Evicts and releases pods while `run` runs and `leading` says so."""

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
        self._api = api
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
        self._held_since: dict[str, float] = {}
        """When each pod that is to be released was first seen so, by uid."""
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
        if action.verb == "Release":
            # Admission may have known of a stop sooner than this view. What the view lacks is no older than its age, so
            # once it has been whole at a time when the pod was there already, it knows whatever admission knew.
            since = self._held_since.setdefault(action.pod.uid, now)
            until = max(until, self._view.age_seconds() - (now - since))
        return until

    def _forget(self, actions: list[Action]) -> None:
        planned = {(action.verb, action.pod.uid) for action in actions}
        evicted = {action.pod.key for action in actions if action.verb == "Evict"}
        self._waits = {doing: wait for doing, wait in self._waits.items() if doing in planned}
        self._held_since = {uid: at for uid, at in self._held_since.items() if ("Release", uid) in planned}
        for pod in self.blocked.keys() - evicted:
            del self.blocked[pod]

    def _ended(self, doing: Doing, _: asyncio.Task[None]) -> None:
        self._under_way.pop(doing, None)
        self._wake.set()

    async def _do(self, action: Action) -> None:
        doing = (action.verb, action.pod.uid)
        try:
            await (self._evict(action) if action.verb == "Evict" else self._release(action))
        except RequestError as error:
            self._failed(action, error)
        except Exception:  # noqa: BLE001 - one pod must not keep all others from being stopped
            _log.exception("%s of the pod %s failed", action.verb, action.pod.key)
            self._waits[doing] = _Wait(time.monotonic() + LONGEST_RETRY_SECONDS)
        else:
            self.blocked.pop(action.pod.key, None)
            self.problems.pop(_RIGHT[action.verb], None)
            self._waits[doing] = _Wait(time.monotonic() + DONE_SECONDS)

    async def _evict(self, action: Action) -> None:
        pod = action.pod
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction"
        try:
            await request(self._api, "POST", path, f"evict the pod {pod.key} ({_RIGHT['Evict']})", body=body)
        except RequestError as error:
            if error.status in {404, 409}:
                return  # it is gone, or another one has its name by now
            raise
        self._events.post(about(pod), "Normal", "Evicted", f"its agents are Stopped: {', '.join(action.agents)}")

    async def _release(self, action: Action) -> None:
        pod = action.pod
        path, gate = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}", pod.gates.index(STOPPED_GATE)
        where = f"/spec/schedulingGates/{gate}"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": pod.uid},
            {"op": "test", "path": where, "value": {"name": STOPPED_GATE}},
            {"op": "remove", "path": where},
        ]
        doing = f"release the pod {pod.key} ({_RIGHT['Release']})"
        query = {"fieldManager": OPERATOR}
        try:
            await request(self._api, "PATCH", path, doing, query=query, body=patch, content=JSON_PATCH)
        except RequestError as error:
            if error.status in {404, 409} or (error.status == 422 and "test" in error.message.lower()):
                return  # it is gone, or is not what it was: the next plan goes by what it is
            raise
        why = f"not all its agents are Stopped: {', '.join(action.agents)}" if action.agents else "no Agent selects it"
        self._events.post(about(pod), "Normal", "Released", f"{why}; its scheduling gate is off")

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
        tried = "reach the API server" if error.status == NO_ANSWER else _RIGHT[action.verb]
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


_RIGHT = {"Evict": "create pods/eviction", "Release": "patch pods"}
"""What the operator's role must allow."""


def _by_budget(error: RequestError) -> bool:
    """Say whether a PodDisruptionBudget stands in the way; several for one pod are a server error (500)."""
    return (error.status == 429 and "DisruptionBudget" in error.causes) or (
        error.status == 500 and "PodDisruptionBudget" in error.message
    )
