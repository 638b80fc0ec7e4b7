"""`make demo-cluster`, as people run it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.controlplane.build import binaries
from support.controlplane.errors import UnavailableError
from support.controlplane.fixtures import WITHOUT
from support.controlplane.golang import REPOSITORY
from support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("cluster")]

STORY = "examples/report-pipeline/cluster_story.py"
WITHIN = 240.0
"""Seconds that the story may take; on an idle machine it takes 45."""

TOLD = (
    "$ kubectl apply -f examples/report-pipeline/\n",
    "agentfleet.fleetward.dev/reporting created",
    "agent.fleetward.dev/data-worker condition met",
    "fleetward-webhook (native sidecar)",
    "FLEETWARD_AGENT=reports/data-worker",
    "  data-worker    crm.customers.bulk-export   Deny             no-bulk-export ",
    "  data-worker    crm.customers.read          Allow            data-worker-reads ",
    "  report-writer  llm.chat                    Constrain        ask-the-model ",
    "'max_tokens': 1000} instead of",
    "  report-writer  crm.customers.read          RequireApproval  customer-data-needs-approval ",
    "governs 4 agents",
    "reports/data-worker is Paused, set on Agent reports/data-worker by admin: too many reads, ticket 4711",
    "the last allowed answer ",
    "every decision is denied: in force at 1 of 1 decision webhook",
    "SchedulingGated",
    '[{"name":"fleetward.dev/stopped"}]',
    "the Deployment is as it was: replicas 1, generation 1.",
    "in a new pod, ",
    "operatingMode was Stopped, set by admin",
    "All of it is stopped.",
)
"""Lines of the story, in their order."""


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """Have the control plane built before the story is timed."""
    try:
        binaries()
    except UnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{WITHOUT}{error}", pytrace=False)
        pytest.skip(f"{WITHOUT}{error}")


@contextmanager
def told(directory: Path, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[], str]]]:
    """Have the story told, in a process group of its own as in a terminal; gives what it says so far."""
    said = directory / "said"
    command = [sys.executable, STORY, "--directory", str(directory / "demo"), *options]
    with said.open("wb") as out:
        story = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0
        )
    try:
        yield story, said.read_text
    finally:
        story.kill()
        story.wait()


def nothing_is_left(directory: Path) -> bool:
    """Say whether no process has to do with the story's directory any more."""
    for process in psutil.process_iter():
        try:
            if any(str(directory) in argument for argument in process.cmdline()):
                return False
        except psutil.Error:  # gone meanwhile
            continue
    return True


def test_the_story_comes_true(tmp_path: Path) -> None:
    with told(tmp_path) as (story, said):
        assert story.wait(WITHIN) == 0, said()
        text, place = said(), 0
        for line in TOLD:
            assert line in text[place:], f"not told, or not in its place: {line!r}\n{text}"
            place = text.index(line, place)
        assert "\x1b" not in text, "in a pipe, the story is plain"
    until(lambda: nothing_is_left(tmp_path), "every process has ended")
    assert sorted(each.name for each in (tmp_path / "demo").iterdir()) == ["bin", "fleetward"]


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    with told(tmp_path) as (story, said):
        begun = "agentfleet.fleetward.dev/reporting created"
        until(lambda: begun in said() or story.poll() is not None, "the story is under way", WITHIN)
        assert story.poll() is None, said()
        assert not nothing_is_left(tmp_path)
        os.killpg(story.pid, signal.SIGINT)
        assert story.wait(60) == 128 + signal.SIGINT, said()
        assert "Traceback" not in said()
    until(lambda: nothing_is_left(tmp_path), "every process has ended")
    assert not (tmp_path / "demo" / "tmp").exists()
