"""`fleetward-webhook`: the decision webhook as a process.

Exit codes: 0 when told to stop, 2 when it cannot start (a bad argument, an address in use, a spool in use).
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from fleetward import __version__
from fleetward.audit.spool import Spool, SpoolError
from fleetward.decision.cel.runtime import RuntimeUnavailableError
from fleetward.stream.address import Address, parse_address
from fleetward_webhook.sidecar import memory
from fleetward_webhook.sidecar.app import Api, Server
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.commit import GroupCommit
from fleetward_webhook.sidecar.limits import Limits
from fleetward_webhook.sidecar.link import Link
from fleetward_webhook.sidecar.metrics import Metrics
from fleetward_webhook.sidecar.service import Service

DELIVERY_SECONDS = 2.0
"""How long a webhook that stops waits for the hub to take what is spooled; the rest waits for its next start."""

DEFAULT_LISTEN = "http://127.0.0.1:8180"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a webhook process is told at its start."""

    listen: Address
    hub: str
    workload: str
    spool: str
    exit_with_parent: bool = False
    limits: Limits


class StartError(Exception):
    """Why the webhook cannot start, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a decision webhook until it is told to stop; return the exit code."""
    settings = _settings(arguments)
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"time=%(asctime)sZ level=%(levelname)s workload={settings.workload} message=%(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
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
        )
        service.wake = link.wake
        server = Server(Api(service, metrics, settings.limits), settings.limits)
        try:
            address = await server.listen(settings.listen)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise StartError(f"cannot listen on {settings.listen}: {why}") from error
        following = asyncio.create_task(link.run())
        memory.settle()
        _announce(address)
        try:
            await stopping.wait()
        finally:
            _log.info("stopping")
            await server.stop()
            if link.connected:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(link.delivered(), DELIVERY_SECONDS)
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


def _announce(address: Address) -> None:
    line = msgspec.json.encode({"address": str(address), "pid": os.getpid()})
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


def _settings(arguments: Sequence[str] | None) -> Settings:
    parser = _parser()
    given = parser.parse_args(arguments)
    for name in ("hub", "workload", "spool"):
        if not getattr(given, name):
            parser.error(f"--{name} is missing; give it, or set {_variable(name)}")
    try:
        listen = parse_address(given.listen)
        parse_address(given.hub)
    except ValueError as error:
        parser.error(str(error))
    return Settings(
        listen=listen,
        hub=given.hub,
        workload=given.workload,
        spool=given.spool,
        exit_with_parent=given.exit_with_parent,
        limits=Limits(
            body_seconds=given.body_timeout,
            rate=given.rate,
            burst=given.burst,
            connections=given.max_connections,
        ),
    )


def _parser() -> argparse.ArgumentParser:
    bounds = Limits()
    parser = argparse.ArgumentParser(
        prog="fleetward-webhook",
        description="Decides, beside the agents of one workload, what they may do. Listens on loopback only.",
        epilog="Each option can be set in the environment, too: --body-timeout as FLEETWARD_BODY_TIMEOUT, and so on.",
    )
    parser.add_argument("--version", action="version", version=f"fleetward-webhook {__version__}")

    def add(name: str, text: str, *, default: object = "", kind: Callable[[str], object] = str) -> None:
        key = name.replace("-", "_")
        parser.add_argument(
            f"--{name}", type=kind, default=os.environ.get(_variable(key), default), help=text, metavar=key.upper()
        )

    add(
        "listen",
        f"where agents ask: http://127.0.0.1:PORT or unix:///path (default {DEFAULT_LISTEN})",
        default=DEFAULT_LISTEN,
    )
    add("hub", "where policies come from and records go: http://127.0.0.1:PORT or unix:///path")
    add("workload", "the group of agents to decide for, as the hub knows it")
    add("spool", "the directory where records wait for the hub")
    add(
        "body-timeout",
        f"seconds a request body may take (default {bounds.body_seconds:g})",
        default=bounds.body_seconds,
        kind=_positive,
    )
    add(
        "rate",
        f"requests a second taken in the long run (default {bounds.rate:g})",
        default=bounds.rate,
        kind=_positive,
    )
    add("burst", f"requests taken at once (default {bounds.burst})", default=bounds.burst, kind=_count)
    add("max-connections", f"connections taken (default {bounds.connections})", default=bounds.connections, kind=_count)
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        default=os.environ.get(_variable("exit_with_parent"), "").lower() in {"1", "true", "yes"},
        help="stop when standard input ends, as it does when the starting process is gone",
    )
    return parser


def _variable(name: str) -> str:
    return f"FLEETWARD_{name.upper()}"


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


_positive.__name__, _count.__name__ = (
    "positive number",
    "positive whole number",
)  # argparse names the type in its errors
