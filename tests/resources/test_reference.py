"""The resource reference: generated, complete, and true in what it shows."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetward.decision.glob import glob_index
from fleetward.decision.lint import check_resource
from fleetward.resources import KINDS
from fleetward.resources.base import LabelSelector, Model, Resource
from fleetward.resources.examples import EXAMPLES
from fleetward.resources.manifest import parse_document, read_documents
from fleetward.resources.reference import GLOBS, main, render

DOCS = Path(__file__).parents[2] / "docs"
TEXT = render()


def examples(kind: str) -> list[Resource]:
    parsed = [parse_document(document) for document in read_documents(f"{kind}.yaml", EXAMPLES[kind])]
    assert all(isinstance(each, Resource) for each in parsed), parsed
    return [each for each in parsed if isinstance(each, Resource)]


def models(of: type[Model]) -> set[type[Model]]:
    """The model and all the models it is made of."""
    found = {of}
    for field in of.model_fields.values():
        for part in re.findall(r"fleetward\.resources\.(\w+)\.(\w+)", repr(field.annotation)):
            model = getattr(sys.modules[f"fleetward.resources.{part[0]}"], part[1])
            found |= models(model) if issubclass(model, Model) else set()
    return found


EVERY_MODEL: set[type[Model]] = set().union(*(models(kind) for kind in KINDS.values()))
PARTS = EVERY_MODEL - set(KINDS.values())
STATUSES: set[type[Model]] = set().union(*(models(kind.STATUS) for kind in KINDS.values()))


def test_the_command_writes_what_is_committed(tmp_path: Path) -> None:
    file = tmp_path / "new" / "reference.md"
    command = [sys.executable, "-m", "fleetward.resources.reference", str(file)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "1"}, timeout=60)
    assert file.read_text() == (DOCS / "reference.md").read_text()


def test_check_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "reference.md"
    assert main([str(file), "--check"]) == 1
    assert capsys.readouterr().err == f"{file}: is missing; run `make docs`\n"
    assert main([str(file)]) == 0
    assert main([str(file), "--check"]) == 0
    file.write_text(file.read_text() + "\n")
    assert main([str(file), "--check"]) == 1
    assert capsys.readouterr().err == f"{file}: differs from the models; run `make docs`\n"


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_faultless(kind: str) -> None:
    assert f"```yaml\n{EXAMPLES[kind]}```" in TEXT
    for example in examples(kind):
        assert isinstance(example, KINDS[kind])
        assert check_resource(example) == []


def test_examples_use_every_field() -> None:
    used: dict[type[Model], set[str]] = defaultdict(set)

    def look(value: Any) -> None:
        if isinstance(value, Model):
            used[type(value)] |= value.model_fields_set
            look([getattr(value, name) for name in value.model_fields_set])
        elif isinstance(value, list):
            for item in value:
                look(item)

    for kind in KINDS:
        look(examples(kind))
    assert {model.__name__: model.model_fields.keys() - used[model] for model in EVERY_MODEL} == {
        model.__name__: set() for model in EVERY_MODEL
    }


def rows(text: str = TEXT) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("model", sorted(PARTS, key=str))
def test_every_field_has_its_row(model: type[Model]) -> None:
    for name, field in model.model_fields.items():
        alias = field.alias or name
        meaning = " ".join((field.description or "").split())
        found = [row for row in rows() if row[0].strip("`").rpartition(".")[2] == alias and row[-1] == meaning]
        assert found, f"{model.__name__}.{alias}"
        for _, kind, default, _, _ in found:
            assert kind
            if field.is_required():
                assert default == "*required*"
            elif isinstance(field.default, str | int) and field.default != "":
                assert default == f"`{field.default}`"
            else:
                assert default == ""


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_status_has_its_row_apart_from_the_spec(kind: str) -> None:
    told = TEXT.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    spec, _, status = told.partition("\nWritten by Fleetward:\n")
    assert all(row[0].startswith("`spec") for row in rows(spec))
    assert all(row[0].startswith("`status") for row in rows(status))
    for name, field in KINDS[kind].STATUS.model_fields.items():
        meaning = " ".join((field.description or "").split())
        assert [row for row in rows(status) if row[0] == f"`status.{field.alias or name}`" and row[-1] == meaning]


@pytest.mark.parametrize("model", sorted(STATUSES, key=str))
def test_every_field_of_every_part_of_a_status_has_a_row(model: type[Model]) -> None:
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split())
        found = [row for row in rows() if row[0].strip("`").rpartition(".")[2] == (field.alias or name)]
        assert meaning in [row[-1] for row in found if len(row) == 4], f"{model.__name__}.{name}"


def test_every_refusal_is_told() -> None:
    for model in PARTS:
        for check in model.VALIDATIONS:
            assert f"{check.message}\n" in TEXT
    assert "two items have the same name" in TEXT


def test_tables_are_whole_and_links_lead_somewhere() -> None:
    assert all(len(row) in (3, 4, 5) and row[1] for row in rows())
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in TEXT.splitlines() if line.startswith("#")}
    for link in re.findall(r"\]\(([^)]*)\)", TEXT):
        assert link[1:] in headings if link.startswith("#") else (DOCS / link).exists(), link


@pytest.mark.parametrize(("glob", "matching", "others"), GLOBS)
def test_globs_match_as_told(glob: str, matching: tuple[str, ...], others: tuple[str, ...]) -> None:
    index = glob_index([glob])
    assert all(index.find(name) for name in matching)
    assert not any(index.find(name) for name in others)


def test_the_selector_shown_is_one() -> None:
    shown = TEXT.partition("## Selectors")[2].partition("```yaml\n")[2].partition("```")[0]
    LabelSelector.model_validate(yaml.safe_load(shown))
