"""Budgets on a cluster: pods on two replicas under them, replicas killed, a ledger in a file and in PostgreSQL."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from support.clusterbudgets import ALPHA, BETA, NS, PLACES, Said, Spenders, allowed, manifest, spenders
from support.controlplane.errors import KubectlError
from support.postgres import Postgres, postgres
from support.rights import asked
from support.spine import WITHIN, resource
from support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("cluster")]

__all__ = ["postgres"]

ONCE = {"window": {"kind": "Total"}}
"""No window that could end in the middle of a test."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spenders]:
    with spenders(tmp_path_factory.mktemp("budgets")) as running:
        yield running


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in status.get("conditions") or ()}


def ready(conditions: dict[str, dict[str, Any]]) -> bool:
    return bool(conditions["Ready"]["status"] == "True")


def limit_of(world: Spenders, name: str) -> dict[str, Any]:
    """Give the one limit that a status tells of."""
    (limit,) = world.budget(name).get("limits") or [{}]
    return dict(limit)


def events(world: Spenders, name: str, reason: str) -> list[str]:
    """Give the notes of the Events on a budget."""
    found = world.plane.request("GET", f"/apis/events.k8s.io/v1/namespaces/{NS}/events")["items"]
    return [e["note"] for e in found if (e["regarding"]["name"], e["reason"]) == (name, reason)]


def modes(world: Spenders) -> list[str]:
    """Give the agents' modes as kubectl shows them."""
    listed = world.plane.kubectl("get", "agents", "-n", NS, "--no-headers")
    return [line.split()[2] for line in listed.splitlines()]


def test_it_governs_pods_and_its_status_follows(world: Spenders) -> None:
    spec = {"window": {"kind": "Calendar", "unit": "Month"}, "limits": {"records": 10}}
    with world.under("month", spec) as key:
        header, row = world.plane.kubectl("get", "agentbudgets", "-n", NS).splitlines()
        assert header.split() == ["NAME", "READY", "SCOPE", "USED", "SPENT", "RESETS", "PAUSED", "AGE", "WHY"]
        assert row.split()[:4] == ["month", "True", "Shared", "0%"]
        first, second = world.spend(ALPHA, 4)[1], world.until_spends(BETA, "at the other replica", 3)
        assert first["decision"] == "Allow"
        world.used(ALPHA, first, 2)

        def told() -> bool:
            limit = limit_of(world, "month")
            return (limit.get("spent"), limit.get("reserved")) == (2, 3)

        until(told, "the status tells what is spent, and what is reserved", WITHIN)
        status = world.budget("month")
        assert status["used"] == "50%"
        assert (status["spent"], status["agents"], status["pots"]) == ("records 5 of 10", 2, 1)
        assert status["resetsAt"] > status["conditions"][0]["lastTransitionTime"]
        world.used(BETA, second, 3)
        answer, _ = world.until_refused(ALPHA, f"AgentBudget {NS}/month", 6)
        assert (answer["decision"], answer["shortfall"]["budget"], answer["shortfall"]["limit"]) == (
            "Deny",
            key,
            "records",
        )
        row = world.plane.kubectl("get", "abud", "month", "-n", NS, "--no-headers")
        assert "50%" in row
        assert "records 5 of 10" in row


def test_applied_again_from_git_nothing_changes(world: Spenders, tmp_path: Path) -> None:
    spec = {**ONCE, "limits": {"records": 10}, "subjects": {"agents": ["alpha", "beta"]}}
    file = tmp_path / "budget.yaml"
    file.write_text(manifest("git", spec))
    with world.under("git", spec) as key:
        world.until_spends(ALPHA, "there is room", 4)
        until(lambda: world.figure("reserved", key) == 4, "it is known what is reserved", WITHIN)
        before = world.get("agentbudget", "git", NS)
        world.plane.kubectl("apply", "-f", str(file))
        assert world.plane.kubectl("diff", "-f", str(file), check=False) == ""
        after = world.get("agentbudget", "git", NS)
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert after["spec"] == before["spec"]
        assert world.figure("reserved", key) == 4
        answer, _ = world.until_refused(BETA, f"AgentBudget {NS}/git", 7)
        assert answer["shortfall"]["left"] <= 6
        world.until_spends(BETA, "what is left is as before", 6)


def test_a_budget_pauses_its_agents_until_it_has_room(world: Spenders) -> None:
    thresholds = [{"percent": 50, "action": "Event"}, {"percent": 100, "action": "Pause"}]
    with world.under("pausing", {**ONCE, "limits": {"records": 10}, "thresholds": thresholds}) as key:
        before = {each: world.get("agent", each.partition("/")[2], NS) for each in PLACES}
        world.until_used_up(10, 0)
        for each in PLACES:
            world.until_refused(each, f"{each} is Paused, set on AgentBudget {NS}/pausing")
            assert world.spend(each)[1]["mode"]["operatingMode"] == "Paused"
        until(lambda: modes(world) == ["Paused", "Paused"], "kubectl shows both as Paused", WITHIN)
        for each in PLACES:
            agent = world.get("agent", each.partition("/")[2], NS)
            assert agent["status"]["mode"]["source"] == f"AgentBudget {NS}/pausing"
            assert agent["spec"] == before[each]["spec"]
            assert agent["metadata"]["generation"] == before[each]["metadata"]["generation"]

        def told() -> bool:
            status = world.budget("pausing")
            return conditions(status).get("Exhausted", {}).get("reason") == "Paused" and status["paused"] == 1

        until(told, "the budget's status says so", WITHIN)
        for reason in ("BudgetThreshold", "BudgetPaused"):
            until(lambda: events(world, "pausing", reason), f"an Event {reason}", WITHIN)  # noqa: B023 - at once
        recorded = world.records(type="Budget", budget=key)
        assert Counter(each["event"] for each in recorded) == {"Threshold": 1, "Paused": 1}
        assert all(each["registryVersion"] and each["limit"] == "records" for each in recorded)
        assert 'fleetward_budget_events_total{event="Paused"} 1.0' in world.fleetward.operator.get("/metrics")
        raised = json.dumps({"spec": {"limits": {"records": 20}}})
        world.plane.kubectl("patch", "agentbudget", "pausing", "-n", NS, "--type=merge", "-p", raised)
        for each in PLACES:
            world.until_spends(each, "as the limit was raised")
        until(lambda: modes(world) == ["Running", "Running"], "kubectl shows both as Running", WITHIN)
        until(lambda: events(world, "pausing", "BudgetResumed"), "an Event says so", WITHIN)


def test_a_limit_below_what_is_spent_stops_at_once(world: Spenders) -> None:
    with world.under("lowered", {**ONCE, "limits": {"records": 100}}):
        world.until_spends(ALPHA, "there is room", 60)
        world.patch("agentbudget", "lowered", {"limits": {"records": 50}}, NS)
        until(lambda: "Exhausted" in conditions(world.budget("lowered")), "the status says so", WITHIN)
        assert "records 60 of 50" in conditions(world.budget("lowered"))["Exhausted"]["message"]
        assert limit_of(world, "lowered")["remaining"] == 0
        for each in PLACES:
            answer, _ = world.until_refused(each, f"AgentBudget {NS}/lowered")
            assert "more than the 50 that" in answer["reason"], answer
        assert allowed(world.rush(10)) == []


@pytest.mark.parametrize("circle", [False, True], ids=["missing", "circle"])
def test_a_parent_that_cannot_be_lets_nothing_be_spent(world: Spenders, circle: bool) -> None:  # noqa: FBT001
    def part_of(name: str) -> dict[str, Any]:
        return {**ONCE, "limits": {"records": 100}, "parent": {"kind": "AgentBudget", "name": name}}

    others = [resource("AgentBudget", "outer", part_of("inner"), NS)] if circle else []
    world.apply(resource("AgentBudget", "inner", part_of("outer"), NS), *others)
    words = "it is part of itself" if circle else f"AgentBudget {NS}/outer"
    try:

        def stalled() -> bool:
            status = conditions(world.budget("inner"))
            stalled = status.get("Stalled", {})
            return stalled.get("reason") == "BrokenNesting" and words in stalled["message"] and not ready(status)

        until(stalled, "its status says that it is not in force", WITHIN)
        for each in PLACES:
            answer, _ = world.until_refused(each, f"nothing may be spent from AgentBudget {NS}/inner")
            assert answer["decision"] == "Deny"
    finally:
        world.plane.kubectl("delete", "agentbudget", "inner", "outer", "-n", NS, "--ignore-not-found")
    for each in PLACES:
        world.until_spends(each, "the budgets are gone")


def test_what_is_spent_counts_in_the_budget_above_too(world: Spenders) -> None:
    above = {"window": {"kind": "Total"}, "limits": {"records": 30}, "subjects": {"agents": ["nowhere/nobody"]}}
    parent = {"kind": "ClusterAgentBudget", "name": "whole"}
    world.apply(resource("ClusterAgentBudget", "whole", above))
    try:
        with world.under("part", {**ONCE, "limits": {"records": 1000}, "parent": parent}) as key:
            world.until_used_up(30, 0)
            for each in PLACES:
                answer, _ = world.until_refused(each, "ClusterAgentBudget whole")
                assert answer["shortfall"]["budget"] == "ClusterAgentBudget/whole"
            until(lambda: world.figure("reserved", key) == 30, "it counts below", WITHIN)
            assert world.figure("reserved", "ClusterAgentBudget/whole") == 30
            assert world.status("clusteragentbudget", "whole")["agents"] == 2
    finally:
        world.plane.kubectl("delete", "clusteragentbudget", "whole")


def test_each_agent_has_a_pot_of_its_own(world: Spenders) -> None:
    with world.under("each", {**ONCE, "scope": "Agent", "limits": {"records": 5}}):
        said = allowed(world.rush(10))
        for each in PLACES:
            left = 5 - sum(one.agent == each for one in said)
            for _ in range(left):
                world.until_spends(each, "what is left of its own")
            answer, more = world.until_refused(each, f"AgentBudget {NS}/each")
            assert (answer["shortfall"]["scope"], more) == (each, 0)

        def told() -> bool:
            pots = world.budget("each").get("topPots") or ()
            return {(pot["scope"], pot["percent"]) for pot in pots} == {(each, 100) for each in PLACES}

        until(told, "the status tells of both", WITHIN)
        assert "limits" not in world.budget("each")
    world.until_spends(ALPHA, "the budget is gone", 60)


def test_one_limit_is_exact_over_two_replicas(world: Spenders) -> None:
    with world.under("exact", {**ONCE, "limits": {"records": 100}}) as key:
        said = world.rush(40, records=3)
        assert {(each.status, each.answer["decision"]) for each in said} == {(200, "Allow"), (200, "Deny")}
        assert {each.agent for each in allowed(said)} == {*PLACES}, "both had some of it"
        spent = 3 * len(allowed(said))
        assert spent <= 99
        world.until_used_up(100, spent)
        until(lambda: world.reserved(key) == 100, "the records say so, too", WITHIN)


def test_a_throttled_rule_is_one_bucket_for_both_replicas(world: Spenders) -> None:
    """Five now, and then one an hour. What it throttles nothing else allows, so each allowed one took a token."""
    throttle = {"rate": {"count": 1, "perSeconds": 3600, "burst": 5}, "scope": "Shared"}
    about: dict[str, Any] = {"match": {"names": ["mail.send"]}}
    rules = [
        {"name": "mails", "decision": "Allow", **about},
        {"name": "slowly", "decision": "Throttle", "throttle": throttle, **about},
    ]
    world.apply(resource("AgentPolicy", "slowly", {"rules": rules}, NS))
    try:
        said: list[Said] = []

        def throttled() -> bool:
            said.extend(Said(each, *world.spend(each, name="mail.send")) for each in PLACES)
            return all(each.answer.get("decision") == "Throttle" for each in said[-2:])

        until(throttled, "both are throttled", WITHIN)
        assert len(allowed(said)) == 5
        assert said[-1].answer["retryAfterSeconds"] > 60
        assert "throttled by rule slowly of AgentPolicy reports/slowly" in said[-1].answer["reason"]
    finally:
        world.plane.kubectl("delete", "agentpolicy", "slowly", "-n", NS)


def test_what_people_and_metrics_are_told(world: Spenders) -> None:
    with world.under("told", {**ONCE, "limits": {"records": 10}}) as key:
        answer = world.until_spends(ALPHA, "there is room", 4)
        world.until_spends(BETA, "there is room", 3)
        world.used(ALPHA, answer, 4)
        denied, _ = world.until_refused(BETA, f"AgentBudget {NS}/told", 5)
        amounts = {"spent": 4, "reserved": 3}
        figures = [f'fleetward_budget_{what}{{budget="{key}",limit="records"}} {n}.0' for what, n in amounts.items()]
        for replica in (world.fleetward.operator, world.second):
            until(lambda: all(each in replica.get("/metrics") for each in figures), "metrics", WITHIN)  # noqa: B023
        for hub in (world.fleetward.hub, world.second_hub):
            pot = world.pot(key, replica=hub)
            assert (pot["spent"], pot["reserved"], pot["max"]) == (4, 3, 10)
        assert "told" in world.kubectl_fleetward("list")
        assert ALPHA in world.kubectl_fleetward("show", "told")
        explained = world.kubectl_fleetward("explain", denied["id"])
        assert key.replace("/", " ", 1) in explained or "told" in explained
        assert BETA in explained
        world.kubectl_fleetward("verify")


def test_the_replica_that_keeps_the_ledger_killed(world: Spenders) -> None:
    with world.under("crash", {**ONCE, "limits": {"records": 200}}) as key:
        said = world.rush(20)
        world.fleetward.operator.kill()

        def denied() -> bool:
            said.append(Said(BETA, *world.spend(BETA)))
            return "no budget can be asked" in str(said[-1].answer.get("detail"))

        try:
            until(denied, "what beta's webhook had on lease is used up", WITHIN)
            assert said[-1].status == 503
            assert "the ledger of budgets is kept by another replica" in said[-1].answer["detail"]
            world.second.kill()
            world.second.start().until_ready()
            until(denied, "the other replica comes up without it, and nothing can be spent", WITHIN)
        finally:
            world.fleetward.operator.start_if_down()
        said += world.until_used_up(200, len(allowed(said)))
        world.settle(allowed(said))
        until(lambda: world.reserved(key) == 200, "the records say so, too", WITHIN)
        until(lambda: world.figure("spent", key) == 200, "all of it is settled", WITHIN)
        assert (world.figure("reserved", key), world.figure("overshoot", key)) == (0, 0)


def test_the_other_replica_killed(world: Spenders) -> None:
    with world.under("other", {**ONCE, "limits": {"records": 200}}) as key:
        said = world.rush(20)
        world.second.kill()
        try:
            said += [Said(BETA, *world.spend(BETA)) for _ in range(20)]
            said.append(Said(ALPHA, 200, world.until_spends(ALPHA, "its replica goes on")))
        finally:
            world.second.start_if_down()
        said += world.until_used_up(200, len(allowed(said)))
        world.settle(allowed(said))
        until(lambda: world.reserved(key) == 200, "the records say so, too", WITHIN)
        until(lambda: world.figure("spent", key) == 200, "all of it is settled", WITHIN)


def test_a_budget_that_makes_no_sense_is_refused(world: Spenders) -> None:
    def refused(spec: dict[str, Any]) -> str:
        with pytest.raises(KubectlError) as error:
            world.apply(resource("AgentBudget", "nonsense", spec, NS))
        return str(error.value)

    assert "records" in refused({"limits": {"records": -1}})
    said = refused({"limits": {"records": 1}, "window": {"kind": "Rolling"}})
    assert "duration is missing; kind Rolling needs it, such as 24h" in said
    day = {"kind": "Calendar", "unit": "Day", "timeZone": "Europe/Atlantis"}
    said = refused({"limits": {"records": 1}, "window": day})
    assert "Europe/Atlantis" in said
    assert "allowed a time zone of the IANA database, such as Europe/Berlin or UTC" in said


def test_who_may_read_and_write_budgets(world: Spenders) -> None:
    world.plane.kubectl("create", "rolebinding", "ana", "-n", NS, "--clusterrole=fleetward-view", "--user=ana")

    def may(verb: str, who: str) -> str:
        where = ("agentbudgets.fleetward.dev", "-n", NS)
        return world.plane.kubectl("auth", "can-i", verb, *where, f"--as={who}", check=False).split()[0]

    agent = f"system:serviceaccount:{NS}:default"
    assert [may(verb, "ana") for verb in ("list", "watch", "patch", "delete")] == ["yes", "yes", "no", "no"]
    assert {may(verb, agent) for verb in ("create", "update", "patch", "delete")} == {"no"}


def test_status_is_written_with_the_rights_of_the_chart(world: Spenders) -> None:
    with world.under("written", {**ONCE, "limits": {"records": 10}}):
        found = json.loads(
            world.plane.kubectl("get", "agentbudget", "written", "-n", NS, "-o", "json", "--show-managed-fields")
        )
    ours = [f for f in found["metadata"]["managedFields"] if f["manager"] == "fleetward-operator"]
    assert [f.get("subresource") for f in ours] == ["status"]
    used = asked(world.fleetward.directory, "fleetward-operator")
    assert ("patch", "agentbudgets/status") in used.allowed
    assert not [right for right in used.forbidden - used.allowed if "budget" in right[1]]


def thresholds_told(world: Spenders, key: str) -> list[int]:
    """Give the percents of the thresholds that are on record as reached."""
    return [int(each["percent"]) for each in world.records(type="Budget", budget=key, event="Threshold")]


class Load:
    """Agents that spend as fast as they are answered, in two threads each, while the block lasts."""

    def __init__(self, world: Spenders) -> None:
        self.allowed: list[Said] = []
        self._world = world
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(each,)) for each in PLACES for _ in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, agent: str) -> None:
        while not self._stop.is_set():
            self.allowed += allowed([Said(agent, *self._world.spend(agent))])

    def until_more(self, agent: str, what: str) -> None:
        before = self._of(agent)
        until(lambda: self._of(agent) > before + 10, what, WITHIN)

    def _of(self, agent: str) -> int:
        return sum(each.agent == agent for each in self.allowed)


def test_both_replicas_keep_it_in_postgres(world: Spenders, postgres: Postgres, tmp_path: Path) -> None:
    """One is killed under load, then the database: never more than the limit, and work goes on."""
    file = tmp_path / "url"
    file.write_text(postgres.new_schema() + "\n")
    both = (world.fleetward.operator, world.second)
    for replica in both:
        assert replica.stop() == 0
        replica.tell("--ledger-url-file", str(file)).start()
    for replica in both:
        replica.until_ready()
    thresholds = [{"percent": percent, "action": "Event"} for percent in range(10, 100, 10)]
    with world.under("shared", {**ONCE, "limits": {"records": 1500}, "thresholds": thresholds}) as key:
        with Load(world) as load:
            for each in PLACES:
                load.until_more(each, f"{each} spends")
            world.fleetward.operator.kill()
            load.until_more(BETA, "work goes on through the other one")
        world.fleetward.operator.start_if_down()
        postgres.kill()
        try:
            said: list[Said] = []

            def denied() -> bool:
                said.append(Said(BETA, *world.spend(BETA)))
                return "no budget can be asked" in str(said[-1].answer.get("detail"))

            until(denied, "without the database no more is granted", WITHIN)
            assert said[-1].status == 503
            world.second.kill()
            world.second.start().until_ready()
            until(denied, "a replica comes up without it, and nothing can be spent", WITHIN)
        finally:
            postgres.start()
        said += load.allowed
        said += world.until_used_up(1500, len(allowed(said)))
        world.settle(allowed(said))
        until(lambda: world.reserved(key) == 1500, "the records say so, too", WITHIN)
        until(lambda: world.figure("spent", key) == 1500, "all of it is settled", WITHIN)
        assert (world.figure("reserved", key), world.figure("overshoot", key)) == (0, 0)
        assert world.pot(key, replica=world.second_hub)["spent"] == 1500
        until(lambda: len(thresholds_told(world, key)) >= 9, "each threshold is on record", WITHIN)
        assert sorted(thresholds_told(world, key)) == [*range(10, 100, 10)], "by one replica each"
