"""`fleetward policy lint`: everything that is wrong with the resources of a folder."""

from collections.abc import Sequence
from pathlib import Path

import click

from fleetward.cli.output import Command, ExitCode, note, output_option, print_json
from fleetward.cli.policy.testfile import read_tests
from fleetward.cli.source import Folder, in_order, open_folder, show_findings
from fleetward.resources.finding import Finding


@click.command(
    cls=Command,
    examples=["policy lint policies/", "policy lint policies/ -o json"],
    exits={
        ExitCode.OK: "no findings",
        ExitCode.FINDINGS: "findings",
        ExitCode.BAD_INPUT: "the folder cannot be read",
    },
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@output_option()
def lint(directory: Path, output: str) -> None:
    """Check all resources and policy tests of a folder, or of one file.

    Each finding says where it is, what was found and what is allowed: `file:line: field: message`. Checked are
    the schema, the expressions of rules (with a caret where one fails), and names that refer to nothing.
    """
    folder = open_folder(directory)
    findings = in_order(folder.content, [*folder.findings, *read_tests(folder)[1]])
    if not (findings or folder.content.resources or folder.content.policy_tests):
        findings = (Finding(str(directory), 0, "", "found no resource, allowed YAML of group fleetward.dev"),)
    if output == "json":
        print_json({"findings": [finding.to_dict() for finding in findings], **_counts(folder)})
    else:
        show_findings(findings, folder.texts)
        note(_summary(folder, findings))
    if findings:
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def _counts(folder: Folder) -> dict[str, int]:
    content = folder.content
    return {
        "resources": sum(len(file.loaded) + len(file.broken) for file in content.files),
        "policyTests": len(content.policy_tests),
        "files": len(content.files),
    }


def _summary(folder: Folder, findings: Sequence[Finding]) -> str:
    counts = _counts(folder)
    tests = f" and {_many(counts['policyTests'], 'policy test')}" if counts["policyTests"] else ""
    found = _many(len(findings), "finding") if findings else "no findings"
    return f"{_many(counts['resources'], 'resource')}{tests} in {_many(counts['files'], 'file')}, {found}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
