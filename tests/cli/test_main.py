import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from fleetward import __version__
from fleetward.cli.main import cli

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = [
    ["decide"],
    ["policy", "lint"],
    ["policy", "test"],
    ["policy", "import"],
    ["agents"],
    ["pause"],
    ["stop"],
    ["quarantine"],
    ["resume"],
    ["trace"],
    ["budgets", "list"],
    ["budgets", "show"],
    ["budgets", "explain"],
    ["budgets", "verify"],
    ["completion"],
]


def test_help_lists_every_command_and_loads_none(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom fleetward.cli.main import cli\ncli(['--help'], standalone_mode=False)\n"
        "loaded = [m for m in ('pydantic', 'rich', 'fleetward_operator') if m in sys.modules]\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    listed = done.stdout.partition("Commands:\n")[2]
    names = [line.split()[0] for line in listed.splitlines() if not line.startswith("   ")]
    assert names == [
        "decide",
        "policy",
        "agents",
        "pause",
        "stop",
        "quarantine",
        "resume",
        "audit",
        "trace",
        "budgets",
        "completion",
        "serve",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_an_example_and_its_exit_codes(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"Examples:\n  fleetward {' '.join(command)}" in result.stdout
    assert "Exit codes:\n  0  " in result.stdout


def test_version(process: Process) -> None:
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"fleetward {__version__}\n")


def test_as_a_kubectl_plugin(process: Process) -> None:
    done = process("policy", "test", program="kubectl-fleetward")
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: kubectl fleetward policy test ")
    shown = process("decide", "--help", program="kubectl-fleetward").stdout
    assert "  kubectl fleetward decide --dir policies -f action.json" in shown


def test_a_misspelt_command(process: Process) -> None:
    done = process("agent")
    assert done.returncode == 2
    assert "Did you mean" in done.stderr
    assert "agents" in done.stderr


class Point(importlib.metadata.EntryPoint):
    """An entry point that cannot be loaded."""

    def load(self) -> object:
        raise ModuleNotFoundError("No module named 'prometheus_client'", name="prometheus_client")


def test_a_plugin_whose_packages_are_missing_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    points = importlib.metadata.EntryPoints([Point("serve", "operator_of_ours:serve", "fleetward.commands")])
    monkeypatch.setattr("fleetward.cli.group.entry_points", lambda **_: points)
    result = run("serve", ".")
    assert result.exit_code == 2
    assert "no module prometheus_client" in result.stderr
    assert "pip install 'fleetward[operator,webhook]'" in result.stderr
    assert "serve" in run("--help").stdout


def test_a_plugin_is_loaded_by_its_entry_point(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    points = importlib.metadata.EntryPoints(
        [importlib.metadata.EntryPoint("done", "fleetward.cli.completion:completion", "fleetward.commands")]
    )
    monkeypatch.setattr("fleetward.cli.group.entry_points", lambda **_: points)
    assert "_fleetward_completion" in run("done", "bash").stdout


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete "), ("zsh", "#compdef"), ("fish", "complete ")])
def test_completion_scripts(run: Run, shell: str, word: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert word in result.stdout
    assert "_FLEETWARD_COMPLETE" in result.stdout


def complete(process: Process, words: str) -> list[str]:
    place = len(words.split()) - (not words.endswith(" "))
    done = process(env={"_FLEETWARD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)})
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_of_commands_and_agents(process: Process, folder: Path) -> None:
    assert complete(process, "fleetward po") == ["policy"]
    assert complete(process, "fleetward policy ") == ["lint", "test", "import"]
    assert complete(process, f"fleetward pause --dir {folder} ") == ["reports/data-worker", "reports/writer"]
    assert complete(process, f"fleetward pause --fleet --dir {folder} ") == ["reporting"]


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    """The pipe is closed before anything is written, whatever the buffer holds when the command ends."""
    command = Path(sys.executable).with_name("fleetward")
    for arguments in (["agents", "--dir", str(folder)], ["agents", "--dir", str(folder), "-o", "json"]):
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = subprocess.run(
                [str(command), *arguments], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
            )
        finally:
            os.close(writer)
        assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_and_is_no_success(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("fleetward")), "agents", "--dir", str(folder), "-o", "json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


def test_closed_standard_input(folder: Path) -> None:
    program = Path(sys.executable).with_name("fleetward")
    command = ["sh", "-c", f'"{program}" decide --dir "{folder}" -f - <&-']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr


def test_a_stream_that_cannot_hold_a_character(process: Process, folder: Path) -> None:
    agents = folder / "agents.yaml"
    agents.write_text(agents.read_text().replace("data@example.com", "Zoë"))
    done = process("agents", "--dir", folder, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "Zo\\xeb" in done.stdout


def test_plain_output_has_no_escape_and_nothing_is_cut(process: Process, folder: Path) -> None:
    agents = folder / "agents.yaml"
    agents.write_text(agents.read_text().replace("data@example.com", "x" * 200))
    done = process("agents", "--dir", folder, env={"COLUMNS": "40"})
    assert "x" * 200 in done.stdout
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 3


def test_every_command_has_text_and_json(run: Run) -> None:
    for command in COMMANDS[:-1]:
        found: click.Command = cli
        for name in command:
            assert isinstance(found, click.Group)
            loaded = found.get_command(click.Context(found), name)
            assert loaded is not None
            found = loaded
        choices = [p.type.choices for p in found.params if p.name == "output" and isinstance(p.type, click.Choice)]
        assert choices
        assert "json" in choices[0]
