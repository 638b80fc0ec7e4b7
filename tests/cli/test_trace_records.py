"""`fleetward audit` on what belongs to runs: their opening and end, plans, delegations, and what goes too far."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from support.runs import RUN, TRACEPARENT, decision, opening, rule, story

from fleetward.audit.record import encode
from fleetward.audit.store import Store
from fleetward.decision.action import PlannedStep

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "audit.db") as store:
        store.append([encode(record) for record in story()])
        step = PlannedStep(
            id="send", agent="reports/mailer", kind="Message", name="mail.send", depends_on=("read", "ask")
        )
        store.append([encode(decision(12, "Plan", "letter", plan=(step,), rules=(rule("plans"),)))])
        store.append([encode(opening(13, run="run-2", mandate=None))])
    return tmp_path


def test_runs_are_listed(run: Run, data: Path) -> None:
    shown = run("audit", "list", "--type", "run", "--data", data).stdout
    rows = [re.split(r"  +", line) for line in shown.splitlines()]
    assert [row[1:] for row in rows[1:]] == [
        ["reports/coordinator", "run for kim@example.com", "Opened", "-", RUN, "aaaa-1"],
        ["reports/coordinator", "run for kim@example.com", "Closed", "-", RUN, "aaaa-11"],
        ["reports/coordinator", "run", "Opened", "-", "run-2", "aaaa-13"],
    ]
    ids = [line.split()[-1] for line in run("audit", "list", "--run", RUN, "--data", data).stdout.splitlines()[1:]]
    assert ids == [f"aaaa-{seq}" for seq in range(1, 13)]


def test_an_opening(run: Run, data: Path) -> None:
    assert run("audit", "show", "aaaa-1", "--data", data).stdout == (
        f"""Opened  run run-1  opened by reports/coordinator  (aaaa-1)
  when
    2026-03-01T10:00:01.000000Z
  mandate
    for kim@example.com: Write to the customers of the north
    data classes customer
    targets crm, mail.outside
    at most 40 steps, 3 agents, 2 levels of delegation, 500 records
    ends by itself after 1 day
  belongs to
    trace {TRACEPARENT}
  decided from
    registry v7
"""
    )


def test_a_delegation(run: Run, data: Path) -> None:
    shown = run("audit", "show", "aaaa-6", "--data", data).stdout
    assert (
        """  hands over
    to reports/mailer, by grant g-2
    actions crm.**
    data classes customer
    may be handed on once
    at most 100 records
    labels web
  handed down by
    reports/coordinator
  belongs to
    run run-1
    grant g-1
    cause aaaa-3
    parent aaaa-4
"""
        in shown
    )


def test_a_plan_and_what_goes_too_far(run: Run, data: Path) -> None:
    plan = run("audit", "show", "aaaa-12", "--data", data).stdout
    assert "  steps of the plan\n    send: reports/mailer  Message mail.send, after read, ask\n" in plan
    denied = run("audit", "show", "aaaa-8", "--data", data).stdout
    assert "  goes too far\n    records: found 507, allowed 500 (mandate)\n" in denied
