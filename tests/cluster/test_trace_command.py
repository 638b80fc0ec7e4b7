"""`kubectl fleetward trace` on a real API server: a run whose records lie in the stores of two replicas."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.controlplane.build import program
from support.controlplane.plane import ControlPlane
from support.replica import Replica
from support.runs import RUN, story
from support.trail import api, authority, name, peers, start, system, token, two

from fleetward.audit.record import encode

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

__all__ = ["api", "authority", "name", "peers", "start", "system", "token", "two"]


async def test_a_run_of_two_replicas_is_one_tree(
    plane: ControlPlane, system: str, two: tuple[Replica, Replica], tmp_path: Path
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETWARD_", "KUBE"))}
    ours = {"FLEETWARD_KUBECTL": str(program("kubectl")), "FLEETWARD_SYSTEM_NAMESPACE": system}
    env = {**kept, **ours, "KUBECONFIG": str(plane.admin_kubeconfig)}

    async def shown(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("kubectl-fleetward")), "trace", *args, "--hub", left.url]
        return await asyncio.to_thread(
            lambda: subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=env
            )
        )

    left, right = two
    records = [encode(record) for record in story()]
    left.store.append(records[::2])
    right.store.append(records[1::2])
    tree = await shown(RUN)
    assert (tree.returncode, tree.stderr) == (0, "")
    assert [line.split()[-1] for line in tree.stdout.splitlines() if line.split()[-1].startswith("aaaa-")] == [
        f"aaaa-{seq}" for seq in (1, 2, 3, 4, 6, 7, 8, 11, 10, 9)
    ]
    why = await shown("--why", "aaaa-7")
    assert why.stdout.startswith("aaaa-7 came under aaaa-6: Delegation to reports/mailer by reports/reader\n")
    unknown = await shown("nowhere")
    assert unknown.returncode == 2
    assert "found no run nowhere in the audit stores of the cluster" in unknown.stderr
