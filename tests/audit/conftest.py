"""Records and stores for the tests of the audit."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetward.audit.record import AccessRefusedRecord, DecisionRecord, ModeChangeRecord, OutcomeRecord, Record
from fleetward.audit.store import Store
from fleetward.decision.action import Facts, RecordedAction


def _record(writer: str = "aaaaaaaaaa", seq: int = 1, type_: str = "Decision", **changes: Any) -> Record:
    minute, second = divmod(seq, 60)
    head: dict[str, Any] = {
        "id": f"{writer}-{seq}",
        "writer": writer,
        "seq": seq,
        "time": f"2026-03-01T10:{minute % 60:02d}:{second:02d}.000000Z",
        "registry_version": "v1",
    }
    if type_ == "ModeChange":
        subject = {"subject": "AgentFleet reporting", "before": "Running", "after": "Paused"}
        return ModeChangeRecord(**head | subject | changes)
    if type_ == "AccessRefused":
        claim = {"workload": "reports/pod-x", "reason": "the token has expired", "peer": "10.0.0.7"}
        return AccessRefusedRecord(**head | claim | changes)
    head |= {"agent": "reports/data-worker", "decision": "Allow", "reason": "allowed by rule read"}
    if type_ == "Outcome":
        return OutcomeRecord(**head | {"decision_id": f"{writer}-{seq - 1}", "status": "Succeeded"} | changes)
    action = RecordedAction(kind="ToolCall", name="crm.customers.read", trusted=Facts(risk_tags=("pii",)))
    return DecisionRecord(**head | {"action": action} | changes)


@pytest.fixture(scope="session")
def make() -> Callable[..., Record]:
    """Make a record: `make(writer, seq, type, **fields)`."""
    return _record


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 512 KiB large, that may be filled."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mount)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    yield mount
    subprocess.run(["umount", mount], check=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An open, empty store."""
    with Store.open(tmp_path / "audit.db") as opened:
        yield opened
