"""Hubs killed at any point, many times, on both stores: what was answered is counted, and no limit is passed."""

import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from budget.pots import World, granted, need
from budget.spender import BUDGET, COST, MOST, TERMS
from support.postgres import a_server

from fleetward.budget.calls import Disown
from fleetward.budget.sql import LedgerStore
from fleetward.budget.store import LedgerError, open_ledger_store

KILLS = 6


@pytest.mark.slow
def test_killed_many_times(place: str, open_store: Callable[..., LedgerStore], tmp_path: Path) -> None:
    """Two processes spend from one budget at the same time, and are killed."""
    world = World(open_store(), TERMS)
    said: list[tuple[str, int]] = []
    for life in range(KILLS):
        with contextlib.ExitStack() as stack:
            lines = [stack.enter_context(Spender(place, f"w{life}{side}", tmp_path)) for side in "ab"]
            chance = random.Random(life)  # noqa: S311 - it need not be hard to guess
            for one in lines:
                one.read(chance.randint(1, 150))
            time.sleep(chance.random() / 200)  # anywhere between two lines, or within a commit
        for one in lines:
            said += one.said
        settled, reserved, leased = world.stands(COST, BUDGET)
        assert settled + reserved + leased <= MOST
        sums = {what: sum(size for is_, size in said if is_ == what) for what in ("granted", "reserved", "settled")}
        halves = sum(size // 2 for what, size in said if what == "settled")
        # What was said is counted; beside it, the one step that each killed process did not get to say.
        unsaid = 2 * 20 * (life + 1)
        assert halves <= settled <= halves + unsaid
        assert sums["reserved"] - sums["settled"] - unsaid <= reserved <= sums["reserved"] - sums["settled"] + unsaid
        assert settled + reserved + leased >= sums["granted"] - (sums["settled"] - halves) - unsaid
        assert not world.pot(BUDGET).overshoot
    for life in range(KILLS):
        for side in "ab":
            world.ledger.disown(Disown(born="none"), f"w{life}{side}", world.now)
    assert world.stands(COST, BUDGET)[2] == 0
    assert len(said) > 20 * KILLS


class Spender:
    """A process that spends, killed at the end of a `with` block."""

    def __init__(self, place: str, holder: str, directory: Path) -> None:
        self._errors = (directory / f"{holder}.errors").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "spender.py"), place, holder],
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.said: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self.read(None)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.seek(0)
        errors = self._errors.read()
        self._errors.close()
        assert errors == b"", errors.decode()

    def read(self, lines: int | None) -> None:
        """Read so many lines, or all that are left."""
        assert self._process.stdout is not None
        while lines is None or lines > 0:
            line = self._process.stdout.readline()
            if not line.endswith(b"\n"):
                return
            self.said.append(tuple(json.loads(line)))
            lines = None if lines is None else lines - 1


@pytest.mark.slow
def test_a_database_that_is_killed() -> None:
    """A server that dies in the middle forgets nothing that was committed; the hub goes on when it is back."""
    with a_server() as server:
        world = World(open_ledger_store(server.new_schema()), TERMS)
        holder = world.holder()
        a_need = need(7, COST, BUDGET)
        taken = 0
        for _ in range(3):
            for _ in range(20):
                granted(holder.ask(a_need))
                taken += 7
            server.kill()
            with pytest.raises(LedgerError, match="PostgreSQL"):
                holder.ask(a_need)
            server.start()
            holder.ask(a_need)
            taken += 7
            assert world.stands(COST, BUDGET) == (0, 0, taken)
        world.store.close()
