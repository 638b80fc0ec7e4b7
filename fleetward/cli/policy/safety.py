"""Reading a `safety.yaml` of version v1: an ordered list of rules over topics and risk tags."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fleetward.cli.checked import read_as
from fleetward.cli.policy.topics import matches, mistake
from fleetward.decision.rules import SEVERITY
from fleetward.registry.slice import Decision
from fleetward.resources.base import Count, Tag
from fleetward.resources.document import Document, read_documents
from fleetward.resources.finding import Finding, Path, shorten

SourceDecision = Literal["allow", "deny", "require_approval", "throttle", "allow_with_constraints"]

_DECISIONS: dict[SourceDecision, Decision] = {
    "allow": "Allow",
    "deny": "Deny",
    "require_approval": "RequireApproval",
    "throttle": "Throttle",
    "allow_with_constraints": "Constrain",
}
_TAG: TypeAdapter[str] = TypeAdapter(Tag)
_ARGUMENT = re.compile(r"(arguments\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class _Match(_Model):
    topics: Annotated[list[str], Field(max_length=1024)] | None = None
    risk_tags: Annotated[list[str], Field(max_length=1024)] | None = None


class _Rule(_Model):
    id: Annotated[str, Field(min_length=1, max_length=253)]
    """the rule's name"""
    match: _Match | None = None
    decision: SourceDecision
    """what the rule decides"""
    reason: Annotated[str, Field(max_length=1024)] | None = None
    constraints: Annotated[dict[str, Count], Field(max_length=32)] | None = None


class _SafetyFile(_Model):
    version: Literal["v1"]
    """the version of the format, v1"""
    rules: Annotated[list[_Rule], Field(min_length=1, max_length=4096)]
    """the rules, the first that matches deciding"""


@dataclass(frozen=True)
class SafetyRule:
    """A rule of the file. Without topics or without risk tags it matches any."""

    line: int
    id: str
    topics: tuple[str, ...]
    risk_tags: tuple[str, ...]
    source_decision: SourceDecision
    reason: str
    constraints: tuple[tuple[str, int], ...]
    """Arguments with their largest values, for allow_with_constraints."""

    @property
    def decision(self) -> Decision:
        """What the rule comes to in Fleetward: with nothing to constrain, Constrain is Allow."""
        decided = _DECISIONS[self.source_decision]
        return "Allow" if decided == "Constrain" and not self.constraints else decided

    @property
    def severity(self) -> int:
        """How restrictive the decision is, 0 the least."""
        return SEVERITY[self.decision]

    def matches(self, name: str, tags: Iterable[str]) -> bool:
        """Say whether the rule matches an action."""
        return (not self.topics or any(matches(topic, name) for topic in self.topics)) and (
            not self.risk_tags or not set(tags).isdisjoint(self.risk_tags)
        )


def first_match(rules: Iterable[SafetyRule], name: str, tags: Iterable[str]) -> SafetyRule | None:
    """Give the rule that decides where the order of the file counts."""
    wanted = frozenset(tags)
    return next((rule for rule in rules if rule.matches(name, wanted)), None)


def most_restrictive(rules: Iterable[SafetyRule], name: str, tags: Iterable[str]) -> SafetyRule | None:
    """Give the rule that decides where the most restrictive of all that match counts."""
    wanted = frozenset(tags)
    return max((rule for rule in rules if rule.matches(name, wanted)), key=lambda rule: rule.severity, default=None)


def read_safety(file: str, data: bytes) -> tuple[SafetyRule, ...] | list[Finding]:
    """Read the rules of a file, or what is wrong with it. Raises ManifestError where it is no YAML at all."""
    documents = read_documents(file, data)
    if len(documents) != 1:
        found = f"found {len(documents)} documents" if documents else "found nothing"
        return [Finding(file, 0, "", f"{found}, allowed one document with version and rules")]
    document = documents[0]
    source = read_as(document, _SafetyFile)
    if isinstance(source, list):
        return source
    findings = [finding for i, rule in enumerate(source.rules) for finding in _mistakes(document, i, rule)]
    lines = (document.line_of(("rules", i)) for i in range(len(source.rules)))
    return findings or tuple(_plain(rule, line) for rule, line in zip(source.rules, lines, strict=True))


def _plain(rule: _Rule, line: int) -> SafetyRule:
    match = rule.match or _Match()
    return SafetyRule(
        line=line,
        id=rule.id,
        topics=tuple(match.topics or ()),
        risk_tags=tuple(match.risk_tags or ()),
        source_decision=rule.decision,
        reason=rule.reason or "",
        constraints=tuple((rule.constraints or {}).items()),
    )


def _mistakes(document: Document, index: int, rule: _Rule) -> Iterable[Finding]:
    at: Path = ("rules", index)
    match = rule.match or _Match()
    for i, topic in enumerate(match.topics or ()):
        if wrong := mistake(topic):
            yield _finding(document, (*at, "match", "topics", i), topic, wrong)
    for i, tag in enumerate(match.risk_tags or ()):
        if not _is_tag(tag):
            allowed = "allowed at most 63 letters, digits and '._:/-', beginning and ending with a letter or digit"
            yield _finding(document, (*at, "match", "risk_tags", i), tag, allowed)
    if rule.constraints and rule.decision != "allow_with_constraints":
        message = f"constraints go with decision allow_with_constraints, found {rule.decision}"
        yield document.finding((*at, "constraints"), message)
    for argument in rule.constraints or ():
        if not _ARGUMENT.match(argument):
            allowed = "allowed the dotted name of an argument, such as limit or query.limit"
            yield _finding(document, (*at, "constraints", argument), argument, allowed)


def _is_tag(tag: str) -> bool:
    try:
        _TAG.validate_python(tag)
    except ValidationError:
        return False
    return True


def _finding(document: Document, path: Path, found: str, wrong: str) -> Finding:
    return document.finding(path, f"found {json.dumps(shorten(found), ensure_ascii=False)}, {wrong}")
