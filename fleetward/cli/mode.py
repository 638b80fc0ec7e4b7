"""`fleetward pause`, `stop`, `quarantine` and `resume`: the operating mode of an agent or a fleet."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from fleetward.cli.change import Change, Standing, Wanted, keys
from fleetward.cli.output import Command, ExitCode, mode_text, note, output_option, print_json, printable, say
from fleetward.cli.source import Source, complete_agents, source_options
from fleetward.cli.when import Seconds
from fleetward.registry.slice import Agent

F = TypeVar("F", bound=Callable[..., Any])

WAIT = 10.0
"""Seconds to wait for a mode to come into force."""
WAIT_FOR_PODS = 60.0
"""Seconds to wait where pods have to go: twice the time that Kubernetes gives a pod by default."""

_EXITS = {
    ExitCode.OK: "done, or nothing was to be done; in a cluster: and in force at every connected decision webhook",
    ExitCode.BAD_INPUT: "there is no such agent or fleet, or it cannot be changed",
    ExitCode.NOT_YET: "changed, but after --wait not in force everywhere, or pods are left or not cut off; it is said",
}


def _arguments(wait: float) -> Callable[[F], F]:
    options = [
        click.argument("name", shell_complete=complete_agents),
        source_options,
        click.option("--fleet", is_flag=True, is_eager=True, help="NAME is an AgentFleet: all its agents at once."),
        click.option("--by", metavar="WHO", help="Who does this; for a folder.  [default: you, as user@host]"),
        click.option(
            "--wait",
            type=Seconds(),
            default=f"{wait:.0f}s",
            show_default=True,
            help="In a cluster: how long to wait until it is in force; 0 does not wait.",
        ),
        output_option(),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_reason = click.option("--reason", metavar="TEXT", help="Why; every refusal repeats it.")


@click.command(
    cls=Command,
    examples=[
        'pause reports/data-worker --dir policies --reason "looking into ticket 4711"',
        "pause --fleet reporting --context production",
        "pause data-worker -n reports --wait 30s",
    ],
    exits=_EXITS,
)
@_arguments(WAIT)
@_reason
def pause(
    *, source: Source, name: str, by: str | None, wait: float, output: str, reason: str | None, fleet: bool
) -> None:
    """Pause an agent or a fleet: every decision is denied until it is resumed.

    Sets operatingMode and the reason on the resource and leaves all else as it is: in a folder, in its YAML file,
    with who set it; in a cluster, by a patch, and waits until it is in force. NAME is namespace/name, or the bare name
    where only one agent has it. What is Stopped or Quarantined stays so.
    """
    _set(source, Wanted(_kind(fleet=fleet), name, "Paused", reason or None, by), wait, output)


@click.command(
    cls=Command,
    examples=[
        'stop reports/data-worker --context production --reason "deleting things"',
        "stop --fleet reporting --dir policies",
    ],
    exits=_EXITS,
)
@_arguments(WAIT_FOR_PODS)
@_reason
def stop(
    *, source: Source, name: str, by: str | None, wait: float, output: str, reason: str | None, fleet: bool
) -> None:
    """Stop an agent or a fleet: paused, and in a cluster its pods are evicted and new ones held.

    Works as pause does, with operatingMode Stopped, and in a cluster also waits until no pod is left but those that
    the scheduling gate holds. What is Quarantined stays so.
    """
    _set(source, Wanted(_kind(fleet=fleet), name, "Stopped", reason or None, by), wait, output)


@click.command(
    cls=Command,
    examples=[
        'quarantine reports/data-worker --context production --reason "leaking data"',
        "quarantine --fleet reporting --dir policies",
    ],
    exits=_EXITS,
)
@_arguments(WAIT_FOR_PODS)
@_reason
def quarantine(
    *, source: Source, name: str, by: str | None, wait: float, output: str, reason: str | None, fleet: bool
) -> None:
    """Quarantine an agent or a fleet: paused, and in a cluster its pods are kept and cut off the network.

    Works as pause does, with operatingMode Quarantined, and in a cluster also waits until all pods are labelled and the
    NetworkPolicy is there that cuts them off; the network plugin has to enforce it. New pods are held.
    """
    _set(source, Wanted(_kind(fleet=fleet), name, "Quarantined", reason or None, by), wait, output)


@click.command(
    cls=Command,
    examples=["resume reports/data-worker --dir policies", "resume --fleet reporting --context production"],
    exits=_EXITS,
)
@_arguments(WAIT)
def resume(*, source: Source, name: str, by: str | None, wait: float, output: str, fleet: bool) -> None:
    """Let a paused agent or fleet act again, also a stopped or quarantined one.

    Sets operatingMode to Running on the resource and removes the reason. An agent that a fleet still holds stays
    held: that is said.
    """
    _set(source, Wanted(_kind(fleet=fleet), name, "Running", None, by), wait, output)


def _kind(*, fleet: bool) -> str:
    return "AgentFleet" if fleet else "Agent"


def _set(source: Source, wanted: Wanted, wait: float, output: str) -> None:
    change = source.set_mode(wanted)
    if output != "json":
        _show(change)
    for text in change.notes:
        note(printable(text))
    standing = source.wait(change, wait, lambda text: note(printable(text))) if wait else None
    if standing is not None and output != "json":
        if standing.reached:
            say(printable(standing.text))
        else:
            note(printable(f"after {wait:g} s: {standing.text}"), style="bold red")
    if output == "json":
        print_json(_data(change, standing))
    if standing is not None and not standing.reached:
        raise click.exceptions.Exit(ExitCode.NOT_YET)


def _data(change: Change, standing: Standing | None) -> dict[str, Any]:
    data = {
        "resource": str(change.identity),
        **change.facts,
        "changed": change.changed,
        "before": change.before,
        "operatingMode": change.after,
        "agents": [{"agent": agent.key, "mode": _mode_data(agent)} for agent in change.agents],
    }
    if standing is not None:
        data |= {"inForce": standing.reached, "standing": standing.text}
    return data


def _show(change: Change) -> None:
    identity = change.identity
    place = f"{change.place}: " if change.place else ""
    if change.changed:
        say(f"{place}{identity} is now ", mode_text(change.after), f", it was {change.before}")
    else:
        say(f"{place}{identity} is ", mode_text(change.after), " already; nothing changed")
    if identity.kind == "AgentFleet":
        say(f"it has {len(change.agents)} agents: {keys(change.agents)}")
    if change.after == "Running":
        for agent in change.agents:
            if agent.mode.operating_mode != "Running":
                say(f"{agent.key} is still ", mode_text(agent.mode.operating_mode), f", set on {_source(agent)}")


def _source(agent: Agent) -> str:
    mode = agent.mode
    by = f" by {mode.set_by}" if mode.set_by else ""
    return printable(f"{mode.source}{by}{f': {mode.reason}' if mode.reason else ''}")


def _mode_data(agent: Agent) -> dict[str, str]:
    mode: dict[str, str] = msgspec.to_builtins(agent.mode)
    return {"operatingMode": agent.mode.operating_mode, **mode}
