"""`fleetward`, also installed as `kubectl-fleetward`."""

import io
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from fleetward import __version__
from fleetward.cli.group import PLUGIN_NAME, Lazy, LazyGroup

_COMMANDS = {
    "decide": Lazy("fleetward.cli.decide:decide", "Decide actions offline, by the policies of a folder or a cluster."),
    "policy": Lazy("fleetward.cli.main:policy", "Lint and test policies; import rules from elsewhere."),
    "agents": Lazy("fleetward.cli.agents:agents", "Show agents, what holds for them, and in a cluster how they are."),
    "pause": Lazy("fleetward.cli.mode:pause", "Pause an agent or a fleet: every decision is denied."),
    "stop": Lazy("fleetward.cli.mode:stop", "Stop an agent or a fleet: paused, and in a cluster drained."),
    "quarantine": Lazy("fleetward.cli.mode:quarantine", "Quarantine an agent or a fleet: paused, kept, and cut off."),
    "resume": Lazy("fleetward.cli.mode:resume", "Let a paused, stopped or quarantined agent or fleet act again."),
    "audit": Lazy("fleetward.cli.audit:audit", "Read the record of decisions, outcomes and changes of mode."),
    "trace": Lazy("fleetward.cli.trace:trace", "Show what a run's agents did as a tree of causes."),
    "budgets": Lazy(
        "fleetward.cli.budgets.command:budgets", "Show budgets: what is spent, who spent it, what is left."
    ),
    "completion": Lazy("fleetward.cli.completion:completion", "Print the script for completion in a shell."),
}
_POLICY_COMMANDS = {
    "lint": Lazy("fleetward.cli.policy.lint:lint", "Check the resources of a folder or a cluster."),
    "test": Lazy("fleetward.cli.policy.test:test", "Run the policy tests of a folder."),
    "import": Lazy("fleetward.cli.policy.importer:import_", "Write a safety.yaml's rules as AgentPolicy."),
}
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=LazyGroup, lazy=_COMMANDS, plugins=True, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="fleetward", message="%(prog)s %(version)s")
def cli() -> None:
    """Govern fleets of AI agents: what each may do is decided before it does it.

    Commands work on a folder of YAML (--dir) or on a cluster (--context, --kubeconfig, --namespace; as kubectl
    fleetward by itself). `COMMAND --help` shows examples and exit codes. Colours are left out where NO_COLOR is set.
    """


@click.group(cls=LazyGroup, lazy=_POLICY_COMMANDS)
def policy() -> None:
    """Lint and test policies; import rules from elsewhere."""


def program_name(argv0: str) -> str:
    """Say how the user calls this program: kubectl calls a plug-in by its file's name."""
    return PLUGIN_NAME if Path(argv0).stem == "kubectl-fleetward" else "fleetward"


def main() -> NoReturn:
    """Run the command line. Where its output cannot be written it ends with 1: quietly if the reader went away."""
    _prepare_streams()
    try:
        try:
            cli(prog_name=program_name(sys.argv[0]), complete_var="_FLEETWARD_COMPLETE")
        finally:
            sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer would be written, and fail again, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            click.echo(f"Error: {error.strerror or error}", err=True)
    sys.exit(1)


def _prepare_streams() -> None:
    """Make output possible whatever the streams are: closed, or unable to hold a character."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  open for as long as we run
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
