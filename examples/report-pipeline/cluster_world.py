"""What the cluster story runs on: a control plane, Fleetward in it, a node for the agents, and a shell."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cluster_screen import printed
from rich.text import Text
from support.chart import MANIFESTS, NAMESPACE, objects
from support.controlplane.build import binaries, program
from support.controlplane.node import ProcessNode
from support.controlplane.plane import ControlPlane
from support.installed import Installed, installed
from support.spine import node, webhook_image
from telling import aside, screen

from fleetward.resources.names import HUB_PORT, HUB_SERVICE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AGENT_IMAGE = "registry.example/report-pipeline/agent:1"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WITHIN = 60.0
"""Seconds that anything may take to come true."""


class StoryError(Exception):
    """Something did not happen as the story tells it. The message says what."""


class Interrupted(BaseException):
    """Somebody wants the story to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@dataclass(frozen=True)
class World:
    """The running cluster. `env` is the environment in which `kubectl` means this cluster."""

    fleetward: Installed
    node: ProcessNode
    env: dict[str, str]

    def get(self, path: str) -> Any:
        """Read an object or a list from the API server."""
        return self.fleetward.plane.request("GET", path)

    def shell(self, command: str) -> str:
        """Run a command as people type it, with the command and what it says on the screen; give what it says.

        Raises StoryError where the command fails.
        """
        screen.print(Text.assemble(("$ ", "bold blue"), command))
        done = subprocess.run(
            shlex.split(command), cwd=ROOT, env=self.env, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode != 0:
            raise StoryError(f"this failed: {command}\n{done.stdout}{done.stderr}".rstrip())
        printed(done.stdout)
        if done.stderr:
            aside(done.stderr.rstrip())
        return done.stdout


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """Have it while the block lasts. Everything is kept below the directory, which is emptied first."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in ("tmp", "bin", "fleetward"):
        (directory / name).mkdir(parents=True)
    tempfile.tempdir = str(directory / "tmp")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory / "tmp", ignore_errors=True)
        binaries()
        plane = ControlPlane()
        with _step("Starting " + ", ".join(plane.programs)):
            stack.enter_context(plane)
        aside(f"Kubernetes {plane.request('GET', '/version')['gitVersion']}")
        with _step(f"Installing Fleetward: kubectl apply --server-side -f {MANIFESTS.relative_to(ROOT)}"):
            fleetward = stack.enter_context(installed(plane, directory / "fleetward"))
        aside(f"{len(objects(MANIFESTS.read_text()))} objects: kinds, RBAC, Deployments, Service, in {NAMESPACE}")
        with _step("Joining a node"):
            services = {f"{HUB_SERVICE}.{NAMESPACE}.svc:{HUB_PORT}": fleetward.hub.removeprefix("https://")}
            runs = node(plane.admin_kubeconfig, name="this-machine", services=services, entrypoints=_entrypoints())
            joined = stack.enter_context(runs)
        stack.callback(_ending)
        yield World(fleetward, joined, _environment(plane, directory / "bin"))


def listen_to_signals() -> None:
    """Have Interrupted raised when somebody wants this to end."""
    for each in SIGNALS:
        signal.signal(each, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _deaf()
    raise Interrupted(number)


def _deaf() -> None:
    """Have no signal keep us from putting things away."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def _ending() -> None:
    _deaf()
    screen.print("\nStopping everything that was started ...", style="dim")


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Say what takes a while, and afterwards how long it took."""
    screen.print(f"{what} ...", end="", markup=False)
    sys.stdout.flush()
    start = time.monotonic()
    try:
        yield
    except BaseException:
        screen.print()
        raise
    screen.print(f" {time.monotonic() - start:.1f} s", style="dim")


def _entrypoints() -> dict[str, list[str]]:
    """Give what the images run, that are not to be had here."""
    return {
        webhook_image(): [str(Path(sys.executable).with_name("fleetward-webhook"))],
        AGENT_IMAGE: [sys.executable, str(HERE / "pods" / "agent.py")],
    }


def _environment(plane: ControlPlane, commands: Path) -> dict[str, str]:
    """Give the environment of somebody whose kubectl has this cluster and Fleetward's plugin."""
    (commands / "kubectl").symlink_to(program("kubectl"))
    for name in ("kubectl-fleetward", "fleetward"):
        (commands / name).symlink_to(Path(sys.executable).with_name(name))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETWARD_", "KUBE"))}
    own = {"KUBECONFIG": str(plane.admin_kubeconfig), "KUBECACHEDIR": str(plane.directory / "kubectl")}
    return {**kept, **own, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
