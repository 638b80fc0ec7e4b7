"""Pods as the operator knows them: what concerns agents, and nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fleetward.registry.registry import Registry
from fleetward.registry.selector import selects
from fleetward.registry.slice import Wire
from fleetward.resources import Agent
from fleetward.resources.names import CONTAINER, INJECTED_LABEL, QUARANTINED_LABEL, STOPPED_GATE


class Pod(Wire, frozen=True):
    """One pod."""

    namespace: str
    name: str
    uid: str
    resource_version: int
    service_account: str
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    phase: str = ""
    node: str = ""
    ready: bool = False
    gates: tuple[str, ...] = ()
    """Its scheduling gates."""
    injected: bool = False
    """Whether it carries the decision webhook."""
    terminating: bool = False
    host_network: bool = False
    """Whether it has the node's network, where no NetworkPolicy applies to it."""

    @property
    def key(self) -> str:
        """`namespace/name`: also the workload that its decision webhook names."""
        return f"{self.namespace}/{self.name}"

    @property
    def over(self) -> bool:
        """Whether it runs no more and never will."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def held(self) -> bool:
        """Whether our gate keeps it from being scheduled."""
        return STOPPED_GATE in self.gates

    @property
    def quarantined(self) -> bool:
        """Whether it has the label by which our NetworkPolicy cuts it off; another value of that does not."""
        return self.labels.get(QUARANTINED_LABEL) == "true"


def read_pod(body: Mapping[str, Any]) -> Pod:
    """Take from a pod, as the API server gives it, what concerns agents."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    containers = spec.get("initContainers") or ()
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        service_account=spec.get("serviceAccountName") or "default",
        labels=metadata.get("labels") or {},
        phase=status.get("phase") or "",
        node=spec.get("nodeName") or "",
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()),
        gates=tuple(gate["name"] for gate in spec.get("schedulingGates") or ()),
        injected=INJECTED_LABEL in (metadata.get("labels") or {}) and any(c["name"] == CONTAINER for c in containers),
        terminating="deletionTimestamp" in metadata,
        host_network=bool(spec.get("hostNetwork")),
    )


def runs(pod: Pod, agent: Agent) -> bool:
    """Say whether a pod runs an agent: namespace, labels and service account must fit."""
    workload = agent.spec.workload
    return (
        workload is not None
        and agent.metadata.namespace == pod.namespace
        and workload.service_account_name == pod.service_account
        and selects(workload.selector, pod.labels)
    )


class Pods:
    """All pods by namespace and name. Not thread-safe."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, Pod]] = {}

    def put(self, pod: Pod) -> None:
        """Take in a pod, or a newer state of one."""
        self._pods.setdefault(pod.namespace, {})[pod.name] = pod

    def remove(self, namespace: str, name: str) -> None:
        """Forget a pod."""
        pods = self._pods.get(namespace, {})
        pods.pop(name, None)
        if not pods:
            self._pods.pop(namespace, None)

    def get(self, namespace: str, name: str) -> Pod | None:
        """Give a pod by its name."""
        return self._pods.get(namespace, {}).get(name)

    def __iter__(self) -> Iterator[Pod]:
        for pods in self._pods.values():
            yield from pods.values()

    def of(self, agent: Agent) -> list[Pod]:
        """Give the pods that run an agent, without those that are over."""
        if agent.spec.workload is None:
            return []
        inside = self._pods.get(agent.metadata.namespace or "", {})
        return [pod for pod in inside.values() if not pod.over and runs(pod, agent)]


def agents_of(pod: Pod, registry: Registry) -> list[Agent]:
    """Give the agents that a pod runs, as the registry has them."""
    inside = registry.agents_in.get(pod.namespace)
    return [agent for agent in inside.values() if runs(pod, agent)] if inside is not None else []
