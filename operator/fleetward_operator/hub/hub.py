"""The hub: sends every sidecar its slice, changes and authority, and takes in what they record."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, Self

from fleetward.budget import calls as budget_calls
from fleetward.budget.ledger import Entry
from fleetward.decision.replies import Failed
from fleetward.registry.registry import BudgetPauses, Registry
from fleetward.registry.slice import Mode, OperatingMode, Wire
from fleetward.run import calls
from fleetward.stream import messages
from fleetward_operator.hub.access import AccessJournal, Refusal
from fleetward_operator.hub.asks import AsksBudgets, RunAnswer
from fleetward_operator.hub.binding import Binding, WorkloadBinding
from fleetward_operator.hub.frames import RefusedError
from fleetward_operator.hub.inforce import ModeInForce, ModesInForce
from fleetward_operator.hub.intake import Intake, RecordStore
from fleetward_operator.hub.kept import KeptRuns
from fleetward_operator.hub.link import SidecarLink
from fleetward_operator.hub.modes import ModeJournal, ModeStore, RecordedElsewhere
from fleetward_operator.hub.recalls import Recalls
from fleetward_operator.hub.settlement import SettledStore, Settlement
from fleetward_operator.hub.view import View

DEFAULT_TTL = 5.0
"""Seconds of an authority lease.

Shorter, a pause binds a sidecar that is cut off sooner; longer, a sidecar works on longer without its hub.
"""

MAX_TTL = 3600.0
"""Seconds; see `fleetward.stream.messages.Seconds`."""

DRAIN_SECONDS = 2.0
"""How long a stopping hub tries to store what it has received; the sidecars still have whatever it does not."""


_log = logging.getLogger(__name__)


class HubStore(RecordStore, ModeStore, SettledStore, Protocol):
    """What a hub needs of `fleetward.audit.store.Store`."""


class Desk(Protocol):
    """What a hub needs of `runs.Runs`."""

    def ask(
        self, request: calls.Request, *, webhook: str, agents: Collection[str], registry: Registry, answer: RunAnswer
    ) -> None:
        """Have a question of a webhook that serves `agents` answered."""

    kept: KeptRuns | None
    """What the other replicas are told; None where there are none."""

    def public_keys(self) -> dict[str, str]:
        """Give the public keys that grants may be signed with."""


class BudgetDesk(AsksBudgets, Protocol):
    """What a hub needs of `budgets.Budgets`."""

    paused: Callable[[Mapping[str, Mode]], None]
    """Called with the agents that budgets pause, whenever these are others."""
    recalls: Recalls
    filled: Callable[[], bool]
    """Whether all that was on record when the hub started is in the ledger; before that, nothing is granted."""

    async def fold(self, entries: Sequence[Entry]) -> None:
        """Settle by records; return when that is kept. Raises LedgerError."""

    async def folded(self, writer: str) -> int:
        """Give the number of the last record of a writer that was settled. Raises LedgerError."""

    @property
    def keeps(self) -> bool:
        """Whether the ledger is kept here, and not asked elsewhere."""


class LinkStatus(Wire, frozen=True):
    """One connected sidecar."""

    workload: str
    writer: str
    agents: tuple[str, ...]
    """The agents it serves, as far as the registry has them."""
    version: str
    """The registry version last sent to it; empty before the first."""
    running: str
    """The registry version that it says is in force there; empty before it said so."""
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
    runs: KeptRuns | None = None
    """The runs that are kept here, where there are other replicas."""
    keeps_budgets: bool = False
    """Whether the ledger of budgets is kept here."""


class Hub:
    """Serves sidecars from the registry that was last published. An asynchronous context manager, of one event loop.

    `view_is_live` says whether whoever publishes still sees what is true; while it does not, no lease is renewed.
    `committed` is called after records were stored. `ttl` is in seconds, at most an hour; raises ValueError for others.

    `observe` is called on the loop for each mode other than Running that came into force at the sidecars concerned.
    `max_link_age` ends each stream after so many seconds (less up to a tenth), for its sidecar to come again with the
    token it then has: for so long at most is a token believed that is no longer good. `recorded_elsewhere` tells
    which mode was last recorded; see ModeJournal. `links_changed` is called when a stream came or went, or
    runs another version.
    """

    def __init__(
        self,
        store: HubStore,
        binding: Binding,
        *,
        ttl: float = DEFAULT_TTL,
        view_is_live: Callable[[], bool] = lambda: True,
        committed: Callable[[], None] = lambda: None,
        observe: Callable[[ModeInForce], None] = lambda _: None,
        max_link_age: float | None = None,
        recorded_elsewhere: Callable[[], RecordedElsewhere] | None = None,
        links_changed: Callable[[], None] = lambda: None,
        runs: Desk | None = None,
        budgets: BudgetDesk | None = None,
    ) -> None:
        if max_link_age is not None and max_link_age <= 0:
            raise ValueError(f"the greatest age of a stream is {max_link_age} s; allowed is more than 0, or None")
        if not 0 < ttl <= MAX_TTL:
            raise ValueError(f"the authority lease is {ttl} s; allowed is more than 0 and at most {MAX_TTL:.0f}")
        self.binding = binding
        self.proves = not isinstance(binding, WorkloadBinding)
        self.ttl = ttl
        self.max_link_age = max_link_age
        settlement = None if budgets is None else Settlement(store, budgets)
        self.intake = Intake(store, committed, settlement)
        self._journal = ModeJournal(store, committed, recorded_elsewhere)
        self._access = AccessJournal(store, committed)
        self._runs = runs
        self._budgets = budgets
        if budgets is not None:
            budgets.paused = self._pause_by_budget
            budgets.recalls.send = self._recall
            budgets.filled = lambda: settlement is not None and settlement.begun
        self._paused: Mapping[str, Mode] = {}
        """The agents that budgets pause."""
        self.resources: Registry | None = None
        """What was published last; the registry in force is this, with what budgets pause."""
        self._in_force = ModesInForce(observe)
        self._links_changed = links_changed
        self._view: View | None = None
        self._view_is_live = view_is_live
        self._links: dict[str, SidecarLink] = {}
        """By writer."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self.intake.begin()
        self._tasks = [asyncio.create_task(part.run()) for part in (self.intake, self._journal, self._access)]
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                for part in (self.intake, self._journal, self._access):
                    await part.drained()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for part in (self.intake, self._journal, self._access):
            await asyncio.to_thread(part.shut_down)

    @property
    def view(self) -> View | None:
        """The registry in force."""
        return self._view

    @property
    def record_modes(self) -> bool:
        """Whether changes of mode are recorded, which one hub alone must do where several serve the same resources.

        When it is set again, the registry published last is compared with what was recorded meanwhile.
        """
        return self._journal.recording

    @record_modes.setter
    def record_modes(self, record: bool) -> None:
        self._journal.recording = record

    def recorded_mode(self, subject: str) -> OperatingMode | None:
        """Give the mode last recorded for a subject, such as `Agent reports/a`; None where this hub cannot say."""
        return self._journal.recorded(subject)

    def publish(self, registry: Registry, at: float | None = None) -> None:
        """Bring a registry into force, and send every sidecar what it changes for it. Call on the hub's loop.

        `at` is when the change was seen (`time.monotonic`); from then on, how long a mode takes is counted.
        """
        at = time.monotonic() if at is None else at
        self.resources = registry
        registry = registry.apply([BudgetPauses(self._paused)])
        old, self._view = self._view, View(registry, self._view.number + 1 if self._view else 1)
        if old is None:
            self.intake.wake()  # only now can it be settled what was on record before
        self._journal.publish(registry)
        concerned: list[SidecarLink] = []
        others: list[SidecarLink] = []
        changes: dict[str, tuple[Mode, list[SidecarLink]]] = {}
        for link in self._links.values():
            agents = {*link.look_up_agents(self._view), *link.principals}
            modes = _mode_changes(agents, old.registry, registry) if old else {}
            (concerned if modes else others).append(link)
            for agent, mode in modes.items():
                if mode.operating_mode != "Running":
                    changes.setdefault(agent, (mode, []))[1].append(link)
        self._in_force.expect(self._view.number, registry.version, at, changes)
        # Sends run in the order of waking: whoever has an agent whose mode changed comes first.
        for link in (*concerned, *others):
            link.wake()

    def recheck(self, workload: str | None = None) -> None:
        """Ask the binding anew which agents a workload has (None: each one), and send what that changes."""
        for link in self._links.values():
            if workload in {None, link.hello.workload}:
                link.recheck()

    def close_workload(self, workload: str, reason: str) -> None:
        """Refuse a workload's open streams; whoever comes again must prove anew who it is."""
        for link in self._links.values():
            if link.hello.workload == workload:
                link.refuse(reason)

    def withheld(self) -> str:
        """Say why no authority is given; empty where it is."""
        if self._view is None:
            return "the hub has not read the resources yet"
        if not self._view_is_live():
            return "the hub has lost sight of the resources, so it does not know what holds now"
        return ""

    def keys(self) -> dict[str, str]:
        """Give the public keys that grants may be signed with."""
        return {} if self._runs is None else self._runs.public_keys()

    def ask(
        self,
        request: messages.Request,
        *,
        webhook: str,
        agents: Collection[str],
        registry: Registry,
        answer: Callable[[messages.AnyReply], None],
    ) -> None:
        """Have a question answered."""
        if isinstance(request, budget_calls.Reserve | budget_calls.Release | budget_calls.Disown):
            if self._budgets is None:
                answer(Failed(reason="this hub keeps no budgets"))
            else:
                self._budgets.ask(request, webhook=webhook, agents=agents, answer=answer)
        elif self._runs is None:
            answer(Failed(reason="this hub keeps no runs"))
        else:
            self._runs.ask(request, webhook=webhook, agents=agents, registry=registry, answer=answer)

    def _recall(self, writer: str, pots: Sequence[budget_calls.PotRef]) -> bool:
        link = self._links.get(writer)
        if link is not None:
            link.recall(pots)
        return link is not None

    def _pause_by_budget(self, modes: Mapping[str, Mode]) -> None:
        self._paused = modes
        if self.resources is not None:
            self.publish(self.resources)

    def keys_changed(self) -> None:
        """Send every sidecar the keys that grants may be signed with."""
        for link in self._links.values():
            link.wake()

    def join(self, link: SidecarLink) -> None:
        """Take in a link that said hello. Of two links of one writer, the newer one stays.

        Raises RefusedError where the older one is of another workload, and that is proven.
        """
        writer = link.hello.writer
        if (older := self._links.get(writer)) is not None:
            if self.proves and older.hello.workload != link.hello.workload:
                raise RefusedError(f"the writer {writer} belongs to workload {older.hello.workload}", access=True)
            self._in_force.gone(older)
            older.refuse(f"another link of the writer {writer} was opened; two sidecars must not share a spool")
            self.intake.close(older.lane)
        self._links[writer] = link
        self.intake.open(link.lane)
        self._links_changed()

    def leave(self, link: SidecarLink) -> None:
        """Let a link go."""
        self.intake.close(link.lane)
        self._in_force.gone(link)
        if self._links.get(link.hello.writer) is link:
            del self._links[link.hello.writer]
            self._links_changed()

    def applied(self, link: SidecarLink) -> None:
        """Take note of what is in force at a link now."""
        self._in_force.applied(link)
        self._links_changed()

    def refused(self, link: SidecarLink, reason: str) -> None:
        """Have it recorded that somebody asked for what is not theirs to ask."""
        version = self._view.registry.version if self._view else ""
        refusal = Refusal(workload=link.hello.workload, reason=reason, peer=link.peer, registry_version=version)
        if self._access.note(refusal):
            _log.warning("Refused %s, from %s: %s", refusal.workload, refusal.peer or "this machine", reason)

    def status(self) -> Status:
        """Say how the hub is doing, now."""
        return Status(
            version=self._view.registry.version if self._view else "",
            withheld=self.withheld(),
            store_problem=self.intake.problem or self._journal.problem or self._access.problem,
            records_waiting=self.intake.waiting,
            runs=None if self._runs is None else self._runs.kept,
            keeps_budgets=self._budgets is not None and self._budgets.keeps,
            links=tuple(sorted(map(_link_status, self._links.values()), key=lambda link: (link.workload, link.writer))),
        )


def _mode_changes(agents: Collection[str], old: Registry, new: Registry) -> dict[str, Mode]:
    """Give the modes that differ, by agent."""
    changes: dict[str, Mode] = {}
    for key in agents:
        before, after = old.agents.get(key), new.agents.get(key)
        if after is not None and after is not before and (before is None or before.mode != after.mode):
            changes[key] = after.mode
    return changes


def _link_status(link: SidecarLink) -> LinkStatus:
    return LinkStatus(
        workload=link.hello.workload,
        writer=link.hello.writer,
        agents=tuple(link.sent.items.agents) if link.sent else (),
        version=link.sent.version if link.sent else "",
        running=link.running,
        since=link.since,
        spooled=max(link.lane.spooled, link.lane.received),
        stored=link.lane.stored,
    )
