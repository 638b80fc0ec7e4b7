"""What every command shares: how results and errors look, and what exit codes mean.

Results go to standard output, everything said about them to standard error. On a terminal there is colour;
into a pipe or with NO_COLOR set, plain text with nothing cut or wrapped. Nothing here loads the resources, so
that `--help` is fast.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

F = TypeVar("F", bound=Callable[..., Any])


class ExitCode(IntEnum):
    """What a command's exit code says."""

    OK = 0
    FINDINGS = 1
    """Findings in what was checked, or a failed test."""
    BAD_INPUT = 2
    """The command could not be understood or its input not be used."""
    NOT_YET = 3
    """Done, but what was to come of it has not come within the time given."""
    NEEDS_APPROVAL = 10
    THROTTLED = 11
    DENIED = 12


class CliError(click.ClickException):
    """A mistake the user can mend: shown without a traceback, and ends the command with the exit code."""

    def __init__(self, message: str, exit_code: int = ExitCode.BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance, too

    def format_message(self) -> str:
        """Give the message, without what a terminal would obey: it may quote anything."""
        return "\n".join(printable(line) for line in self.message.split("\n"))


class Command(click.Command):
    """A command whose help ends with examples and the exit codes.

    An example is what follows the program's name (`decide --dir policies -f action.json`); `exits` says what
    each exit code means.
    """

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), exits: Mapping[int, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.exits = exits or {}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit codes."""
        program = ctx.find_root().info_name
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{program} {example}\n")
        if self.exits:
            with formatter.section("Exit codes"):
                formatter.write_dl([(str(int(code)), meaning) for code, meaning in self.exits.items()])


def output_option(*formats: str) -> Callable[[F], F]:
    """Add `-o/--output`, passed on as `output`: the first format is the default; none: text, json."""
    choices = formats or ("text", "json")
    return click.option(
        "-o",
        "--output",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help="Format of the result.",
    )


def console(*, stderr: bool = False) -> Console:
    """Give a console on the stream of this moment: no line is wrapped and no markup is read."""
    return Console(
        file=sys.stderr if stderr else sys.stdout,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def say(*parts: str | Text, style: str = "") -> None:
    """Print a line of the result, made of the parts."""
    console().print(Text.assemble(*parts), style=style or None)


def note(text: str | Text, *, style: str = "") -> None:
    """Print a line about the result to standard error."""
    console(stderr=True).print(_cell(text), style=style or None)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def printable(text: str) -> str:
    """Give the text on one line and without control characters, which a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows under headings: fitted to a terminal's width; into a pipe in full, aligned by blanks."""
    out = console()
    cells = [[_cell(value) for value in row] for row in rows]
    if out.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*row)
        out.print(table, soft_wrap=False)
        return
    lines = [list(columns), *([cell.plain for cell in row] for row in cells)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True))
        out.print(Text("  ".join(padded).rstrip()))


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(value)


DECISION_STYLES: Mapping[str, str] = {
    "Allow": "bold green",
    "Constrain": "bold cyan",
    "Throttle": "bold yellow",
    "RequireApproval": "bold magenta",
    "Deny": "bold red",
}
MODE_STYLES: Mapping[str, str] = {
    "Running": "green",
    "Paused": "yellow",
    "Stopped": "red",
    "Quarantined": "bold red",
}
DECISION_EXITS: Mapping[str, ExitCode] = {
    "Allow": ExitCode.OK,
    "Constrain": ExitCode.OK,
    "Throttle": ExitCode.THROTTLED,
    "RequireApproval": ExitCode.NEEDS_APPROVAL,
    "Deny": ExitCode.DENIED,
}
"""The exit code that stands for each decision."""


def decision_text(decision: str) -> Text:
    """Give a decision in its colour."""
    return Text(decision, style=DECISION_STYLES[decision])


def mode_text(mode: str) -> Text:
    """Give an operating mode in its colour."""
    return Text(mode, style=MODE_STYLES[mode])
