"""How `fleetward audit` shows who was not let in."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from fleetward.audit.record import AccessRefusedRecord, encode
from fleetward.audit.store import Store

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two refusals."""
    folder = tmp_path / "policies" / ".fleetward"
    head: dict[str, Any] = {"writer": "aaaa", "time": "2026-03-01T10:00:00.000000Z", "registry_version": "v7"}
    with Store.open(folder / "audit.db") as store:
        store.append(
            [
                encode(
                    AccessRefusedRecord(
                        **head,
                        id="aaaa-1",
                        seq=1,
                        workload="reports/pod-\x1b[31mx",
                        reason="the token has expired",
                        peer="10.0.0.7",
                        repeated=41,
                        unrecorded=3,
                    )
                ),
                encode(AccessRefusedRecord(**head, id="aaaa-2", seq=2, workload="reports/pod-y", reason="no token")),
            ]
        )
    return folder


def test_in_a_list(run: Run, data: Path) -> None:
    result = run("audit", "list", "--data", data, "--type", "AccessRefused")
    assert result.exit_code == 0, result.output
    rows = [re.split(r"  +", line)[1:] for line in result.stdout.splitlines()[1:]]
    assert rows[1] == ["-", "stream of reports/pod-y", "Refused", "-", "-", "aaaa-2"]
    assert rows[0][2] == "Refused"
    assert "\x1b" not in result.stdout
    assert run("audit", "list", "--data", data, "--type", "Decision").stdout.count("aaaa-") == 0


def test_as_json(run: Run, data: Path) -> None:
    result = run("audit", "list", "--data", data, "-o", "json")
    assert [(each["type"], each["workload"]) for each in json.loads(result.stdout)][1] == (
        "AccessRefused",
        "reports/pod-y",
    )


def test_one_with_all_that_is_known(run: Run, data: Path) -> None:
    shown = run("audit", "show", "aaaa-1", "--data", data).stdout
    for words in ("Refused", "the token has expired", "10.0.0.7", "41 more", "registry v7"):
        assert words in shown
    assert "\x1b" not in shown
    assert re.search(r"not recorded one by one\s+3", shown)
    shown = run("audit", "show", "aaaa-2", "--data", data).stdout
    assert re.search(r"asked from\s+not known", shown)
    assert "more" not in shown
