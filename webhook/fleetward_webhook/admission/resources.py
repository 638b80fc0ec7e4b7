"""The review of our own resources: what their schema cannot check. A mistake is refused, a doubt is told."""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from pydantic import ValidationError

from fleetward.decision.lint import Location, check_references, check_resource
from fleetward.resources import (
    API_VERSION,
    GROUP,
    KINDS,
    ActionCatalog,
    Agent,
    AgentBudget,
    AgentPolicy,
    ClusterAgentBudget,
    ClusterAgentPolicy,
    Resource,
)
from fleetward.resources.finding import field_path
from fleetward.resources.manifest import parse_document, read_documents
from fleetward_webhook.admission.reads import Reader, ReadError
from fleetward_webhook.admission.review import Answer, Cause, MalformedError, Request, read_object

_MODE_FIELDS = ("operatingMode", "operatingReason")
_ALLOWED = Answer("allowed")


class Resources:
    """Reviews resources of the group fleetward.dev."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        # One at a time, and beside the loop: an expression takes milliseconds to compile, and pods are waiting.
        self._checker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checking")

    async def review(self, request: Request) -> Answer:
        """Answer for one resource. Raises MalformedError."""
        kind = request.kind.kind
        if request.kind.group != GROUP or kind not in KINDS:
            raise MalformedError(f"request.kind: found {kind[:100]}, allowed {', '.join(KINDS)}")
        if request.operation not in {"CREATE", "UPDATE"}:
            return _ALLOWED
        new = read_object(request.object, "object")
        if request.operation == "UPDATE" and _settled(new, read_object(request.old_object, "oldObject")):
            return _ALLOWED
        checked = await self._beside(check, kind, new)
        if isinstance(checked, list):
            return refusal(kind, new, checked)
        warnings = [*remarks(checked), *await self._references(checked)]
        return Answer("warned" if warnings else "allowed", warnings=warnings)

    async def warm_up(self) -> None:
        """Load what compiles expressions, so that the first review does not wait for it."""
        rule = {"name": "warm-up", "match": {}, "when": "action.estimate.calls > 0", "decision": "Deny"}
        await self._beside(check, "AgentPolicy", {"metadata": {"name": "warm-up"}, "spec": {"rules": [rule]}})

    async def _references(self, resource: Resource) -> list[str]:
        """Say what the resource refers to and is not there: no mistake, since it may be applied next."""
        try:
            found = await self._doubts(resource, now=False)
            return await self._doubts(resource, now=True) if found else []  # it may have been applied just now
        except ReadError as error:
            return [f"what it refers to could not be checked: {error}"]

    async def _doubts(self, resource: Resource, *, now: bool) -> list[str]:
        found: list[str] = []
        if _refers(resource):
            found = await self._beside(doubts, resource, await self._there(resource, now=now))
        return found

    async def _there(self, resource: Resource, *, now: bool) -> list[Resource]:
        """Give what the resource could refer to."""
        if isinstance(resource, ActionCatalog):
            return _readable("ActionCatalog", await self._reader.objects("ActionCatalog", now=now))
        within = resource.metadata.namespace or "" if isinstance(resource, AgentPolicy | AgentBudget) else ""
        agents, fleets, budgets = await asyncio.gather(
            self._reader.names("Agent", within, now=now),
            self._reader.names("AgentFleet", now=now),
            self._budgets(resource, now=now),
        )
        # Only their names count here.
        return [
            *(_bare("Agent", one.name, one.namespace, {"role": "Worker"}) for one in agents),
            *(_bare("AgentFleet", one.name, None, {"agents": {}}) for one in fleets),
            *budgets,
        ]

    async def _budgets(self, resource: Resource, *, now: bool) -> list[Resource]:
        """Give the budgets that one could be part of, directly or through others."""
        if not isinstance(resource, AgentBudget | ClusterAgentBudget) or resource.spec.parent is None:
            return []
        kinds = ["AgentBudget", "ClusterAgentBudget"] if isinstance(resource, AgentBudget) else ["ClusterAgentBudget"]
        found = await asyncio.gather(*(self._reader.objects(kind, now=now) for kind in kinds))
        return [one for kind, bodies in zip(kinds, found, strict=True) for one in _readable(kind, bodies)]

    async def _beside(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._checker, function, *arguments)


def check(kind: str, body: dict[str, Any]) -> Resource | list[Cause]:
    """Read a resource and check it by itself: the resource, or what is wrong with it."""
    data = {"apiVersion": API_VERSION, "kind": kind, "metadata": body["metadata"], "spec": body["spec"]}
    try:
        resource = KINDS[kind].model_validate(data)
    except ValidationError as error:
        return _explained(data) or [Cause("", str(error))]
    mistakes = [Cause(field_path(path), message) for path, message in check_resource(resource)]
    if isinstance(resource, ActionCatalog):  # against itself; against others, the order of apply must not matter
        mistakes += [Cause(field_path(path), message) for _, path, message in check_references([resource])]
    return mistakes or resource


def refusal(kind: str, body: dict[str, Any], causes: list[Cause]) -> Answer:
    """Give the refusal of a resource: each mistake on its line, an expression's with the caret below it."""
    name = body["metadata"].get("name") or body["metadata"].get("generateName") or ""
    lines = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes]
    return Answer("refused", refusal="\n".join([f"{kind} {name} has mistakes:", *lines]), causes=causes)


def remarks(resource: Resource) -> Iterator[str]:
    """Give what is allowed and yet probably not meant."""
    if not isinstance(resource, Agent):
        return
    workload = resource.spec.workload
    if workload is None:
        yield "spec.workload: is missing; no pod runs this agent until it says which"
    elif not workload.selector.match_labels and not workload.selector.match_expressions:
        account = workload.service_account_name
        yield f"spec.workload.selector: is empty, which selects every pod here that runs as {account}"


def doubts(resource: Resource, there: list[Resource]) -> list[str]:
    """Give what the resource refers to that is not there, is there several times, or contradicts it."""
    others = [one for one in there if (one.kind, one.key) != (resource.kind, resource.key)]
    found = [
        f"{field_path(path)}: {said}" for one, path, said in check_references([*others, resource]) if one is resource
    ]
    if isinstance(resource, ClusterAgentPolicy | ClusterAgentBudget):
        found += _ambiguous(resource, [one.key for one in there if isinstance(one, Agent)])
    return found


def _refers(resource: Resource) -> bool:
    """Whether the resource depends on others: taken alone, every name in it is one of something that is not there."""
    if isinstance(resource, ClusterAgentPolicy | ClusterAgentBudget) and any(True for _ in _plain_names(resource)):
        return True
    return isinstance(resource, ActionCatalog) or bool(check_references([resource]))


def _ambiguous(policy: ClusterAgentPolicy | ClusterAgentBudget, agents: list[str]) -> Iterator[str]:
    """Give the agents a cluster policy or budget names without their namespace, and that several namespaces have."""
    for path, name in _plain_names(policy):
        several = sorted(key for key in agents if key.endswith(f"/{name}"))
        if len(several) > 1:
            yield f"{field_path(path)}: {name} is {len(several)} agents, {', '.join(several[:3])}; all are meant"


def _plain_names(policy: ClusterAgentPolicy | ClusterAgentBudget) -> Iterator[tuple[Location, str]]:
    places: list[tuple[Location, Iterable[str]]] = [(("spec", "subjects", "agents"), policy.spec.subjects.agents)]
    for number, rule in enumerate(policy.spec.rules if isinstance(policy, ClusterAgentPolicy) else ()):
        for part, match in (("match", rule.match), ("exclude", rule.exclude)):
            places.append((("spec", "rules", number, part, "agents"), (match and match.agents) or ()))
    for path, names in places:
        yield from (((*path, index), name) for index, name in enumerate(names) if "/" not in name)


def _settled(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether an update can do no harm: the object is going, or its spec stays but for the operating mode.

    So nothing keeps a mode from being set, or a finalizer from being removed, where an object no longer passes.
    """
    return bool(new["metadata"].get("deletionTimestamp")) or _without_mode(new) == _without_mode(old)


def _without_mode(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body["spec"].items() if name not in _MODE_FIELDS}


def _bare(kind: str, name: str, namespace: str | None, spec: dict[str, Any]) -> Resource:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return KINDS[kind].model_validate({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})


def _readable(kind: str, bodies: list[dict[str, Any]]) -> list[Resource]:
    """Read what reads; what does not has been told to whoever applied it."""
    checked = (check(kind, body) for body in bodies)
    return [one for one in checked if isinstance(one, Resource)]


def _explained(data: dict[str, Any]) -> list[Cause]:
    """Say what does not read in the words that files get."""
    found = parse_document(read_documents("", msgspec.json.encode(data).decode())[0])
    return [Cause(one.field, one.message) for one in found] if isinstance(found, list) else []
