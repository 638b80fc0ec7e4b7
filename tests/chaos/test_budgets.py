"""No budget is overspent while everything is killed at random: the short form of `make chaos-budget`."""

from typing import Any

import pytest
from chaos.budgets import run
from chaos.schedule import schedule
from chaos.tally import densest
from support.postgres import Postgres, postgres

__all__ = ["postgres"]

SECONDS = 25.0


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("chaos")
def test_budgets_hold_while_one_hub_and_webhooks_are_killed() -> None:
    print(run(seed=12, seconds=SECONDS))  # noqa: T201


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("chaos")
def test_budgets_hold_while_replicated_hubs_and_their_database_are_killed(postgres: Postgres) -> None:
    print(run(seed=11, seconds=SECONDS, postgres=postgres))  # noqa: T201


@pytest.mark.parametrize("replicated", [False, True])
def test_faults_follow_from_the_seed_alone(*, replicated: bool) -> None:
    def faults(seed: int) -> Any:
        return schedule(seed, 60, postgres=replicated)

    assert faults(7) == faults(7) != faults(8)
    assert ("kill postgres" in {fault.kind for fault in schedule(7, 600, postgres=True)}) is True
    assert {fault.target for fault in schedule(7, 600, postgres=replicated) if fault.kind == "kill hub"} == (
        {0, 1} if replicated else {0}
    )


def test_the_densest_stretch_counts_what_was_asked_and_answered_within_it() -> None:
    times = [(0.0, 0.1, 5), (0.2, 9.0, 7), (0.3, 0.4, 1), (1.2, 1.3, 2)]
    assert densest(times, 0.5)[0] == 6
    assert densest(times, 1.3)[0] == 8
    assert densest(times, 9.0)[0] == 15
