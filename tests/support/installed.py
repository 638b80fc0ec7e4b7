"""Fleetward as its plain manifests install it, with both programs as processes under the service accounts they make."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from support.chart import MANIFESTS, NAMESPACE, objects, workloads
from support.controlplane.build import binaries, helm
from support.controlplane.errors import UnavailableError
from support.controlplane.fixtures import WITHOUT
from support.controlplane.plane import ControlPlane, free_ports

START_WITHIN = 60.0
"""Seconds that a program may take to be ready on a machine that has much else to do."""


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for a condition; the failure says which."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s, still not: {what}"
        time.sleep(0.05)


class Process:
    """A program of the chart, started with the arguments the chart gives it, and then some of this machine's."""

    def __init__(self, plane: ControlPlane, component: str, directory: Path, *options: str) -> None:
        template = workloads(objects(MANIFESTS.read_text()))[component]
        account = template["spec"]["serviceAccountName"]
        container = template["spec"]["containers"][0]
        (self.health,) = (f"127.0.0.1:{port}" for port in free_ports(1))
        self.log_file = directory / f"{component}.log"
        self._command = [
            str(Path(sys.executable).with_name(container["command"][0])),
            *container["args"],
            *("--namespace", NAMESPACE, "--kubeconfig", str(plane.kubeconfig_for(NAMESPACE, account))),
            *("--health-listen", self.health, *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it logged, over restarts."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def start(self) -> Self:
        """Start it; whether it gets ready is for the caller to see."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("FLEETWARD_", "KUBE", "POD_"))}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        return self

    def stop(self) -> int:
        """Stop it; give its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def get(self, path: str) -> str:
        """Ask its health listener: what it says, also where that is an error; nothing where nobody listens."""
        try:
            with urllib.request.urlopen(f"http://{self.health}{path}", timeout=5) as answer:
                text: str = answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
        except OSError:
            text = ""
        return text

    def ready(self) -> bool:
        """Say whether it is ready."""
        try:
            with urllib.request.urlopen(f"http://{self.health}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def until_ready(self) -> Self:
        """Wait until it is; fails as soon as it has ended."""
        deadline = time.monotonic() + START_WITHIN
        while not self.ready():
            ended = self._process is None or self._process.poll() is not None
            in_time = time.monotonic() < deadline and not ended
            assert in_time, (
                f"{self.log_file.stem} is not ready: {self.get('/readyz') or 'it ended'}\n{self.log[-3000:]}"
            )
            time.sleep(0.05)
        return self


class Installed:
    """A cluster with Fleetward in it."""

    def __init__(self, plane: ControlPlane, directory: Path, *options: str) -> None:
        admission, hub = free_ports(2)
        self.plane = plane
        self.hub = f"https://127.0.0.1:{hub}"
        self.operator = Process(
            plane,
            "operator",
            directory,
            *("--data", str(directory / "audit"), "--listen", self.hub, "--peer-token", ""),
            *("--admission-url", f"https://127.0.0.1:{admission}"),
            *("--admission-names", "127.0.0.1", "--tls-names", "127.0.0.1", *options),
        )
        self.admission = Process(plane, "admission", directory, "--listen", f"127.0.0.1:{admission}")

    @property
    def logs(self) -> str:
        """What both logged."""
        return self.operator.log + self.admission.log

    def blocks(self) -> bool:
        """Say whether validation has proven itself, which is the last thing that comes right after an installation."""
        path = "jsonpath={.webhooks[?(@.name=='resources.fleetward.dev')].failurePolicy}"
        found = self.plane.kubectl("get", "validatingwebhookconfiguration", "fleetward", "-o", path, check=False)
        return found == "Fail"


@contextmanager
def own_plane() -> Iterator[ControlPlane]:
    """Have a cluster that knows nothing of Fleetward. The test is skipped where there can be none, and fails in CI."""
    try:
        binaries()
        helm()
    except UnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{WITHOUT}{error}", pytrace=False)
        pytest.skip(f"{WITHOUT}{error}")
    with ControlPlane() as running:
        yield running


def apply_manifests(plane: ControlPlane) -> None:
    """Apply the plain manifests as people do, and wait for the kinds."""
    plane.kubectl("apply", "--server-side", "-f", str(MANIFESTS))
    plane.kubectl(
        "wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "app.kubernetes.io/part-of=fleetward"
    )


def remove_manifests(plane: ControlPlane) -> None:
    """Delete everything that the plain manifests make, whether or not it is there, and wait until it is gone."""
    plane.kubectl("delete", "-f", str(MANIFESTS), "--ignore-not-found", "--wait=false")
    until(lambda: not plane.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name"), "the pods are gone", 60)
    claims = plane.kubectl("-n", NAMESPACE, "get", "pvc", "-o", "name").split()
    if claims:  # what lets go of them in a cluster with storage is not part of the plane
        release = json.dumps({"metadata": {"finalizers": None}})
        for claim in claims:
            plane.kubectl("-n", NAMESPACE, "patch", claim, "--type", "merge", "-p", release)
    plane.kubectl("wait", "--for=delete", "-f", str(MANIFESTS), "--timeout=60s")


@contextmanager
def installed(plane: ControlPlane, directory: Path, *options: str) -> Iterator[Installed]:
    """Install Fleetward and have it while the block lasts; `options` are for the operator."""
    apply_manifests(plane)
    running = Installed(plane, directory, *options)
    try:
        running.admission.start()
        running.operator.start()
        running.operator.until_ready()
        running.admission.until_ready()
        until(running.blocks, "validation has proven itself", START_WITHIN)
        yield running
    finally:
        running.operator.stop()
        running.admission.stop()
