"""Custom resources as the API server stores them, read into the models; what does not read never loosens anything."""

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from fleetward.decision.lint import check_resource
from fleetward.resources import API_VERSION, KINDS, AgentPolicy, ClusterAgentPolicy, Resource
from fleetward.resources.budget import BudgetSubjects
from fleetward.resources.clusteragentbudget import ClusterBudgetSubjects
from fleetward.resources.finding import field_path
from fleetward.resources.manifest import parse_document, read_documents

ALWAYS_ERRS = "1 / 0 > 0"
"""A `when` that compiles and always errs: with it, an Allow does not count, and any other decision counts as Deny."""

_BUDGETS: dict[str, type[BudgetSubjects]] = {
    "AgentBudget": BudgetSubjects,
    "ClusterAgentBudget": ClusterBudgetSubjects,
}

_NAMES = ("name", "namespace", "labels", "annotations", "uid", "generation")


def read(kind: str, body: Mapping[str, Any]) -> tuple[Resource | None, tuple[str, ...]]:
    """Give the resource (None where it does not read) and what is wrong with it, as `field: message`."""
    data = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {name: body["metadata"][name] for name in _NAMES if name in body["metadata"]},
        "spec": body.get("spec"),
    }
    try:
        resource = KINDS[kind].model_validate(data)
    except ValidationError as error:
        return None, _explained(data) or (str(error),)
    return resource, tuple(f"{field_path(path)}: {message}" for path, message in check_resource(resource))


def _explained(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what is wrong in the words that files get."""
    found = parse_document(read_documents("", msgspec.json.encode(data))[0])
    return tuple(f"{finding.field}: {finding.message}" for finding in found) if isinstance(found, list) else ()


def stand_in(kind: str, body: Mapping[str, Any], resource: Resource | None) -> Resource | None:
    """Give what governs in place of a faulty resource of which no good version is known.

    An expression that does not compile counts as one that errs. A policy, fleet or catalog that does not read at all
    may have forbidden anything, so everything within its reach is denied. Of a budget, whose room is not known, that
    reach is its subjects, as far as they read. An Agent or sink that does not read is as if it were not there: an
    agent that is not known may do nothing.
    """
    if kind in _BUDGETS:
        return _denying_all(kind, body["metadata"], _subjects(kind, body))
    if isinstance(resource, AgentPolicy | ClusterAgentPolicy):
        bad = {path[2] for path, _ in check_resource(resource)}  # each is ("spec", "rules", number, ...)
        rules = [
            rule.model_copy(update={"when": ALWAYS_ERRS}) if number in bad else rule
            for number, rule in enumerate(resource.spec.rules)
        ]
        return resource.model_copy(update={"spec": resource.spec.model_copy(update={"rules": rules})})
    if resource is not None or kind in {"Agent", "AuditSink"}:
        return resource
    return _denying_all(kind, body["metadata"], {})


def _subjects(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Give the subjects of a budget field by field, less what does not read: they become more, never fewer."""
    spec = body.get("spec")
    written = spec.get("subjects") if isinstance(spec, dict) else None
    return {
        name: value
        for name, value in (written if isinstance(written, dict) else {}).items()
        if _reads(kind, name, value)
    }


def _reads(kind: str, name: str, value: Any) -> bool:
    try:
        _BUDGETS[kind].model_validate({name: value})
    except ValidationError:
        return False
    return True


def _denying_all(kind: str, metadata: Mapping[str, Any], subjects: dict[str, Any]) -> Resource:
    """Give a policy that denies all to the subjects, all that are within its reach where there are none."""
    policy = AgentPolicy if kind in {"AgentPolicy", "AgentBudget"} else ClusterAgentPolicy
    own = kind in {"AgentPolicy", "ClusterAgentPolicy"}
    name = metadata["name"] if own else f"unreadable-{kind.lower()}-{metadata['name']}"[:63].rstrip("-")
    subjects = dict(subjects)
    fleets = subjects.pop("fleets", None)  # of these, policies speak in their rules
    rule = {
        "name": "unreadable",
        "match": {"fleets": fleets} if fleets else {},
        "decision": "Deny",
        "message": f"{kind} {metadata['name']} cannot be read, and what it says is not known: mend it",
    }
    identity = {key: metadata[key] for key in ("namespace", "uid", "generation") if key in metadata}
    return policy.model_validate(
        {
            "apiVersion": API_VERSION,
            "kind": policy.__name__,
            "metadata": {"name": name, **identity},
            "spec": {"subjects": subjects, "inheritance": "Self" if kind in _BUDGETS else "Chain", "rules": [rule]},
        }
    )
