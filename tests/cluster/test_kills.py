"""The operator is killed at any point of its work, and what was patched comes true all the same."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from support.controlplane.fixtures import make_namespace
from support.spine import ALLOWS, WITHIN, Spine, agent, deployment, resource, spine
from support.waiting import until

from fleetward.resources.names import STOPPED_GATE

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("cluster")]

MOMENTS = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Seconds from the patch to the kill: before it is seen, while pods are evicted or let go, while status is written."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spine]:
    with spine(tmp_path_factory.mktemp("kills")) as running:
        make_namespace(running.plane, "kills")
        running.apply(agent("reader", "kills"), resource("AgentPolicy", "reads", ALLOWS, "kills"))
        running.apply(deployment("reader", "kills"))
        running.running("kills", "reader")
        yield running


def patched_and_killed(world: Spine, mode: str, moment: float) -> None:
    world.patch("agent", "reader", {"operatingMode": mode, "operatingReason": f"{mode} {moment}"}, "kills")
    time.sleep(moment)  # the moment of the kill is what is tried, and no condition
    world.fleetward.operator.kill()
    world.fleetward.operator.start()


@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_and_released_with_a_kill_in_between(world: Spine, moment: float) -> None:
    patched_and_killed(world, "Stopped", moment)

    def stopped() -> bool:
        pods = world.pods("kills", "reader")
        return len(pods) == 1 and [g["name"] for g in pods[0]["spec"].get("schedulingGates", ())] == [STOPPED_GATE]

    until(stopped, "one pod, and that is held", WITHIN)
    until(lambda: world.is_current("agent", "reader", "kills"), "the status says that it is stopped", WITHIN)
    assert world.status("agent", "reader", "kills")["mode"]["reason"] == f"Stopped {moment}"

    patched_and_killed(world, "Running", moment)
    world.running("kills", "reader")
    world.until_said("kills", "reader", lambda said: said == "Allow", "Allow")
    until(lambda: world.is_current("agent", "reader", "kills"), "the status says that it runs", WITHIN)


def test_each_change_of_mode_is_on_record_once(world: Spine) -> None:
    """After all the kills: by `recordedMode`, whoever leads next knows what is on record already."""
    data = world.fleetward.directory / "operator-audit"
    command = [sys.executable, "-m", "fleetward.cli.main", "audit", "list", "--data", str(data), "--limit", "0"]
    done = subprocess.run([*command, "--type", "modechange", "-o", "json"], capture_output=True, text=True, check=True)
    changes = [(record["before"], record["after"], record["reason"]) for record in json.loads(done.stdout)]
    assert changes == [
        change
        for moment in MOMENTS
        for change in (("Running", "Stopped", f"Stopped {moment}"), ("Stopped", "Running", f"Running {moment}"))
    ]
