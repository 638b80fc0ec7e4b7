"""The page on policy tests says what the commands do."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
from click.testing import Result

from fleetward.cli.policy.testfile import Expectation
from fleetward.cli.supposed import FIELDS, SupposedPlan, SupposedRun

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "policy-tests.md").read_text()
Run = Callable[..., Result]


def test_the_cases_shown_pass(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(ROOT / "examples" / "accountability-chain", folder)
    for found in folder.rglob("*test*.yaml"):
        found.unlink()
    shown = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    (folder / "shown.yaml").write_text(shown[1])
    result = run("policy", "test", folder)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert "4 cases, none failed" in result.stdout


def test_the_decision_shown_is_what_is_printed(run: Run) -> None:
    asked = re.search(r"echo '(.*?)'", PAGE)
    assert asked is not None
    example = ROOT / "examples" / "accountability-chain"
    result = run("decide", "--dir", example, "-f", "-", "--path", "care/desk", stdin=asked[1])
    assert json.loads(asked[1])
    assert "".join(f"    {line}\n" for line in result.stdout.splitlines()) in PAGE


def test_every_field_is_named() -> None:
    names = [*FIELDS, *(field.alias or name for name, field in Expectation.model_fields.items())]
    for shape in (SupposedRun, SupposedPlan):
        names += [field.encode_name for field in msgspec.structs.fields(shape)]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
