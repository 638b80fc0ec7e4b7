"""`fleetward serve`: folder, registry, hub, audit store, sinks and webhooks, run together on one machine."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleetward.audit.forward import Forwarder
from fleetward.audit.store import Store, StoreError
from fleetward.budget.ledger import Ledger
from fleetward.budget.store import LedgerError, open_ledger_store
from fleetward.delegation.keys import KeyRingError
from fleetward.registry.registry import Registry
from fleetward.resources.finding import Finding
from fleetward.run.journal import JournalError, RunStore
from fleetward.stream.address import MAX_SOCKET_PATH_BYTES
from fleetward_operator.hub.binding import WorkloadBinding
from fleetward_operator.hub.budgets import Budgets
from fleetward_operator.hub.grantkeys import FileKeys
from fleetward_operator.hub.hub import DEFAULT_TTL, Hub
from fleetward_operator.hub.runs import Runs
from fleetward_operator.hub.server import HubServer
from fleetward_operator.local.groups import at_most, pod_groups
from fleetward_operator.local.source import FolderSource, Reading
from fleetward_operator.local.supervisor import Supervisor

VIEW_BOUND_SECONDS = 10.0
"""How long the folder may go unread before no authority is given any more."""

ALL = "all"
"""The workload of a webhook started by hand that decides for every agent."""


class ServeError(Exception):
    """Why `fleetward serve` cannot start, in words."""


class FolderFindings(ServeError):  # noqa: N818 - it says what was found
    """The folder has mistakes, and there is no last good version yet that could govern."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__(f"{len(findings)} findings; mend them and start again")
        self.findings = findings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `fleetward serve` is told."""

    folder: Path
    data: Path
    port: int
    webhooks: int | None = None
    """How many webhooks at most; None: one for each group of agents that would share a pod."""
    hub: str | None = None
    lease_seconds: float = DEFAULT_TTL
    ledger: str | None = None
    """The URL of the PostgreSQL database that budgets are kept in; None: a file in the data folder."""


@dataclass(frozen=True)
class ServedWebhook:
    """A webhook that decides, and for which agents."""

    address: str
    workload: str
    agents: tuple[str, ...]


@dataclass(frozen=True)
class Ready:
    """Everything decides."""

    webhooks: tuple[ServedWebhook, ...]
    hub: str
    data: Path
    registry: Registry


class LocalServer:
    """Serves a folder. `ready` is called once everything decides, `changed` at each later reading of the folder."""

    def __init__(
        self, settings: Settings, *, ready: Callable[[Ready], None], changed: Callable[[Reading], None]
    ) -> None:
        self._settings = settings
        self._ready = ready
        self._changed = changed
        self._hub: Hub | None = None

    def _governing(self) -> Registry | None:
        return self._hub.view.registry if self._hub is not None and self._hub.view is not None else None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises ServeError, SupervisorError, FolderError."""
        settings = self._settings
        source = FolderSource(settings.folder)
        first = source.read()
        if first.findings:
            raise FolderFindings(first.findings)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_owned(settings.data))
            store = stack.enter_context(contextlib.closing(_open_store(settings.data)))
            forwarder = await stack.enter_async_context(Forwarder(store, settings.data / "sinks"))
            runs = await stack.enter_async_context(_open_runs(settings.data, store))
            budgets = await stack.enter_async_context(_open_budgets(settings, store, self._governing))
            self._hub = hub = await stack.enter_async_context(
                Hub(
                    store,
                    WorkloadBinding(self._known),
                    ttl=settings.lease_seconds,
                    view_is_live=lambda: source.age_seconds() < VIEW_BOUND_SECONDS,
                    committed=forwarder.wake,
                    runs=runs,
                    budgets=budgets,
                )
            )
            runs.keys_changed = hub.keys_changed
            hub.publish(first.registry)
            await forwarder.set_sinks(first.registry.sinks)
            server = await stack.enter_async_context(_listening(hub, settings.hub or _socket(settings.data)))
            supervisor = await stack.enter_async_context(
                Supervisor(hub=server.address, spools=settings.data / "spool", port=settings.port)
            )
            await supervisor.run(list(self._groups(first.registry)))
            published = asyncio.Event()
            # From the start on: a folder that nobody looks at for a while, as webhooks start, gives no authority.
            following = asyncio.create_task(self._follow(source, hub, published, stop))
            stack.push_async_callback(_ended, following)
            if not await _before(stop, supervisor.ready()):
                return
            self._ready(self._say_ready(server.address, supervisor, first.registry))
            adjusting = asyncio.create_task(self._adjust(hub, forwarder, supervisor, published, stop))
            await following
            published.set()
            await adjusting

    async def _follow(self, source: FolderSource, hub: Hub, published: asyncio.Event, stop: asyncio.Event) -> None:
        async for reading in source.readings(stop):
            hub.publish(reading.registry)
            published.set()
            self._changed(reading)

    async def _adjust(
        self, hub: Hub, forwarder: Forwarder, supervisor: Supervisor, published: asyncio.Event, stop: asyncio.Event
    ) -> None:
        """Fit sinks and webhooks to the registry in force. Stopping one may take seconds; no pause waits for that."""
        while not stop.is_set():
            await published.wait()
            published.clear()
            if hub.view is not None and not stop.is_set():
                await forwarder.set_sinks(hub.view.registry.sinks)
                await supervisor.run(list(self._groups(hub.view.registry)))

    def _groups(self, registry: Registry) -> Mapping[str, frozenset[str]]:
        """Give the groups that a webhook is started for."""
        groups = pod_groups(registry)
        return groups if self._settings.webhooks is None else at_most(groups, self._settings.webhooks)

    def _known(self, registry: Registry) -> Mapping[str, frozenset[str]]:
        """Give the groups that a webhook may name: a webhook started by hand is for a pod's agents, or for all."""
        return {ALL: frozenset(registry.agents), **pod_groups(registry), **self._groups(registry)}

    def _say_ready(self, hub: str, supervisor: Supervisor, registry: Registry) -> Ready:
        groups = self._groups(registry)
        served = (
            ServedWebhook(webhook.listen, name, tuple(sorted(groups[name])))
            for name, webhook in supervisor.webhooks.items()
        )
        return Ready(tuple(served), hub, self._settings.data, registry)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _before(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do the work unless `stop` is set first; say whether it was done."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        await working
        return True
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return False


@contextlib.contextmanager
def _owned(data: Path) -> Iterator[None]:
    """Make the data folder, and keep a second server off it."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data / ".gitignore").write_text("*\n")
        lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServeError(f"the data folder {data} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ServeError(f"another fleetward serve uses {data}; stop it, or give another --data") from None
    try:
        yield
    finally:
        os.close(lock)


def _open_store(data: Path) -> Store:
    try:
        return Store.open(data / "audit.db")
    except StoreError as error:
        raise ServeError(str(error)) from None


@contextlib.asynccontextmanager
async def _open_runs(data: Path, records: Store) -> AsyncIterator[Runs]:
    try:
        keys = FileKeys(data / "grant-keys.json")
        store = RunStore.open(data / "runs.db")
    except (JournalError, KeyRingError, OSError) as error:
        raise ServeError(str(error)) from None
    with contextlib.closing(store):
        async with Runs(store, keys, records) as runs:
            yield runs


@contextlib.asynccontextmanager
async def _open_budgets(
    settings: Settings, records: Store, registry: Callable[[], Registry | None]
) -> AsyncIterator[Budgets]:
    try:
        store = open_ledger_store(settings.ledger or settings.data / "budgets.db")
    except LedgerError as error:
        raise ServeError(f"the ledger of budgets cannot be used: {error}") from None
    with contextlib.closing(store):
        async with Budgets(Ledger(store), records, registry) as budgets:
            yield budgets


@contextlib.asynccontextmanager
async def _listening(hub: Hub, address: str) -> AsyncIterator[HubServer]:
    server = HubServer(hub, address)
    try:
        await server.__aenter__()
    except OSError as error:
        raise ServeError(f"the hub cannot listen on {address}: {error}") from None
    try:
        yield server
    finally:
        await server.__aexit__(None, None, None)


def _socket(data: Path) -> str:
    """Give the hub a socket in the data folder; where its path would be too long, a short one that stays the same."""
    path = data.resolve() / "hub.sock"
    if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES:
        name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"fleetward-{os.getuid()}-{name}" / "hub.sock"
    return f"unix://{path}"
