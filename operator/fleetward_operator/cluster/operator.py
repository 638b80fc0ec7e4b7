"""The operator, put together: view, registry, hub, status, kill surface, election and what the leader keeps right."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fleetward.audit.forward import Forwarder, SinkStatus
from fleetward.audit.store import Store, StoreError
from fleetward.budget.news import News
from fleetward.budget.store import LedgerError
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Mode
from fleetward.run.journal import JournalError
from fleetward_operator.cluster.budgetkeeping import LEDGER_FILE, asked_budgets, kept_budgets
from fleetward_operator.cluster.budgetnews import BudgetNews
from fleetward_operator.cluster.election import Election
from fleetward_operator.cluster.figures import OperatorFigures, RecordCounts
from fleetward_operator.cluster.grantkeys import ClusterKeys
from fleetward_operator.cluster.health import HealthServer
from fleetward_operator.cluster.hubtls import HubCertificate
from fleetward_operator.cluster.metrics import Metrics
from fleetward_operator.cluster.modenews import ModeNews
from fleetward_operator.cluster.peers import Peers
from fleetward_operator.cluster.podbinding import PodBinding
from fleetward_operator.cluster.reconcile import Reconciler, recorded_modes
from fleetward_operator.cluster.runkeeping import kept_runs
from fleetward_operator.cluster.settings import Settings
from fleetward_operator.hub.budgets import Budgets
from fleetward_operator.hub.hub import Hub, LinkStatus
from fleetward_operator.hub.modes import RecordedElsewhere
from fleetward_operator.hub.server import HubServer
from fleetward_operator.keeper import Keeper, KeeperSettings
from fleetward_operator.killsurface.surface import KillSurface
from fleetward_operator.kube.events import EventPoster
from fleetward_operator.kube.objects import Objects
from fleetward_operator.records.access import ClusterAccess
from fleetward_operator.records.routes import routes
from fleetward_operator.relay.budgetroutes import budget_routes
from fleetward_operator.relay.budgets import RemoteBudgets
from fleetward_operator.relay.desk import RunDesk
from fleetward_operator.relay.routes import run_routes
from fleetward_operator.relay.tags import TagError
from fleetward_operator.status.decisions import LastDecisions
from fleetward_operator.status.writer import StatusWriter
from fleetward_operator.view.clusterview import ClusterView
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.pods import Pods
from fleetward_operator.view.quarantine import Cuts, Quarantines, quarantines
from fleetward_operator.view.workloads import left_alone

MAX_LINKS = 2000
"""Decision webhooks that one replica takes. Each takes 0.3 to 0.8 MiB, and the chart gives a replica 2 GiB."""

LINK_SECONDS = 3000.0
"""How long a stream lasts at most: less than its token, so that access that was taken away ends with it."""

_log = logging.getLogger(__name__)


class StartError(Exception):
    """Why the operator cannot start, or go on, in words."""


class _Part(Protocol):
    @property
    def problem(self) -> str:
        """What is wrong with it; empty where nothing is."""


class Operator:
    """One replica. `run` runs it; the rest is what its parts look at (see `status.view.StatusView`)."""

    store: Store
    access: ClusterAccess
    view: ClusterView
    hub: Hub
    reconciler: Reconciler
    election: Election
    events: EventPoster
    forwarder: Forwarder
    keeper: Keeper
    certificate: HubCertificate
    peers: Peers
    grant_keys: ClusterKeys
    runs: RunDesk
    budgets: Budgets | RemoteBudgets
    counts: RecordCounts
    last_decisions: LastDecisions
    kill_surface: KillSurface
    status: StatusWriter
    mode_news: ModeNews

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._problem = ""
        self._stop = asyncio.Event()
        self.metrics = Metrics()

    async def run(self, stop: asyncio.Event) -> str:
        """Run until `stop` is set; give the reason where it ended for another one. Raises StartError, AccessError."""
        self._stop = stop
        async with contextlib.AsyncExitStack() as stack:
            await self._assemble(stack)
            working = asyncio.create_task(self._work())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            working.cancel()
            (ended,) = await asyncio.gather(working, return_exceptions=True)
            if isinstance(ended, Exception):
                raise StartError(_cause(ended)) from ended
        return self._problem

    # What the parts look at

    @property
    def registry(self) -> Registry:
        """The registry in force."""
        return self._governing() or Registry()

    @property
    def observed(self) -> Mapping[tuple[str, str], Observed]:
        """Every object of our kinds, by kind and key."""
        return self.view.source.observed

    @property
    def pods(self) -> Pods:
        """All pods."""
        return self.view.source.pods

    def age_seconds(self) -> float:
        """Say for how long, at most, something may have gone unseen."""
        return self.view.age_seconds()

    def links(self) -> Sequence[LinkStatus]:
        """Give the decision webhooks connected to any replica."""
        return [*self.hub.status().links, *self.peers.links]

    def agents_of(self, pod: str) -> Sequence[str]:
        """Give the agents that a pod runs."""
        known = self.pods.get(*pod.split("/"))
        return [agent.key for agent in self.reconciler.workloads.agents_of(known)] if known is not None else []

    def last_decision(self, agent: str) -> Mapping[str, Any] | None:
        """Give an agent's last decision as its status has it."""
        return self.last_decisions.get(agent)

    def sink_status(self, name: str) -> SinkStatus | None:
        """Say how an audit sink is doing here; None where it has not started."""
        return next((sink for sink in self.forwarder.status() if sink.name == name), None)

    def blocked(self) -> Mapping[str, str]:
        """Say, by pod, why evictions are refused."""
        return self.kill_surface.blocked

    def cuts(self) -> Cuts:
        """Say where the NetworkPolicy for quarantine stands."""
        return self.keeper.cuts

    def leading(self) -> bool:
        """Whether this replica writes."""
        return self.election.leading

    def problems(self) -> dict[str, str]:
        """Say what does not work, by what."""
        parts = (self.keeper, self.view.relister, self.status, self.kill_surface, self.peers)
        problems = {what: why for part in parts for what, why in part.problems.items()}
        singles: dict[str, _Part] = {
            "budgets": self.budgets,
            "election": self.election,
            "events": self.events,
            "grant keys": self.grant_keys,
            "hub certificate": self.certificate,
            "last decisions": self.last_decisions,
            "record counts": self.counts,
            "runs": self.runs,
        }
        return problems | {what: part.problem for what, part in singles.items() if part.problem}

    def not_ready(self) -> str:
        """Say why this replica should get no sidecars; empty where it should."""
        if self.hub.view is None:
            return f"not read yet: {', '.join(self.view.relister.missing) or 'the registry'}"
        if not self._view_is_live():
            stalest = self.view.liveness.stalest()
            return f"the view is {self.age_seconds():.1f} s old; {stalest} went unseen for longest"
        if not self.grant_keys.found:
            return self.grant_keys.problem
        return self.certificate.problem

    # How they are put together

    async def _assemble(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        api = await stack.enter_async_context(settings.access.client())
        self.store = store = stack.enter_context(contextlib.closing(_open_store(settings.data)))
        self.access = ClusterAccess(api)
        self.view = ClusterView(api, settings.access, failed=self._fail, relist_seconds=settings.relist_seconds)
        self.reconciler = Reconciler(self.view.source, self)
        self.events = EventPoster(api, settings.identity)
        self.election = Election(api, settings.namespace, settings.identity)
        self.election.on_change(self._leadership_changed)
        self.forwarder = await stack.enter_async_context(Forwarder(store, settings.data / "sinks"))
        system, excluded = settings.namespace, settings.excluded_namespaces
        binding = PodBinding(
            api, self.pods, lambda: self.registry, events=self.events, system=system, excluded_namespaces=excluded
        )
        self.certificate = HubCertificate(api, settings.namespace)
        self.peers = Peers(
            api,
            settings.namespace,
            own_address=settings.address,
            fixed=settings.peers,
            token_file=settings.peer_token,
            trust=lambda: self.certificate.trust,
            changed=self._links_changed,
        )
        self.grant_keys = ClusterKeys(
            Objects(api, may_write=self.leading), settings.namespace, leading=self.leading, events=self.events
        )
        self.runs = await self._keep_runs(stack)
        self.budgets = await self._keep_budgets(stack)
        self.hub = await stack.enter_async_context(
            Hub(
                store,
                binding,
                ttl=settings.lease_seconds,
                view_is_live=self._view_is_live,
                committed=self.forwarder.wake,
                observe=self.reconciler.in_force,
                max_link_age=LINK_SECONDS,
                recorded_elsewhere=self._recorded_elsewhere,
                links_changed=self._links_changed,
                runs=self.runs,
                budgets=self.budgets,
            )
        )
        self.grant_keys.changed = self.hub.keys_changed
        self._tell_of_budgets()
        self.hub.record_modes = False  # until this replica leads
        self.keeper = Keeper(
            api,
            _keeper_settings(settings),
            self.election,
            lambda: self.reconciler.governed_namespaces,
            self._quarantines,
        )
        self.counts = RecordCounts(store)
        self.last_decisions = LastDecisions(
            store, lambda: (agent for link in self.hub.status().links for agent in link.agents)
        )
        self.kill_surface = KillSurface(
            api, self, self.leading, self.events, system=system, excluded_namespaces=excluded
        )
        self.status = StatusWriter(
            api,
            self,
            self.leading,
            events=self.events,
            system=system,
            excluded_namespaces=excluded,
            recorded_mode=self.hub.recorded_mode,
            pots=self.budgets.pots_of,
        )
        self.mode_news = ModeNews(self.events, self.leading)
        self.metrics.watch(OperatorFigures(self))

    async def _keep_runs(self, stack: contextlib.AsyncExitStack) -> RunDesk:
        try:
            data, peers = self._settings.data, self.peers
            return await stack.enter_async_context(kept_runs(data, self.grant_keys, self.store, peers))
        except (JournalError, TagError) as error:
            raise StartError(str(error)) from None

    async def _keep_budgets(self, stack: contextlib.AsyncExitStack) -> Budgets | RemoteBudgets:
        settings = self._settings
        if settings.ledger is None and settings.ledger_keeper not in {"", settings.identity}:
            return await stack.enter_async_context(asked_budgets(self.peers, self._governing))
        try:
            where = settings.data / LEDGER_FILE if settings.ledger is None else settings.ledger.read_text().strip()
            return await stack.enter_async_context(kept_budgets(where, self.store, self._governing))
        except (LedgerError, OSError) as error:
            raise StartError(f"the ledger of budgets cannot be used: {error}") from None

    def _tell_of_budgets(self) -> None:
        pause = self.budgets.paused

        def paused(modes: Mapping[str, Mode]) -> None:
            pause(modes)
            self.reconciler.republished()

        self.budgets.paused = paused
        if isinstance(self.budgets, Budgets):
            news = BudgetNews(self.events, lambda: self.observed)

            def told(each: News) -> None:
                news.told(each)
                self.metrics.budget_events.labels(each.event).inc()

            self.budgets.told = told

    def _governing(self) -> Registry | None:
        hub: Hub | None = vars(self).get("hub")  # the ledger is opened before there is a hub
        return hub.view.registry if hub is not None and hub.view is not None else None

    async def _work(self) -> None:
        """Do everything, in the order in which one thing needs another, until cancelled."""
        async with self._health(), asyncio.TaskGroup() as group:
            group.create_task(self.events.run())
            group.create_task(self.election.run())
            group.create_task(self.keeper.run())
            group.create_task(self.certificate.run())
            group.create_task(self.grant_keys.run())
            group.create_task(self.last_decisions.run())
            group.create_task(self.counts.run())
            async with self.view:
                await self.view.follow(self.reconciler.changed)
                self.reconciler.start()
                group.create_task(self.status.run())
                group.create_task(self.kill_surface.run())
                group.create_task(self.peers.run())
                async with self._server(await self.certificate.ready()) as server:
                    _log.info("the hub listens on %s", server.address)
                    await asyncio.Event().wait()

    def _health(self) -> HealthServer:
        return HealthServer(
            self._settings.health_listen,
            self.metrics.registry,
            alive=lambda: self._problem,
            ready=self.not_ready,
            problems=self.problems,
        )

    def _server(self, context: ssl.SSLContext) -> HubServer:
        user = _keeper_settings(self._settings).user
        paths = [
            *routes(self.store, self.hub, self.access, self.peers.others, lambda: self.budgets.report),
            *run_routes(self.runs, self.hub, self.access, user),
            *(budget_routes(self.budgets, self.access, user) if isinstance(self.budgets, Budgets) else ()),
        ]
        return HubServer(self.hub, self._settings.listen, ssl=context, routes=paths, max_links=MAX_LINKS)

    def _view_is_live(self) -> bool:
        """Say whether what governs is known to be what the cluster says, within the bound.

        The watches end in time only while the API server answers; that it has not lost etcd the Lease shows, which is
        read through it.
        """
        lease_age = time.monotonic() - self.election.last_read
        return max(self.age_seconds(), lease_age) < self._settings.view_seconds

    def _leadership_changed(self, leading: bool) -> None:  # noqa: FBT001 - the election's listener
        self.hub.record_modes = leading
        self.status.touch()
        self.kill_surface.wake()

    def _recorded_elsewhere(self) -> RecordedElsewhere:
        return RecordedElsewhere(recorded_modes(self.observed.values()), self.election.continues_since)

    def _quarantines(self) -> Quarantines | None:
        if self.reconciler.governed_namespaces is None:
            return None
        settings = self._settings
        return quarantines(self.registry, self.pods, left_alone(settings.namespace, settings.excluded_namespaces))

    def _links_changed(self) -> None:
        self.status.touch()

    def _fail(self, problem: str) -> None:
        _log.critical("%s", problem)
        self._problem = problem
        self._stop.set()


def _keeper_settings(settings: Settings) -> KeeperSettings:
    return KeeperSettings(
        webhook_image=settings.image,
        namespace=settings.namespace,
        excluded_namespaces=settings.excluded_namespaces,
        admission_url=settings.admission_url,
        hub_names=settings.tls_names,
        admission_names=settings.admission_names,
    )


def _open_store(data: Path) -> Store:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Store.open(data / "audit.db")
    except (OSError, StoreError) as error:
        raise StartError(f"the audit store in {data} cannot be used: {error}") from None


def _cause(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    _log.error("a part of the operator ended", exc_info=error)
    return str(error) or type(error).__name__
