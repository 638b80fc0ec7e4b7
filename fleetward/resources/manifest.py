"""Documents to resources: each one checked, each mistake told with its line, field and what is allowed."""

from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fleetward.resources import API_VERSION, GROUP, KINDS, Resource
from fleetward.resources.document import DEFAULT_NAMESPACE, Document, Identity, ManifestError, read_documents
from fleetward.resources.explain import explain, one_of
from fleetward.resources.finding import Finding, Path, did_you_mean, field_path, shorten
from fleetward.resources.yamltree import Scalar
from fleetward.resources.yamlvalue import describe, place_of

M = TypeVar("M", bound=BaseModel)

POLICY_TEST = "PolicyTest"
"""The kind of a document of policy tests: recognised here, read by `fleetward policy test`."""

MAX_FINDINGS = 50
"""Of one document, so many mistakes are told; after them a reader needs no more, and each costs a search."""

_METADATA = ("name", "namespace", "labels", "annotations")
_METADATA_OF_THE_SERVER = frozenset(
    [
        "uid",
        "generation",
        "generateName",
        "selfLink",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ]
)


@dataclass(frozen=True, eq=False)
class Foreign:
    """A document of another API group: not ours, though selectors look at a Namespace's labels."""

    api_version: str
    kind: str
    document: Document

    @property
    def is_namespace(self) -> bool:
        """Whether this is a Kubernetes Namespace."""
        return (self.api_version, self.kind) == ("v1", "Namespace")

    @property
    def name(self) -> str:
        """metadata.name, or nothing."""
        name = self.metadata.get("name")
        return name if isinstance(name, str) else ""

    @property
    def labels(self) -> dict[str, str]:
        """metadata.labels."""
        labels = self.metadata.get("labels")
        return {key: value for key, value in labels.items() if isinstance(value, str)} if labels else {}

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata, empty where there is none."""
        metadata = self.document.data.get("metadata") if isinstance(self.document.data, dict) else None
        return metadata if isinstance(metadata, dict) else {}


@dataclass(frozen=True, eq=False)
class PolicyTest:
    """A document of policy tests as written; `document` finds the line of each of its parts."""

    data: dict[str, Any]
    document: Document


def parse_document(document: Document) -> Resource | Foreign | PolicyTest | list[Finding]:
    """Say what the document is: a faultless resource, something not ours, or its findings in line order."""
    data = document.data
    problems = document_problems(document)
    if not isinstance(data, dict):
        found = describe(document.root)
        needed = "allowed a mapping with apiVersion, kind, metadata and spec"
        return problems or [document.finding((), f"found {found}, {needed}")]
    kind = _kind(document, data)
    if isinstance(kind, Finding):
        return _in_order([*problems, kind])
    if isinstance(kind, Foreign):
        return _foreign(kind, problems)
    if kind == POLICY_TEST:
        return problems or PolicyTest(data, document)
    return _resource(document, data, kind, problems)


def document_problems(document: Document) -> list[Finding]:
    """Return the document's problems as findings; one in an anchored part is told once, not at each alias."""
    told = {(problem.line, problem.message): i for i, problem in reversed(list(enumerate(document.problems)))}
    return [document_problem(document, i) for i in sorted(told.values())[:MAX_FINDINGS]]


def document_problem(document: Document, index: int) -> Finding:
    """Return one of the document's problems as a finding."""
    problem = document.problems[index]
    resource = str(document.identity or "")
    return Finding(document.file, problem.line, field_path(problem.path), problem.message, resource)


def validate(document: Document, data: object, model: type[M]) -> M | list[Finding]:
    """Return the document's data as the model, or what is wrong besides the document's own problems.

    `data` is the document's data, or a copy in which something is added or left out.
    """
    try:
        return model.model_validate(data)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False)
        new = (error for error in errors if not _covered(error["loc"], document))
        return [_finding(document, error, model) for error in islice(new, MAX_FINDINGS)]


def _kind(document: Document, data: dict[str, Any]) -> str | Foreign | Finding:
    """Our kind's name, or something foreign, or what is wrong with apiVersion or kind."""
    for field in ("apiVersion", "kind"):
        if field not in data or data[field] in (None, ""):
            example = API_VERSION if field == "apiVersion" else one_of(list(KINDS))
            return document.finding((field,), f"is missing; every document needs it, allowed {example}")
        if not isinstance(data[field], str):
            found = describe(place_of(document.root, (field,))[1] or document.root)
            return document.finding((field,), f"found {found}, allowed a text (string)")
    api_version, kind = data["apiVersion"], data["kind"]
    group = api_version.rpartition("/")[0]
    if group != GROUP and not _meant_ours(group, api_version, kind):
        return Foreign(api_version, kind, document)
    if api_version != API_VERSION:
        return document.finding(("apiVersion",), f'found "{shorten(api_version)}", allowed {API_VERSION}')
    if kind not in KINDS and kind != POLICY_TEST:
        kinds = [*KINDS, POLICY_TEST]
        meant = did_you_mean(kind, kinds)
        return document.finding(("kind",), f'found "{shorten(kind)}", allowed {one_of(kinds)}{meant}')
    return str(kind)


def _meant_ours(group: str, api_version: str, kind: str) -> bool:
    """Whether a misspelt apiVersion would otherwise make a policy vanish without a word."""
    if not group:
        return kind in KINDS or api_version.startswith(GROUP)
    return bool(did_you_mean(group, [GROUP]))


def _foreign(foreign: Foreign, problems: list[Finding]) -> Foreign | list[Finding]:
    document = foreign.document
    if not foreign.is_namespace:
        unclear = [p for p in problems if p.field in {"apiVersion", "kind"}]
        return unclear or foreign
    findings = list(problems)
    if not foreign.name:
        findings.append(document.finding(("metadata", "name"), "is missing; a Namespace needs a name"))
    labels = foreign.metadata.get("labels") or {}
    if not isinstance(labels, dict):
        findings.append(document.finding(("metadata", "labels"), "found no mapping, allowed labels as 'name: value'"))
        return _in_order(findings)
    places: list[Path] = [("metadata", "labels", key) for key, value in labels.items() if not isinstance(value, str)]
    for path in islice((path for path in places if not _covered(path, document)), MAX_FINDINGS):
        found = describe(place_of(document.root, path)[1] or document.root)
        findings.append(document.finding(path, f"found {found}, allowed a text (string); quote it"))
    return _in_order(findings) if findings else foreign


def _resource(document: Document, data: dict[str, Any], kind: str, problems: list[Finding]) -> Resource | list[Finding]:
    model = KINDS[kind]
    findings = problems + _metadata_findings(document, data, model)
    resource = validate(document, _as_stored(data, model), model)
    if isinstance(resource, list):
        return _in_order(findings + resource)
    return _in_order(findings) if findings else resource


def _as_stored(data: dict[str, Any], model: type[Resource]) -> dict[str, Any]:
    """Return the data as the API server would take it: without status, and with a namespace."""
    stored = {key: value for key, value in data.items() if key != "status"}
    metadata = stored.get("metadata")
    if isinstance(metadata, dict) and model.SCOPE == "Namespaced" and metadata.get("namespace") is None:
        stored["metadata"] = metadata | {"namespace": DEFAULT_NAMESPACE}
    return stored


def _metadata_findings(document: Document, data: dict[str, Any], model: type[Resource]) -> list[Finding]:
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        return []
    findings = []
    unknown = (name for name in metadata if name not in _METADATA and name not in _METADATA_OF_THE_SERVER)
    for name in islice(unknown, MAX_FINDINGS):
        message = f"found the unknown field {shorten(name)}, allowed {one_of(_METADATA)}"
        findings.append(document.finding(("metadata", name), message + did_you_mean(name, _METADATA)))
    if model.SCOPE == "Cluster" and metadata.get("namespace") is not None:
        found = describe(place_of(document.root, ("metadata", "namespace"))[1] or document.root)
        message = f"found {found}, allowed no namespace: {data['kind']} is cluster-scoped; remove it"
        findings.append(document.finding(("metadata", "namespace"), message))
    return findings


def _covered(path: Path, document: Document) -> bool:
    """Whether a problem at the place, or above it, says it already."""
    return any(path[: len(problem.path)] == problem.path for problem in document.problems)


def _finding(document: Document, error: ErrorDetails, model: type[BaseModel]) -> Finding:
    about_key = error["loc"][-1:] == ("[key]",)
    loc = error["loc"][:-1] if about_key else error["loc"]
    where, node, existing = place_of(document.root, loc)
    node = where if about_key else node
    found = describe(node) if node else "nothing"
    text = node.value if isinstance(node, Scalar) else None
    path = existing if node or not loc else (*existing, loc[-1])
    message = explain(error, model, found, text)
    return Finding(document.file, where.line, field_path(path), message, str(document.identity or ""))


def _in_order(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.line)[:MAX_FINDINGS]


__all__ = [
    "DEFAULT_NAMESPACE",
    "POLICY_TEST",
    "Document",
    "Foreign",
    "Identity",
    "ManifestError",
    "PolicyTest",
    "document_problem",
    "document_problems",
    "parse_document",
    "read_documents",
    "validate",
]
