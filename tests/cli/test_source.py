"""Which source a command works on, and what stopping an agent does in a folder. No cluster is needed."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from fleetward.cli.cluster.kubectl import said
from fleetward.cli.when import Seconds

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]


def test_stop_in_a_folder(run: Run, folder: Path) -> None:
    done = run("stop", "data-worker", "--dir", folder, "--reason", "deleting things", "--by", "ann")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Agent reports/data-worker is now Stopped, it was Running" in done.stdout
    shown = run("agents", "--dir", folder).stdout.splitlines()[1].split()
    assert shown[2:6] == ["Stopped", "deleting", "things", "ann"]
    assert "is Stopped already" in run("pause", "data-worker", "--dir", folder).stdout
    assert "is now Running, it was Stopped" in run("resume", "data-worker", "--dir", folder).stdout


def test_stop_strengthens_a_pause_and_leaves_a_quarantine(run: Run, folder: Path) -> None:
    run("pause", "--fleet", "reporting", "--dir", folder)
    assert "is now Stopped, it was Paused" in run("stop", "--fleet", "reporting", "--dir", folder).stdout
    agents = folder / "agents.yaml"
    agents.write_text(agents.read_text().replace("role: Worker", "role: Worker\n  operatingMode: Quarantined"))
    assert "is Quarantined already; nothing changed" in run("stop", "data-worker", "--dir", folder).stdout


def test_quarantine_in_a_folder_strengthens_a_stop(run: Run, folder: Path) -> None:
    run("stop", "data-worker", "--dir", folder)
    done = run("quarantine", "data-worker", "--dir", folder, "--reason", "leaking data", "--by", "ann")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Agent reports/data-worker is now Quarantined, it was Stopped" in done.stdout
    shown = run("agents", "--dir", folder).stdout.splitlines()[1].split()
    assert shown[2:6] == ["Quarantined", "leaking", "data", "ann"]
    assert "is Quarantined already" in run("stop", "data-worker", "--dir", folder).stdout
    fleet = run("quarantine", "--fleet", "reporting", "--dir", folder).stdout
    assert "AgentFleet reporting is now Quarantined, it was Running" in fleet
    assert "is now Running, it was Quarantined" in run("resume", "data-worker", "--dir", folder).stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["agents", "--dir", ".", "--context", "x"], "--dir is about a folder, --context about a cluster"),
        (["pause", "x", "--dir", ".", "-n", "y"], "--dir is about a folder, --namespace about a cluster"),
        (["audit", "list", "--data", ".", "--hub", "https://h:1"], "--data is about a folder, --hub about a cluster"),
        (["audit", "list", "--dir", ".", "--system-namespace", "x"], "--system-namespace about a cluster"),
        (["policy", "lint", ".", "--kubeconfig", "x"], "DIR is about a folder, --kubeconfig about a cluster"),
        (["policy", "lint"], "Missing argument 'DIR', or --context, --kubeconfig or --namespace of a cluster."),
    ],
)
def test_options_that_contradict_each_other(run: Run, args: list[str], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("program", "env", "args", "cluster"),
    [
        ("fleetward", {}, [], False),
        ("fleetward", {}, ["--context", "x"], True),
        ("fleetward", {}, ["-n", "x"], True),
        ("fleetward", {"FLEETWARD_DIR": "."}, ["--kubeconfig", "x"], True),
        ("kubectl-fleetward", {}, [], True),
        ("kubectl-fleetward", {"FLEETWARD_DIR": "."}, [], False),
        ("kubectl-fleetward", {}, ["--dir", "."], False),
    ],
)
def test_which_source(process: Process, program: str, env: dict[str, str], args: list[str], cluster: bool) -> None:  # noqa: FBT001 - a parameter of the table
    done = process("agents", *args, program=program, env={"FLEETWARD_KUBECTL": "/nowhere", **env})
    assert ("a cluster is reached through kubectl" in done.stderr) == cluster
    assert done.returncode == (2 if cluster else 0)


def test_what_kubectl_says_in_one_line() -> None:
    text = (
        b'E1121 12:07:36.776190    9344 memcache.go:265] "Unhandled Error"\n'
        b"Warning: something is old\n"
        b'The Agent "a" is invalid: \n* spec.role: too long\n'
        b"* <nil>: Invalid value: null: some validation rules were not checked because the object was invalid\n"
        b'Error from server (Forbidden): agents is forbidden: User "x"\n'
        b"error: no\n"
    )
    assert said(text) == ('The Agent "a" is invalid: spec.role: too long', 'agents is forbidden: User "x"', "no")


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1m30s", 90), ("0", 0), ("2.5", 2.5)])
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "10 s", "99999999999999w"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="allowed is a length of time"):
        Seconds().convert(text, None, None)
