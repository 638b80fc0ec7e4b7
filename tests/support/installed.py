"""Fleetward as its plain manifests install it, with both programs as processes under the service accounts they make."""

import base64
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from support.chart import MANIFESTS, NAMESPACE, objects, workloads
from support.clusterpods import pod_token
from support.controlplane.build import binaries, helm
from support.controlplane.errors import UnavailableError
from support.controlplane.fixtures import WITHOUT
from support.controlplane.leash import leashed
from support.controlplane.plane import ControlPlane, free_ports
from support.controlplane.programs import STARTER
from support.waiting import until

START_WITHIN = 60.0
"""Seconds that a program may take to be ready on a machine that has much else to do."""


class Program:
    """A program as a process, with a log that grows over restarts."""

    def __init__(self, name: str, log_file: Path, *command: str) -> None:
        self.log_file = log_file
        (port,) = free_ports(1)
        self.health = f"127.0.0.1:{port}"
        beside = Path(sys.executable).with_name(name)
        self._command = leashed(str(beside), *command, "--health-listen", self.health)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it logged."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def tell(self, *options: str) -> Self:
        """Give it further options from the next start on."""
        self._command = [*self._command, *options]
        return self

    def start(self) -> Self:
        """Start it; whether it gets ready is for the caller to see."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("FLEETWARD_", "KUBE", "POD_"))}
        self._process = STARTER.submit(self._popen, environment).result()
        return self

    def _popen(self, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        null = subprocess.DEVNULL
        with self.log_file.open("ab") as log:
            # In a process group of its own, Ctrl-C is for us alone, and we end it.
            return subprocess.Popen(self._command, stdin=null, stdout=log, stderr=log, env=environment, process_group=0)

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

    def kill(self) -> None:
        """End it as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def start_if_down(self) -> None:
        """Start it, unless it runs."""
        if self._process is None or self._process.poll() is not None:
            self.start().until_ready()

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


def chart_program(plane: ControlPlane, component: str, log_file: Path, *options: str) -> Program:
    """Give a program of the chart, with the arguments and the service account that the chart gives it.

    After these come those of this machine, and `options`; of an argument given twice, the last counts.
    """
    template = workloads(objects(MANIFESTS.read_text()))[component]
    container = template["spec"]["containers"][0]
    kubeconfig = plane.kubeconfig_for(NAMESPACE, template["spec"]["serviceAccountName"])
    own = ("--namespace", NAMESPACE, "--kubeconfig", str(kubeconfig))
    return Program(container["command"][0], log_file, *container["args"], *own, *options)


class Installed:
    """A cluster with Fleetward in it."""

    def __init__(self, plane: ControlPlane, directory: Path, *options: str) -> None:
        (admission,) = free_ports(1)
        self.plane = plane
        self.directory = directory
        self.programs: list[Program] = []
        self._replicas = 0
        self._options = (
            *("--admission-url", f"https://127.0.0.1:{admission}"),
            *("--admission-names", "127.0.0.1", "--tls-names", "127.0.0.1", *options),
        )
        self.admission = self._run("admission", "admission", "--listen", f"127.0.0.1:{admission}")
        self.operator, self.hub = self.replica("operator")

    def replica(self, name: str, *options: str) -> tuple[Program, str]:
        """Give one more replica of the operator, and the address of its hub.

        They are called like the pods of the chart's StatefulSet; the first keeps the ledger of budgets.
        """
        (port,) = free_ports(1)
        hub, identity = f"https://127.0.0.1:{port}", f"fleetward-operator-{self._replicas}"
        self._replicas += 1
        data = str(self.directory / f"{name}-audit")
        own = ("--identity", identity, "--data", data, "--listen", hub, "--peer-token", "")
        return self._run("operator", name, *own, *self._options, *options), hub

    def sidecar(self, pod: str, account: str) -> tuple[Program, str]:
        """Give the decision webhook of a pod (`namespace/name`), and where its agents ask."""
        namespace, name = pod.split("/")
        home = self.directory / f"sidecar-{namespace}-{name}"
        home.mkdir()
        ca = self.plane.request("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/fleetward-hub-tls")["data"]["ca.crt"]
        (home / "ca.crt").write_bytes(base64.b64decode(ca))
        (home / "token").write_text(pod_token(self.plane, namespace, name, account=account))
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        program = Program(
            "fleetward-webhook",
            home / "log",
            *("--workload", pod, "--listen", url, "--spool", str(home / "spool"), "--hub", self.hub),
            *("--hub-ca", str(home / "ca.crt"), "--hub-token", str(home / "token")),
        )
        self.programs.append(program)
        return program, url

    def _run(self, component: str, name: str, *options: str) -> Program:
        program = chart_program(self.plane, component, self.directory / f"{name}.log", *options)
        self.programs.append(program)
        return program

    @property
    def logs(self) -> str:
        """What all of them logged."""
        return "".join(program.log for program in self.programs)

    def blocks(self) -> bool:
        """Say whether validation has proven itself, which is the last thing that comes right after an installation."""
        path = "jsonpath={.webhooks[?(@.name=='resources.fleetward.dev')].failurePolicy}"
        found = self.plane.kubectl("get", "validatingwebhookconfiguration", "fleetward", "-o", path, check=False)
        return found == "Fail"


@contextmanager
def own_plane(*apiserver_options: str) -> Iterator[ControlPlane]:
    """Have a cluster that knows nothing of Fleetward. The test is skipped where there can be none, and fails in CI."""
    try:
        binaries()
        helm()
    except UnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{WITHOUT}{error}", pytrace=False)
        pytest.skip(f"{WITHOUT}{error}")
    with ControlPlane(apiserver_options=apiserver_options) as running:
        yield running


def apply_manifests(plane: ControlPlane) -> None:
    """Apply the plain manifests as people do, and wait for the kinds."""
    plane.kubectl("apply", "--server-side", "-f", str(MANIFESTS))
    plane.kubectl(
        "wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "app.kubernetes.io/part-of=fleetward"
    )


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
        for program in reversed(running.programs):
            program.stop()
