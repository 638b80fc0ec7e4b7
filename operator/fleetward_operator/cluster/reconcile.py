"""From changes in the cluster to what governs: the registry published, sidecars rechecked, everybody else woken."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from fleetward.audit.forward import Forwarder
from fleetward.registry.registry import Registry
from fleetward.registry.slice import MODES, OperatingMode
from fleetward.resources.auditsink import AuditSink
from fleetward_operator.cluster.metrics import Metrics
from fleetward_operator.cluster.modenews import ModeNews
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.inforce import ModeInForce
from fleetward_operator.keeper import Keeper
from fleetward_operator.killsurface.surface import KillSurface
from fleetward_operator.status.writer import StatusWriter
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.source import PODS, Source
from fleetward_operator.view.workloads import Workloads

MOST_REST_SECONDS = 0.02
"""How long a change may wait for others, so that a flood of them is passed on in few steps; it does not after quiet."""


class Parts(Protocol):
    """What a change is passed on to."""

    hub: Hub
    forwarder: Forwarder
    keeper: Keeper
    kill_surface: KillSurface
    status: StatusWriter
    mode_news: ModeNews
    metrics: Metrics


class Reconciler:
    """Passes changes on, those that come at about the same time together. Begins when `start` is called."""

    def __init__(self, source: Source, parts: Parts) -> None:
        self._source = source
        self._parts = parts
        self._changed_at: float | None = None
        """When the first change was seen that is not passed on yet."""
        self._pods: set[str] = set()
        """Pods that changed, by key."""
        self._started = False
        self._rested_at = 0.0
        """Until when changes are gathered (`loop.time`)."""
        self._sinks: list[AuditSink] = []
        self._fitting: asyncio.Task[None] | None = None
        self.workloads = Workloads()
        """Which pods run which agents of the registry in force."""

    @property
    def governed_namespaces(self) -> Collection[str] | None:
        """The namespaces with an agent that runs in pods; None before that is known."""
        if not self._started:
            return None
        inside = self.workloads.registry.agents_in
        return {name for name, agents in inside.items() if any(a.spec.workload is not None for a in agents.values())}

    def changed(self, plural: str, key: str) -> None:
        """Take note of a change in the source."""
        if plural == PODS:
            self._pods.add(key)
        if self._changed_at is None:
            self._changed_at = time.monotonic()
            if self._started:
                asyncio.get_running_loop().call_at(self._rested_at, self._pass_on)

    def start(self) -> None:
        """Bring what the source holds into force. Call once everything that is there was seen."""
        self._started = True
        self._pass_on()

    def in_force(self, news: ModeInForce) -> None:
        """Take that a mode is in force at all webhooks of an agent."""
        self._parts.metrics.kill.labels(news.mode).observe(news.seconds)
        self._parts.mode_news.in_force(news)
        self._parts.status.touch()

    def _pass_on(self) -> None:
        at, self._changed_at = self._changed_at, None
        pods, self._pods = self._pods, set()
        began = asyncio.get_running_loop().time()
        parts, registry = self._parts, self._source.registry
        if registry is not parts.hub.resources:
            parts.hub.publish(registry, at)
            if at is not None:
                parts.metrics.reconcile.observe(time.monotonic() - at)
            self._follow()
            self._fit_sinks(registry)
            parts.keeper.wake()
        for key in pods:
            parts.hub.recheck(key)
        parts.status.touch()
        parts.kill_surface.wake()
        # However many changes come, half of the time stays for what they are passed on to.
        loop = asyncio.get_running_loop()
        self._rested_at = loop.time() + min(loop.time() - began, MOST_REST_SECONDS)

    def republished(self) -> None:
        """Take that the hub brought another registry into force by itself: budgets pause other agents than before."""
        if self._started:
            self._follow()
            self._parts.status.touch()
            self._parts.kill_surface.wake()

    def _follow(self) -> None:
        view = self._parts.hub.view
        if view is not None:
            self._parts.mode_news.published(view.registry, self._connected)
            self.workloads.follow(view.registry)

    def _connected(self, agent: str) -> bool:
        return any(agent in link.agents for link in self._parts.hub.status().links)

    def _fit_sinks(self, registry: Registry) -> None:
        """Fit the deliveries to the sinks. Ending one may take a while, which nothing else waits for."""
        sinks = registry.sinks
        if sinks != self._sinks:
            self._sinks = sinks
            self._fitting = asyncio.ensure_future(self._fit(sinks, self._fitting))

    async def _fit(self, sinks: list[AuditSink], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        await self._parts.forwarder.set_sinks(sinks)


def recorded_modes(observed: Iterable[Observed]) -> Mapping[str, OperatingMode]:
    """Give the modes that were recorded last, by subject: what the statuses say, for they follow the records.

    Whoever leads writes both; so the next leader knows what the one before has recorded, whichever store it is in.
    """
    modes: dict[str, OperatingMode] = {}
    for each in observed:
        said = each.status.get("recordedMode")
        if said in MODES:
            modes[f"{each.kind} {each.key}"] = said
    return modes
