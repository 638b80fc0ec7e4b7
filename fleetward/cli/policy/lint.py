"""`fleetward policy lint`: everything that is wrong with the resources of a folder or a cluster."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from fleetward.cli.cluster.source import ClusterSource
from fleetward.cli.findings import show_findings
from fleetward.cli.folder import in_order, open_folder
from fleetward.cli.output import Command, ExitCode, note, output_option, print_json
from fleetward.cli.policy.testfile import read_tests
from fleetward.cli.source import asks_for_cluster, cluster_options
from fleetward.resources.finding import Finding

Counts = Mapping[str, int]


@click.command(
    cls=Command,
    examples=["policy lint policies/", "policy lint policies/ -o json", "policy lint --context production"],
    exits={
        ExitCode.OK: "no findings",
        ExitCode.FINDINGS: "findings",
        ExitCode.BAD_INPUT: "the folder or the cluster cannot be read",
    },
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path), required=False)
@cluster_options
@output_option()
@click.pass_context
def lint(context: click.Context, directory: Path | None, cluster: ClusterSource | None, output: str) -> None:
    """Check all resources and policy tests of a folder, or of one file; without DIR, the resources of a cluster.

    Each finding says where it is, what was found and what is allowed: `file:line: field: message`, in a cluster
    `kind namespace/name: field: message`. Checked are the schema, the expressions of rules (with a caret where one
    fails), and names that refer to nothing (in a cluster only where all of it is read: without --namespace).
    """
    if directory is not None:
        if option := asks_for_cluster(context):
            raise click.UsageError(f"DIR is about a folder, {option} about a cluster", context)
        counts, findings, texts = _folder(directory)
    elif cluster is not None:
        content = cluster.read(references=True)
        counts, findings, texts = {"resources": content.counted}, content.findings, content.texts
    else:
        raise click.UsageError(
            "Missing argument 'DIR', or --context, --kubeconfig or --namespace of a cluster.", context
        )
    if output == "json":
        print_json({"findings": [finding.to_dict() for finding in findings], **counts})
    else:
        show_findings(findings, texts)
        note(_summary(counts, findings))
    if findings:
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def _folder(directory: Path) -> tuple[Counts, Sequence[Finding], Mapping[str, bytes]]:
    folder = open_folder(directory)
    content = folder.content
    findings = in_order(content, [*folder.findings, *read_tests(folder)[1]])
    if not (findings or content.resources or content.policy_tests):
        findings = (Finding(str(directory), 0, "", "found no resource, allowed YAML of group fleetward.dev"),)
    counts = {
        "resources": sum(len(file.loaded) + len(file.broken) for file in content.files),
        "policyTests": len(content.policy_tests),
        "files": len(content.files),
    }
    return counts, findings, folder.texts


def _summary(counts: Counts, findings: Sequence[Finding]) -> str:
    tests = f" and {_many(counts['policyTests'], 'policy test')}" if counts.get("policyTests") else ""
    where = f"in {_many(counts['files'], 'file')}" if "files" in counts else "in the cluster"
    found = _many(len(findings), "finding") if findings else "no findings"
    return f"{_many(counts['resources'], 'resource')}{tests} {where}, {found}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
