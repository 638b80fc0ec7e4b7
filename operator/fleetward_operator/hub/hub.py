"""The hub: sends every sidecar its slice, changes and authority, and takes in what they record."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol, Self

from fleetward.audit.query import utc
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Wire
from fleetward_operator.hub.binding import Binding
from fleetward_operator.hub.intake import Intake, RecordStore
from fleetward_operator.hub.link import SidecarLink
from fleetward_operator.hub.modes import ModeJournal, ModeStore
from fleetward_operator.hub.view import View

DEFAULT_TTL = 5.0
"""Seconds of an authority lease.

Shorter, a pause binds a sidecar that is cut off sooner; longer, a sidecar works on longer without its hub.
"""

MAX_TTL = 3600.0
"""Seconds; see `fleetward.stream.messages.Seconds`."""

DRAIN_SECONDS = 2.0
"""How long a stopping hub tries to store what it has received; the sidecars still have whatever it does not."""


class HubStore(RecordStore, ModeStore, Protocol):
    """What a hub needs of `fleetward.audit.store.Store`."""


class LinkStatus(Wire, frozen=True):
    """One connected sidecar."""

    workload: str
    writer: str
    agents: tuple[str, ...]
    """The agents it serves, as far as the registry has them."""
    version: str
    """The registry version last sent to it; empty before the first."""
    since: str
    """When it connected (RFC 3339)."""
    spooled: int
    """The number of the last record it has written."""
    stored: int
    """The number of the last of its records in the store; 0 for none."""


class Status(Wire, frozen=True):
    """How the hub is doing."""

    version: str
    """The registry version in force; empty before the first."""
    withheld: str
    """Why no sidecar gets authority; empty while they do."""
    store_problem: str
    """Why records are not stored; empty while they are."""
    records_waiting: int
    """Records received that are not committed."""
    links: tuple[LinkStatus, ...]


class Hub:
    """Serves sidecars from the registry that was last published. An asynchronous context manager, of one event loop.

    `view_is_live` says whether whoever publishes still sees what is true; while it does not, no lease is renewed.
    `committed` is called after records were stored. `ttl` is in seconds, at most an hour; raises ValueError for others.
    """

    def __init__(
        self,
        store: HubStore,
        binding: Binding,
        *,
        ttl: float = DEFAULT_TTL,
        view_is_live: Callable[[], bool] = lambda: True,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        if not 0 < ttl <= MAX_TTL:
            raise ValueError(f"the authority lease is {ttl} s; allowed is more than 0 and at most {MAX_TTL:.0f}")
        self.binding = binding
        self.ttl = ttl
        self.intake = Intake(store, committed)
        self._journal = ModeJournal(store, committed)
        self._view: View | None = None
        self._view_is_live = view_is_live
        self._links: dict[str, SidecarLink] = {}
        """By writer."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self.intake.run()), asyncio.create_task(self._journal.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.intake.drained()
                await self._journal.drained()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.intake.shut_down)
        await asyncio.to_thread(self._journal.shut_down)

    @property
    def view(self) -> View | None:
        """The registry in force."""
        return self._view

    def publish(self, registry: Registry) -> None:
        """Bring a registry into force, and send every sidecar what it changes for it. Call on the hub's loop."""
        old, self._view = self._view, View(registry)
        self._journal.publish(registry)
        # Sends run in the order of waking: whoever has an agent whose mode changed comes first.
        for link in sorted(self._links.values(), key=lambda link: not _mode_changes(link, old, registry)):
            link.wake()

    def withheld(self) -> str:
        """Say why no authority is given; empty where it is."""
        if self._view is None:
            return "the hub has not read the resources yet"
        if not self._view_is_live():
            return "the hub has lost sight of the resources, so it does not know what holds now"
        return ""

    def join(self, link: SidecarLink) -> None:
        """Take in a link that said hello. Of two links of one writer, the newer one stays."""
        writer = link.hello.writer
        if (older := self._links.get(writer)) is not None:
            older.refuse(f"another link of the writer {writer} was opened; two sidecars must not share a spool")
            self.intake.close(older.lane)
        self._links[writer] = link
        self.intake.open(link.lane)

    def leave(self, link: SidecarLink) -> None:
        """Let a link go."""
        self.intake.close(link.lane)
        if self._links.get(link.hello.writer) is link:
            del self._links[link.hello.writer]

    def status(self) -> Status:
        """Say how the hub is doing, now."""
        return Status(
            version=self._view.registry.version if self._view else "",
            withheld=self.withheld(),
            store_problem=self.intake.problem or self._journal.problem,
            records_waiting=self.intake.waiting,
            links=tuple(sorted(map(_link_status, self._links.values()), key=lambda link: (link.workload, link.writer))),
        )


def _mode_changes(link: SidecarLink, old: View | None, new: Registry) -> bool:
    if old is None or link.sent is None:
        return False
    for key, known in link.sent.items.agents.items():
        agent = new.agents.get(key)
        if agent is not known and (agent is None or agent.mode != known.mode):
            return True
    return False


def _link_status(link: SidecarLink) -> LinkStatus:
    return LinkStatus(
        workload=link.hello.workload,
        writer=link.hello.writer,
        agents=tuple(link.sent.items.agents) if link.sent else (),
        version=link.sent.version if link.sent else "",
        since=utc(link.since),
        spooled=max(link.lane.spooled, link.lane.received),
        stored=link.lane.stored,
    )
