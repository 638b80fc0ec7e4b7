"""The examples of the 14 failure modes, told against a folder that `fleetward serve` serves."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.serving import Serve, replace
from support.waiting import until

from fleetward.cli.folder import open_folder

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "mast"
PAGE = ROOT / "docs" / "mast.md"
MODES = {
    "1.1": "Disobey task specification",
    "1.2": "Disobey role specification",
    "1.3": "Step repetition",
    "1.4": "Loss of conversation history",
    "1.5": "Unaware of termination conditions",
    "2.1": "Conversation reset",
    "2.2": "Fail to ask for clarification",
    "2.3": "Task derailment",
    "2.4": "Information withholding",
    "2.5": "Ignored other agent's input",
    "2.6": "Reasoning-action mismatch",
    "3.1": "Premature termination",
    "3.2": "No or incomplete verification",
    "3.3": "Incorrect verification",
}
FILES = {file.name.partition("-")[0]: file.name for file in sorted(FOLDER.glob("*.yaml"))}
BY_MANDATE_OR_GRANT = ("1.1", "1.5", "2.3", "2.6")


def rules_of(mode: str) -> list[str]:
    """Give the rules of an example, save the one that allows everything."""
    documents = yaml.safe_load_all((FOLDER / FILES[mode]).read_text())
    found = [rule["name"] for each in documents for rule in each["spec"].get("rules", ())]
    return [name for name in found if name != "anything"]


RULES = [(mode, rule) for mode in FILES for rule in rules_of(mode)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("mast") / "folder"
    shutil.copytree(FOLDER, folder)
    server = Serve(folder, "--port", "0", "--webhooks", "1")
    try:
        yield server.until_ready()
    finally:
        server.stop()


def tell(served: Serve, *modes: str) -> subprocess.CompletedProcess[str]:
    """Tell stories as their page says."""
    command = [sys.executable, "-m", "examples.mast.stories", served.ready["webhooks"][0]["address"], *modes]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def version(served: Serve) -> str:
    return str(served.decide("mast-1-1/lead", "manual.read")[1]["registryVersion"])


def without(document: Any, rule: str) -> Any:
    """Give the document without one rule; one that has no other left gets one that never counts."""
    rules = [each for each in document["spec"].get("rules", ()) if each["name"] != rule]
    never = {"name": "never", "match": {"names": ["never"]}, "decision": "Deny"}
    return {**document, "spec": {**document["spec"], "rules": rules or [never]}}


def edited(served: Serve, file: Path, text: str) -> None:
    """Change a file, and wait until the webhook decides by it."""
    before = version(served)
    replace(file, file.read_text(), text)
    until(lambda: version(served) != before, f"the change of {file.name} counts")


def test_there_is_one_for_each_failure_mode() -> None:
    slugs = {mode: f"{mode}-{name.lower().replace(' ', '-').replace(chr(39), '')}.yaml" for mode, name in MODES.items()}
    assert {mode: name.replace("agents-", "agents-") for mode, name in FILES.items()} == slugs
    assert open_folder(FOLDER).findings == ()


def test_all_stories_come_out_as_told(served: Serve) -> None:
    told = tell(served)
    assert (told.returncode, told.stderr) == (0, ""), told.stdout
    assert [line for line in told.stdout.splitlines() if line[0].isdigit()] == [
        f"{mode} {name}." for mode, name in MODES.items()
    ]


@pytest.mark.parametrize("mode", MODES)
def test_each_story_refuses_something_and_shows_what_it_cannot_see(served: Serve, mode: str) -> None:
    told = tell(served, mode)
    assert told.returncode == 0, told.stdout
    assert re.search(r"-> (Deny|RequireApproval|Throttle): ", told.stdout)
    assert "nobody here can see" in told.stdout


@pytest.mark.parametrize(("mode", "rule"), RULES)
def test_a_story_misses_a_rule_that_is_taken_out(served: Serve, mode: str, rule: str) -> None:
    file = served.folder / FILES[mode]
    text = file.read_text()
    edited(
        served,
        file,
        yaml.safe_dump_all(
            [without(each, rule) if "rules" in each["spec"] else each for each in yaml.safe_load_all(text)]
        ),
    )
    try:
        told = tell(served, mode)
    finally:
        edited(served, file, text)
    assert (told.returncode, told.stderr) == (1, "")
    assert "NOT AS TOLD" in told.stdout


@pytest.mark.parametrize("mode", BY_MANDATE_OR_GRANT)
def test_a_story_misses_mandate_and_grant(served: Serve, mode: str) -> None:
    told = tell(served, mode, "--loose")
    if mode == "2.6":  # the catalog refuses before the grant does: see below
        assert "notes.delete -> Allow" in told.stdout
    assert (told.returncode, told.stderr) == (1, "")
    assert "NOT AS TOLD" in told.stdout


def test_a_story_misses_the_target_in_the_catalog(served: Serve) -> None:
    file = served.folder / FILES["2.6"]
    text = file.read_text()
    edited(served, file, text.replace('  - {names: ["deploy.production"], target: production}\n', ""))
    try:
        told = tell(served, "2.6")
    finally:
        edited(served, file, text)
    assert told.returncode == 1
    assert "found Allow" in told.stdout


def test_every_example_depends_on_something_that_is_taken_out_here() -> None:
    assert {mode for mode, _ in RULES} | set(BY_MANDATE_OR_GRANT) == set(MODES)


def test_the_page_has_a_section_for_each() -> None:
    text = PAGE.read_text()
    sections = dict(re.findall(r"^### (\d\.\d) (.+)$", text, re.MULTILINE))
    assert sections == MODES
    bodies = dict(zip(sections, re.split(r"^### .+$", text, flags=re.MULTILINE)[1:], strict=True))
    for mode, body in bodies.items():
        assert FILES[mode] in body, mode
        assert "Not seen:" in body, mode
        assert all(f"`{rule}`" in body for rule in rules_of(mode)), mode
