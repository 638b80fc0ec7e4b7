"""A hub that is killed at any point, many times: whatever it had answered is still counted, and no limit is passed."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run.world import key, mandate

from fleetward.run.calls import Opened, OpenRun
from fleetward.run.journal import RunStore

KILLS = 20
STEPS = 4_000


def lived(path: Path, run: str, seed: int) -> list[tuple[str, int]]:
    """Let a process count until it has said some lines, kill it, and give all it has said."""
    chance = random.Random(seed)  # noqa: S311 - it need not be hard to guess
    arguments = [sys.executable, str(Path(__file__).parent / "counting.py"), str(path), run, str(seed)]
    with (
        (path.parent / "errors").open("w+b") as errors,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(chance.randint(1, 600))]
            time.sleep(chance.random() / 200)  # anywhere between two lines, or within a commit
        finally:
            process.kill()
        said += process.stdout.readlines()
        errors.seek(0)
        assert errors.read() == b""
    return [tuple(json.loads(line)) for line in said if line.endswith(b"\n")]


@pytest.mark.slow
def test_killed_many_times(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with RunStore.open(path) as store, store.batch() as book:
        opened = book.open(OpenRun(key("a"), mandate(steps=STEPS, records=2 * STEPS)), time.time())
    assert isinstance(opened, Opened)
    said: list[tuple[str, int]] = []
    for life in range(KILLS):
        said += lived(path, opened.run, life)
        with RunStore.open(path) as store:
            run = store.book.ledger.runs[opened.run]
            known = run.reservations.items()
            numbers = {what: [seq for is_, seq in said if is_ == what] for what in ("taken", "kept", "given back")}
            assert len(set(numbers["taken"])) == len(numbers["taken"]), "a number was given twice"
            assert set(numbers["taken"]) <= set(known), "an answered reservation was forgotten"
            assert all(known[seq].settled is True and known[seq].ended for seq in numbers["kept"])
            assert all(known[seq].settled is False for seq in numbers["given back"])
            counted = [one for one in known.values() if one.settled is not False]
            assert run.account.used[0] == len(counted) <= STEPS
            assert run.account.used[2] == sum(one.amounts[2] for one in counted) <= 2 * STEPS
    assert len([what for what, _ in said if what == "taken"]) > 10 * KILLS
