"""What an agent's status says, in every state it can be in."""

from typing import Any

from support.clusterview import agent, pod, resource
from support.reading import Reading


def test_an_agent_without_pods_is_ready() -> None:
    reading = Reading(agent("alpha", generation=3))
    status = reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("True", "NoPods", "Current")
    assert status["observedGeneration"] == 3
    assert status["pods"] == {"total": 0, "ready": 0, "held": 0, "withoutWebhook": 0, "terminating": 0}
    assert status["webhooks"] == {"connected": 0, "current": 0}
    assert status["mode"] == {"operatingMode": "Running", "since": "2026-03-01T10:00:00Z"}
    assert "lastDecision" not in status


def test_an_agent_that_names_no_workload_says_so() -> None:
    reading = Reading(resource("Agent", "alpha", {"role": "Worker"}), pod("alpha-1", "alpha"))
    reading.status()
    assert (reading.ready, reading.message) == ("True", "spec.workload is left out, so no pod runs the agent")


def test_it_is_ready_once_every_running_pod_has_a_webhook_that_runs_the_version_in_force() -> None:
    pods = [pod("alpha-1", "alpha"), pod("alpha-2", "alpha"), pod("other", "other")]
    reading = Reading(agent("alpha"), *pods)
    reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "Propagating", "InProgress")
    assert reading.message == "0 of 2 decision webhooks connected"
    assert reading.beside == ["Reconciling"]

    reading.view.connect("reports/alpha-1")
    reading.status()
    assert reading.message == "1 of 2 decision webhooks connected"

    reading.view.connect("reports/alpha-1", "reports/alpha-2", running="an older one")
    status = reading.status()
    assert (reading.reason, reading.message) == ("Propagating", "in force at 0 of 2 decision webhooks")
    assert status["webhooks"] == {"connected": 2, "current": 0}

    reading.view.connect("reports/alpha-1", "reports/alpha-2")
    status = reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("True", "InForce", "Current")
    assert reading.message == "in force at 2 of 2 decision webhooks"
    assert status["webhooks"] == {"connected": 2, "current": 2, "registryVersion": reading.view.registry.version}
    assert status["pods"] == {"total": 2, "ready": 2, "held": 0, "withoutWebhook": 0, "terminating": 0}
    assert reading.beside == []


def test_a_pod_that_starts_need_not_have_its_webhook_yet_and_one_that_is_over_none_any_more() -> None:
    reading = Reading(
        agent("alpha"), pod("starts", "alpha", phase="Pending", node=""), pod("over", "alpha", phase="Failed")
    )
    status = reading.status()
    assert (reading.ready, reading.reason) == ("True", "NoPods")
    assert reading.message == "no pod of the agent runs (1 starting)"
    assert status["pods"]["total"] == 1


def test_pods_without_webhook_are_named_with_what_to_do() -> None:
    reading = Reading(agent("alpha"), pod("old", "alpha", injected=False), pod("new", "alpha"))
    reading.view.connect("reports/new")
    status = reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "PodsWithoutWebhook", "InProgress")
    assert "1 pod has no decision webhook" in reading.message
    assert "reports/old" in reading.message
    assert "kubectl rollout restart" in reading.message
    assert status["pods"]["withoutWebhook"] == 1


def test_a_webhook_that_runs_a_version_since_which_nothing_changed_for_the_agent_is_current() -> None:
    reading = Reading(agent("alpha"), agent("beta"), pod("alpha-1", "alpha"))
    reading.status()
    reading.view.connect("reports/alpha-1")
    old = reading.view.registry.version
    reading.status()
    reading.view.see(agent("beta", "Paused"))
    status = reading.status()
    assert reading.view.registry.version != old
    assert (reading.ready, reading.reason) == ("True", "InForce")
    assert status["webhooks"]["registryVersion"] == old

    reading.view.see(agent("alpha", "Paused", generation=2))
    reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "Propagating", "InProgress")


def test_a_changed_policy_leaves_its_agents_ready_for_as_long_as_webhooks_usually_take() -> None:
    allow = {"rules": [{"name": "all", "match": {}, "decision": "Allow"}]}
    deny = {"rules": [{"name": "all", "match": {}, "decision": "Deny"}]}
    reading = Reading(agent("alpha"), resource("AgentPolicy", "p", allow), pod("alpha-1", "alpha"))
    reading.status()
    reading.view.connect("reports/alpha-1")
    reading.status()
    reading.view.see(resource("AgentPolicy", "p", deny, generation=2))
    status = reading.status()
    assert (reading.ready, reading.message) == ("True", "in force at 0 of 1 decision webhook")
    assert status["webhooks"] == {"connected": 1, "current": 0}
    reading.clock = 11.0
    assert ("Agent", "reports/alpha") in reading.computer.follow().later
    reading.status()
    assert (reading.ready, reading.reason) == ("False", "Propagating")
    reading.view.connect("reports/alpha-1")
    reading.status()
    assert (reading.ready, reading.message) == ("True", "in force at 1 of 1 decision webhook")


def test_a_mode_in_force_everywhere_is_ready_under_its_own_name() -> None:
    who = {"fleetward.dev/operating-mode-set-by": "Paused by alice@example.com"}
    body = agent("alpha", "Paused", annotations=who)
    body["spec"]["operatingReason"] = "ticket 4711"
    reading = Reading(body, pod("alpha-1", "alpha"))
    reading.view.connect("reports/alpha-1")
    status = reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("True", "Paused", "Current")
    assert "in force at 1 of 1 decision webhook" in reading.message
    assert status["mode"] == {
        "operatingMode": "Paused",
        "reason": "ticket 4711",
        "setBy": "alice@example.com",
        "source": "Agent reports/alpha",
        "since": "2026-03-01T10:00:00Z",
    }


def test_a_fleet_s_mode_is_the_agent_s_with_where_it_comes_from() -> None:
    fleet = resource("AgentFleet", "all", {"agents": {}, "operatingMode": "Paused"})
    reading = Reading(agent("alpha"), fleet)
    status = reading.status()
    assert reading.reason == "Paused"
    assert status["mode"]["source"] == "AgentFleet all"
    assert status["fleets"] == ["all"]


def test_stopping_drains_until_no_pod_is_left_but_held_ones() -> None:
    runs, held = pod("runs", "alpha"), pod("held", "alpha", held=True)
    reading = Reading(agent("alpha", "Stopped"), runs, held)
    reading.view.connect("reports/runs")
    status = reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "Draining", "InProgress")
    assert reading.message == "1 pod still runs or ends, 1 is held"
    assert (status["pods"]["total"], status["pods"]["held"]) == (2, 1)

    reading.view.evictions_blocked = {"reports/runs": "the disruption budget alpha needs 1 healthy pods"}
    reading.status()
    assert (reading.ready, reading.reason) == ("False", "EvictionBlocked")
    assert "reports/runs" in reading.message
    assert "the disruption budget alpha" in reading.message

    reading.view.evictions_blocked = {}
    reading.view.see(pod("runs", "alpha", terminating=True))
    status = reading.status()
    assert (reading.ready, reading.reason) == ("False", "Draining")
    assert status["pods"]["terminating"] == 1

    reading.view.gone(runs)
    reading.view.see(pod("held-2", "alpha", held=True))
    reading.status()
    assert (reading.ready, reading.reason, reading.message) == ("True", "Stopped", "0 pods run, 2 are held")
    assert reading.state == "Current"


def test_a_stopped_agent_whose_pod_runs_others_counts_as_paused_and_says_so() -> None:
    reading = Reading(agent("alpha", "Stopped", app="crew"), agent("beta", app="crew"), pod("crew-1", "crew"))
    reading.view.connect("reports/crew-1")
    reading.status()
    assert (reading.ready, reading.reason) == ("True", "PodShared")
    assert "counts as Paused" in reading.message
    assert "reports/beta" in reading.message

    reading.view.see(agent("beta", "Stopped", app="crew", generation=2))
    assert ("Agent", "reports/alpha") in reading.computer.follow().soon
    reading.status()
    assert (reading.ready, reading.reason) == ("False", "Draining")


def test_a_faulty_specification_stalls_and_says_what_holds_meanwhile() -> None:
    reading = Reading(agent("alpha", "Paused", generation=4))
    bad = agent("alpha", generation=5)
    bad["spec"]["role"] = "Butler"
    reading.view.see(bad)
    status = reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "Invalid", "Failed")
    assert reading.beside == ["Stalled"]
    assert "spec.role" in reading.message
    assert "generation 4 is still in force" in reading.message
    assert status["observedGeneration"] == 5
    assert status["mode"]["operatingMode"] == "Paused"

    reading.view.see(agent("alpha", generation=6))
    reading.status()
    assert (reading.ready, reading.beside) == ("True", [])


def test_an_agent_that_never_was_right_is_not_governed() -> None:
    bad = agent("alpha")
    bad["spec"]["role"] = "Butler"
    reading = Reading(bad, pod("alpha-1", "alpha"))
    status = reading.status()
    assert reading.state == "Failed"
    assert "as if it were not there" in reading.message
    assert "mode" not in status


def test_an_excluded_namespace_is_said_to_be_one() -> None:
    reading = Reading(agent("alpha"), pod("alpha-1", "alpha", injected=False))
    reading.status()
    assert reading.reason == "PodsWithoutWebhook"
    labels = {"fleetward.dev/injection": "disabled"}
    reading.view.see({"kind": "Namespace", "metadata": {"name": "reports", "uid": "n", "labels": labels}})
    assert ("Agent", "reports/alpha") in reading.computer.follow().soon
    reading.status()
    assert (reading.reason, reading.state) == ("NamespaceExcluded", "Failed")
    assert "fleetward.dev/injection: disabled" in reading.message


def test_times_stay_for_as_long_as_what_they_are_about() -> None:
    reading = Reading(agent("alpha", "Paused"), pod("alpha-1", "alpha"))
    first = reading.status()
    reading.clock = 60.0
    second = reading.status(previous=first)
    assert second == first
    reading.view.connect("reports/alpha-1")
    reading.clock = 120.0
    third = reading.status(previous=second)
    assert [c["lastTransitionTime"] for c in third["conditions"]] == ["2026-03-01T10:02:00Z"]
    assert third["mode"] == first["mode"]
    reading.view.see(agent("alpha", generation=2))
    reading.view.connect("reports/alpha-1")
    reading.clock = 180.0
    fourth = reading.status(previous=third)
    assert fourth["conditions"][0]["lastTransitionTime"] == "2026-03-01T10:02:00Z"
    assert fourth["mode"] == {"operatingMode": "Running", "since": "2026-03-01T10:03:00Z"}


def test_the_last_decision_is_told() -> None:
    reading = Reading(agent("alpha"))
    last = {"id": "w-7", "time": "2026-03-01T09:00:00Z", "decision": "Deny", "action": "crm.export"}
    reading.view.decisions = {"reports/alpha": last}
    assert reading.status()["lastDecision"] == last
    reading.computer.follow()
    reading.clock = 6.0
    reading.view.decisions = {"reports/alpha": {**last, "id": "w-8"}}
    assert ("Agent", "reports/alpha") in reading.computer.follow().later


def test_the_last_decision_stays_when_this_replica_knows_of_none_or_of_an_earlier_one() -> None:
    reading = Reading(agent("alpha"))
    known = {"id": "w-7", "time": "2026-03-01T09:00:00Z", "decision": "Deny", "action": "crm.export"}
    assert reading.status(previous={"lastDecision": known})["lastDecision"] == known
    reading.view.decisions = {"reports/alpha": {**known, "id": "v-1", "time": "2026-03-01T08:00:00Z"}}
    assert reading.status(previous={"lastDecision": known})["lastDecision"] == known
    reading.view.decisions = {"reports/alpha": {**known, "id": "v-2", "time": "2026-03-01T09:00:01Z"}}
    assert reading.status(previous={"lastDecision": known})["lastDecision"]["id"] == "v-2"


def test_texts_are_cut_to_what_a_status_may_hold() -> None:
    body: dict[str, Any] = agent(
        "alpha", "Paused", annotations={"fleetward.dev/operating-mode-set-by": "Paused by " + "x" * 3000}
    )
    body["spec"]["operatingReason"] = "y" * 1024
    status = Reading(body).status()
    assert len(status["mode"]["setBy"]) == 1024
    assert status["mode"]["reason"] == "y" * 1024
