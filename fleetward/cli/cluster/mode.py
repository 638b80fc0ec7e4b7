"""The operating mode, patched in a cluster. Who did it the API server knows."""

import json
from typing import Any

from fleetward.cli.change import Change, Wanted, concerned, differs
from fleetward.cli.cluster.content import read_cluster, resource_type
from fleetward.cli.cluster.kubectl import Kubectl, KubectlError, parsed
from fleetward.cli.output import CliError
from fleetward.registry.registry import Registry
from fleetward.registry.slice import MODES, Agent, OperatingMode
from fleetward.resources import KINDS
from fleetward.resources.document import Identity
from fleetward.resources.explain import one_of
from fleetward.resources.finding import did_you_mean

FIELD_MANAGER = "fleetward"
"""Not one of kubectl's own names: Flux takes away what was written under those, and a pause would not last."""

ATTEMPTS = 5
"""How often somebody else may change the mode just before us."""


def set_mode(kubectl: Kubectl, namespace: str | None, wanted: Wanted) -> Change:
    """Patch the mode and its reason. Raises CliError, KubectlError."""
    identity = _find(kubectl, namespace, wanted)
    where = [resource_type(wanted.kind), identity.name]
    where += ["--namespace", identity.namespace] if identity.namespace else []
    body, before, changed = _patch(kubectl, where, identity, wanted)
    agents, notes = _concerned(kubectl, identity)
    if wanted.by is not None:
        notes = ("--by is for a folder; in a cluster the API server knows who does it", *notes)
    return Change(
        identity=identity,
        before=before,
        after=_mode(body),
        changed=changed,
        agents=agents,
        notes=notes,
        facts={"generation": body["metadata"]["generation"]},
        generation=body["metadata"]["generation"],
    )


def _patch(
    kubectl: Kubectl, where: list[str], identity: Identity, wanted: Wanted
) -> tuple[dict[str, Any], OperatingMode, bool]:
    """Give the object as it is then, the mode before, and whether this changed anything."""
    for _ in range(ATTEMPTS):
        body = kubectl.json("get", *where)
        before, spec = _mode(body), body["spec"]
        if not differs(before, spec.get("operatingReason", ""), wanted):
            return body, before, False
        patch = json.dumps(_operations(spec, wanted))
        options = ["--type", "json", "--patch", patch, "--field-manager", FIELD_MANAGER]
        try:
            return parsed(kubectl.run("patch", *where, *options, "-o", "json")), before, True
        except KubectlError:
            if _mode(kubectl.json("get", *where)) == before:
                raise
    raise CliError(f"{identity} is being changed by others over and over; nothing was done, try again")


def _operations(spec: dict[str, Any], wanted: Wanted) -> list[dict[str, str]]:
    """Give a JSON patch (RFC 6902). Its test keeps it from weakening a mode that somebody sets at this moment."""
    known = spec.get("operatingMode")
    test = [] if known is None else [{"op": "test", "path": "/spec/operatingMode", "value": str(known)}]
    reason = {"op": "add", "path": "/spec/operatingReason", "value": wanted.reason or ""}
    remove = [] if wanted.reason else [{"op": "remove", "path": "/spec/operatingReason"}]
    return [*test, {"op": "add", "path": "/spec/operatingMode", "value": wanted.mode}, reason, *remove]


def _mode(body: dict[str, Any]) -> OperatingMode:
    mode = body["spec"].get("operatingMode", "Running")
    if mode not in MODES:
        raise CliError(f"found operatingMode {mode}, which this version does not know; allowed {one_of(MODES)}")
    return mode  # type: ignore[no-any-return]  # it is one of them


def _find(kubectl: Kubectl, namespace: str | None, wanted: Wanted) -> Identity:
    """Find which resource is meant, without asking for more than is needed: a pause must not wait for other rights."""
    inside, slash, name = wanted.name.rpartition("/")
    if KINDS[wanted.kind].SCOPE == "Cluster":
        if slash:
            raise CliError(f"found {wanted.name}, allowed a name: {wanted.kind} is cluster-scoped")
        return Identity(wanted.kind, "", name)
    if slash and namespace is not None and inside != namespace:
        raise CliError(f"found {wanted.name} and --namespace {namespace}; give one of them")
    if slash or namespace is not None:
        return Identity(wanted.kind, inside or namespace or "", name)
    try:
        known = names(kubectl, wanted.kind, None)
    except KubectlError as error:
        raise KubectlError((*error.lines, f"give namespace/name instead of {name}")) from None
    found = [key for key in known if key.partition("/")[2] == name]
    if len(found) == 1:
        return Identity(wanted.kind, found[0].partition("/")[0], name)
    if found:
        raise CliError(f"found {len(found)} agents named {name}: {', '.join(found)}; give one")
    allowed = f", allowed {one_of(known)}" if known else f"; there is no {wanted.kind} in the cluster"
    raise CliError(f"found no {wanted.kind} {name}{allowed}{did_you_mean(name, known)}")


def names(kubectl: Kubectl, kind: str, namespace: str | None, seconds: int = 15) -> list[str]:
    """Give the keys of a kind in one namespace or all. Raises KubectlError; `seconds` bounds the request."""
    where = ["--namespace", namespace] if namespace is not None else ["--all-namespaces"]
    template = '{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\\n"}{end}'
    output = kubectl.run("get", resource_type(kind), *where, "-o", f"jsonpath={template}", seconds=seconds)
    return sorted(line.removeprefix("/") for line in output.decode().split())


def _concerned(kubectl: Kubectl, identity: Identity) -> tuple[tuple[Agent, ...], tuple[str, ...]]:
    """Give the agents that a mode there holds for. What cannot be read is a note: the mode is set all the same."""
    try:
        content = read_cluster(kubectl, identity.namespace or None, ("Agent", "AgentFleet"))
    except KubectlError as error:
        return (), (f"what else holds for it is not known: {error.message}",)
    registry = Registry.build(content.resources, content.namespaces)
    return tuple(concerned(registry, identity)), tuple(map(str, content.findings))
