"""`kubectl fleetward budgets` on a real API server: how pots stand its hub says, who spent them the records."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cli.budgetworld import ALL, EACH, World, world
from kubernetes.aio.client import ApiClient
from support.certificates import Authority
from support.controlplane.build import program
from support.controlplane.plane import ControlPlane
from support.replica import Replica, replica
from support.trail import api, authority, name, system

from fleetward.audit.query import RecordQuery

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

__all__ = ["api", "authority", "name", "system"]

Cli = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]

BUDGET = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata: {{name: untouched, namespace: {namespace}}}
spec: {{limits: {{records: 7}}}}
"""


@pytest.fixture
async def hub(api: ApiClient, authority: Authority, tmp_path: Path, name: str) -> AsyncIterator[tuple[Replica, World]]:
    """A replica whose budgets are those of a world, and whose store has the records of it."""
    with world(tmp_path / "world") as made:
        made.spend("reports/writer", 300_000, 3600, run="r-1")
        made.spend("reports/data-worker", 100_000, 1800)
        made.decide("reports/writer", {ALL: {"records": 4}, EACH: {"calls crm.**": 1}}, 10)
        made.denied = made.decide("reports/data-worker", {ALL: {"costMicroUsd": 700_000}})
        async with replica(api, authority, tmp_path / "one.db", name, budgets=made.report) as running:
            running.store.append([stored.body for stored in made.store.read(RecordQuery())])
            yield running, made


@pytest.fixture
def cli(plane: ControlPlane, system: str, hub: tuple[Replica, World], tmp_path: Path) -> Cli:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETWARD_", "KUBE"))}
    ours = {"FLEETWARD_KUBECTL": str(program("kubectl")), "FLEETWARD_SYSTEM_NAMESPACE": system}
    env = {**kept, **ours, "KUBECONFIG": str(plane.admin_kubeconfig), "TZ": "UTC"}

    async def call(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("kubectl-fleetward")), "budgets", *args, "--hub", hub[0].url]
        return await asyncio.to_thread(
            lambda: subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=env
            )
        )

    return call


async def test_the_command_reads_the_hub(
    plane: ControlPlane, system: str, cli: Cli, hub: tuple[Replica, World], tmp_path: Path
) -> None:
    plane.kubectl("apply", "-f", "-", input=BUDGET.format(namespace=system))
    listed = await cli("list", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    pots = {pot["budget"]: pot for pot in json.loads(listed.stdout)["pots"]}
    assert {ALL, EACH, f"AgentBudget/{system}/untouched"} <= set(pots)
    assert pots[ALL]["limits"][0]["spent"] == 400_000
    inside = await cli("list", "-n", system, "-o", "json")
    assert [pot["budget"] for pot in json.loads(inside.stdout)["pots"]] == [f"AgentBudget/{system}/untouched"]
    shown = await cli("show", "all")
    assert "$0.60 left of $1.00" in shown.stdout
    explained = await cli("explain", hub[1].denied)
    assert "who had it up to then: cost $0.40 spent, $0.00 reserved" in explained.stdout, explained.stderr
    assert "kubectl fleetward trace RUN --hub https://" in explained.stdout
    verified = await cli("verify")
    assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout
    out = tmp_path / "spend.svg"
    assert (await cli("picture", "all", "--out", str(out))).returncode == 0
    assert b"reports/writer" in out.read_bytes()


async def test_who_may_not_read_is_told(plane: ControlPlane, system: str, cli: Cli) -> None:
    plane.kubectl("delete", "clusterrolebinding", f"auditor-{system}")
    refused = await cli("list")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the hub answered 403: system:serviceaccount:" in refused.stderr
