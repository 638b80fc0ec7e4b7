"""What the status of a budget says: what is in force, how far its pots are used, and what that leads to."""

from datetime import UTC, datetime
from typing import Any

import pytest
from support.clusterview import Body, agent, resource
from support.reading import NOW, Reading

from fleetward.budget.report import LimitReport, PotReport

BUDGET = "AgentBudget/reports/day"
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
CALENDAR = {"kind": "Calendar", "unit": "Day"}
THRESHOLDS = [{"percent": 80, "action": "Event"}, {"percent": 95, "action": "Pause"}]


def budget(generation: int = 1, name: str = "day", **spec: Any) -> Body:
    whole = {"limits": {"costMicroUsd": 1000, "records": 10}, "window": CALENDAR, "thresholds": THRESHOLDS} | spec
    return resource("AgentBudget", name, whole, generation=generation)


def pot(spent: int, reserved: int = 0, *, scope: str = "", paused: str = "", **more: Any) -> PotReport:
    cost = LimitReport(
        limit="costMicroUsd", max=1000, spent=spent, reserved=reserved, remaining=1000 - spent - reserved, **more
    )
    limits = (cost, LimitReport(limit="records", max=10, spent=1, remaining=9))
    return PotReport(
        budget=BUDGET, scope=scope, window="day-x", began_at=0.0, resets_at=MIDNIGHT, limits=limits, paused=paused
    )


class Spending(Reading):
    """Statuses of the one budget, with what its pots hold."""

    def __init__(self, *bodies: Body) -> None:
        super().__init__(*bodies)
        self.pots: list[PotReport] = []
        self.computer._pots = lambda name: self.pots if name == BUDGET else []

    def read(self, previous: Body | None = None) -> Body:
        status = self.status("reports/day", previous, "AgentBudget")
        self.conditions = {c["type"]: c for c in status["conditions"]}
        return status

    def words(self, type_: str) -> tuple[str, str, str]:
        condition = self.conditions[type_]
        return condition["status"], condition["reason"], condition["message"]


def test_nothing_was_spent_yet() -> None:
    reading = Spending(budget(2), agent("a"), agent("b"))
    status = reading.read()
    assert reading.words("Ready") == ("True", "InForce", "limits 2 agents")
    assert set(reading.conditions) == {"Ready"}
    assert reading.state == "Current"
    assert (status["generationInForce"], status["agents"], status["pots"], status["paused"]) == (2, 2, 0, 0)
    assert status["hash"] == reading.view.registry.budgets[BUDGET].hash
    assert (status["used"], status["spent"]) == ("0%", "costMicroUsd 0 of 1000")
    assert (status["window"], status["resetsAt"]) == ("day-2026-03-01T00:00+00:00", "2026-03-02T00:00:00Z")
    assert [(each["limit"], each["remaining"]) for each in status["limits"]] == [
        ("costMicroUsd", 1000),
        ("records", 10),
    ]


def test_what_was_spent_of_a_shared_pot() -> None:
    reading = Spending(budget(), agent("a"))
    reading.pots = [pot(500, 200, leased=40, overshoot=3, empty_at=MIDNIGHT - 3595.5)]
    status = reading.read()
    assert set(reading.conditions) == {"Ready"}
    assert (status["used"], status["spent"], status["pots"]) == ("70%", "costMicroUsd 700 of 1000", 1)
    assert status["limits"][0] == {
        "limit": "costMicroUsd",
        "max": 1000,
        "spent": 500,
        "reserved": 200,
        "leased": 40,
        "remaining": 300,
        "overshoot": 3,
        "percent": 70,
        "emptyAt": "2026-03-01T23:00:00Z",
    }
    assert "topPots" not in status


def test_near_names_the_highest_threshold_passed() -> None:
    reading = Spending(budget(), agent("a"))
    reading.pots = [pot(799)]
    reading.read()
    assert "Near" not in reading.conditions
    reading.pots = [pot(700, 100)]
    first = reading.read()
    assert reading.words("Near") == ("True", "Event", "80% of costMicroUsd is used; from 80% on: Event")
    reading.clock = 60.0
    reading.pots = [pot(960)]
    reading.read(first)
    assert reading.words("Near") == ("True", "Pause", "96% of costMicroUsd is used; from 95% on: Pause")
    assert "Exhausted" not in reading.conditions
    assert reading.conditions["Near"]["lastTransitionTime"] == f"{NOW:%Y-%m-%dT%H:%M:%SZ}", "it was near all along"


@pytest.mark.parametrize("spent", [1000, 5000])
def test_no_room_is_told_with_when_it_begins_anew(spent: int) -> None:
    reading = Spending(budget(), agent("a"))
    reading.pots = [pot(spent)]
    status = reading.read()
    assert reading.words("Exhausted") == (
        "True",
        "NoRoom",
        f"costMicroUsd {spent} of 1000 are spent or reserved; it begins anew at 2026-03-02T00:00:00Z",
    )
    assert reading.words("Ready")[0] == "True", "it does what it is there for"
    assert reading.state == "Current"
    assert status["limits"][0]["remaining"] == 0


def test_a_pause_is_told() -> None:
    reading = Spending(budget(), agent("a"))
    reading.pots = [pot(950, paused="95% of costMicroUsd is used")]
    status = reading.read()
    assert status["paused"] == 1
    assert reading.words("Exhausted") == (
        "True",
        "Paused",
        "95% of costMicroUsd is used; it begins anew at 2026-03-02T00:00:00Z",
    )


def test_of_many_pots_those_used_most_are_told() -> None:
    reading = Spending(budget(scope="Agent"), agent("a"))
    assert "topPots" not in reading.read()
    reading.pots = [pot(10 * number, scope=f"reports/a{number:02}") for number in range(40)]
    reading.pots += [pot(1000, scope="reports/b"), pot(1001, scope="reports/c")]
    status = reading.read()
    assert status["pots"] == 42
    assert len(status["topPots"]) == 16
    assert [(each["scope"], each["percent"]) for each in status["topPots"][:3]] == [
        ("reports/b", 100),
        ("reports/c", 100),
        ("reports/a39", 39),
    ]
    assert status["topPots"][0]["resetsAt"] == "2026-03-02T00:00:00Z"
    assert "limits" not in status
    assert reading.words("Exhausted")[2].startswith("reports/b: costMicroUsd 1000 of 1000 are spent")
    assert reading.words("Exhausted")[2].endswith("; so it is with 1 other pot")


def test_one_that_is_part_of_what_is_not_there_is_stalled() -> None:
    reading = Spending(budget(parent={"kind": "AgentBudget", "name": "month"}), agent("a"))
    reading.read()
    words = "nothing may be spent from it: AgentBudget reports/month, which it is part of (spec.parent), is not there"
    assert reading.words("Ready") == ("False", "BrokenNesting", words)
    assert reading.state == "Failed"
    reading.view.see(budget(name="month"))
    assert ("AgentBudget", "reports/day") in reading.computer.follow().soon
    reading.read()
    assert reading.words("Ready")[1] == "InForce"


def test_one_of_nobody_says_so_and_follows_who_comes() -> None:
    reading = Spending(budget())
    reading.read()
    assert reading.words("Ready") == ("True", "NoAgents", "no agent is among its subjects")
    reading.view.see(agent("a"))
    assert ("AgentBudget", "reports/day") in reading.computer.follow().later
    assert reading.read()["agents"] == 1


def test_one_that_was_never_right_says_what_holds() -> None:
    reading = Spending(budget(limits={"records": 0}), agent("a"))
    status = reading.read()
    ready = reading.words("Ready")
    assert ready[:2] == ("False", "Invalid")
    assert "found 0 (a whole number), allowed at least 1. Meanwhile no generation of it was ever right" in ready[2]
    assert "its subjects, as far as they read, may do nothing" in ready[2]
    assert "generationInForce" not in status


def test_what_is_spent_is_looked_at_again_and_again() -> None:
    reading = Spending(budget(), agent("a"))
    reading.computer.follow()
    reading.clock = 10.0
    assert ("AgentBudget", "reports/day") in reading.computer.follow().later


def test_its_agents_wait_for_their_webhooks_to_take_in_a_changed_budget() -> None:
    reading = Spending(budget(), agent("a"))
    reading.computer.follow()
    reading.view.see(budget(2, limits={"records": 1}))
    dirty = reading.computer.follow()
    assert ("AgentBudget", "reports/day") in dirty.soon
    assert ("Agent", "reports/a") in dirty.later
