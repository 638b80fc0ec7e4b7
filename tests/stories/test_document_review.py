"""Forty subtasks, each in scope alone, together out of the mandate: stopped at plan time, or in flight."""

from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import pytest
from stories.world import Agents, Answer, World, at_once, copied, serving
from support.serving import replace
from support.waiting import until

LEAD, PLANNER = "review/lead", "review/planner"
READERS = [f"review/reader-{number:02}" for number in range(1, 41)]
READ = "documents.contracts.read"
EACH = 100
"""Records that one reading is expected to read, says the catalog."""
WEBHOOKS = 10
"""Decision webhooks the readers are dealt out to; `fleetward serve` alone would start one for each."""


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = copied("document-review", tmp_path_factory.mktemp("review"))
    with serving(folder, "--webhooks", str(WEBHOOKS)) as world:
        yield world


@pytest.fixture
def readers() -> list[str]:
    """Those of the readers that do the work."""
    return READERS


def subtasks(name: str = READ) -> list[Answer]:
    return [
        {"id": f"read-{number:02}", "agent": reader, "action": {"kind": "ToolCall", "name": name}}
        for number, reader in enumerate(READERS, start=1)
    ]


def planned(world: Agents, steps: list[Answer], **mandate: Any) -> Answer:
    """Have the planner ask about a plan, under a grant of the lead's."""
    run = world.open(LEAD, **mandate)
    return world.plan(PLANNER, run, steps, grant=world.give(LEAD, PLANNER, run))


def test_at_plan_time_the_total_is_named(review: Agents) -> None:
    mandate = {"dataClasses": ["contract"], "targets": ["archive"], "limits": {"records": 3000}}
    assert planned(review, subtasks()[:30], **mandate)["decision"] == "Allow"
    answer = planned(review, subtasks(), **mandate)
    assert answer["decision"] == "Deny"
    assert answer["violations"] == [{"total": "records", "found": "4000", "allowed": "3000", "by": "mandate"}]
    assert answer["reason"] == "the plan goes too far at records in all: found 4000; allowed: 3000, by mandate"
    (record,) = review.recorded(answer)
    assert (record["decision"], record["violations"]) == ("Deny", answer["violations"])
    assert len(record["plan"]) == 40


def test_at_plan_time_the_steps_out_of_scope_are_named(review: Agents) -> None:
    steps = subtasks()
    steps[16]["action"]["name"] = "documents.salaries.read"
    answer = planned(review, steps, dataClasses=["contract"])
    assert answer["violations"] == [
        {"step": "read-17", "found": "dataClasses salary", "allowed": "contract", "by": "mandate"}
    ]
    assert "step read-17" in answer["reason"]


def test_at_plan_time_a_rule_sees_what_all_steps_touch_together(review: Agents) -> None:
    """Contracts alone, and salaries alone, are within the mandate; both together are not what the rule allows."""
    salaries = subtasks("documents.salaries.read")
    mandate = {"dataClasses": ["contract", "salary"]}
    assert planned(review, subtasks(), **mandate)["decision"] == "Allow"
    assert planned(review, salaries, **mandate)["decision"] == "Allow"
    answer = planned(review, [*subtasks()[:20], *salaries[20:]], **mandate)
    assert (answer["decision"], answer["rules"][0]["rule"]) == ("Deny", "not-contracts-with-salaries")


def test_a_plan_without_a_mandate_to_hand_on_is_stopped(review: Agents) -> None:
    run = review.open(LEAD, limits={"depth": 1})
    answer = review.plan(PLANNER, run, subtasks(), grant=review.give(LEAD, PLANNER, run))
    of_mandate, of_grant = answer["violations"]
    assert of_mandate == {"total": "depth", "found": "2", "allowed": "1", "by": "mandate"}
    assert (of_grant["total"], of_grant["allowed"], of_grant["by"][:8]) == ("depth", "0", "grant g-")


def test_a_plan_costs_nothing_and_the_same_plan_can_be_carried_out(review: World) -> None:
    run = review.open(LEAD, limits={"steps": 4, "records": 300})
    for _ in range(3):
        assert review.plan(LEAD, run, subtasks()[:3])["decision"] == "Allow"
    grant = review.give(LEAD, READERS[0], run)
    assert [review.act(READERS[0], READ, run, grant)["decision"] for _ in range(4)] == ["Allow"] * 3 + ["Deny"]
    assert review.plan(LEAD, run, subtasks()[:1])["decision"] == "Deny", "what the run has used counts"


def test_in_flight_the_step_that_crosses_the_line_is_stopped(review: Agents, readers: list[str]) -> None:
    run, grants = handed_out(review, {"records": 3000}, readers)
    answers = [review.act(reader, READ, run, grants[reader]) for reader in islice(cycle(readers), 40)]
    assert [answer["decision"] for answer in answers] == ["Allow"] * 30 + ["Deny"] * 10
    for answer in answers[30:]:
        assert answer["violations"] == [{"total": "records", "found": "3100", "allowed": "3000", "by": "mandate"}]
    assert review.recorded(answers[30])[0]["violations"] == answers[30]["violations"]


@pytest.mark.parametrize("limit", ["records", "steps"])
def test_in_flight_all_at_the_same_instant_never_get_one_step_more(
    review: Agents, readers: list[str], limit: str
) -> None:
    """Delegations are steps, too, so both limits leave thirty readings."""
    run, grants = handed_out(review, {"records": 3000} if limit == "records" else {"steps": len(readers) + 30}, readers)

    def insist(reader: str) -> list[str]:
        body = {"agent": reader, "run": run, "grant": grants[reader], "action": {"kind": "ToolCall", "name": READ}}
        with review.line(reader) as line:
            return [line.ask("/v1/decisions", body)["decision"] for _ in range(120 // len(readers))]

    found = Counter(decision for each in at_once(insist, readers) for decision in each)
    assert found == {"Allow": 30, "Deny": 90}
    on_record = Counter(record["decision"] for record in review.records(run, len(readers) + 121) if "action" in record)
    assert on_record == {"Allow": len(readers) + 30, "Deny": 90}


def test_declaring_less_does_not_help_and_what_is_denied_costs_nothing(review: World) -> None:
    run, grants = handed_out(review, {"records": 200}, READERS[:1])
    reader, (grant,) = READERS[0], grants.values()
    assert review.act(reader, "documents.contracts.burn", run, grant)["decision"] == "Deny"
    answers = [review.act(reader, READ, run, grant, estimate={"records": 1}) for _ in range(3)]
    assert [answer["decision"] for answer in answers] == ["Allow", "Allow", "Deny"]


def test_reporting_less_than_was_read_gives_nothing_back_and_reporting_more_counts(review: World) -> None:
    run, grants = handed_out(review, {"records": 300}, READERS[:1])
    reader, (grant,) = READERS[0], grants.values()
    review.ended(reader, review.act(reader, READ, run, grant), actual={"records": 0})
    review.ended(reader, review.act(reader, READ, run, grant), actual={"records": 101})
    assert review.act(reader, READ, run, grant)["violations"][0]["found"] == "301"


def test_a_fleet_may_believe_what_its_agents_report(review: World) -> None:
    agents, plain = review.server.folder / "agents.yaml", "spec:\n  agents: {agentSelector"

    def given_back() -> bool:
        run, grants = handed_out(review, {"records": 100}, READERS[:1])
        reader, (grant,) = READERS[0], grants.values()
        review.ended(reader, review.act(reader, READ, run, grant), actual={"records": 0})
        return bool(review.act(reader, READ, run, grant)["decision"] == "Allow")

    assert not given_back()
    replace(agents, plain, f"spec:\n  declaredFacts: Trusted\n{plain.removeprefix('spec:')[1:]}")
    try:
        until(given_back, "the agents are believed")
    finally:
        replace(agents, "  declaredFacts: Trusted\n", "")
        until(lambda: not given_back(), "they are believed no more")


def test_a_share_holds_for_all_below_it(review: World) -> None:
    run = review.open(LEAD, limits={"records": 3000})
    share = review.give(LEAD, PLANNER, run, scope={"limits": {"records": 200}})
    decisions = []
    for reader in READERS[:3]:
        grant = review.give(PLANNER, reader, run, grant=share)
        decisions.append(review.act(reader, READ, run, grant))
    assert [answer["decision"] for answer in decisions] == ["Allow", "Allow", "Deny"]
    assert decisions[2]["violations"][0]["by"].startswith("grant g-")


def handed_out(world: Agents, limits: dict[str, int], readers: list[str] = READERS) -> tuple[str, dict[str, str]]:
    """Open a run and hand work to each reader: the run, and the grants."""
    run = world.open(LEAD, dataClasses=["contract"], targets=["archive"], limits=limits)
    return run, {reader: world.give(LEAD, reader, run, scope={"depth": 0}) for reader in readers}
