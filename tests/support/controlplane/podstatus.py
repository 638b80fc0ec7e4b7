"""The status of a pod as the kubelet would write it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from support.controlplane.containers import Container, stamp

Status = dict[str, Any]


class Conditions:
    """Conditions of one pod. Each keeps the time at which it last changed."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[bool, str]] = {}

    def give(self, **values: bool) -> list[Status]:
        """Give the conditions as they go into a status."""
        return [self._one(name, value=value) for name, value in values.items()]

    def _one(self, name: str, *, value: bool) -> Status:
        known = self._since.get(name)
        if known is None or known[0] != value:
            known = self._since[name] = (value, stamp(datetime.now(UTC)))
        return {"type": name, "status": str(value), "lastTransitionTime": known[1]}


def pod_status(
    *,
    phase: str,
    address: str,
    began: str,
    conditions: Conditions,
    init: Sequence[Container],
    containers: Sequence[Container],
    initialized: bool,
) -> Status:
    """Give the whole status of a pod; conditions of others (PodScheduled) stay as they are when it is patched in."""
    over = phase in {"Succeeded", "Failed"}
    serving = [*containers, *(container for container in init if container.sidecar)]
    ready = initialized and not over and all(container.state.ready for container in serving)
    return {
        "phase": phase,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "127.0.0.1",
        "startTime": began,
        "conditions": conditions.give(
            PodReadyToStartContainers=not over, Initialized=initialized, ContainersReady=ready, Ready=ready
        ),
        "initContainerStatuses": [container_status(container, init=True) for container in init],
        "containerStatuses": [container_status(container, init=False) for container in containers],
    }


def container_status(container: Container, *, init: bool) -> Status:
    """Give the status of one container."""
    state = container.state
    image = container.spec.get("image", "")
    completed = state.terminated is not None and state.terminated["exitCode"] == 0
    ready = completed if init and not container.sidecar else state.ready
    status: Status = {
        "name": container.name,
        "image": image,
        "imageID": "",
        "ready": ready,
        "started": state.started,
        "restartCount": state.restarts,
        "state": _state(container),
    }
    if state.last:
        status["lastState"] = {"terminated": state.last}
    return status


def _state(container: Container) -> Status:
    state = container.state
    if state.since is not None:
        return {"running": {"startedAt": stamp(state.since)}}
    if state.terminated is not None:
        return {"terminated": state.terminated}
    reason, message = state.waiting or ("ContainerCreating", "")
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def simulated_status(pod: Mapping[str, Any], address: str) -> Status:
    """Give the status of a pod of which every container runs, though none does."""
    now = stamp(datetime.now(UTC))
    spec = pod["spec"]
    running = {"running": {"startedAt": now}}
    done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}

    def one(container: Status, state: Status) -> Status:
        common = {"name": container["name"], "image": container.get("image", ""), "imageID": "", "restartCount": 0}
        return {**common, "ready": True, "started": state is running, "state": state}

    init = spec.get("initContainers") or ()
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "127.0.0.1",
        "startTime": now,
        "conditions": Conditions().give(
            PodReadyToStartContainers=True, Initialized=True, ContainersReady=True, Ready=True
        ),
        "initContainerStatuses": [one(c, running if c.get("restartPolicy") == "Always" else done) for c in init],
        "containerStatuses": [one(container, running) for container in spec["containers"]],
    }
