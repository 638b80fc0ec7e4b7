"""The registry that the cluster's objects make.

Fed from two sides: single events, as kopf tells of them, and whole lists, which are the truth about what is gone. Both
may come late or twice: of two states of an object the one with the higher resourceVersion counts (since Kubernetes
1.35 these are documented as ordered integers; before, they were so in fact).
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fleetward.registry.registry import NamespaceLabels, Registry, RegistryChange, Remove, Upsert
from fleetward.resources import KINDS, Agent, AgentFleet, Resource
from fleetward.resources.base import SET_BY_ANNOTATION
from fleetward_operator.view import reading
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.pods import Pods, read_pod

KIND_OF = {model.PLURAL: kind for kind, model in KINDS.items()}
"""Kinds by the plural that stands in the API server's paths."""

NAMESPACES, PODS = "namespaces", "pods"

Body = Mapping[str, Any]
ObjectKey = tuple[str, str]
"""Plural, and `namespace/name` or `name`."""

_log = logging.getLogger(__name__)


class Source:
    """All objects as last seen, and the registry of what governs. Lives on one loop.

    `changed` is called after each change with plural and key of the object. Many changes within one turn of the loop
    should be taken together: `registry` works them in when it is asked for.
    """

    def __init__(self, changed: Callable[[str, str], None] = lambda *_: None) -> None:
        self.observed: dict[tuple[str, str], Observed] = {}
        """Objects of our kinds, by kind and key."""
        self.pods = Pods()
        self.changed = changed
        self._versions: dict[ObjectKey, int] = {}
        """The resourceVersion last seen of each object; of one that is gone, the one it went with."""
        self._gone: set[ObjectKey] = set()
        self._listed: dict[str, int] = {}
        """The resourceVersion of the last list, by plural: an object not known is not there, or newer than that."""
        self._in_force: dict[tuple[str, str], Resource] = {}
        """What the registry holds for an object: the resource or what stands in for it."""
        self._registry = Registry()
        self._waiting: list[RegistryChange] = []

    @property
    def registry(self) -> Registry:
        """The registry of all that was seen so far."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._registry = self._registry.apply(waiting)
        return self._registry

    def see(self, plural: str, body: Body) -> None:
        """Take in an object as it is now."""
        key, version = _key(body), int(body["metadata"]["resourceVersion"])
        if version <= self._seen(plural, key):
            return
        self._versions[plural, key] = version
        self._gone.discard((plural, key))
        match plural:
            case "pods":
                self.pods.put(read_pod(body))
            case "namespaces":
                self._waiting.append(NamespaceLabels(key, body["metadata"].get("labels") or {}))
            case _:
                self._see_resource(KIND_OF[plural], key, version, body)
        self.changed(plural, key)

    def gone(self, plural: str, body: Body) -> None:
        """Take in that an object was deleted; `body` is its last state."""
        key, version = _key(body), int(body["metadata"]["resourceVersion"])
        if version >= self._seen(plural, key):
            self._remove(plural, key, version)

    def relisted(self, plural: str, bodies: Iterable[Body], version: int) -> None:
        """Take in all objects of a kind as they were at the list's resourceVersion: what is not there is gone."""
        if version < self._listed.get(plural, -1):
            return
        there = set()
        for body in bodies:
            there.add(_key(body))
            self.see(plural, body)
        self._listed[plural] = version
        for kind, key in [known for known in self._versions if known[0] == plural]:
            if key in there or self._versions[kind, key] > version:
                continue
            if (kind, key) not in self._gone:
                _log.info("%s %s is gone, and no event said so", plural, key)
                self._remove(plural, key, version)
            self._gone.discard((kind, key))
            del self._versions[kind, key]

    def _seen(self, plural: str, key: str) -> int:
        return self._versions.get((plural, key), self._listed.get(plural, -1))

    def _remove(self, plural: str, key: str, version: int) -> None:
        known = (plural, key) in self._versions and (plural, key) not in self._gone
        self._versions[plural, key] = version
        self._gone.add((plural, key))
        if not known:
            return
        match plural:
            case "pods":
                namespace, _, name = key.partition("/")
                self.pods.remove(namespace, name)
            case "namespaces":
                self._waiting.append(NamespaceLabels(key, None))
            case _:
                kind = KIND_OF[plural]
                self.observed.pop((kind, key), None)
                self._put_in_force((kind, key), None)
        self.changed(plural, key)

    def _see_resource(self, kind: str, key: str, version: int, body: Body) -> None:
        metadata, before = body["metadata"], self.observed.get((kind, key))
        fresh = Observed(
            kind=kind,
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 1),
            resource_version=version,
            resource=None,
            status=body.get("status") or {},
        )
        if before is not None and before.uid != fresh.uid:
            before = None  # the name was given to a new object, which inherits nothing
        read, faults = reading.read(kind, body)
        if not faults:
            governs = resource = _who_set_mode(read, body)
        else:
            resource = before.resource if before is not None else None
            governs = resource or reading.stand_in(kind, body, read)
            if before is None or before.faults != faults:
                _log.warning("%s %s is not in force as it stands: %s", kind, key, "; ".join(faults))
        self.observed[kind, key] = replace(fresh, resource=resource, faults=faults)
        self._put_in_force((kind, key), governs)

    def _put_in_force(self, of: tuple[str, str], resource: Resource | None) -> None:
        before = self._in_force.pop(of, None)
        if resource is not None:
            self._in_force[of] = resource
        if before is not None and (resource is None or (before.kind, before.key) != (resource.kind, resource.key)):
            self._waiting.append(Remove(before.kind, before.key))
        if resource is not None and resource is not before:
            self._waiting.append(Upsert(resource))


def _key(body: Body) -> str:
    metadata = body["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


def _who_set_mode(resource: Resource | None, body: Body) -> Resource | None:
    """Say who stopped an agent where our admission webhook did not: the field manager that owns the mode.

    Depends on the object alone, so that all replicas come to the same registry.
    """
    if not isinstance(resource, Agent | AgentFleet) or (mode := resource.spec.operating_mode) == "Running":
        return resource
    annotations = resource.metadata.annotations
    if annotations.get(SET_BY_ANNOTATION, "").startswith(f"{mode} by "):
        return resource
    manager = next((m["manager"] for m in _managers(body) if "f:operatingMode" in m["fieldsV1"].get("f:spec", {})), "")
    if not manager:
        return resource
    note = f"{mode} by the field manager {manager}"
    metadata = resource.metadata.model_copy(update={"annotations": {**annotations, SET_BY_ANNOTATION: note}})
    return resource.model_copy(update={"metadata": metadata})


def _managers(body: Body) -> list[Any]:
    """Give the field managers, the latest first."""
    entries = [entry for entry in body["metadata"].get("managedFields") or () if entry.get("fieldsV1")]
    return sorted(entries, key=lambda entry: str(entry.get("time", "")), reverse=True)
