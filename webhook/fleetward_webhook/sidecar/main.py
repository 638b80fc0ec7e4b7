"""`fleetward-webhook`: the decision webhook as a process.

Exit codes: 0 when told to stop, 2 when it cannot start (a bad argument, an address in use, a spool in use).
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

import msgspec

from fleetward.audit.spool import Spool, SpoolError
from fleetward.decision.cel.runtime import RuntimeUnavailableError
from fleetward.logs import log_to_stderr
from fleetward.stream.address import Address
from fleetward_webhook.sidecar import memory
from fleetward_webhook.sidecar.app import Api, Server
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.commit import GroupCommit
from fleetward_webhook.sidecar.health import LIMITS as HEALTH_LIMITS
from fleetward_webhook.sidecar.health import Health
from fleetward_webhook.sidecar.link import Link
from fleetward_webhook.sidecar.metrics import Metrics
from fleetward_webhook.sidecar.service import Service
from fleetward_webhook.sidecar.settings import Settings, read_settings

RELEASE_SECONDS = 1.0
"""How long a webhook that stops waits for the hub to take back its leases; else they are counted as they stand."""

DELIVERY_SECONDS = 2.0
"""How long a webhook that stops waits for the hub to take what is spooled; the rest waits for its next start."""

_log = logging.getLogger(__name__)


class StartError(Exception):
    """Why the webhook cannot start, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a decision webhook until it is told to stop; return the exit code."""
    settings = read_settings(arguments)
    log_to_stderr(workload=settings.workload)
    try:
        asyncio.run(run(settings))
    except StartError as error:
        sys.stderr.write(f"fleetward-webhook: {error}\n")
        return 2
    return 0


async def run(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or, where so told, the end of standard input. Raises StartError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if settings.exit_with_parent:
        _watch_parent(loop, stopping.set)
    try:
        with Spool.open(settings.spool) as spool:
            await _serve(settings, spool, stopping)
    except (SpoolError, RuntimeUnavailableError) as error:
        raise StartError(str(error)) from error


async def _serve(settings: Settings, spool: Spool, stopping: asyncio.Event) -> None:
    authority, metrics = Authority(), Metrics()
    async with GroupCommit(spool) as commit:
        service = Service(spool=spool, authority=authority, commit=commit, metrics=metrics)
        link = Link(
            settings.hub,
            workload=settings.workload,
            spool=spool,
            on_slice=service.apply,
            authority=authority,
            credentials=settings.credentials,
        )
        service.connect(link.wake, link.questions)
        server = Server(Api(service, metrics, settings.limits), settings.limits)
        address = await _listen(server, settings.listen)
        health: Server | None = None
        health_address: Address | None = None
        if settings.health_listen is not None:
            health = Server(Health(service, metrics), HEALTH_LIMITS)
            health_address = await _listen(health, settings.health_listen)
        following = asyncio.create_task(link.run())
        tending = asyncio.create_task(service.leases.run())
        memory.settle()
        _announce(address, health_address)
        try:
            await stopping.wait()
        finally:
            _log.info("stopping")
            await server.stop()
            if health is not None:
                await health.stop()
            await _end(tending)
            if link.connected:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(service.leases.close(), RELEASE_SECONDS)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(link.delivered(), DELIVERY_SECONDS)
            await _end(following)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _listen(server: Server, address: Address) -> Address:
    try:
        return await server.listen(address)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StartError(f"cannot listen on {address}: {why}") from error


def _announce(address: Address, health: Address | None) -> None:
    said: dict[str, object] = {"address": str(address), "pid": os.getpid()}
    if health is not None:
        said["health"] = str(health)
    line = msgspec.json.encode(said)
    with contextlib.suppress(OSError):  # nobody listens
        sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()
    _log.info("listening on %s", address)


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call `stop` when standard input ends, which it does when the process that holds its other end is gone."""

    def read() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop()

    try:
        loop.add_reader(0, read)
    except (OSError, ValueError) as error:
        raise StartError("--exit-with-parent needs a pipe as standard input") from error
