"""A hub and its sidecars: real parts over real sockets, in one event loop unless a test says otherwise."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import make

from fleetward.audit.spool import Spool
from fleetward.audit.store import Store
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Slice
from fleetward_operator.hub.binding import WorkloadBinding
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.server import HubServer
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.credentials import Credentials
from fleetward_webhook.sidecar.link import Link


async def until(condition: Callable[[], object], *, within: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.005)


class Sidecar:
    """A sidecar without its HTTP API: a link, a spool, a lease, and every slice that came into force."""

    def __init__(self, spool: Spool, address: str, workload: str, credentials: Credentials | None = None) -> None:
        self.spool = spool
        self.authority = Authority()
        self.slices: list[Slice] = []
        self.hook: Callable[[], object] = lambda: None
        """Called at every slice."""
        self.link = Link(
            address,
            workload=workload,
            spool=spool,
            on_slice=self._on_slice,
            authority=self.authority,
            credentials=credentials,
        )
        self._task: asyncio.Task[None] | None = None

    def _on_slice(self, slice_: Slice) -> None:
        self.slices.append(slice_)
        self.hook()

    async def reaches(self, registry: Registry) -> None:
        """Wait until the registry is in force here."""
        await until(lambda: self.version == registry.version)

    def start(self) -> None:
        self._task = asyncio.create_task(self.link.run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @property
    def version(self) -> str:
        return self.slices[-1].version if self.slices else ""

    def write(self, count: int = 1, **changes: Any) -> None:
        for _ in range(count):
            self.spool.append(make.record(self.spool.writer, self.spool.next_seq, **changes))
        self.link.wake()


class Proxy:
    """Stands between sidecars and the hub on a socket of its own, and makes trouble that a network makes."""

    def __init__(self, directory: Path) -> None:
        self.address = f"unix://{directory}/proxy.sock"
        self.down_bytes = 0
        """Bytes from the hub to sidecars so far."""
        self.cut_after: int | None = None
        """Cut the connection once this many more bytes have come from the hub."""
        self._directory = directory
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self.release()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def hold_down(self) -> None:
        """Keep back what the hub sends; nothing is lost, and nothing is closed."""
        self._down.clear()

    def hold(self) -> None:
        """Keep back everything."""
        self._up.clear()
        self._down.clear()

    def release(self) -> None:
        """Let everything through, also what was kept back."""
        self._up.set()
        self._down.set()

    def cut(self) -> None:
        """Close every connection."""
        for task in self._tasks:
            task.cancel()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, f"{self._directory}/proxy.sock")

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_unix_connection(f"{self._directory}/hub.sock")
            pumps = [
                asyncio.create_task(self._pump(reader, there, self._up, down=False)),
                asyncio.create_task(self._pump(back, writer, self._down, down=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in filter(None, (writer, there)):
                end.transport.abort()
            self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, *, down: bool
    ) -> None:
        while data := await reader.read(65536):
            await gate.wait()
            if down:
                self.down_bytes += len(data)
                if self.cut_after is not None:
                    if len(data) >= self.cut_after:
                        writer.write(data[: self.cut_after])
                        await writer.drain()
                        self.cut_after = None
                        return
                    self.cut_after -= len(data)
            writer.write(data)
            await writer.drain()


class World:
    """One hub that can be stopped and started again, its store, and sidecars."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = f"unix://{directory}/hub.sock"
        self.store = Store.open(directory / "audit.db")
        self.hub: Hub
        self.server: HubServer
        self.live = True
        self.proxy = Proxy(directory)
        self._up: contextlib.AsyncExitStack | None = None
        self._sidecars: list[Sidecar] = []

    async def hub_up(self, registry: Registry | None = None, *, store: Any = None, **options: Any) -> Hub:
        """Start the hub. Each workload is the agent of its name; `everyone` is all of them. `server`: HubServer's."""
        server = options.pop("server", {})
        options.setdefault("binding", WorkloadBinding(groups))
        options.setdefault("view_is_live", lambda: self.live)
        self._up = contextlib.AsyncExitStack()
        self.hub = await self._up.enter_async_context(Hub(store or self.store, **options))
        if registry is not None:
            self.hub.publish(registry)
        self.server = await self._up.enter_async_context(HubServer(self.hub, self.address, **server))
        self.address = self.server.address
        return self.hub

    async def hub_down(self) -> None:
        if self._up is not None:
            up, self._up = self._up, None
            await up.aclose()

    def sidecar(
        self, workload: str = "alpha", *, name: str = "", address: str = "", credentials: Credentials | None = None
    ) -> Sidecar:
        """Start a sidecar; it keeps its spool under `name`."""
        spool = Spool.open(self.directory / f"spool-{name or f'{workload}-{len(self._sidecars)}'}")
        sidecar = Sidecar(spool, address or self.address, workload, credentials)
        self._sidecars.append(sidecar)
        sidecar.start()
        return sidecar

    async def connected(self, workload: str = "alpha", **where: Any) -> Sidecar:
        """Start a sidecar and wait until it may decide."""
        sidecar = self.sidecar(workload, **where)
        await until(sidecar.authority.live)
        return sidecar

    async def close(self) -> None:
        await asyncio.gather(*(sidecar.stop() for sidecar in self._sidecars))
        await self.proxy.stop()
        await self.hub_down()
        for sidecar in self._sidecars:
            sidecar.spool.close()
        self.store.close()

    @property
    def registry(self) -> Registry:
        """The registry that the hub published last."""
        assert self.hub.view is not None
        return self.hub.view.registry

    @property
    def store_connection(self) -> sqlite3.Connection:
        """The connection on which the hub's store writes."""
        assert self.store._writer is not None
        return self.store._writer

    def stored(self, writer: str) -> list[int]:
        """The numbers stored of a writer, in the order of storing."""
        found: list[int] = []
        position = 0
        while page := self.store.read(after_position=position):
            found += [stored.record.seq for stored in page if stored.record.writer == writer]
            position = page[-1].position
        return found


def groups(registry: Registry) -> dict[str, list[str]]:
    found = {key.partition("/")[2]: [key] for key in registry.agents}
    return {**found, "everyone": list(registry.agents)}
