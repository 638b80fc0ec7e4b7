"""The custom resources of a cluster, read as a folder is: what is good, and everything that is wrong."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
from pydantic import ValidationError

from fleetward.cli.cluster.kubectl import Kubectl, KubectlError, parsed
from fleetward.cli.cluster.live import Live, read_live
from fleetward.decision.lint import check_references, check_resource
from fleetward.registry.registry import Registry
from fleetward.resources import API_VERSION, GROUP, KINDS, Resource
from fleetward.resources.document import read_documents
from fleetward.resources.finding import Finding, field_path
from fleetward.resources.manifest import parse_document

NAMESPACES = "namespaces"

_METADATA = ("name", "namespace", "labels", "annotations", "uid", "generation")
_NOT_SERVED = "the server doesn't have a resource type"


@dataclass(frozen=True)
class Content:
    """What a cluster holds of our kinds, and what is wrong with it. The `file` of a finding is the resource."""

    resources: tuple[Resource, ...]
    namespaces: Mapping[str, Mapping[str, str]]
    findings: tuple[Finding, ...]
    live: Mapping[str, Live]
    """The status of each agent by key; an agent that the operator has not seen is not here."""
    counted: int
    """How many resources there are, good or not."""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    """Always empty: there are no files."""

    @cached_property
    def registry(self) -> Registry:
        """The registry of the resources that read."""
        return Registry.build(self.resources, self.namespaces)


def resource_type(kind: str) -> str:
    """Give what kubectl calls a kind of ours, unmistakably."""
    return f"{KINDS[kind].PLURAL}.{GROUP}"


def read_cluster(
    kubectl: Kubectl, namespace: str | None, kinds: Iterable[str] = tuple(KINDS), *, references: bool = False
) -> Content:
    """Read the kinds from one namespace, or from all, with the cluster-scoped ones and the namespaces' labels.

    What may not be read, or does not read, is a finding; so, with `references`, are names that refer to nothing, if
    everything was read. Raises KubectlError where nothing could be read.
    """
    items, problems = _items(kubectl, [*map(resource_type, kinds), NAMESPACES], namespace)
    findings = [Finding("cluster", 0, "", problem) for problem in problems]
    resources: list[Resource] = []
    ours = [item for item in items if item.get("kind") in KINDS]
    for item in ours:
        resource, wrong = read_object(item)
        findings += wrong
        if resource is not None:
            resources.append(resource)
    if references and namespace is None and not findings:
        found = check_references(resources)
        findings += [Finding(_name(each), 0, field_path(path), message, _name(each)) for each, path, message in found]
    labels = {
        item["metadata"]["name"]: item["metadata"].get("labels") or {}
        for item in items
        if item.get("kind") == "Namespace"
    }
    agents = [item for item in ours if item["kind"] == "Agent"]
    live = {_key(item): status for item in agents if (status := read_live(item)) is not None}
    return Content(tuple(resources), labels, tuple(findings), live, len(ours))


def read_object(body: Mapping[str, Any]) -> tuple[Resource | None, list[Finding]]:
    """Give the resource (None where it does not read) and what is wrong with it."""
    kind, name = body["kind"], f"{body['kind']} {_key(body)}"
    data = {
        "apiVersion": body.get("apiVersion"),
        "kind": kind,
        "metadata": {field: body["metadata"][field] for field in _METADATA if field in body["metadata"]},
        "spec": body.get("spec"),
    }
    try:
        resource = KINDS[kind].model_validate(data)
    except ValidationError as error:
        return None, _explained(name, data) or [Finding(name, 0, "", f"cannot be read: {error}", name)]
    wrong = [Finding(name, 0, field_path(path), message, name) for path, message in check_resource(resource)]
    return resource, wrong


def _items(kubectl: Kubectl, types: list[str], namespace: str | None) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    where = ["--namespace", namespace] if namespace is not None else ["--all-namespaces"]
    problems: tuple[str, ...] = ()
    try:
        output = kubectl.run("get", ",".join(types), *where, "-o", "json", "--show-managed-fields=false")
    except KubectlError as error:
        if any(line.startswith(_NOT_SERVED) for line in error.lines):
            hint = f"the cluster has not all of the kinds of {API_VERSION}; apply Fleetward's CRDs"
            raise KubectlError((*error.lines, hint)) from None
        if not error.stdout:
            raise
        output, problems = error.stdout, error.lines
    items: list[dict[str, Any]] = parsed(output).get("items") or []
    if problems and not any(item.get("kind") in KINDS for item in items):
        raise KubectlError(problems)
    return items, problems


def _explained(name: str, data: Mapping[str, Any]) -> list[Finding]:
    """Say what is wrong in the words that files get; a cluster has no lines."""
    found = parse_document(read_documents("", msgspec.json.encode(data))[0])
    if not isinstance(found, list):
        return []
    return [Finding(name, 0, each.field, each.message, name) for each in found]


def _key(body: Mapping[str, Any]) -> str:
    metadata = body["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


def _name(resource: Resource) -> str:
    return f"{resource.kind} {resource.key}"
