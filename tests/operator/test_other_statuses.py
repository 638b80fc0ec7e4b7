"""What the statuses of fleets, policies, catalogs and sinks say."""

import pytest
from support.clusterview import Body, agent, pod, resource
from support.reading import Reading

from fleetward.audit.forward import SinkStatus

RULES = {"rules": [{"name": "one", "match": {}, "decision": "Allow"}, {"name": "two", "match": {}, "decision": "Deny"}]}


def fleet(mode: str = "Running", generation: int = 1) -> Body:
    return resource("AgentFleet", "all", {"agents": {}, "operatingMode": mode}, generation=generation)


def test_a_fleet_counts_its_agents_by_mode() -> None:
    reading = Reading(fleet(), agent("a"), agent("b", "Paused"), agent("c", "Stopped"), agent("d", "Quarantined"))
    status = reading.status("all", kind="AgentFleet")
    assert (reading.ready, reading.reason, reading.message) == ("True", "InForce", "governs 4 agents")
    assert status["agents"] == {"total": 4, "running": 1, "paused": 1, "stopped": 1, "quarantined": 1}
    assert status["mode"]["operatingMode"] == "Running"


def test_a_fleet_of_nobody_says_so() -> None:
    reading = Reading(fleet("Paused"))
    reading.status("all", kind="AgentFleet")
    assert (reading.ready, reading.reason) == ("True", "NoAgents")


def test_a_stopped_fleet_is_ready_once_all_its_agents_are() -> None:
    runs = pod("b-1", "b")
    reading = Reading(fleet("Stopped"), agent("a"), agent("b"), runs)
    status = reading.status("all", kind="AgentFleet")
    assert (reading.ready, reading.reason, reading.state) == ("False", "Draining", "InProgress")
    assert reading.message == "Stopped at 1 of 2 agents; not yet at reports/b"
    assert status["agents"]["stopped"] == 2

    reading.view.gone(runs)
    reading.status("reports/b")
    assert reading.computer.unsettled_fleets() == {"all"}
    status = reading.status("all", kind="AgentFleet")
    assert (reading.ready, reading.reason, reading.message) == ("True", "Stopped", "Stopped at 2 of 2 agents")
    assert status["mode"]["source"] == "AgentFleet all"


def test_a_fleet_is_looked_at_when_an_agent_joins_leaves_or_changes_its_mode() -> None:
    reading = Reading(fleet(), agent("a"))
    reading.status("all", kind="AgentFleet")
    for body in (agent("b"), agent("a", "Paused", generation=2)):
        reading.view.see(body)
        assert ("AgentFleet", "all") in reading.computer.follow().soon
    reading.view.gone(agent("b"))
    assert ("AgentFleet", "all") in reading.computer.follow().soon
    assert reading.status("all", kind="AgentFleet")["agents"]["total"] == 1


@pytest.mark.parametrize("kind", ["AgentPolicy", "ClusterAgentPolicy"])
def test_a_policy_says_what_is_in_force_and_for_how_many(kind: str) -> None:
    key = "reports/p" if kind == "AgentPolicy" else "p"
    reading = Reading(resource(kind, "p", RULES, generation=2))
    reading.status(key, kind=kind)
    assert (reading.ready, reading.reason) == ("True", "NoAgents")

    reading.view.see(agent("a"), agent("b"))
    assert (kind, key) in reading.computer.follow().later
    status = reading.status(key, kind=kind)
    assert (reading.reason, reading.message, reading.state) == ("InForce", "governs 2 agents", "Current")
    assert (status["generationInForce"], status["rules"], status["agents"]) == (2, 2, 2)
    assert status["hash"] == reading.view.registry.policies[f"{kind}/{key}"].hash


def test_a_policy_that_only_records_says_so() -> None:
    reading = Reading(resource("AgentPolicy", "p", {**RULES, "enforcement": "Audit"}), agent("a"))
    reading.status("reports/p", kind="AgentPolicy")
    assert "changes nothing (Audit)" in reading.message


def test_a_policy_that_comes_to_be_wrong_keeps_its_last_good_generation() -> None:
    reading = Reading(resource("AgentPolicy", "p", RULES, generation=7), agent("a"))
    before = reading.status("reports/p", kind="AgentPolicy")
    wrong = {"rules": [{**RULES["rules"][0], "when": "action.nme == 'x'"}]}
    reading.view.see(resource("AgentPolicy", "p", wrong, generation=8))
    status = reading.status("reports/p", kind="AgentPolicy", previous=before)
    assert (reading.ready, reading.reason, reading.state) == ("False", "Invalid", "Failed")
    assert "spec.rules[0].when" in reading.message
    assert "generation 7 is still in force" in reading.message
    assert (status["observedGeneration"], status["generationInForce"], status["rules"]) == (8, 7, 2)
    assert status["hash"] == before["hash"]


def test_a_policy_that_never_was_right_says_that_it_denies() -> None:
    reading = Reading(resource("AgentPolicy", "p", {"rules": "none"}), agent("a"))
    status = reading.status("reports/p", kind="AgentPolicy")
    assert reading.state == "Failed"
    assert "no generation of it was ever right" in reading.message
    assert (status["agents"], status["rules"]) == (1, 1)


def test_a_catalog_says_which_generation_is_in_force() -> None:
    spec = {"entries": [{"names": ["crm.**"]}, {"names": ["mail.**"]}]}
    reading = Reading(resource("ActionCatalog", "crm", spec, generation=3))
    status = reading.status("crm", kind="ActionCatalog")
    assert (reading.ready, reading.message) == ("True", "describes actions by 2 entries")
    assert (status["generationInForce"], status["entries"]) == (3, 2)
    reading.view.see(resource("ActionCatalog", "crm", {"entries": []}, generation=4))
    status = reading.status("crm", kind="ActionCatalog")
    assert reading.state == "Failed"
    assert (status["generationInForce"], status["entries"]) == (3, 2)


def test_a_sink_says_how_far_it_is_and_why_not_further() -> None:
    spec = {"type": "JsonLines", "jsonLines": {"path": "records.jsonl"}}
    reading = Reading(resource("AuditSink", "file", spec))
    reading.status("file", kind="AuditSink")
    assert (reading.ready, reading.reason) == ("False", "Propagating")

    reading.view.sinks["file"] = SinkStatus("file", "JsonLines", position=12, lag=0)
    first = reading.status("file", kind="AuditSink")
    assert (reading.ready, reading.reason) == ("True", "InForce")
    assert (first["delivered"], first["behind"]) == (12, 0)
    assert first["lastDelivered"] == "2026-03-01T10:00:00Z"
    assert "lastError" not in first

    reading.clock = 60.0
    reading.view.sinks["file"] = SinkStatus("file", "JsonLines", position=12, lag=3, error="disk full")
    second = reading.status("file", kind="AuditSink", previous=first)
    assert (reading.ready, reading.reason, reading.state) == ("False", "Failing", "InProgress")
    assert "3 records behind" in reading.message
    assert "disk full" in reading.message
    assert (second["lastError"], second["lastDelivered"]) == ("disk full", "2026-03-01T10:00:00Z")

    reading.view.sinks["file"] = SinkStatus("file", "JsonLines", position=12, lag=3, error="400", rejected=True)
    reading.status("file", kind="AuditSink", previous=second)
    assert (reading.reason, reading.state) == ("Rejected", "Failed")

    reading.clock = 120.0
    reading.view.sinks["file"] = SinkStatus("file", "JsonLines", position=15, lag=0)
    third = reading.status("file", kind="AuditSink", previous=second)
    assert third["lastDelivered"] == "2026-03-01T10:02:00Z"
    assert "lastError" not in third


@pytest.mark.parametrize(("kind", "key"), [("Agent", "reports/alpha"), ("AgentFleet", "all")])
def test_the_mode_on_record_is_kept_for_the_next_leader(kind: str, key: str) -> None:
    reading = Reading(agent("alpha", "Paused"), fleet("Paused"))
    first = reading.status(key, kind=kind)
    assert "recordedMode" not in first
    reading.recorded[f"{kind} {key}"] = "Paused"
    assert (kind, key) not in reading.computer.follow().later
    reading.clock = 6.0
    assert (kind, key) in reading.computer.follow().later
    second = reading.status(key, kind=kind, previous=first)
    assert second["recordedMode"] == "Paused"
    reading.clock = 12.0
    assert (kind, key) not in reading.computer.follow().later

    reading.recorded.clear()  # another replica's hub cannot say, and goes by what is written
    assert reading.status(key, kind=kind, previous=second)["recordedMode"] == "Paused"
    reading.recorded[f"{kind} {key}"] = "Running"
    assert "recordedMode" not in reading.status(key, kind=kind, previous=second)
