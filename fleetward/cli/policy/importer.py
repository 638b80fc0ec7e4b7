"""`fleetward policy import`: rules of another system as AgentPolicy resources, and where the two would differ."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import TypeAdapter, ValidationError

from fleetward.cli.findings import refuse
from fleetward.cli.output import CliError, Command, ExitCode, note, output_option, print_json, printable
from fleetward.cli.policy.convert import to_policies
from fleetward.cli.policy.order import Difference, differences
from fleetward.cli.policy.safety import SafetyRule, read_safety
from fleetward.cli.source import read_file
from fleetward.resources.base import ObjectName
from fleetward.resources.document import ManifestError

_NAME: TypeAdapter[str] = TypeAdapter(ObjectName)


@click.command(
    "import",
    cls=Command,
    examples=[
        "policy import safety.yaml --namespace reports --out policies/safety.yaml",
        "policy import safety.yaml -o json",
    ],
    exits={
        ExitCode.OK: "imported; what would differ is said on standard error",
        ExitCode.BAD_INPUT: "the file cannot be imported; each reason is shown with its line",
    },
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--namespace", metavar="NS", callback=lambda _c, _p, value: _object_name(value), help="Namespace.")
@click.option(
    "--name",
    metavar="NAME",
    callback=lambda _c, _p, value: _object_name(value),
    help="Name of the policy; left out, made from the file's name.",
)
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write the policy to a new file instead.")
@output_option("yaml", "json")
def import_(file: Path, namespace: str | None, name: str | None, out: Path | None, output: str) -> None:
    """Write the rules of a safety.yaml (version v1) as AgentPolicy resources.

    The policy decides as those rules do when the most restrictive of all that match counts. Where the first
    match in the order of the file would have decided otherwise, each pair of rules is told with an example.
    A `constraints` of an allow_with_constraints rule names arguments with their largest values.

    With -o json the result has the policies and the report; with --out only the report.
    """
    rules = _read(file)
    policies = to_policies(rules, source=file.name, name=name or _from(file), namespace=namespace)
    found = list(differences(rules))
    lost = [rule.id for rule in rules if rule.source_decision == "allow_with_constraints" and not rule.constraints]
    text = _yaml(policies, file.name) if output == "yaml" else _json(policies)
    if out is not None:
        _write(out, text)
    if output == "json":
        report = {
            "source": str(file),
            "rules": len(rules),
            "orderMatters": [_difference_data(rules, each) for each in found],
            "constraintsMissing": lost,
        }
        print_json({"report": report} if out is not None else {"policies": policies, "report": report})
        return
    if out is None:
        click.echo(text, nl=False)
    _tell(rules, policies, found, lost)


def _read(file: Path) -> Sequence[SafetyRule]:
    try:
        rules = read_safety(str(file), read_file(file))
    except ManifestError as error:
        rules = [error.finding]
    if isinstance(rules, list):
        refuse(rules)
    return rules


def _object_name(value: str | None) -> str | None:
    if value is not None:
        try:
            _NAME.validate_python(value)
        except ValidationError:
            allowed = "at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
            raise click.BadParameter(f"found {printable(value)!r}, allowed {allowed}") from None
    return value


def _from(file: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", file.stem.lower())[:63].strip("-") or "imported"


def _yaml(policies: Sequence[dict[str, Any]], source: str) -> str:
    documents = yaml.safe_dump_all(policies, sort_keys=False, allow_unicode=True, width=100)
    return f"# Imported from {printable(source)} by `fleetward policy import`.\n{documents}"


def _json(policies: Sequence[dict[str, Any]]) -> str:
    value: Any = policies[0] if len(policies) == 1 else {"apiVersion": "v1", "kind": "List", "items": policies}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write(out: Path, text: str) -> None:
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CliError(f"{out} exists; remove it first, or name another file with --out") from None
    except OSError as error:
        raise CliError(f"cannot write {out}: {error.strerror}") from None


def _difference_data(rules: Sequence[SafetyRule], each: Difference) -> dict[str, Any]:
    def verdict(rule: SafetyRule) -> dict[str, str]:
        return {"rule": rule.id, "decision": rule.decision}

    return {
        "earlier": {"rule": rules[each.earlier].id, "line": rules[each.earlier].line},
        "later": {"rule": rules[each.later].id, "line": rules[each.later].line},
        "example": {"topic": each.example.name, "riskTags": list(each.example.risk_tags)},
        "fileOrder": verdict(each.by_order),
        "mostRestrictive": verdict(each.by_severity),
    }


def _tell(
    rules: Sequence[SafetyRule],
    policies: Sequence[dict[str, Any]],
    found: Sequence[Difference],
    lost: Sequence[str],
) -> None:
    written = sum(len(policy["spec"]["rules"]) for policy in policies)
    names = ", ".join(policy["metadata"]["name"] for policy in policies)
    note(f"{len(rules)} rules read, {written} rules written to AgentPolicy {names}")
    for name in lost:
        note(f"rule {printable(name)}: allow_with_constraints without constraints became Allow", style="yellow")
    if not found:
        note("the order of the rules would not have mattered")
        return
    note(f"the order of the file would have mattered for {len(found)} pairs of rules:", style="yellow")
    for each in found:
        earlier, later = rules[each.earlier], rules[each.later]
        tags = f" with risk tags {', '.join(each.example.risk_tags)}" if each.example.risk_tags else ""
        note(
            f"  {printable(earlier.id)} (line {earlier.line}) before {printable(later.id)} (line {later.line}), "
            f"for example {each.example.name}{tags}:"
        )
        note(f"    by file order   {each.by_order.decision} (rule {printable(each.by_order.id)})")
        note(f"    in Fleetward    {each.by_severity.decision} (rule {printable(each.by_severity.id)})")
