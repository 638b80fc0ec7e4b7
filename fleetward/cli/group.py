"""A group whose commands are loaded when they are used, so that help is there at once."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

PLUGINS = "fleetward.commands"
"""The entry point group of commands from other packages."""
PLUGIN_NAME = "kubectl fleetward"
"""How the user calls this program where it is a plug-in of kubectl, and so is about a cluster."""
INSTALL = "pip install 'fleetward[operator,webhook]'"

_KNOWN_PLUGINS: Mapping[str, str] = {
    "serve": "Govern the agents of a folder: run its hub and decision webhooks.",
}


@dataclass(frozen=True)
class Lazy:
    """Where a command is (`module:attribute`), and the line that the list of commands shows."""

    where: str
    help: str


class MissingPartsError(click.ClickException):
    """A command of another package whose own packages are not installed."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group that knows its commands by name and one line of help; with `plugins`, those of other packages too."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], plugins: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy
        self._plugins = plugins
        # Click proposes names from here where one is misspelt.
        self.commands = dict.fromkeys(lazy, click.Command(None))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Name the commands in the order they were given, plug-ins last."""
        return [*self._lazy, *self._found_plugins()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command. A click error where its packages are not installed."""
        if (known := self._lazy.get(cmd_name)) is not None:
            module, _, attribute = known.where.partition(":")
            return _command(getattr(importlib.import_module(module), attribute))
        point = self._found_plugins().get(cmd_name)
        if point is None:
            return None
        try:
            return _command(point.load())
        except ImportError as error:
            if (error.name or "").startswith(("fleetward.", "fleetward_operator.", "fleetward_webhook.")):
                raise  # a fault of ours, which no installation mends
            if ctx.resilient_parsing:  # completion says nothing
                return None
            missing = f" (no module {error.name})" if error.name else ""
            raise MissingPartsError(f"{cmd_name} needs packages that are not installed{missing}: {INSTALL}") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines()))

    def _lines(self) -> Iterator[tuple[str, str]]:
        for name, command in self._lazy.items():
            yield name, command.help
        for name, point in self._found_plugins().items():
            yield name, _KNOWN_PLUGINS.get(name) or f"From {point.dist.name if point.dist else point.module}."

    def _found_plugins(self) -> dict[str, EntryPoint]:
        if not self._plugins:
            return {}
        found = {point.name: point for point in entry_points(group=PLUGINS)}
        return {name: found[name] for name in sorted(found) if name not in self._lazy}


def _command(found: object) -> click.Command:
    if not isinstance(found, click.Command):
        raise TypeError(f"expected a click command, found {found!r}")
    return found
