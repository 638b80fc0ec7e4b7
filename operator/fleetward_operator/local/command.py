"""The command `fleetward serve`, found by the command line through the entry point group `fleetward.commands`."""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

import click

from fleetward.cli.output import CliError, Command, ExitCode, note, output_option, say
from fleetward.resources.finding import Finding
from fleetward.resources.folder import FolderError
from fleetward_operator.hub.hub import DEFAULT_TTL
from fleetward_operator.local.server import FolderFindings, LocalServer, Ready, ServeError, Settings
from fleetward_operator.local.source import Reading
from fleetward_operator.local.supervisor import SupervisorError

DEFAULT_PORT = 7480


@click.command(
    cls=Command,
    examples=("serve policies", "serve policies --port 9000 --webhooks 1 -o json"),
    exits={ExitCode.OK: "stopped", ExitCode.BAD_INPUT: "cannot start: the folder has findings, or a port is in use"},
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port of the first webhook; the others get the ports after it. 0 lets the system choose.",
)
@click.option(
    "--webhooks",
    type=click.IntRange(0, 1000),
    help="At most so many decision webhooks; 1 serves all agents, 0 starts none.  "
    "[default: one for each group of agents that would share a pod]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where audit records and spools are kept.  [default: DIR/.fleetward]",
)
@click.option(
    "--hub", help="Where the hub listens: unix:///path or http://127.0.0.1:PORT.  [default: in the data folder]"
)
@click.option(
    "--lease-seconds",
    type=click.FloatRange(0.5, 3600),
    default=DEFAULT_TTL,
    show_default=True,
    help="How long a webhook that lost the hub goes on deciding. Shorter: a pause holds sooner, even cut off.",
)
@click.option(
    "--ledger",
    envvar="FLEETWARD_LEDGER",
    metavar="URL",
    help="The database that budgets are kept in: postgresql://...  [default: a file in the data folder]",
)
@output_option("text", "json")
def serve(
    *,
    folder: Path,
    port: int,
    webhooks: int | None,
    data: Path | None,
    hub: str | None,
    lease_seconds: float,
    ledger: str | None,
    output: str,
) -> None:
    """Let a folder of YAML govern agents on this machine.

    Starts a decision webhook for each group of agents and prints its address when it decides. An edit of the folder
    holds at once; a mistake in it is reported, and the last good version goes on governing. Ctrl-C stops everything.
    """
    settings = Settings(
        folder=folder,
        data=data or (folder if folder.is_dir() else folder.parent) / ".fleetward",
        port=port,
        webhooks=webhooks,
        hub=hub,
        lease_seconds=lease_seconds,
        ledger=ledger,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    server = LocalServer(settings, ready=_print_ready_json if output == "json" else _print_ready, changed=Changes())
    try:
        asyncio.run(_until_told(server))
    except FolderFindings as error:
        _print_findings(error.findings)
        raise CliError(str(error)) from None
    except (ServeError, SupervisorError, FolderError, ValueError) as error:
        raise CliError(str(error)) from None


async def _until_told(server: LocalServer) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.run(stop)


def _print_ready(ready: Ready) -> None:
    for webhook in ready.webhooks:
        say(f"ready: {webhook.address} decides for {', '.join(webhook.agents) or 'no agent yet'}")
    if not ready.webhooks:
        say(f"ready: no agents yet; the hub listens on {ready.hub}")
    note(f"registry {ready.registry.version}; records in {ready.data}; Ctrl-C stops")
    sys.stdout.flush()


def _print_ready_json(ready: Ready) -> None:
    data = {
        "webhooks": [
            {"address": webhook.address, "workload": webhook.workload, "agents": list(webhook.agents)}
            for webhook in ready.webhooks
        ],
        "hub": ready.hub,
        "data": str(ready.data),
        "registryVersion": ready.registry.version,
    }
    click.echo(json.dumps(data))
    sys.stdout.flush()


class Changes:
    """Tells, on standard error, what a new reading of the folder changed."""

    def __init__(self) -> None:
        self._findings: tuple[Finding, ...] = ()
        self._version: str | None = None

    def __call__(self, reading: Reading) -> None:
        """Tell about one reading."""
        version = reading.registry.version
        if self._version not in (None, version):
            note(f"registry {version} is in force")
        self._version = version
        if reading.findings != self._findings:
            self._findings = reading.findings
            if reading.findings:
                note(
                    "the folder has mistakes; the last good version of what they are in goes on governing:",
                    style="bold red",
                )
                _print_findings(reading.findings)
            else:
                note("the folder has no mistakes any more", style="green")


def _print_findings(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        note(str(finding))
