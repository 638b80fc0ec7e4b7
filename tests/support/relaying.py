"""Replicas that keep runs and ask each other about them: real journals, real HTTP, and tokens that are just names."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from support.make import registry

from fleetward.audit.store import Store
from fleetward.delegation.keys import KeyRing
from fleetward.run import calls
from fleetward.run.journal import RunStore
from fleetward.run.mandate import Limits, Mandate
from fleetward_operator.hub.binding import WorkloadBinding
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.kept import KeptRuns
from fleetward_operator.hub.runs import Runs
from fleetward_operator.hub.server import HubServer
from fleetward_operator.records.access import READ_STATUS, AccessRefused, Right, User
from fleetward_operator.records.routes import routes
from fleetward_operator.relay.desk import RunDesk
from fleetward_operator.relay.lane import Lanes
from fleetward_operator.relay.routes import run_routes
from fleetward_operator.relay.tags import open_tag, run_ids

OURS = "system:serviceaccount:fleetward-system:fleetward-operator"
A, B = "reports/alpha", "reports/beta"
REGISTRY = registry(("alpha", "beta"))


class Names:
    """Takes each token for the name of its user; what the API server says is tested with an API server."""

    async def authenticate(self, token: str | None) -> User:
        if not token:
            raise AccessRefused(401, "found no bearer token")
        return User(username=token)

    async def authorize(self, user: User, right: Right) -> None:
        assert right == READ_STATUS, "who may ask about runs is no matter of RBAC"
        if user.username != OURS:
            raise AccessRefused(403, f"{user.username} may not")


class OneKey:
    """A key that stays."""

    def __init__(self) -> None:
        self._ring = KeyRing.generate(1)

    def ring(self) -> KeyRing:
        return self._ring

    def public(self) -> dict[str, str]:
        return self._ring.public()

    def renew(self, now: int) -> bool:
        return now < 0


@dataclass
class Known:
    """What a replica knows of the others."""

    urls: dict[str, str] = field(default_factory=dict)
    """By tag."""
    twin_url: str = ""
    said: str = OURS
    server_name: str = ""

    def keeper(self, tag: str) -> str:
        if tag not in self.urls:
            raise LookupError("no replica is known that keeps it")
        return self.urls[tag]

    def token(self) -> str:
        return self.said

    def tls(self) -> ssl.SSLContext | None:
        return None

    def twin(self, kept: KeptRuns) -> str:
        return self.twin_url if kept.tag else ""


@dataclass
class Replica:
    """One replica."""

    desk: RunDesk
    runs: Runs
    store: RunStore
    hub: Hub
    known: Known
    tag: str
    url: str
    keys: OneKey

    async def ask(
        self, request: calls.Request, *, webhook: str = "one", agents: tuple[str, ...] = (A, B)
    ) -> calls.Reply:
        """Ask as a decision webhook does that is connected here."""
        future: asyncio.Future[calls.Reply] = asyncio.get_running_loop().create_future()
        self.desk.ask(request, webhook=webhook, agents=agents, registry=REGISTRY, answer=future.set_result)
        return await asyncio.wait_for(future, 20)

    async def open(self, **limits: int) -> str:
        """Open a run of A's."""
        mandate = Mandate(requester="ana", purpose="the monthly report", limits=Limits(**limits))
        opened = await self.ask(calls.OpenRun(agent=A, mandate=mandate))
        assert isinstance(opened, calls.Opened), opened
        return opened.run

    def used(self, run: str) -> int:
        """Say how many steps a run that is kept here has used."""
        return self.store.book.ledger.runs[run].account.used[0]


@contextlib.asynccontextmanager
async def relaying(directory: Path, *, patience: float = 1.0, known: Known | None = None) -> AsyncIterator[Replica]:
    """Run a replica with its data in `directory`."""
    known, keys = known or Known(), OneKey()
    tag = open_tag(directory / "runs.tag")
    async with contextlib.AsyncExitStack() as stack:
        store = stack.enter_context(contextlib.closing(RunStore.open(directory / "runs.db", ids=run_ids(tag))))
        lanes = await stack.enter_async_context(Lanes(known, patience=patience))
        audit = stack.enter_context(Store.open(directory / "audit.db"))
        runs = await stack.enter_async_context(Runs(store, keys, audit))
        desk = RunDesk(runs, tag, lanes, known)
        hub = await stack.enter_async_context(Hub(audit, WorkloadBinding(lambda _: {}), runs=desk))
        hub.publish(REGISTRY)
        served = [*routes(audit, hub, Names()), *run_routes(desk, hub, Names(), OURS)]
        server = await stack.enter_async_context(HubServer(hub, "http://127.0.0.1:0", routes=served))
        yield Replica(desk, runs, store, hub, known, tag, server.address, keys)


def step(run: str, agent: str = A, number: int = 0, **more: object) -> calls.Step:
    return calls.Step(run=run, agent=agent, kind="ToolCall", name=f"crm.read{number}", **more)  # type: ignore[arg-type]
