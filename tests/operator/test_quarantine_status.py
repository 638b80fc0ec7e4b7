"""What a quarantined agent's status says: how far it has come, and what keeps its pods from being cut off."""

from typing import Any

from support.clusterview import agent, pod, resource
from support.reading import Reading

from fleetward.resources.base import LabelSelector
from fleetward_operator.status.agent import NO_PODS
from fleetward_operator.view.quarantine import Opening

NEEDS = "cutting needs a network plugin that enforces NetworkPolicy"


def opening(policy: str, **labels: str) -> Opening:
    return Opening(policy, LabelSelector(matchLabels=labels))


def quarantined(*pods: dict[str, Any], **how: Any) -> Reading:
    """Have the agent, its pods, and the NetworkPolicy there."""
    reading = Reading(agent("alpha", "Quarantined", **how), *pods)
    reading.view.cut_off = {"reports": ()}
    return reading


def test_it_goes_from_labels_to_the_policy_to_ready_and_waits_for_no_webhook() -> None:
    pods = [pod(name, "alpha") for name in ("alpha-1", "alpha-2")]
    reading = Reading(agent("alpha", "Quarantined"), *pods, pod("alpha-3", "alpha", held=True))
    reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "Quarantining", "InProgress")
    assert reading.message == "0 of 3 pods labelled to be cut off the network"

    for name in ("alpha-1", "alpha-2"):
        reading.view.see(pod(name, "alpha", quarantined="true"))
    reading.view.see(pod("alpha-3", "alpha", held=True, quarantined="by-hand"))
    reading.status()
    assert (reading.reason, reading.message) == ("Quarantining", "2 of 3 pods labelled to be cut off the network")

    reading.view.see(pod("alpha-3", "alpha", held=True, quarantined="true"))
    reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "Quarantining", "InProgress")
    assert "the NetworkPolicy fleetward-quarantine is not seen there yet" in reading.message

    reading.view.cut_off = {"reports": ()}
    assert ("Agent", "reports/alpha") in reading.computer.follow().soon
    status = reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("True", "Quarantined", "Current")
    assert reading.message == (
        "every decision is denied, pods are kept, their network is cut (3 of 3 pods labelled), 1 is held; " + NEEDS
    )
    assert (status["pods"]["held"], status["webhooks"]) == (1, {"connected": 0, "current": 0})

    reading.view.cut_off = {}
    assert ("Agent", "reports/alpha") in reading.computer.follow().soon
    reading.status()
    assert (reading.ready, reading.reason) == ("False", "Quarantining")


def test_a_webhook_that_is_still_connected_is_waited_for() -> None:
    reading = quarantined(pod("alpha-1", "alpha", quarantined="true"))
    reading.status()
    reading.view.connect("reports/alpha-1", running="an older one")
    reading.status()
    assert (reading.ready, reading.reason) == ("False", "Quarantining")
    assert "in force at 0 of 1 decision webhook connected" in reading.message
    reading.view.connect("reports/alpha-1")
    reading.status()
    assert (reading.ready, reading.reason) == ("True", "Quarantined")


def test_pods_on_the_host_network_are_named() -> None:
    reading = quarantined(
        pod("alpha-1", "alpha", quarantined="true"), pod("alpha-2", "alpha", quarantined="true", host_network=True)
    )
    reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "NotCutOff", "Failed")
    assert "reports/alpha-2: on the host network, where no NetworkPolicy applies" in reading.message
    assert "reports/alpha-1" not in reading.message


def test_what_another_policy_allows_is_told_of_the_pods_it_selects() -> None:
    reading = quarantined(pod("alpha-1", "alpha", quarantined="true"))
    reading.status()
    assert reading.ready == "True"
    reading.view.cut_off = {"reports": (opening("dns"), opening("others", app="beta"), opening("web", app="alpha"))}
    reading.status()
    assert (reading.ready, reading.reason, reading.state) == ("False", "NotCutOff", "Failed")
    assert "reports/alpha-1: allowed traffic by another NetworkPolicy (dns, web)" in reading.message
    reading.view.cut_off = {"reports": (opening("others", app="beta"),), "elsewhere": (opening("dns"),)}
    reading.status()
    assert reading.ready == "True"


def test_a_pod_without_webhook_is_named_and_not_to_be_restarted() -> None:
    reading = quarantined(pod("alpha-1", "alpha", quarantined="true", injected=False))
    reading.status()
    assert (reading.ready, reading.reason) == ("True", "Quarantined")
    assert "1 pod has no decision webhook, so only that holds: reports/alpha-1" in reading.message
    assert "restart" not in reading.message


def test_without_pods_there_is_nothing_to_cut() -> None:
    reading = Reading(agent("alpha", "Quarantined"))
    reading.status()
    assert (reading.ready, reading.reason) == ("True", "Quarantined")
    assert reading.message == f"every decision is denied; pods are kept: {NO_PODS}"


def test_a_shared_pod_is_not_cut_off_and_counts_as_paused() -> None:
    crew = pod("crew-1", "crew")
    reading = quarantined(crew, app="crew")
    reading.view.see(agent("beta", "Stopped", app="crew"))
    reading.status()
    assert (reading.ready, reading.reason) == ("False", "Propagating")
    reading.view.connect("reports/crew-1")
    reading.status()
    assert (reading.ready, reading.reason) == ("True", "PodShared")
    assert "counts as Paused, in force at 1 of 1 decision webhook" in reading.message
    assert "not Quarantined (reports/beta)" in reading.message
    assert "cut off the network once those are Quarantined, too" in reading.message

    reading.view.see(agent("beta", "Quarantined", app="crew", generation=2))
    reading.status()
    assert (reading.ready, reading.reason) == ("False", "Quarantining")
    reading.view.see(pod("crew-1", "crew", quarantined="true"))
    reading.view.connect("reports/crew-1")
    for key in ("reports/alpha", "reports/beta"):
        reading.status(key)
        assert (reading.ready, reading.reason) == ("True", "Quarantined")


def test_a_fleet_is_ready_once_its_agents_are_cut_off() -> None:
    fleet = resource("AgentFleet", "all", {"agents": {}, "operatingMode": "Quarantined"})
    reading = Reading(fleet, agent("alpha"), pod("alpha-1", "alpha"))
    reading.status("all", kind="AgentFleet")
    assert (reading.ready, reading.reason, reading.state) == ("False", "Quarantining", "InProgress")
    reading.view.cut_off = {"reports": ()}
    reading.view.see(pod("alpha-1", "alpha", quarantined="true"))
    reading.status()
    assert reading.computer.unsettled_fleets() == {"all"}
    reading.status("all", kind="AgentFleet")
    assert (reading.ready, reading.reason, reading.message) == ("True", "Quarantined", "Quarantined at 1 of 1 agent")
