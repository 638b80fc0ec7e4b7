"""Results of policy tests in JUnit's XML, as CI systems read it."""

from collections import defaultdict
from xml.etree import ElementTree as ET  # only written here, never read

from fleetward.cli.output import printable
from fleetward.cli.policy.testrun import Result, Run


def junit(run: Run, *, require_coverage: bool) -> bytes:
    """Give the report: a suite for each test file's document, and where coverage is required one for that."""
    root = ET.Element("testsuites", name="fleetward policy test")
    suites: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in run.results:
        suites[result.case.file, result.case.test].append(result)
    failures = 0
    for (file, test), results in suites.items():
        failed = sum(not result.passed for result in results)
        failures += failed
        suite = ET.SubElement(
            root, "testsuite", name=test, file=file, tests=str(len(results)), failures=str(failed), errors="0"
        )
        for result in results:
            _case(suite, result)
    total = len(run.results)
    if require_coverage:
        total += 1
        failures += bool(run.unreached)
        _coverage(root, run)
    root.attrib.update(tests=str(total), failures=str(failures), errors="0")
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(suite: ET.Element, result: Result) -> None:
    case = result.case
    element = ET.SubElement(
        suite, "testcase", classname=case.test, name=printable(case.name), file=case.file, line=str(case.line)
    )
    if result.failures:
        failures = [printable(failure) for failure in result.failures]
        failure = ET.SubElement(element, "failure", type="PolicyTestFailure", message="; ".join(failures))
        reason = printable(result.judgement.reason) if result.judgement else ""
        failure.text = "\n".join([f"{case.file}:{case.line}", *failures, *([f"reason: {reason}"] if reason else [])])


def _coverage(root: ET.Element, run: Run) -> None:
    missed = run.unreached
    suite = ET.SubElement(root, "testsuite", name="coverage", tests="1", failures=str(int(bool(missed))), errors="0")
    element = ET.SubElement(suite, "testcase", classname="coverage", name="every rule is reached by a case")
    if missed:
        names = [f"{each.kind} {each.policy}: {each.rule}" for each in missed]
        failure = ET.SubElement(
            element, "failure", type="PolicyCoverage", message=f"{len(missed)} rules that no case reaches"
        )
        failure.text = "\n".join(names)
