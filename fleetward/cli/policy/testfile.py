"""Documents of kind PolicyTest: requests, and what is expected to be decided.

Beside a request stands what is supposed of it, in a chain or in a run: see `fleetward.cli.supposed`.
"""

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec
from pydantic import Field, model_validator

from fleetward.cli.checked import read_as
from fleetward.cli.folder import Folder
from fleetward.cli.supposed import FIELDS, Supposed, situate
from fleetward.decision.action import DecisionRequest, OutcomeRequest
from fleetward.decision.request import RequestError, parse_json, read
from fleetward.decision.situation import ALONE, Situation
from fleetward.registry.registry import Registry
from fleetward.resources.base import AgentName, Decision, Metadata, Model, ObjectName, Tag
from fleetward.resources.document import Document
from fleetward.resources.finding import Finding, Path, did_you_mean
from fleetward.resources.rule import Obligation

S = TypeVar("S", bound=msgspec.Struct)


class Expectation(Model):
    """What a case expects; whatever is left out is not looked at."""

    decision: Decision
    """the decision"""
    rule: ObjectName | None = None
    """a rule that brought the decision about"""
    policy: Annotated[str, Field(min_length=1, max_length=127)] | None = None
    """the policy of such a rule, as name or namespace/name"""
    rules: list[ObjectName] | None = None
    """all the rules that counted, in any order; empty: none did"""
    reason: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """a part of the reason"""
    principal: AgentName | None = None
    """whose rule such a rule is: the agent's that acts, or of one that handed the work down"""
    obligations: list[Obligation] | None = None
    """all the obligations, in any order"""
    cleanses: list[Tag] | None = None
    """all the labels that the agent would be rid of, in any order"""


class _Case(Model):
    name: Annotated[str, Field(min_length=1, max_length=253)]
    """the case's name"""
    request: dict[str, Any]
    """the request, as POST /v1/decisions takes it"""
    expect: Expectation
    """what is expected of the decision"""
    path: Any = None
    """who handed the work down"""
    labels: Any = None
    """provenance labels that reached the agent"""
    run: Any = None
    """what the run has done so far"""
    to: Any = None
    """whom a delegation goes to"""
    data_classes: Any = None
    """the data classes of a delegation's scope"""
    plan: Any = None
    """what a plan's steps come to"""
    outcome: dict[str, Any] | None = None
    expect_outcome: Expectation | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if self.outcome is not None and self.expect_outcome is None:
            raise ValueError("expectOutcome is missing; outcome needs what is expected of it")
        if self.outcome is None and self.expect_outcome is not None:
            raise ValueError("outcome is missing; expectOutcome needs the outcome to be judged")
        return self


class _PolicyTest(Model):
    api_version: Literal["fleetward.dev/v1alpha1"]
    kind: Literal["PolicyTest"]
    metadata: Metadata
    """the test's name"""
    cases: Annotated[list[_Case], Field(min_length=1, max_length=4096)]
    """requests, and what is expected of each"""


@dataclass(frozen=True)
class Case:
    """One case, ready to be judged; `line` is where it begins in `file`."""

    test: str
    name: str
    file: str
    line: int
    request: DecisionRequest
    situation: Situation
    """Where the action stands: in a chain, in a run, or alone."""
    expect: Expectation
    outcome: OutcomeRequest | None
    expect_outcome: Expectation | None


def read_tests(folder: Folder) -> tuple[list[Case], list[Finding]]:
    """Give the cases of a folder, and what is wrong with its policy tests."""
    cases, findings = list[Case](), list[Finding]()
    # With findings, an agent that cannot be read would look like one that does not exist.
    registry = None if folder.content.findings else folder.registry
    for test in folder.content.policy_tests:
        source = read_as(test.document, _PolicyTest)
        if isinstance(source, list):
            findings += source
            continue
        for index, case in enumerate(source.cases):
            found = _case(test.document, source.metadata.name, index, case, registry)
            if isinstance(found, Finding):
                findings.append(found)
            else:
                cases.append(found)
    return cases, findings


def _case(document: Document, test: str, index: int, case: _Case, registry: Registry | None) -> Case | Finding:
    at: Path = ("cases", index)
    request = _wire(document, (*at, "request"), case.request, DecisionRequest)
    if isinstance(request, Finding):
        return request
    if registry is not None and (wrong := _unknown_agent(request.agent, frozenset(registry.agents))):
        return document.finding((*at, "request", "agent"), wrong)
    situation = _situation(document, at, case, request, registry)
    if isinstance(situation, Finding):
        return situation
    outcome = None if case.outcome is None else _wire(document, (*at, "outcome"), case.outcome, OutcomeRequest)
    if isinstance(outcome, Finding):
        return outcome
    return Case(
        test=test,
        name=case.name,
        file=document.file,
        line=document.line_of(at),
        request=request,
        situation=situation,
        expect=case.expect,
        outcome=outcome,
        expect_outcome=case.expect_outcome,
    )


def _situation(
    document: Document, at: Path, case: _Case, request: DecisionRequest, registry: Registry | None
) -> Situation | Finding:
    said = {_Case.model_fields[name].alias or name: getattr(case, name) for name in case.model_fields_set}
    supposed = _wire(document, at, {key: value for key, value in said.items() if key in FIELDS}, Supposed)
    if isinstance(supposed, Finding):
        return supposed
    if registry is None:  # nothing is judged either
        return ALONE
    try:
        return situate(supposed, request, registry)
    except RequestError as error:
        return document.finding((*at, *_steps(error.field)), error.message)


def _unknown_agent(agent: str | None, agents: frozenset[str]) -> str | None:
    if agent is None:
        return "is missing; name an agent as namespace/name" if len(agents) != 1 else None
    if agent in agents:
        return None
    known = ", ".join(sorted(agents)[:8]) or "none"
    return f"found {agent}, which is no Agent here; there are: {known}{did_you_mean(agent, agents)}"


def _wire(document: Document, at: Path, data: dict[str, Any], shape: type[S]) -> S | Finding:
    """Read a part of the document as the API reads JSON."""
    for path in _dates(data, at):
        return document.finding(path, "found a date, which JSON has not; put it in quotes")
    try:
        return read(parse_json(json.dumps(data).encode()), shape)
    except RequestError as error:
        return document.finding((*at, *_steps(error.field)), error.message)


def _dates(value: object, at: Path) -> Iterator[Path]:
    if isinstance(value, dt.date):
        yield at
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _dates(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _dates(inner, (*at, index))


def _steps(field: str) -> Path:
    """Split a field such as `action.riskTags[0]`."""
    return tuple(int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", field))
