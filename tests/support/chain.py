"""The accountability chain on a cluster: two replicas, and the agents' pods connected to different ones."""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support.chart import NAMESPACE
from support.controlplane.golang import REPOSITORY
from support.controlplane.node import ProcessNode
from support.controlplane.plane import free_ports
from support.installed import Program, installed, own_plane
from support.rights import audit_options
from support.spine import WITHIN, Spine, node, webhook_image
from support.waiting import until

from fleetward.resources.names import AUDIENCE, HUB_PORT, HUB_SERVICE

EXAMPLE = REPOSITORY / "examples" / "accountability-chain"
CARE = "care"
DESK, WORKER, MAILER = "care/desk", "care/data-worker", "care/mailer"
AGENT = "import os, time; print(os.environ.get('FLEETWARD_URL', ''), flush=True); time.sleep(100000)"
PLACES = {DESK: "one", WORKER: "two", MAILER: "two"}
"""On which node an agent's pod runs; the webhooks of each node connect to one replica."""

Answer = tuple[int, dict[str, Any]]


class Chain(Spine):
    """Two replicas, `fleetward.operator` and `second`; what the agents ask their webhooks is asked here for them."""

    nodes: dict[str, ProcessNode]
    second: Program
    second_hub: str
    places: dict[str, str]

    def apply_example(self, folder: Path) -> None:
        """Apply a folder as people do."""
        self.plane.kubectl("apply", "-f", str(folder))

    def deploy(self, places: Mapping[str, str]) -> None:
        """Have a pod for each agent, on its node, and wait until all are ready."""
        self.places |= places
        bodies = []
        for agent, place in places.items():
            namespace, name = agent.split("/")
            workload = self.get("agent", name, namespace)["spec"]["workload"]
            bodies += _workload(agent, place, workload.get("serviceAccountName", "default"))
        self.apply(*bodies)
        for agent in places:
            self.running(*agent.split("/"))

    def ask(self, agent: str, path: str, **body: Any) -> Answer:
        """Ask an agent's own webhook as the agent does."""
        return post(self.url(agent) + path, {"agent": agent, **body})

    def url(self, agent: str) -> str:
        """Say where an agent's webhook listens, by what its container was told."""
        namespace, name = agent.split("/")
        pod = self.running(namespace, name)["metadata"]["name"]
        node, told = self.nodes[self.places[agent]], list[str]()

        def tells() -> bool:
            told[:] = node.logs(namespace, pod, "agent").splitlines()
            return bool(told)

        until(tells, f"{agent} tells where its webhook listens", WITHIN)
        return told[-1]

    def open(self, **limits: Any) -> str:
        """Open a run of the desk's, once its webhook is connected."""
        mandate = {"requester": "ana", "purpose": "answer ticket 7", "limits": limits}
        answer: dict[str, Any] = {}

        def opened() -> bool:
            status, answer["said"] = self.ask(DESK, "/v1/runs", mandate=mandate)
            assert status in {200, 503}, answer
            return status == 200

        until(opened, "a run is opened", WITHIN)
        return str(answer["said"]["run"])

    def delegate(self, run: str, to: str = WORKER, **scope: Any) -> dict[str, Any]:
        """Have the desk hand work over; give the answer."""
        status, answer = self.ask(DESK, "/v1/delegations", to=to, run=run, scope=scope)
        assert status == 200, answer
        return answer

    def read(self, run: str, grant: str, **action: Any) -> Answer:
        """Have the worker read the database under its grant."""
        wanted = {"kind": "ToolCall", "name": "db.customers.read", **action}
        return self.ask(WORKER, "/v1/decisions", run=run, grant=grant, action=wanted)

    def fetch(self, run: str) -> Answer:
        """Have the desk look something up."""
        return self.ask(DESK, "/v1/decisions", run=run, action={"kind": "ToolCall", "name": "web.page.fetch"})

    def until_reads(self, run: str, grant: str) -> None:
        """Wait until the worker may read."""
        deadline = time.monotonic() + WITHIN
        while (answer := self.read(run, grant)[1]).get("decision") != "Allow":
            assert time.monotonic() < deadline, f"the worker may still not read: {answer}"
            time.sleep(0.02)


def post(url: str, body: Any) -> Answer:
    """Ask a pod's webhook as what runs in the pod does: to the webhook, that came to 127.0.0.1."""
    headers = {"Content-Type": "application/json", "Host": "127.0.0.1"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - our own webhook
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, json.load(problem)


@contextmanager
def chain(directory: Path) -> Iterator[Chain]:
    """Have it while the block lasts, with the example applied and its agents' pods ready."""
    with replicas(directory) as running:
        running.apply_example(EXAMPLE)
        running.deploy(PLACES)
        yield running


@contextmanager
def replicas(directory: Path) -> Iterator[Chain]:
    """Have it while the block lasts, with no agents in it yet."""
    with ExitStack() as stack:
        plane = stack.enter_context(own_plane(*audit_options(directory)))
        (port,) = free_ports(1)
        second_hub, token = f"https://127.0.0.1:{port}", directory / "peer-token"
        fleetward = stack.enter_context(installed(plane, directory, "--peers", second_hub, "--peer-token", str(token)))
        token.write_text(plane.token_for(NAMESPACE, "fleetward-operator", audiences=(AUDIENCE,)))
        second, _ = fleetward.replica("second", "--peers", fleetward.hub, "--listen", second_hub)
        second.start().until_ready()
        nodes = {
            place: stack.enter_context(node(plane.admin_kubeconfig, **_node(place, hub)))
            for place, hub in (("one", fleetward.hub), ("two", second_hub))
        }
        running = Chain(fleetward, nodes["one"])
        running.nodes, running.second, running.second_hub, running.places = nodes, second, second_hub, {}
        yield running


def _node(place: str, hub: str) -> Mapping[str, Any]:
    services = {f"{HUB_SERVICE}.{NAMESPACE}.svc:{HUB_PORT}": hub.removeprefix("https://")}
    entrypoints = {webhook_image(): [str(Path(sys.executable).with_name("fleetward-webhook"))]}
    return {"labels": {"place": place}, "services": services, "entrypoints": entrypoints}


def _workload(agent: str, place: str, account: str) -> list[dict[str, Any]]:
    namespace, name = agent.split("/")
    metadata = {"name": name, "namespace": namespace}
    container = {
        "name": "agent",
        "image": "registry.invalid/agent:1",
        "command": [sys.executable, "-c", AGENT],
        "env": [{"name": "FLEETWARD_URL", "value": "http://127.0.0.1:8180"}],
    }
    spec = {
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": 2,
        "nodeSelector": {"place": place},
        "containers": [container],
    }
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployed = {"selector": {"matchLabels": labels}, "template": template}
    bodies = [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployed}]
    if account == "default":
        return bodies
    named = {"name": account, "namespace": namespace}
    return [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named}, *bodies]
