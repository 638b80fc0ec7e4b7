"""`fleetward policy test`: the policy tests of a folder, run against its own resources."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.text import Text

from fleetward.cli.findings import refuse
from fleetward.cli.folder import in_order, open_folder
from fleetward.cli.output import CliError, Command, ExitCode, output_option, print_json, printable, say
from fleetward.cli.policy.junit import junit as junit_xml
from fleetward.cli.policy.testfile import read_tests
from fleetward.cli.policy.testrun import Result, RuleName, Run, run
from fleetward.decision.action import RuleRef
from fleetward.decision.judgement import Judgement


@click.command(
    cls=Command,
    examples=[
        "policy test policies/",
        "policy test policies/ --junit report.xml --require-coverage",
    ],
    exits={
        ExitCode.OK: "every case came out as expected",
        ExitCode.FINDINGS: "a case failed, or with --require-coverage a rule was not reached",
        ExitCode.BAD_INPUT: "findings in the folder, or no policy tests in it",
    },
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write a JUnit XML report as well.")
@click.option("--require-coverage", is_flag=True, help="Fail where a rule is reached by no case.")
@output_option()
def test(directory: Path, junit: Path | None, output: str, *, require_coverage: bool) -> None:
    """Run the policy tests of a folder against its own resources.

    A document of kind PolicyTest has cases: a request, as POST /v1/decisions takes it, and what is expected
    (decision; where given, the rule or policy that decides, all the rules that count, a part of the reason, the
    obligations, the labels it cleanses). A case may go on with an outcome and expectOutcome.

    Beside its request a case may say where the action stands: path (who handed the work down), labels, run (its
    history, as expressions read it); of a Delegation to and dataClasses, of a Plan plan. expect may then name the
    principal whose rule decides. Operating modes are left aside: a paused agent is judged as if it were running.
    """
    folder = open_folder(directory)
    cases, findings = read_tests(folder)
    if findings or folder.findings:
        refuse(in_order(folder.content, [*folder.findings, *findings]), folder.texts)
    if not cases:
        raise CliError(f"found no document of kind PolicyTest in {directory}; there is nothing to test")
    done = run(cases, folder.registry)
    if junit is not None:
        _write(junit, junit_xml(done, require_coverage=require_coverage))
    if output == "json":
        print_json(_data(done))
    else:
        _show(done)
    if done.failed or (require_coverage and done.unreached):
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from None


def _show(done: Run) -> None:
    for result in done.results:
        case = result.case
        word = Text("ok    ", style="green") if result.passed else Text("FAIL  ", style="bold red")
        where = "" if result.passed else f"  ({case.file}:{case.line})"
        say(word + Text(f"{case.test}: {printable(case.name)}") + Text(where, style="bold"))
        if not result.passed:
            _explain(result)
    failed = len(done.failed)
    reached = len(done.rules) - len(done.unreached)
    say(
        f"{len(done.results)} cases, {failed or 'none'} failed; {reached} of {len(done.rules)} rules reached",
        style="bold red" if failed else "bold green",
    )
    if done.unreached:
        say("rules that no case reached:")
        for policy, rules in groupby(done.unreached, key=lambda each: (each.kind, each.policy)):
            say(f"  {' '.join(policy)}: {', '.join(each.rule for each in rules)}")


def _explain(result: Result) -> None:
    for failure in result.failures:
        say(f"        {printable(failure)}")
    for judged, of in ((result.judgement, ""), (result.outcome, "of the outcome ")):
        if judged is not None:
            say(f"        reason {of}: {printable(judged.reason)}".replace(" :", ":"))
            say(f"        rules that counted: {_rules(judged, result.case.situation.path)}")


def _rules(judged: Judgement, path: Sequence[str]) -> str:
    return ", ".join(f"{ref.policy}/{ref.rule} ({_counted(ref, path)})" for ref in judged.rules) or "none"


def _counted(ref: RuleRef, path: Sequence[str]) -> str:
    return f"{ref.decision}, by {ref.principal}, who handed the work down" if ref.principal in path else ref.decision


def _data(done: Run) -> dict[str, Any]:
    return {
        "cases": [_case_data(result) for result in done.results],
        "passed": len(done.results) - len(done.failed),
        "failed": len(done.failed),
        "rules": {"total": len(done.rules), "unreached": _names(done.unreached)},
    }


def _case_data(result: Result) -> dict[str, Any]:
    case, data = result.case, dict[str, Any]()
    for key, judged in (("found", result.judgement), ("foundOutcome", result.outcome)):
        if judged is not None:
            rules = [msgspec.to_builtins(ref) for ref in judged.rules]
            data[key] = {"decision": judged.decision, "reason": judged.reason, "rules": rules}
    return {
        "test": case.test,
        "name": case.name,
        "file": case.file,
        "line": case.line,
        "passed": result.passed,
        "failures": list(result.failures),
        **data,
    }


def _names(rules: Sequence[RuleName]) -> list[dict[str, str]]:
    return [{"kind": each.kind, "policy": each.policy, "rule": each.rule} for each in rules]
