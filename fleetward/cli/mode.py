"""`fleetward pause` and `fleetward resume`: the operating mode, edited in the YAML that people keep."""

import getpass
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from fleetward.cli.agents import complete_agents
from fleetward.cli.output import CliError, Command, ExitCode, mode_text, note, output_option, print_json, printable, say
from fleetward.cli.source import dir_option
from fleetward.registry.registry import Registry
from fleetward.registry.slice import MODES, Agent, OperatingMode
from fleetward.resources import Agent as AgentResource
from fleetward.resources import AgentFleet
from fleetward.resources.edit import EditError, Found, edit_file, find_resource
from fleetward.resources.folder import FolderContent, FolderError, read_folder

F = TypeVar("F", bound=Callable[..., Any])

_EXITS = {
    ExitCode.OK: "done, or nothing was to be done",
    ExitCode.BAD_INPUT: "there is no such agent or fleet, or its file cannot be edited",
}


@dataclass(frozen=True)
class _Change:
    """What was asked for, and what came of it."""

    found: Found
    line: int
    before: OperatingMode
    after: OperatingMode
    changed: bool
    content: FolderContent

    @property
    def where(self) -> str:
        return f"{self.found.file}:{self.line}"


def _arguments(function: F) -> F:
    decorators = [
        click.argument("name", shell_complete=complete_agents),
        dir_option,
        click.option("--fleet", is_flag=True, is_eager=True, help="NAME is an AgentFleet: all its agents at once."),
        click.option("--by", metavar="WHO", help="Who does this.  [default: you, as user@host]"),
        output_option(),
    ]
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


@click.command(
    cls=Command,
    examples=[
        'pause reports/data-worker --dir policies --reason "looking into ticket 4711"',
        "pause --fleet reporting --dir policies",
    ],
    exits=_EXITS,
)
@_arguments
@click.option("--reason", metavar="TEXT", help="Why; every refusal repeats it.")
def pause(name: str, directory: Path, by: str | None, output: str, reason: str | None, *, fleet: bool) -> None:
    """Pause an agent or a fleet: every decision is denied until it is resumed.

    Sets operatingMode, with the reason and who set it, in the YAML file of the resource and leaves all else as it
    is. NAME is namespace/name, or the bare name where only one agent has it. What is Stopped or Quarantined stays so.
    """
    change = _set(directory, name, "Paused", reason=reason or None, by=by, fleet=fleet)
    _tell(change, output)


@click.command(
    cls=Command,
    examples=["resume reports/data-worker --dir policies", "resume --fleet reporting --dir policies"],
    exits=_EXITS,
)
@_arguments
def resume(name: str, directory: Path, by: str | None, output: str, *, fleet: bool) -> None:
    """Let a paused agent or fleet act again, also a stopped or quarantined one.

    Sets operatingMode to Running in the YAML file of the resource and removes the reason. An agent that a fleet
    still holds stays held: that is said.
    """
    _tell(_set(directory, name, "Running", reason=None, by=by, fleet=fleet), output)


def _set(
    directory: Path, name: str, mode: OperatingMode, *, reason: str | None, by: str | None, fleet: bool
) -> _Change:
    try:
        found = find_resource(directory, "AgentFleet" if fleet else "Agent", name)
        resource, _ = _resource(read_folder(directory), found)
        spec = resource.spec if resource is not None else None
        before = spec.operating_mode if spec is not None else "Running"
        changed = False
        # A resource with mistakes is handed on: the edit refuses it and says what they are.
        if spec is None or _differs(before, spec.operating_reason, mode, reason):
            changed = edit_file(
                found.file,
                kind=found.identity.kind,
                namespace=found.identity.namespace or None,
                name=found.identity.name,
                mode=mode,
                reason=reason,
                set_by=_who(by),
            )
        content = read_folder(directory)
    except (EditError, FolderError) as error:
        raise CliError(str(error)) from None
    resource, line = _resource(content, found)
    after = resource.spec.operating_mode if resource is not None else mode
    return _Change(found, line, before, after, changed, content)


def _differs(before: OperatingMode, known_reason: str, mode: OperatingMode, reason: str | None) -> bool:
    """Say whether there is something to do: a pause never weakens a stronger mode, and keeps a reason it has."""
    if mode == "Running":
        return before != "Running"
    if MODES.index(before) > MODES.index(mode):
        return False
    return before != mode or (reason is not None and reason != known_reason)


def _resource(content: FolderContent, found: Found) -> tuple[AgentResource | AgentFleet | None, int]:
    """Give the resource, and the line of its operating mode."""
    for each in content.resources:
        if each.identity == found.identity and isinstance(each.resource, AgentResource | AgentFleet):
            return each.resource, each.document.line_of(("spec", "operatingMode"))
    return None, found.line


def _who(by: str | None) -> str:
    if by is not None:
        if not by.strip():
            raise CliError("--by is empty; say who does this, or leave it out")
        return by.strip()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no entry for this user id, as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _tell(change: _Change, output: str) -> None:
    registry = Registry.build((each.resource for each in change.content.resources), change.content.namespaces)
    concerned = list(_concerned(registry, change))
    held = [agent for agent in concerned if agent.mode.operating_mode != "Running"]
    if output == "json":
        print_json(
            {
                "resource": str(change.found.identity),
                "file": str(change.found.file),
                "line": change.line,
                "changed": change.changed,
                "before": change.before,
                "operatingMode": change.after,
                "agents": [{"agent": agent.key, "mode": _mode_data(agent)} for agent in concerned],
            }
        )
    else:
        _show(change, concerned, held)
    for finding in change.content.findings:
        note(printable(str(finding)))


def _show(change: _Change, concerned: list[Agent], held: list[Agent]) -> None:
    identity = change.found.identity
    if change.changed:
        say(f"{change.where}: {identity} is now ", mode_text(change.after), f", it was {change.before}")
    else:
        say(f"{change.where}: {identity} is ", mode_text(change.after), " already; nothing changed")
    if identity.kind == "AgentFleet":
        say(f"it has {len(concerned)} agents: {', '.join(agent.key for agent in concerned) or 'none'}")
    if change.after == "Running":
        for agent in held:
            say(f"{agent.key} is still ", mode_text(agent.mode.operating_mode), f", set on {_source(agent)}")


def _source(agent: Agent) -> str:
    mode = agent.mode
    by = f" by {mode.set_by}" if mode.set_by else ""
    return printable(f"{mode.source}{by}{f': {mode.reason}' if mode.reason else ''}")


def _concerned(registry: Registry, change: _Change) -> Iterable[Agent]:
    identity = change.found.identity
    for key in sorted(registry.agents):
        agent = registry.agents[key]
        if identity.key in (agent.fleets if identity.kind == "AgentFleet" else (agent.key,)):
            yield agent


def _mode_data(agent: Agent) -> dict[str, str]:
    mode: dict[str, str] = msgspec.to_builtins(agent.mode)
    return {"operatingMode": agent.mode.operating_mode, **mode}
