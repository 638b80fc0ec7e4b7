"""The node on which the cluster tests and the demo run pods: real where it says it is."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from support.controlplane.node import ProcessNode
from support.controlplane.plane import ControlPlane
from support.streams import until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

WAITS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); signal.sigwait({signal.SIGTERM})"
SERVES = """
import http.server, os, signal, sys
host, port = os.environ["LISTEN"].split(":")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
print("serving", host, flush=True)
signal.signal(signal.SIGTERM, lambda *_: (print("sidecar ends", flush=True), sys.exit(0)))
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


class Cluster:
    """What these tests do again and again in one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace

    def apply(self, *objects: dict[str, Any]) -> None:
        content = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.plane.kubectl("apply", "-n", self.namespace, "-f", "-", input=json.dumps(content))

    async def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the namespace; the node, which lives in this loop, goes on meanwhile."""
        return await asyncio.to_thread(self.plane.kubectl, "-n", self.namespace, *arguments)

    def get(self, kind: str, name: str = "") -> Any:
        return json.loads(
            self.plane.kubectl("get", kind, *([name] if name else []), "-n", self.namespace, "-o", "json")
        )

    def pods(self) -> dict[str, dict[str, Any]]:
        return {pod["metadata"]["name"]: pod for pod in self.get("pods")["items"]}

    async def until_pod(self, condition: Callable[[dict[str, Any]], object], name: str = "") -> dict[str, Any]:
        """Wait for the first pod, or the named one, to fulfil a condition."""
        deadline = time.monotonic() + 30
        while True:
            for found, pod in (await asyncio.to_thread(self.pods)).items():
                if name in {"", found} and condition(pod):
                    return pod
            assert time.monotonic() < deadline, f"pods are {json.dumps(self.pods(), indent=1)}"
            await asyncio.sleep(0.05)


@pytest.fixture
def cluster(plane: ControlPlane, namespace: str) -> Cluster:
    return Cluster(plane, namespace)


def python(script: str, name: str = "main", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "example.com/agent:1", "command": ["python", "-c", script], **more}


def pod(*containers: dict[str, Any], name: str = "pod", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"app": "agent"}}
    given = {"terminationGracePeriodSeconds": 5, **spec, "containers": list(containers)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": given}


def deployment(*containers: dict[str, Any], replicas: int = 1, **spec: Any) -> dict[str, Any]:
    template = pod(*containers, **spec)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "agents"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": template["spec"]},
        },
    }


def ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def phase(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda pod: pod["status"]["phase"] == name


async def test_deployment_runs_as_processes_with_own_tokens(cluster: Cluster, node: ProcessNode) -> None:
    prints = "import os,time,signal; print(open(os.environ['TOKEN']).read(), flush=True); " + WAITS
    token = {"serviceAccountToken": {"audience": "fleetward", "path": "token", "expirationSeconds": 3600}}
    cluster.apply(
        deployment(
            python(
                prints,
                env=[{"name": "TOKEN", "value": "/var/run/hub/token"}],
                volumeMounts=[{"name": "hub", "mountPath": "/var/run/hub"}],
            ),
            volumes=[{"name": "hub", "projected": {"sources": [token]}}],
        )
    )
    running = await cluster.until_pod(ready)
    name = running["metadata"]["name"]
    pids = node.pids(cluster.namespace, name)
    assert psutil.Process(pids["main"]).is_running()
    await until(lambda: node.logs(cluster.namespace, name, "main").strip())
    written = node.logs(cluster.namespace, name, "main").strip()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    spec = {"token": written, "audiences": ["fleetward"]}
    status = cluster.plane.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {**review, "spec": spec})[
        "status"
    ]
    assert status["authenticated"], status
    assert status["user"]["username"] == f"system:serviceaccount:{cluster.namespace}:default"
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == [name]
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [running["metadata"]["uid"]]
    other = {**review, "spec": {"token": written}}
    assert not cluster.plane.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", other)["status"].get(
        "authenticated"
    ), "a token for fleetward must not open the API server"


async def test_pod_reaches_the_api_as_its_own_account(cluster: Cluster, node: ProcessNode) -> None:
    script = (
        "import asyncio\n"
        "from kubernetes.aio import client, config\n"
        "async def main():\n"
        "    await config.load_kube_config()\n"
        "    async with client.ApiClient() as api:\n"
        "        kind = {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'SelfSubjectReview'}\n"
        "        review = await client.AuthenticationV1Api(api).create_self_subject_review(kind)\n"
        "        print(review.status.user_info.username)\n"
        "asyncio.run(main())"
    )
    await cluster.kubectl("create", "serviceaccount", "reader")
    cluster.apply(pod(python(script), serviceAccountName="reader", restartPolicy="Never"))
    await cluster.until_pod(phase("Succeeded"))
    assert node.logs(cluster.namespace, "pod", "main") == f"system:serviceaccount:{cluster.namespace}:reader\n"


async def test_eviction_ends_the_process_and_another_pod_comes(cluster: Cluster, node: ProcessNode) -> None:
    script = f"print('up'); {WAITS}; print('asked to end')"
    cluster.apply(deployment(python(script)))
    first = await cluster.until_pod(ready)
    name = first["metadata"]["name"]
    await until(lambda: "up" in node.logs(cluster.namespace, name, "main"))
    process = psutil.Process(node.pids(cluster.namespace, name)["main"])
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": cluster.namespace},
    }
    cluster.plane.request("POST", f"/api/v1/namespaces/{cluster.namespace}/pods/{name}/eviction", eviction)
    second = await cluster.until_pod(lambda pod: pod["metadata"]["name"] != name and ready(pod))
    await until(lambda: not process.is_running())
    await until(lambda: name not in cluster.pods())
    assert "asked to end" in node.logs(cluster.namespace, name, "main")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_scheduling_gate_holds(cluster: Cluster, node: ProcessNode) -> None:
    cluster.apply(pod(python(WAITS), name="held", schedulingGates=[{"name": "fleetward.dev/stopped"}]))
    cluster.apply(pod(python(WAITS), name="free"))
    await cluster.until_pod(ready, "free")
    held = cluster.pods()["held"]
    assert "nodeName" not in held["spec"]
    assert held["status"]["conditions"][0]["reason"] == "SchedulingGated"
    await cluster.kubectl(
        "patch", "pod", "held", "--type=json", "-p", '[{"op": "remove", "path": "/spec/schedulingGates"}]'
    )
    await cluster.until_pod(ready, "held")


async def test_native_sidecar_starts_first_and_ends_last(cluster: Cluster, node: ProcessNode) -> None:
    probe = {"httpGet": {"port": 8182, "path": "/readyz"}, "periodSeconds": 1}
    sidecar = python(
        SERVES, "sidecar", restartPolicy="Always", startupProbe=probe, env=[{"name": "LISTEN", "value": "0.0.0.0:8182"}]
    )
    asks = (
        "import os, signal, sys, urllib.request\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "url = os.environ['URL']\n"
        "print(urllib.request.urlopen(url).status, url, os.environ['ELSEWHERE'], flush=True)\n"
        "signal.sigwait({signal.SIGTERM})\n"
        "print(urllib.request.urlopen(url).status, 'still there', flush=True)"
    )
    env = [{"name": "URL", "value": "http://127.0.0.1:8182"}, {"name": "ELSEWHERE", "value": "http://127.0.0.1:9999"}]
    cluster.apply(pod(python(asks, env=env), initContainers=[sidecar]))
    running = await cluster.until_pod(ready)
    address = running["status"]["podIP"]
    await until(lambda: "200" in node.logs(cluster.namespace, "pod", "main"))
    assert node.logs(cluster.namespace, "pod", "main") == f"200 http://{address}:8182 http://127.0.0.1:9999\n"
    assert running["status"]["initContainerStatuses"][0]["started"]
    assert node.logs(cluster.namespace, "pod", "sidecar").startswith(f"serving {address}")
    await cluster.kubectl("delete", "pod", "pod")
    assert "200 still there" in node.logs(cluster.namespace, "pod", "main")
    assert "sidecar ends" in node.logs(cluster.namespace, "pod", "sidecar")


async def test_sidecar_that_never_gets_up_holds_the_pod(cluster: Cluster, node: ProcessNode) -> None:
    probe = {"httpGet": {"port": 8182, "path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 1}
    cluster.apply(
        pod(python(WAITS), initContainers=[python(WAITS, "sidecar", restartPolicy="Always", startupProbe=probe)])
    )
    held = await cluster.until_pod(lambda pod: restarts(pod, "initContainerStatuses") >= 1)
    assert held["status"]["phase"] == "Pending"
    assert not ready(held)
    assert "main" not in node.pids(cluster.namespace, "pod")


def restarts(pod: dict[str, Any], kind: str = "containerStatuses") -> int:
    return max((status["restartCount"] for status in pod["status"].get(kind, ())), default=0)


async def test_crashing_sidecar_is_started_again_while_the_container_runs(cluster: Cluster, node: ProcessNode) -> None:
    sidecar = python(
        "import time; print('up', flush=True); time.sleep(0.2); exit(3)", "sidecar", restartPolicy="Always"
    )
    cluster.apply(pod(python(WAITS), initContainers=[sidecar]))
    seen = await cluster.until_pod(lambda pod: restarts(pod, "initContainerStatuses") >= 2)
    assert seen["status"]["initContainerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
    assert seen["status"]["containerStatuses"][0]["restartCount"] == 0
    assert "main" in node.pids(cluster.namespace, "pod")


async def test_pod_waits_for_a_config_map_and_follows_it(cluster: Cluster, node: ProcessNode) -> None:
    shows = (
        "import os, signal, time\nlast = None\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
        "while True:\n"
        "    now = open('/etc/agent/settings'.replace('/etc/agent', os.environ['AT'])).read()\n"
        "    if now != last: print(now, flush=True)\n"
        "    last = now\n"
        "    time.sleep(0.05)"
    )
    cluster.apply(
        pod(
            python(
                shows,
                env=[{"name": "AT", "value": "/etc/agent"}],
                volumeMounts=[{"name": "settings", "mountPath": "/etc/agent"}],
            ),
            volumes=[{"name": "settings", "configMap": {"name": "settings"}}],
        )
    )

    def waits_for() -> list[str]:
        return [e["message"] for e in cluster.get("events")["items"] if e["reason"] == "FailedMount"]

    await until(waits_for)
    assert waits_for() == [f"configmap {cluster.namespace}/settings not found"]
    assert not ready(cluster.pods()["pod"])
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    cluster.apply({**config, "data": {"settings": "first"}})
    await cluster.until_pod(ready)
    cluster.apply({**config, "data": {"settings": "second"}})
    await until(lambda: node.logs(cluster.namespace, "pod", "main") == "first\nsecond\n")


async def test_job_completes_and_restarts_what_failed(cluster: Cluster, node: ProcessNode) -> None:
    fails_once = (
        "import os, sys; seen = os.path.exists(sys.argv[1]); open(sys.argv[1], 'w').close(); sys.exit(0 if seen else 4)"
    )
    mount = [{"name": "work", "mountPath": "/work"}]
    main = python(fails_once, args=["/work/seen"], volumeMounts=mount)
    init = python(
        "import os; print(os.environ['WHO'])",
        "init",
        env=[
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "WHO", "value": "$(NS)/$(POD)"},
        ],
    )
    template = pod(
        main,
        restartPolicy="OnFailure",
        initContainers=[init, python(WAITS, "sidecar", restartPolicy="Always")],
        volumes=[{"name": "work", "emptyDir": {}}],
    )
    cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "job"},
            "spec": {"template": {"spec": template["spec"]}},
        }
    )
    done = await cluster.until_pod(phase("Succeeded"))
    name = done["metadata"]["name"]
    assert restarts(done) == 1
    assert node.logs(cluster.namespace, name, "init") == f"{cluster.namespace}/{name}\n"
    assert node.pids(cluster.namespace, name) == {}
    await until(lambda: cluster.get("job", "job")["status"].get("succeeded") == 1)


async def test_namespace_goes_with_its_pods(cluster: Cluster, node: ProcessNode) -> None:
    cluster.apply(deployment(python(WAITS), replicas=2))
    running = await cluster.until_pod(ready)
    process = psutil.Process(node.pids(cluster.namespace, running["metadata"]["name"])["main"])
    await cluster.kubectl("delete", "namespace", cluster.namespace, "--timeout=60s")
    assert not process.is_running()


async def test_pods_run_on_while_the_api_server_is_down(cluster: Cluster, node: ProcessNode) -> None:
    cluster.apply(pod(python(WAITS)))
    await cluster.until_pod(ready)
    before = node.pids(cluster.namespace, "pod")
    await asyncio.to_thread(cluster.plane.restart_apiserver)
    assert node.pids(cluster.namespace, "pod") == before
    await cluster.kubectl("delete", "pod", "pod")
    assert node.pids(cluster.namespace, "pod") == {}


async def test_nothing_is_left_when_the_node_stops(cluster: Cluster) -> None:
    stubborn = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(child.pid, flush=True); time.sleep(600)"
    )
    async with ProcessNode(cluster.plane.admin_kubeconfig) as node:
        # Named, since a scheduler that has just lost the API server may still know nodes that are gone.
        cluster.apply(pod(python(stubborn), nodeName=node.name))
        await cluster.until_pod(ready)
        await until(lambda: node.logs(cluster.namespace, "pod", "main").strip())
        pids = [*node.pids(cluster.namespace, "pod").values(), int(node.logs(cluster.namespace, "pod", "main"))]
        assert all(psutil.pid_exists(pid) for pid in pids)
    await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert not node.directory.exists()
    assert cluster.pods() == {}
    assert node.name not in cluster.plane.kubectl("get", "nodes", "-o", "name")


async def test_simulated_node_reports_ready_and_lets_go(cluster: Cluster) -> None:
    async with ProcessNode(cluster.plane.admin_kubeconfig, simulate=True) as node:
        cluster.apply(deployment(python(WAITS), replicas=30, nodeName=node.name))
        await until(lambda: sum(map(ready, cluster.pods().values())) == 30)
        assert all(pod["spec"]["nodeName"] == node.name for pod in cluster.pods().values())
        await cluster.kubectl("scale", "deployment", "agents", "--replicas=0")
        await until(lambda: not cluster.pods())
