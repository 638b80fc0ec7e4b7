"""The status of an Agent, from what is known of it. Pure: the same knowledge gives the same status."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from fleetward.registry import slice as sl
from fleetward_operator.status import conditions as say
from fleetward_operator.status.conditions import Json, Verdict, count, names
from fleetward_operator.status.facts import AgentFacts, PodNow
from fleetward_operator.status.quarantine import quarantining
from fleetward_operator.view.observed import Observed

MOST_FLEETS = 256

NO_PODS = "no pod runs the agent: none has both the labels and the service account that spec.workload says"


def agent_status(observed: Observed, facts: AgentFacts, previous: Mapping[str, Any], now: datetime) -> Json:
    """Give the status of an agent. `previous` is the status it has, which times are kept from."""
    status = say.head(verdict(observed, facts), observed, previous, now)
    if facts.item is not None:
        status["mode"] = say.mode_of(facts.item.mode, previous, now)
        status["fleets"] = list(facts.item.fleets[:MOST_FLEETS])
        status["policies"] = len(facts.item.policies)
    status["pods"] = {
        "total": len(facts.pods),
        "ready": sum(p.pod.ready and not p.pod.terminating for p in facts.pods),
        "held": sum(p.pod.held for p in facts.pods),
        "withoutWebhook": len(facts.without),
        "terminating": sum(p.pod.terminating for p in facts.pods),
    }
    connected, current = _webhooks(facts)
    status["webhooks"] = {"connected": connected, "current": current}
    if connected and connected == current:
        status["webhooks"]["registryVersion"] = facts.version
    if (last := _later(facts.last_decision, previous.get("lastDecision"))) is not None:
        status["lastDecision"] = dict(last)
    return status


def _later(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Give the later decision: the one in the status may have come from another replica's store."""
    if one is None or other is None:
        return one if other is None else other
    return one if one.get("time", "") >= other.get("time", "") else other


def verdict(observed: Observed, facts: AgentFacts) -> Verdict:
    """Say whether an agent is governed as its object says, and if not why."""
    if observed.faults:
        return say.invalid(observed)
    if facts.item is None:
        return say.moving("Propagating", "the operator has not taken it in yet")
    if facts.excluded and facts.has_workload:
        return say.stalled("NamespaceExcluded", f"{facts.excluded}, so the agent's pods are not governed")
    mode = facts.item.mode.operating_mode
    if mode == "Stopped" and (stopping := _stopping(facts)) is not None:
        return stopping
    if mode == "Quarantined" and (cutting := quarantining(facts)) is not None:
        shared = [p for p in facts.pods if p.mates]
        return _in_force(mode, replace(facts, pods=shared)) if cutting.ready and shared else cutting
    return _in_force(mode, facts)


def _stopping(facts: AgentFacts) -> Verdict | None:
    """Say how far stopping has come; None where pods stay because other agents of theirs do not stop."""
    there = [p for p in facts.pods if not p.pod.held]
    held = count(sum(p.pod.held for p in facts.pods), "is held", "are held")
    if not there:
        return say.ready("Stopped", f"0 pods run, {held}")
    leaving = [p for p in there if not p.mates]
    if not leaving:
        return None
    pods = count(len(leaving), "pod still runs or ends", "pods still run or end")
    if blocked := [p for p in leaving if p.blocked]:
        return say.moving(
            "EvictionBlocked",
            f"{pods}, {held}; the eviction of {blocked[0].pod.key} is refused and tried again: {blocked[0].blocked}",
        )
    return say.moving("Draining", f"{pods}, {held}")


def _in_force(mode: sl.OperatingMode, facts: AgentFacts) -> Verdict:
    """Say whether the decision webhooks of all running pods decide by what holds now."""
    running = [p for p in facts.pods if p.runs]
    if without := facts.without:
        return say.moving(
            "PodsWithoutWebhook",
            f"{count(len(without), 'pod has', 'pods have')} no decision webhook, so nothing governs them:"
            f" {names([p.pod.key for p in without])}; restart them (kubectl rollout restart), and they get one",
        )
    started = [p for p in running if p.pod.phase == "Running"]
    connected, current = sum(p.connected for p in started), sum(p.connected and p.current for p in started)
    if connected < len(started):
        return say.moving("Propagating", f"{connected} of {count(len(started), 'decision webhook')} connected")
    if current < connected and not facts.patient:
        return say.moving("Propagating", f"in force at {current} of {count(connected, 'decision webhook')}")
    return _governed(mode, facts, running, (current, len(started)))


def _governed(
    mode: sl.OperatingMode, facts: AgentFacts, running: Sequence[PodNow], webhooks: tuple[int, int]
) -> Verdict:
    where = f"in force at {webhooks[0]} of {count(webhooks[1], 'decision webhook')}"
    if mates := names(sorted({mate for p in running for mate in p.mates})) if mode in sl.HOLDING_MODES else "":
        done = "drained" if mode == "Stopped" else "cut off the network"
        return say.ready(
            "PodShared",
            f"counts as Paused, {where}: pods also run agents that are not {mode} ({mates}); these pods are {done}"
            f" once those are {mode}, too",
        )
    if not facts.has_workload:
        why = "spec.workload is left out, so no pod runs the agent"
    elif not webhooks[1]:
        why = f"no pod of the agent runs ({_waiting(facts)})" if facts.pods else NO_PODS
    else:
        why = where
    if mode == "Running":
        return say.ready("InForce" if webhooks[1] else "NoPods", why)
    kept = "; pods are kept" if mode == "Quarantined" else ""
    return say.ready(mode, f"every decision is denied{kept}: {why}")


def _waiting(facts: AgentFacts) -> str:
    held = sum(p.pod.held for p in facts.pods)
    ending = sum(p.pod.terminating for p in facts.pods)
    starting = len(facts.pods) - sum(p.pod.held or p.pod.terminating for p in facts.pods)
    parts = [(starting, "starting"), (held, "held"), (ending, "ending")]
    return ", ".join(f"{number} {what}" for number, what in parts if number)


def _webhooks(facts: AgentFacts) -> tuple[int, int]:
    return sum(p.connected for p in facts.pods), sum(p.connected and p.current for p in facts.pods)
