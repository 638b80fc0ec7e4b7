"""Pytest fixtures for tests on a real API server. `tests/cluster/conftest.py` imports them."""

import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.controlplane.build import binaries
from support.controlplane.errors import BuildError, UnavailableError
from support.controlplane.golang import REPOSITORY
from support.controlplane.node import ProcessNode
from support.controlplane.plane import ControlPlane

WITHOUT = "No Kubernetes control plane here: "
"""How the reason begins for which such a test is skipped."""

CRDS = REPOSITORY / "crds"
NAMESPACE_WITHIN = 30.0
"""Seconds that a new namespace may take to get its service account."""


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """Give a running control plane with our kinds installed.

    Where this machine cannot have one, the tests are skipped, and the last lines of the run say so; with CI=true they
    fail, as a run that skips them proves nothing.
    """
    try:
        binaries()
    except UnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{WITHOUT}{error}", pytrace=False)
        pytest.skip(f"{WITHOUT}{error}")
    with ControlPlane() as running:
        install_crds(running, CRDS)
        yield running


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    """Give a namespace of the test's own, in which pods can be made at once. Its deletion is not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    make_namespace(plane, name)
    yield name
    remove_namespace(plane, name)


@pytest_asyncio.fixture
async def node(plane: ControlPlane) -> AsyncIterator[ProcessNode]:
    """Give a node that runs pods as processes; its pods and itself are gone after the test."""
    async with ProcessNode(plane.admin_kubeconfig) as running:
        yield running


def install_crds(plane: ControlPlane, directory: Path) -> None:
    """Apply the CRDs in a directory and wait until the API server serves their kinds."""
    plane.kubectl("apply", "--server-side", "-f", str(directory))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(directory))


def make_namespace(plane: ControlPlane, name: str, labels: dict[str, str] | None = None) -> None:
    """Make a namespace and wait until its service account is there."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}
    plane.request("POST", "/api/v1/namespaces", body)
    deadline = time.monotonic() + NAMESPACE_WITHIN
    while not plane.namespace_ready(name):
        assert time.monotonic() < deadline, f"namespace {name} has no service account after {NAMESPACE_WITHIN:.0f} s"
        time.sleep(0.02)


def remove_namespace(plane: ControlPlane, name: str) -> None:
    """Delete a namespace, and its pods by force, as their node may be gone already."""
    with contextlib.suppress(OSError):  # a test may have deleted it, or left the API server down
        plane.request("DELETE", f"/api/v1/namespaces/{name}")
        plane.request("DELETE", f"/api/v1/namespaces/{name}/pods?gracePeriodSeconds=0")


def build_before_tests(session: pytest.Session) -> None:
    """Build the control plane if a collected test needs it, outside of any test's time limit, with progress shown."""
    if session.config.option.collectonly:
        return
    if not any("plane" in getattr(item, "fixturenames", ()) for item in getattr(session, "items", ())):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    shown = capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext()
    with shown, contextlib.suppress(UnavailableError, BuildError):  # the fixture raises them again
        binaries()


def report_skips(reporter: pytest.TerminalReporter) -> None:
    """Say in the last lines of a run how many tests were skipped for want of a control plane, and why."""
    reasons: dict[str, int] = {}
    for report in reporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found = reason.partition(WITHOUT)[2]
        if found:
            reasons[found] = reasons.get(found, 0) + 1
    for reason, count in reasons.items():
        reporter.section("skipped: the tests on a real Kubernetes API server", sep="=", yellow=True)
        reporter.write_line(f"{count} test{'s' if count > 1 else ''} did not run. {WITHOUT}{reason}")
