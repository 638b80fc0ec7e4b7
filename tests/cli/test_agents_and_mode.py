import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]


def test_the_table(process: Process, folder: Path) -> None:
    done = process("agents", "--dir", folder)
    assert (done.returncode, done.stderr) == (0, "")
    head, worker, writer = (line.split() for line in done.stdout.splitlines())
    assert head[:3] == ["AGENT", "ROLE", "MODE"]
    assert " ".join(worker) == "reports/data-worker Worker Running - - reporting Deny 1 High data@example.com"
    assert " ".join(writer) == "reports/writer Planner Running - - reporting Deny 1 Medium -"


def test_the_table_shows_the_mode_in_force(run: Run, folder: Path) -> None:
    run("pause", "--fleet", "reporting", "--dir", folder, "--reason", "audit", "--by", "ann")
    rows = run("agents", "--dir", folder).stdout.splitlines()[1:]
    assert all(row.split()[2:5] == ["Paused", "audit", "ann"] for row in rows)


def test_json(run: Run, folder: Path) -> None:
    worker, _ = json.loads(run("agents", "--dir", folder, "-o", "json").stdout)
    assert worker["agent"] == "reports/data-worker"
    assert worker["mode"]["operatingMode"] == "Running"
    assert (worker["fleets"], worker["defaultDecision"], worker["policies"]) == (
        ["reporting"],
        "Deny",
        ["reports/work"],
    )


def test_one_agent_with_the_rules_that_concern_it(run: Run, folder: Path) -> None:
    text = run("agents", "writer", "--dir", folder).stdout
    assert text.startswith("reports/writer\n")
    assert "role              Planner" in text
    assert "named **.send.*" in text
    assert "crm.*.read, roles Worker" not in text  # that rule is for workers
    worker = json.loads(run("agents", "reports/data-worker", "--dir", folder, "-o", "json").stdout)
    assert [rule["name"] for rule in worker["rules"]] == ["read", "short", "slow", "send", "never", "large"]


def test_an_agent_that_is_not_there(run: Run, folder: Path) -> None:
    result = run("agents", "reports/writter", "--dir", folder)
    assert result.exit_code == 2
    assert "allowed reports/data-worker, reports/writer; did you mean reports/writer?" in result.stderr


def test_a_name_that_two_agents_have(run: Run, folder: Path) -> None:
    (folder / "more.yaml").write_text(
        "apiVersion: fleetward.dev/v1alpha1\nkind: Agent\nmetadata: {name: writer, namespace: other}\n"
        "spec: {role: Worker}\n"
    )
    for command in ("agents", "pause", "resume"):
        result = run(command, "writer", "--dir", folder)
        assert result.exit_code == 2
        assert "reports/writer" in result.stderr
        assert "other/writer" in result.stderr
    assert run("pause", "other/writer", "--dir", folder).exit_code == 0


def test_what_is_broken_is_said_beside_what_is_good(run: Run, folder: Path) -> None:
    policy = folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("decision: Throttle", "decision: Slow"))
    result = run("agents", "--dir", folder)
    assert result.exit_code == 1
    assert "reports/writer" in result.stdout
    assert "spec.rules[2].decision" in result.stderr


def test_pause_edits_the_file_and_says_where(process: Process, folder: Path) -> None:
    agents = folder / "agents.yaml"
    agents.write_text("# who they are\n" + agents.read_text())
    before = agents.read_text()
    done = process("pause", "data-worker", "--dir", folder, "--reason", "ticket: 1", env={"LOGNAME": "ann"})
    assert (done.returncode, done.stderr) == (0, "")
    line = next(i for i, text in enumerate(agents.read_text().splitlines(), 1) if "operatingMode" in text)
    assert done.stdout == f"{agents}:{line}: Agent reports/data-worker is now Paused, it was Running\n"
    worker = json.loads(process("agents", "data-worker", "--dir", folder, "-o", "json").stdout)
    assert worker["mode"] == {
        "operatingMode": "Paused",
        "reason": "ticket: 1",
        "setBy": f"ann@{socket.gethostname()}",
        "source": "Agent reports/data-worker",
    }
    kept = [text for text in agents.read_text().splitlines() if text in before.splitlines()]
    assert [text for text in before.splitlines() if "metadata: {name: data-worker" not in text] == [
        text for text in kept if "metadata: {name: data-worker" not in text
    ]


def test_pause_twice_changes_nothing_the_second_time(run: Run, folder: Path) -> None:
    run("pause", "data-worker", "--dir", folder, "--reason", "one", "--by", "ann")
    before = (folder / "agents.yaml").read_bytes()
    result = run("pause", "data-worker", "--dir", folder, "--by", "ben")
    assert result.exit_code == 0
    assert "is Paused already; nothing changed" in result.stdout
    assert (folder / "agents.yaml").read_bytes() == before
    run("pause", "data-worker", "--dir", folder, "--reason", "two", "--by", "ben")
    worker = json.loads(run("agents", "data-worker", "--dir", folder, "-o", "json").stdout)
    assert (worker["mode"]["reason"], worker["mode"]["setBy"]) == ("two", "ben")


def test_resume_and_resume_again(run: Run, folder: Path) -> None:
    run("pause", "data-worker", "--dir", folder, "--reason", "one")
    result = run("resume", "data-worker", "--dir", folder, "--by", "ben")
    assert (result.exit_code, "is now Running, it was Paused" in result.stdout) == (0, True)
    text = (folder / "agents.yaml").read_text()
    assert "operatingReason" not in text
    again = run("resume", "data-worker", "--dir", folder)
    assert (again.exit_code, "is Running already; nothing changed" in again.stdout) == (0, True)
    assert (folder / "agents.yaml").read_text() == text


def test_resume_says_that_a_fleet_still_holds_the_agent(run: Run, folder: Path) -> None:
    run("pause", "data-worker", "--dir", folder)
    run("pause", "--fleet", "reporting", "--dir", folder, "--by", "ann", "--reason", "audit")
    result = run("resume", "data-worker", "--dir", folder)
    assert result.exit_code == 0
    assert "reports/data-worker is still Paused, set on AgentFleet reporting by ann: audit" in result.stdout
    data = json.loads(run("resume", "data-worker", "--dir", folder, "-o", "json").stdout)
    assert (data["changed"], data["operatingMode"]) == (False, "Running")
    assert data["agents"][0]["mode"]["operatingMode"] == "Paused"


def test_resuming_a_fleet_says_which_agents_are_still_paused(run: Run, folder: Path) -> None:
    run("pause", "data-worker", "--dir", folder, "--by", "ann")
    paused = run("pause", "--fleet", "reporting", "--dir", folder)
    assert "it has 2 agents: reports/data-worker, reports/writer" in paused.stdout
    result = run("resume", "--fleet", "reporting", "--dir", folder)
    assert "reports/data-worker is still Paused, set on Agent reports/data-worker by ann" in result.stdout
    assert "reports/writer is still" not in result.stdout


def test_pause_does_not_weaken_a_stronger_mode(run: Run, folder: Path) -> None:
    agents = folder / "agents.yaml"
    agents.write_text(agents.read_text().replace("role: Worker", "role: Worker\n  operatingMode: Quarantined"))
    result = run("pause", "data-worker", "--dir", folder)
    assert (result.exit_code, "is Quarantined already" in result.stdout) == (0, True)
    assert "operatingMode: Quarantined" in agents.read_text()


def test_pause_works_while_another_file_is_broken(run: Run, folder: Path) -> None:
    (folder / "policy.yaml").write_text("kind: [\n")
    result = run("pause", "data-worker", "--dir", folder)
    assert result.exit_code == 0
    assert "operatingMode: Paused" in (folder / "agents.yaml").read_text()
    assert "policy.yaml" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "found no Agent nobody, allowed reports/data-worker or reports/writer"),
        (["--fleet", "nobody"], "found no AgentFleet nobody, allowed reporting"),
        (["reporting"], "found no Agent reporting"),
        (["writer", "--by", " "], "--by is empty"),
        (["writer", "--reason", "x" * 1025], "at most 1024 characters"),
    ],
)
def test_what_cannot_be_paused(run: Run, folder: Path, arguments: list[str], words: str) -> None:
    before = (folder / "agents.yaml").read_bytes()
    result = run("pause", *arguments, "--dir", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert (folder / "agents.yaml").read_bytes() == before


def test_an_agent_with_mistakes_is_left_alone(run: Run, folder: Path) -> None:
    agents = folder / "agents.yaml"
    agents.write_text(agents.read_text().replace("role: Worker", "role: worker"))
    result = run("pause", "data-worker", "--dir", folder)
    assert result.exit_code == 2
    assert "repair it first" in result.stderr
    assert f"{agents}:5: spec.role" in result.stderr
