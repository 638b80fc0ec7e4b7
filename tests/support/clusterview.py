"""The operator's view of a cluster, fed by hand or from an API server, for tests of what it says and does about it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from kubernetes.aio.client import ApiClient

from fleetward.audit.forward import SinkStatus
from fleetward.registry.registry import Registry
from fleetward.resources import API_VERSION, KINDS
from fleetward.resources.names import CONTAINER, INJECTED_LABEL, QUARANTINED_LABEL, STOPPED_GATE
from fleetward_operator.hub.hub import LinkStatus
from fleetward_operator.kube.rest import RequestError, request
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.pods import Pods
from fleetward_operator.view.quarantine import Cuts
from fleetward_operator.view.source import Source

Body = dict[str, Any]


class View:
    """What `fleetward_operator.status.view.StatusView` asks for, from a real `Source`."""

    def __init__(self) -> None:
        self.source = Source(lambda _plural, _key: None)
        self.connected: list[LinkStatus] = []
        self.evictions_blocked: dict[str, str] = {}
        self.cut_off: Cuts = {}
        self.decisions: dict[str, dict[str, Any]] = {}
        self.sinks: dict[str, SinkStatus] = {}
        self.age = 0.0
        self._version = 0

    @property
    def registry(self) -> Registry:
        return self.source.registry

    @property
    def observed(self) -> Mapping[tuple[str, str], Observed]:
        return self.source.observed

    @property
    def pods(self) -> Pods:
        return self.source.pods

    def age_seconds(self) -> float:
        return self.age

    def links(self) -> Sequence[LinkStatus]:
        return self.connected

    def last_decision(self, agent: str) -> Mapping[str, Any] | None:
        return self.decisions.get(agent)

    def sink_status(self, name: str) -> SinkStatus | None:
        return self.sinks.get(name)

    def blocked(self) -> Mapping[str, str]:
        return self.evictions_blocked

    def cuts(self) -> Cuts:
        return self.cut_off

    def see(self, *bodies: Body) -> None:
        """Take in objects, each newer than whatever was taken in before."""
        for body in bodies:
            self._version += 1
            body["metadata"]["resourceVersion"] = str(self._version)
            self.source.see(_plural(body), body)

    def gone(self, *bodies: Body) -> None:
        for body in bodies:
            self._version += 1
            body["metadata"]["resourceVersion"] = str(self._version)
            self.source.gone(_plural(body), body)

    async def read(self, api: ApiClient, namespace: str = "") -> None:
        """Take in everything as it is at the API server; of namespaced things, only those of `namespace`, if given."""
        for plural in [*(model.PLURAL for model in KINDS.values()), "namespaces", "pods"]:
            path = f"/api/v1/{plural}" if plural in {"namespaces", "pods"} else f"/apis/{API_VERSION}/{plural}"
            found = await _get(api, path)
            items = [item for item in found["items"] if item["metadata"].get("namespace", namespace) == namespace]
            self.source.relisted(
                plural, items if namespace else found["items"], int(found["metadata"]["resourceVersion"])
            )

    def connect(self, *pods: str, running: str | None = None) -> None:
        """Let the decision webhooks of these pods be connected, and no others; they run the registry in force."""
        self.connected = []
        for key in pods:
            namespace, _, name = key.partition("/")
            pod = self.pods.get(namespace, name)
            assert pod is not None
            inside = self.registry.agents_in.get(namespace)
            agents = tuple(inside) if inside is not None else ()
            version = self.registry.version if running is None else running
            self.connected.append(link(key, agents, version))


def link(workload: str, agents: Sequence[str], running: str) -> LinkStatus:
    return LinkStatus(
        workload=workload,
        writer=f"w{abs(hash(workload))}",
        agents=tuple(agents),
        version=running,
        running=running,
        since="2026-03-01T10:00:00Z",
        spooled=0,
        stored=0,
    )


def resource(
    kind: str, name: str, spec: Body, *, generation: int = 1, namespace: str = "reports", **metadata: Any
) -> Body:
    scoped = {"namespace": namespace} if KINDS[kind].SCOPE == "Namespaced" else {}
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "uid": f"{kind}-{name}", "generation": generation, **scoped, **metadata},
        "spec": spec,
    }


def agent(name: str, mode: str = "Running", *, app: str | None = None, generation: int = 1, **metadata: Any) -> Body:
    """An agent whose pods are labelled `app`, by default with its own name."""
    workload = {"selector": {"matchLabels": {"app": app or name}}}
    spec = {"role": "Worker", "operatingMode": mode, "workload": workload}
    return resource("Agent", name, spec, generation=generation, **metadata)


def pod(
    name: str,
    app: str,
    *,
    namespace: str = "reports",
    phase: str = "Running",
    node: str = "node-1",
    held: bool = False,
    injected: bool = True,
    terminating: bool = False,
    uid: str = "",
    gates: Sequence[str] = (),
    quarantined: str = "",
    host_network: bool = False,
) -> Body:
    """Give a pod's body; `quarantined` is the value of our label, if it has that."""
    labels = {"app": app} | ({INJECTED_LABEL: "true"} if injected else {})
    labels |= {QUARANTINED_LABEL: quarantined} if quarantined else {}
    metadata: Body = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "labels": labels}
    if terminating:
        metadata["deletionTimestamp"] = "2026-03-01T10:00:00Z"
    all_gates = [*gates, *([STOPPED_GATE] if held else [])]
    spec: Body = {"schedulingGates": [{"name": gate} for gate in all_gates]}
    if host_network:
        spec["hostNetwork"] = True
    if injected:
        spec["initContainers"] = [{"name": CONTAINER}]
    if node and not all_gates:
        spec["nodeName"] = node
    ready = phase == "Running" and not all_gates
    status = {
        "phase": "Pending" if all_gates else phase,
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


async def _get(api: ApiClient, path: str) -> Any:
    """Read a list; a kind that was installed just now may not be ready to be listed."""
    for _ in range(20):
        try:
            return await request(api, "GET", path, f"list {path}")
        except RequestError as error:
            if error.status != 429:
                raise
        await asyncio.sleep(0.5)
    raise AssertionError(f"{path} cannot be listed")


def _plural(body: Body) -> str:
    kind = body["kind"]
    return KINDS[kind].PLURAL if kind in KINDS else f"{kind.lower()}s"
