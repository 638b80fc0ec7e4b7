"""From a pod and the agents that it runs to the changes that govern it. Pure: the same in, the same out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetward.resources.names import (
    AGENTS_ANNOTATION,
    CONTAINER,
    HUB_VOLUME,
    INJECTED_LABEL,
    SPOOL_VOLUME,
    STOPPED_GATE,
)
from fleetward_webhook.admission.container import API_PORT, HEALTH_PORT, URL, container, volumes
from fleetward_webhook.admission.settings import Sidecar

URL_VARIABLE = "FLEETWARD_URL"
AGENT_VARIABLE = "FLEETWARD_AGENT"

_MIRROR = "kubernetes.io/config.mirror"
_OURS = {HUB_VOLUME, SPOOL_VOLUME}

Json = dict[str, Any]


class RefusedError(Exception):
    """Why a pod cannot be governed and so may not be, in words."""


@dataclass(frozen=True, slots=True)
class Governed:
    """How a pod is changed (by JSON Patch operations; none: it is governed already), and what its owner should know."""

    patch: list[Json]
    warnings: list[str]


def govern(pod: Mapping[str, Any], agents: Sequence[str], sidecar: Sidecar, *, hold: bool) -> Governed:
    """Give what puts the decision webhook into a pod that runs these agents (`namespace/name`, one at least).

    With `hold`, the pod also waits, unscheduled, until its agents may run. Raises RefusedError.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    _check(pod, agents, hold=hold)
    warnings = list(_circumstances(spec))
    changed: dict[tuple[str, str], Any] = {
        ("metadata", "labels"): {**_mapping(metadata, "labels"), INJECTED_LABEL: "true"},
        ("metadata", "annotations"): {
            **_mapping(metadata, "annotations"),
            AGENTS_ANNOTATION: ",".join(sorted(agents)),
        },
        ("spec", "initContainers"): [
            _webhook(spec, sidecar),
            *_with_environment(spec, "initContainers", agents, warnings),
        ],
        ("spec", "containers"): _with_environment(spec, "containers", agents, warnings),
        ("spec", "volumes"): _with_volumes(_list(spec, "volumes"), volumes(sidecar)),
    }
    if hold:
        changed["spec", "schedulingGates"] = _with_gate(_list(spec, "schedulingGates"))
    patch = [
        {"op": "add", "path": f"/{part}/{name}", "value": value}  # `add` also replaces (RFC 6902, 4.1)
        for (part, name), value in changed.items()
        if pod[part].get(name) != value
    ]
    return Governed(patch, warnings)


def _check(pod: Mapping[str, Any], agents: Sequence[str], *, hold: bool) -> None:
    """Refuse what cannot be governed, or held."""
    spec, who = pod["spec"], _these(agents)
    if _mapping(spec, "os").get("name") == "windows":
        raise RefusedError(f"spec.os.name: found windows, allowed linux: the decision webhook of {who} runs on Linux")
    if _MIRROR in _mapping(pod["metadata"], "annotations"):
        raise RefusedError(
            f"this is a static pod, which the kubelet runs as its file says, and {who} would go ungoverned in it; "
            "run it by a Deployment, or change the labels the agent's workload selects"
        )
    if hold and spec.get("nodeName"):
        raise RefusedError(
            f"spec.nodeName: found {spec['nodeName']}, so the pod is bound to a node already and cannot be held, while "
            f"{who} must not run; set spec.operatingMode to Running first, or leave nodeName to the scheduler"
        )
    for place, one in _others(spec):
        for mount in _list(one, "volumeMounts"):
            if mount.get("name") in _OURS:
                raise RefusedError(
                    f"{place}.volumeMounts: found {mount['name']}, which is the decision webhook's own; "
                    "choose another name for the volume"
                )
    if not any(one.get("name") != CONTAINER for one in _list(spec, "containers")):
        raise RefusedError(
            f"spec.containers: found only {CONTAINER}, which is the decision webhook's name; choose another name"
        )


def _circumstances(spec: Mapping[str, Any]) -> Iterator[str]:
    """Give what may keep the webhook from working in such a pod."""
    if spec.get("hostNetwork"):
        yield f"spec.hostNetwork: ports {API_PORT} and {HEALTH_PORT} are the node's; one such agent pod a node can run"
    for place, one in _others(spec):
        for index, port in enumerate(_list(one, "ports")):
            if port.get("containerPort") in {API_PORT, HEALTH_PORT}:
                yield f"{place}.ports[{index}]: {port['containerPort']} is the decision webhook's; choose another"


def _others(spec: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """Give every container that is not the webhook's, and where it is."""
    for part in ("initContainers", "containers"):
        for index, one in enumerate(_list(spec, part)):
            if one.get("name") != CONTAINER:
                yield f"spec.{part}[{index}]", one


def _webhook(spec: Mapping[str, Any], sidecar: Sidecar) -> Json:
    """Give our container, or the very one that is there, where it is ours.

    A LimitRange of the namespace may have added resources that ours leaves open, and the pod needs them to pass.
    """
    wanted = container(sidecar, host_network=bool(spec.get("hostNetwork")))
    for one in _list(spec, "initContainers"):
        if {**one, "resources": wanted["resources"]} == wanted and _covers(one["resources"], wanted["resources"]):
            return one
    return wanted


def _covers(resources: Json, wanted: Json) -> bool:
    """Whether nothing that is wanted is there with another amount."""
    return all(_mapping(resources, part).items() >= amounts.items() for part, amounts in wanted.items())


def _with_environment(spec: Mapping[str, Any], part: str, agents: Sequence[str], warnings: list[str]) -> list[Json]:
    wanted = {URL_VARIABLE: URL}
    if len(agents) == 1:
        wanted[AGENT_VARIABLE] = agents[0]
    given = []
    for index, one in enumerate(_list(spec, part)):
        if one.get("name") != CONTAINER:
            place = f"spec.{part}[{index}].env"
            env = _list(one, "env")
            warnings += _overruled(place, env, wanted, agents)
            given.append({**one, "env": _environment(env, wanted)})
    return given


def _environment(env: list[Json], wanted: Mapping[str, str]) -> list[Json]:
    """Give the variables, ours first, so that others may refer to them, and alone: the last of a name counts."""
    ours = [{"name": name, "value": value} for name, value in wanted.items()]
    if [each for each in env if each.get("name") in wanted] == ours:
        return env
    return [*ours, *(each for each in env if each.get("name") not in wanted)]


def _overruled(place: str, env: list[Json], wanted: Mapping[str, str], agents: Sequence[str]) -> Iterator[str]:
    """Give a warning for each variable the owner of the pod set, and that is replaced or cannot be right."""
    for each in env:
        name, value = str(each.get("name")), each.get("value")
        if name in wanted and each != {"name": name, "value": wanted[name]}:
            yield f"{place}: {name} was set and is replaced by {wanted[name]}"
        elif name == AGENT_VARIABLE and len(agents) > 1 and value is not None and value not in agents:
            yield f"{place}: {name}: found {value}, allowed {_these(agents)}"


def _with_volumes(present: list[Json], ours: list[Json]) -> list[Json]:
    if [one for one in present if one.get("name") in _OURS] == ours:
        return present
    return [*(one for one in present if one.get("name") not in _OURS), *ours]


def _with_gate(gates: list[Json]) -> list[Json]:
    if any(gate.get("name") == STOPPED_GATE for gate in gates):
        return gates
    return [*gates, {"name": STOPPED_GATE}]


def _these(agents: Sequence[str]) -> str:
    return " or ".join(sorted(agents)[:5])


def _list(of: Mapping[str, Any], name: str) -> list[Json]:
    return of.get(name) or []


def _mapping(of: Mapping[str, Any], name: str) -> Json:
    return of.get(name) or {}
