"""The whole of it on one cluster: manifests, operator and admission as processes, and a node that runs agents' pods."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support.chart import MANIFESTS, NAMESPACE, objects, workloads
from support.controlplane.node import ProcessNode
from support.installed import Installed, Program, installed, own_plane
from support.rights import audit_options
from support.waiting import until

from fleetward.resources import API_VERSION
from fleetward.resources.names import AUDIENCE, HUB_PORT, HUB_SERVICE

Body = dict[str, Any]

WITHIN = 60.0
"""Seconds that anything may take to come true on a machine that has much else to do."""

AGENT = """
import json, time
from fleetward.sdk import Client, Refused
client = Client()
while True:
    try:
        said = client.decide("ToolCall", "crm.customers.read").answer.decision
    except Refused as refused:
        said = f"{refused.decision} {refused.reason}"
    print(json.dumps([time.time(), said]), flush=True)
    time.sleep(0.02)
"""
"""An agent: it asks for the same action again and again, with nothing but the environment to go by."""


@contextmanager
def node(kubeconfig: Path, **options: Any) -> Iterator[ProcessNode]:
    """Have a node that runs pods as processes, in a thread and loop of its own."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, name="node")
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    try:
        yield run(stack.enter_async_context(ProcessNode(kubeconfig, **options)))
    finally:
        try:
            run(stack.aclose())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


class Spine:
    """A cluster with Fleetward in it and a node; agents are Deployments of one pod that asks again and again."""

    def __init__(self, fleetward: Installed, node: ProcessNode) -> None:
        self.fleetward = fleetward
        self.plane = fleetward.plane
        self.node = node

    def apply(self, *bodies: Body, manager: str = "kubectl-client-side-apply") -> None:
        """Apply resources as people do, or server-side as another manager does."""
        how = () if manager == "kubectl-client-side-apply" else ("--server-side", "--field-manager", manager)
        listed = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
        self.plane.kubectl("apply", *how, "-f", "-", input=json.dumps(listed))

    def get(self, kind: str, name: str, namespace: str = "") -> Body:
        """Read an object."""
        where = ("-n", namespace) if namespace else ()
        found: Body = json.loads(self.plane.kubectl("get", kind, name, *where, "-o", "json"))
        return found

    def status(self, kind: str, name: str, namespace: str = "") -> Body:
        """Read an object's status."""
        found: Body = self.get(kind, name, namespace).get("status") or {}
        return found

    def is_current(self, kind: str, name: str, namespace: str = "") -> bool:
        """Say whether an object's status speaks of its spec as it is, and says that it is Ready."""
        found = self.get(kind, name, namespace)
        status = found.get("status") or {}
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return seen and any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])

    def pods(self, namespace: str, app: str) -> list[Body]:
        """Give the pods of an agent that are not on their way out."""
        listed = self.plane.request("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}")
        return [pod for pod in listed["items"] if "deletionTimestamp" not in pod["metadata"]]

    def patch(self, kind: str, name: str, spec: Mapping[str, Any], namespace: str = "") -> None:
        """Patch a spec as an SRE does."""
        where = ("-n", namespace) if namespace else ()
        self.plane.kubectl("patch", kind, name, *where, "--type", "merge", "-p", json.dumps({"spec": spec}))

    def running(self, namespace: str, app: str) -> Body:
        """Wait until an agent has its one pod, and that is ready; give it."""
        found: list[Body] = []

        def ready() -> bool:
            found[:] = self.pods(namespace, app)
            return len(found) == 1 and is_ready(found[0])

        until(ready, f"the pod of {namespace}/{app} is ready: {found}", WITHIN)
        return found[0]

    def said(self, namespace: str, app: str) -> list[tuple[float, str]]:
        """Give what the agent was answered so far in all its pods, and when, in order."""
        pods = (self.node.directory / "logs" / namespace).glob(f"{app}-*")
        logs = "".join(self.node.logs(namespace, pod.name, "agent") for pod in pods)
        return sorted(tuple(json.loads(line)) for line in logs.splitlines() if line.startswith("["))

    def until_said(self, namespace: str, app: str, condition: Callable[[str], bool], what: str) -> None:
        """Wait until the last thing an agent was answered fulfils a condition."""

        def holds() -> bool:
            said = self.said(namespace, app)
            return bool(said) and condition(said[-1][1])

        until(holds, f"{namespace}/{app} is answered: {what}; {self.said(namespace, app)[-3:]}", WITHIN)

    def replica(self, name: str) -> Program:
        """Give one more replica, that knows the first and is known by none until that is told."""
        token = self.fleetward.directory / "peer-token"
        token.write_text(self.plane.token_for(NAMESPACE, "fleetward-operator", audiences=(AUDIENCE,)))
        program, _ = self.fleetward.replica(name, "--peer-token", str(token), "--peers", self.fleetward.hub)
        return program


def is_ready(pod: Body) -> bool:
    """Say whether a pod's status says that it is ready."""
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@contextmanager
def spine(directory: Path, *options: str) -> Iterator[Spine]:
    """Have it while the block lasts; `options` are for the operator."""
    with ExitStack() as stack:
        plane = stack.enter_context(own_plane(*audit_options(directory)))
        fleetward = stack.enter_context(installed(plane, directory, *options))
        hub = fleetward.hub.removeprefix("https://")
        services = {f"{HUB_SERVICE}.{NAMESPACE}.svc:{HUB_PORT}": hub}
        image = webhook_image()
        entrypoints = {image: [str(Path(sys.executable).with_name("fleetward-webhook"))]}
        yield Spine(
            fleetward,
            stack.enter_context(node(plane.admin_kubeconfig, services=services, entrypoints=entrypoints)),
        )


def webhook_image() -> str:
    """Give the decision webhook's image as the manifests name it."""
    template = workloads(objects(MANIFESTS.read_text()))["operator"]
    return str(template["spec"]["containers"][0]["image"])


def resource(kind: str, name: str, spec: Body, namespace: str = "", **labels: str) -> Body:
    """Give a resource of ours."""
    metadata: Body = {"name": name, "labels": labels} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def agent(name: str, namespace: str, **spec: Any) -> Body:
    """Give an Agent whose pods have the label `app`."""
    workload = {"selector": {"matchLabels": {"app": name}}}
    return resource("Agent", name, {"role": "Worker", "workload": workload, **spec}, namespace, team=namespace)


def deployment(name: str, namespace: str, program: str = AGENT, replicas: int = 1) -> Body:
    """Give the Deployment of an agent."""
    container = {"name": "agent", "image": "registry.invalid/agent:1", "command": [sys.executable, "-c", program]}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 2, "containers": [container]},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


ALLOWS = {"rules": [{"name": "read", "match": {"names": ["crm.customers.read"]}, "decision": "Allow"}]}
"""A policy that allows what the agents ask for."""
