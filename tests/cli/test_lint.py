import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]

BROKEN = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: broken, namespace: reports}
spec:
  rules:
  - name: misspelt
    match: {}
    when: action.estimat.records > 3
    decision: Deny
"""


def test_a_faultless_folder(process: Process, folder: Path) -> None:
    done = process("policy", "lint", folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "4 resources and 1 policy test in 3 files, no findings\n"


def test_findings_have_file_line_field_and_an_exit_code(process: Process, folder: Path) -> None:
    file = folder / "broken.yaml"
    file.write_text(BROKEN.replace("decision: Deny", "decision: deny"))
    done = process("policy", "lint", folder)
    assert done.returncode == 1
    assert done.stdout.startswith(f'{file}:9: spec.rules[0].decision: found "deny", allowed Allow, ')
    assert done.stderr == "5 resources and 1 policy test in 4 files, 1 finding\n"


def test_an_expression_is_shown_with_a_caret(run: Run, folder: Path) -> None:
    (folder / "broken.yaml").write_text(BROKEN)
    result = run("policy", "lint", folder)
    assert result.exit_code == 1
    first, *more = result.stdout.splitlines()
    assert first.startswith(f"{folder}/broken.yaml:8: spec.rules[0].when: ")
    assert any("^" in line for line in more)


def test_a_name_that_refers_to_nothing(run: Run, folder: Path) -> None:
    (folder / "broken.yaml").write_text(
        BROKEN.replace("match: {}", "match: {fleets: [repotring]}").replace("estimat.", "estimate.")
    )
    result = run("policy", "lint", folder)
    assert result.exit_code == 1
    assert "broken.yaml:7: spec.rules[0].match.fleets[0]: found repotring" in result.stdout
    assert "reporting" in result.stdout


def test_references_to_a_broken_resource_are_not_told_as_missing(run: Run, folder: Path) -> None:
    agents = folder / "agents.yaml"
    agents.write_text(agents.read_text().replace("role: Worker", "role: worker"))
    (folder / "more.yaml").write_text(
        BROKEN.replace("match: {}", "match: {agents: [data-worker]}").replace("estimat.", "estimate.")
    )
    result = run("policy", "lint", folder, "-o", "json")
    assert [finding["field"] for finding in json.loads(result.stdout)["findings"]] == ["spec.role"]


def test_json(run: Run, folder: Path) -> None:
    (folder / "broken.yaml").write_text(BROKEN.replace("name: misspelt", "name: Misspelt"))
    result = run("policy", "lint", folder, "-o", "json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert (data["resources"], data["policyTests"], data["files"]) == (5, 1, 4)
    [finding] = data["findings"]
    assert finding["line"] == 6
    assert finding["field"] == "spec.rules[0].name"
    assert finding["resource"] == "AgentPolicy reports/broken"


def test_mistakes_in_policy_tests_are_findings(run: Run, folder: Path) -> None:
    tests = folder / "tests.yaml"
    tests.write_text(tests.read_text().replace("decision: Allow, rule: read", "decision: Alow, rule: read"))
    result = run("policy", "lint", folder)
    assert result.exit_code == 1
    assert f"{tests}:7: cases[0].expect.decision: " in result.stdout


def test_a_folder_that_is_not_there(process: Process, tmp_path: Path) -> None:
    done = process("policy", "lint", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere does not exist" in done.stderr


def test_a_folder_without_resources_is_no_success(run: Run, tmp_path: Path) -> None:
    result = run("policy", "lint", tmp_path)
    assert result.exit_code == 1
    assert "found no resource" in result.stdout


def on_a_terminal(*args: str | Path, **env: str) -> str:
    """Run the command with its output on a pseudo-terminal, and give what a screen would get."""
    leader, follower = pty.openpty()
    command = [str(Path(sys.executable).with_name("fleetward")), *map(str, args)]
    variables = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm-256color"}
    try:
        process = subprocess.Popen(command, stdout=follower, stderr=follower, env={**variables, **env})
        try:
            os.close(follower)
            screen = b""
            while True:
                try:
                    data = os.read(leader, 4096)
                except OSError:  # the other end is closed: the command has ended
                    break
                if not data:
                    break
                screen += data
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(leader)
    return screen.decode()


def test_a_terminal_gets_colour_and_the_line_of_the_file(folder: Path) -> None:
    (folder / "broken.yaml").write_text(BROKEN)
    screen = on_a_terminal("policy", "lint", folder)
    assert "\x1b[" in screen
    assert "8 |     when: action.estimat.records > 3" in screen


def test_no_color_is_respected(folder: Path) -> None:
    (folder / "broken.yaml").write_text(BROKEN)
    screen = on_a_terminal("policy", "lint", folder, NO_COLOR="1")
    assert "\x1b" not in screen
    assert "8 |     when: action.estimat.records > 3" in screen


def test_what_a_terminal_would_obey_is_written_out(process: Process, folder: Path) -> None:
    (folder / "broken.yaml").write_text(BROKEN.replace("action.estimat.records > 3", "\"action.name == '\\e[31m' +\""))
    done = process("policy", "lint", folder)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
