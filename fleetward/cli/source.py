"""Where commands read from: files, and folders of resources with all that is wrong with them."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.text import Text

from fleetward.cli.output import CliError, ExitCode, console, printable
from fleetward.decision.lint import check_references, check_resource
from fleetward.registry.registry import Registry
from fleetward.resources.finding import Finding
from fleetward.resources.folder import FolderContent, FolderError, read_folder

F = TypeVar("F", bound=Callable[..., Any])

DIR_VARIABLE = "FLEETWARD_DIR"


def dir_option(function: F) -> F:
    """Add `--dir`, passed on as `directory`."""
    return click.option(
        "--dir",
        "directory",
        metavar="DIR",
        type=click.Path(path_type=Path),
        default=".",
        envvar=DIR_VARIABLE,
        show_envvar=True,
        show_default="this folder",
        help="Folder of YAML, or one file.",
    )(function)


def read_file(path: Path) -> bytes:
    """Read a file; `-` is standard input. CliError where it cannot be read."""
    if str(path) == "-" and sys.stdin is None:
        raise CliError("standard input is closed; name a file instead")
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}") from None


@dataclass(frozen=True)
class Folder:
    """A folder's content, and everything that is wrong with it."""

    content: FolderContent
    findings: tuple[Finding, ...]

    @cached_property
    def registry(self) -> Registry:
        """The registry of the resources without a fault."""
        return Registry.build((each.resource for each in self.content.resources), self.content.namespaces)

    @property
    def texts(self) -> dict[str, bytes]:
        """The files as they are."""
        return {file.file: file.data for file in self.content.files}


def open_folder(directory: str | os.PathLike[str]) -> Folder:
    """Read a folder and look for mistakes. CliError where it does not exist."""
    try:
        content = read_folder(directory)
    except FolderError as error:
        raise CliError(str(error)) from None
    return Folder(content, in_order(content, [*content.findings, *_deeper(content)]))


def open_faultless(directory: str | os.PathLike[str]) -> Folder:
    """Read a folder that must have no findings: shows them and ends the command otherwise."""
    folder = open_folder(directory)
    if folder.findings:
        refuse(folder.findings, folder.texts)
    return folder


def _deeper(content: FolderContent) -> Iterable[Finding]:
    """Find what takes more than a schema to see."""
    places = {id(each.resource): each.document for each in content.resources}
    for each in content.resources:
        for path, message in check_resource(each.resource):
            yield each.document.finding(path, message)
    if content.findings:
        return  # a resource that cannot be read would look like one that does not exist
    for resource, path, message in check_references(each.resource for each in content.resources):
        yield places[id(resource)].finding(path, message)


def in_order(content: FolderContent, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Put findings in the order of files and lines."""
    position = {file.file: i for i, file in enumerate(content.files)}
    return tuple(sorted(findings, key=lambda finding: (position[finding.file], finding.line)))


def refuse(findings: Sequence[Finding], texts: Mapping[str, bytes] | None = None) -> NoReturn:
    """Show findings on standard error and end the command: bad input."""
    show_findings(findings, texts or {}, stderr=True)
    raise click.exceptions.Exit(ExitCode.BAD_INPUT)


def show_findings(findings: Iterable[Finding], texts: Mapping[str, bytes], *, stderr: bool = False) -> None:
    """Print findings as `file:line: field: message`; on a terminal in colour, with the line of the file."""
    out = console(stderr=stderr)
    for finding in findings:
        plain = [printable(line) for line in str(finding).split("\n")]
        if not out.is_terminal:
            out.print("\n".join(plain))
            continue
        text = Text(plain[0])
        text.highlight_regex(r"^[^:]*(:\d+)?(?=:)", "bold")
        if finding.field:
            text.highlight_words([f" {finding.field}:"], "cyan")
        out.print(text)
        if line := _line(texts.get(finding.file, b""), finding.line):
            out.print(Text(f"    {finding.line} | {printable(line)}", style="dim"))
        for more in plain[1:]:
            out.print(Text(more, style="yellow"))


def _line(data: bytes, number: int) -> str:
    lines = data.decode("utf-8", "replace").split("\n")
    return lines[number - 1].rstrip("\r") if 0 < number <= len(lines) else ""
