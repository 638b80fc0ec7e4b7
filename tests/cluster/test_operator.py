"""The operator as a process on a real API server: what is applied is in force, and its status says so."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.controlplane.golang import REPOSITORY
from support.controlplane.plane import ControlPlane, free_ports
from support.keeping import clean

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(240)]

SYSTEM = "fleetward-system"
EXAMPLE = REPOSITORY / "examples" / "report-pipeline"
KINDS = "agents,agentfleets,agentpolicies,clusteragentpolicies,actioncatalogs,auditsinks"


class Operator:
    """A `fleetward-operator`, and what it says over HTTP."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        hub, self.port = free_ports(2)
        self.log = folder / "operator.log"
        command = [sys.executable, "-m", "fleetward_operator.cluster.main", "--kubeconfig", str(plane.admin_kubeconfig)]
        command += ["--namespace", SYSTEM, "--identity", "test-1", "--data", str(folder / "data")]
        command += ["--listen", f"https://127.0.0.1:{hub}", "--health-listen", f"127.0.0.1:{self.port}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError as error:
            return str(error)

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture
def operator(plane: ControlPlane, tmp_path: Path) -> Iterator[Operator]:
    plane.kubectl("create", "namespace", SYSTEM, check=False)
    running = Operator(plane, tmp_path)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        plane.kubectl("delete", KINDS, "--all", "-A", "--ignore-not-found", check=False)
        clean(plane)
        plane.kubectl("delete", "namespace", "reports", "--ignore-not-found", "--wait=false")


def wait(operator: Operator, condition: Callable[[], object], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert operator.process.poll() is None, operator.log.read_text()
        assert time.monotonic() < deadline, operator.log.read_text()
        time.sleep(0.1)


def listed(plane: ControlPlane) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(plane.kubectl("get", KINDS, "-A", "-o", "json"))["items"]
    return found


def ready(resource: dict[str, Any]) -> bool:
    status = resource.get("status", {})
    return status.get("observedGeneration") == resource["metadata"]["generation"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions", [])
    )


def test_apply_governs_patch_stops_and_the_status_says_so(plane: ControlPlane, operator: Operator) -> None:
    plane.kubectl("create", "namespace", "reports")
    for file in sorted(EXAMPLE.glob("*.yaml")):
        plane.kubectl("apply", "-f", str(file))
    wait(operator, lambda: operator.get("/readyz") == "ok\n")
    wait(operator, lambda: all(map(ready, listed(plane))))

    patch = '{"spec":{"operatingMode":"Paused","operatingReason":"ticket 4711"}}'
    plane.kubectl("patch", "agent", "data-worker", "-n", "reports", "--type=merge", "-p", patch)

    def mode() -> dict[str, Any]:
        agent = json.loads(plane.kubectl("get", "agent", "data-worker", "-n", "reports", "-o", "json"))
        found: dict[str, Any] = agent["status"].get("mode", {})
        return found

    wait(operator, lambda: mode().get("operatingMode") == "Paused")
    assert mode()["reason"] == "ticket 4711"
    assert mode()["setBy"] == "the field manager kubectl-patch"

    shown = plane.kubectl("get", "agents", "-A")
    assert "Paused" in shown
    assert 'fleetward_resources{kind="Agent"} 4.0' in operator.get("/metrics")
    assert operator.stop() == 0, operator.log.read_text()
