"""Findings as people read them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

import click
from rich.text import Text

from fleetward.cli.output import ExitCode, console, printable
from fleetward.resources.finding import Finding


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
