"""Works out the status of any object from the operator's view."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from fleetward.budget.report import PotReport
from fleetward.registry.slice import OperatingMode
from fleetward.resources import ActionCatalog, AgentFleet, AuditSink
from fleetward_operator.status.agent import agent_status, verdict
from fleetward_operator.status.budgets import budget_status
from fleetward_operator.status.conditions import Json
from fleetward_operator.status.others import catalog_status, fleet_status, policy_status, sink_status
from fleetward_operator.status.tracker import Dirty, Tracker
from fleetward_operator.status.view import StatusView
from fleetward_operator.view.observed import Observed

SWEEP_SECONDS = 5.0
"""How often sinks, budgets, last decisions and modes on record are looked at: nothing tells of their changes."""

RecordedMode = Callable[[str], OperatingMode | None]
Pots = Callable[[str], Sequence[PotReport]]


class Computer:
    """Follows `view`, and gives statuses by what it saw last. Pods of the namespaces `never` are not governed.

    `recorded_mode` tells the mode last put on record for `KIND KEY`, None where that is not known here; `pots` how the
    pots of the budget `KIND/KEY` stand.
    """

    def __init__(
        self,
        view: StatusView,
        never: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        *,
        recorded_mode: RecordedMode = lambda _: None,
        pots: Pots = lambda _: (),
    ) -> None:
        self._recorded_mode = recorded_mode
        self._pots = pots
        self._view = view
        self._clock = clock
        self._tracker = Tracker(never, clock)
        self._ready: dict[str, bool] = {}
        """Whether agents are Ready, as last worked out."""
        self._fleets: set[str] = set()
        self._decisions: dict[str, object] = {}
        self._records: dict[tuple[str, str], str] = {}
        """Modes on record, as last told."""
        self._swept_at = float("-inf")
        self._since: float | None = None

    @property
    def age_seconds(self) -> float:
        """For how long it has followed the view; 0 before it did."""
        return self._clock() - self._since if self._since is not None else 0.0

    def follow(self) -> Dirty:
        """Look at the view; say what may have changed."""
        now = self._clock()
        self._since = self._since if self._since is not None else now
        dirty = self._tracker.follow(self._view)
        if now - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = now
            dirty.later |= self._sweep()
        return dirty

    def status(self, observed: Observed, previous: Mapping[str, Any], now: datetime) -> Json:
        """Give the status of an object; `previous` is the one it has."""
        registry, tracker, key = self._view.registry, self._tracker, observed.key
        governing = registry.resources.get((observed.kind, key))
        match observed.kind:
            case "Agent":
                return self._agent(observed, previous, now) | self._recorded(observed, previous)
            case "AgentFleet":
                fleet = governing if isinstance(governing, AgentFleet) else None
                members = tracker.members(key)
                stopped = fleet is not None and fleet.spec.operating_mode != "Running"
                unready = [m.key for m in members if stopped and not self._is_ready(m.key)]
                status = fleet_status(observed, fleet, members, previous, now, unready=unready)
                return status | self._recorded(observed, previous)
            case "ActionCatalog":
                catalog = governing if isinstance(governing, ActionCatalog) else None
                return catalog_status(observed, catalog, previous, now)
            case "AuditSink":
                sink = governing if isinstance(governing, AuditSink) else None
                return sink_status(observed, sink, self._view.sink_status(key), previous, now)
            case "AgentBudget" | "ClusterAgentBudget":
                name = f"{observed.kind}/{key}"
                budget, sharing = registry.budgets.get(name), tracker.sharing(name)
                return budget_status(observed, budget, sharing, previous, now, report=self._pots(name))
            case _:
                name = f"{observed.kind}/{key}"
                return policy_status(observed, registry.policies.get(name), tracker.subjects(name), previous, now)

    def unsettled_fleets(self) -> set[str]:
        """Give the fleets of agents that have come to be Ready, or not Ready, since this was last asked."""
        fleets, self._fleets = self._fleets, set()
        return fleets

    def _agent(self, observed: Observed, previous: Mapping[str, Any], now: datetime) -> Json:
        key = observed.key
        facts = self._tracker.facts(key, self._view)
        ready = verdict(observed, facts).ready
        if facts.item is not None and self._ready.get(key) != ready:
            self._fleets |= set(facts.item.fleets)
        self._ready[key] = ready
        return agent_status(observed, facts, previous, now)

    def _recorded(self, observed: Observed, previous: Mapping[str, Any]) -> Json:
        """Say which mode is on record, for the next leader to know; left out where that is Running."""
        mode = self._recorded_mode(f"{observed.kind} {observed.key}") or previous.get("recordedMode") or "Running"
        self._records[observed.kind, observed.key] = mode
        return {"recordedMode": mode} if mode != "Running" else {}

    def _is_ready(self, key: str) -> bool:
        if key not in self._ready:
            observed = self._view.observed.get(("Agent", key))
            if observed is None:
                return False
            self._ready[key] = verdict(observed, self._tracker.facts(key, self._view)).ready
        return self._ready[key]

    def _sweep(self) -> set[tuple[str, str]]:
        found = set()
        agents = self._view.registry.agents
        if len(self._ready) > len(agents):
            self._ready = {key: ready for key, ready in self._ready.items() if key in agents}
            self._decisions = {key: last for key, last in self._decisions.items() if key in agents}
            self._records = {of: mode for of, mode in self._records.items() if of in self._view.observed}
        for kind, key in self._view.observed:
            if kind in {"AuditSink", "AgentBudget", "ClusterAgentBudget"}:
                found.add((kind, key))
            if kind in {"Agent", "AgentFleet"}:
                recorded = self._recorded_mode(f"{kind} {key}")
                if recorded is not None and recorded != self._records.get((kind, key), recorded):
                    found.add((kind, key))
            if kind == "Agent":
                last = self._view.last_decision(key)
                last_id = last.get("id") if last is not None else None
                if self._decisions.get(key) != last_id:
                    self._decisions[key] = last_id
                    found.add((kind, key))
        return found
