"""The status of every kind but Agent, from what is known. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fleetward.audit.forward import SinkStatus
from fleetward.registry import slice as sl
from fleetward.registry.convert import mode_of
from fleetward.resources import ActionCatalog, AgentFleet, AuditSink
from fleetward_operator.status import conditions as say
from fleetward_operator.status.conditions import Json, Verdict, count, names
from fleetward_operator.view.observed import Observed


def fleet_status(
    observed: Observed,
    fleet: AgentFleet | None,
    members: Sequence[sl.Agent],
    previous: Mapping[str, Any],
    now: datetime,
    *,
    unready: Sequence[str] = (),
) -> Json:
    """Give the status of a fleet. `fleet` is what governs, `unready` the members that are not Ready."""
    status = say.head(_fleet(observed, fleet, members, unready), observed, previous, now)
    modes = Counter(member.mode.operating_mode for member in members)
    status["agents"] = {"total": len(members), **{mode.lower(): modes[mode] for mode in sl.MODES}}
    if fleet is not None:
        status["mode"] = say.mode_of(mode_of(fleet), previous, now)
    return status


def _fleet(
    observed: Observed, fleet: AgentFleet | None, members: Sequence[sl.Agent], unready: Sequence[str]
) -> Verdict:
    if observed.faults:
        return say.invalid(observed)
    if fleet is None:
        return say.moving("Propagating", "the operator has not taken it in yet")
    if not members:
        return say.ready("NoAgents", "no agent belongs to it")
    mode, agents = fleet.spec.operating_mode, count(len(members), "agent")
    if mode == "Running":
        return say.ready("InForce", f"governs {agents}")
    if unready:
        doing = {"Stopped": "Draining", "Quarantined": "Quarantining"}.get(mode, "Propagating")
        done = len(members) - len(unready)
        return say.moving(doing, f"{mode} at {done} of {agents}; not yet at {names(unready)}")
    return say.ready(mode, f"{mode} at {len(members)} of {agents}")


def policy_status(
    observed: Observed, policy: sl.Policy | None, agents: int, previous: Mapping[str, Any], now: datetime
) -> Json:
    """Give the status of an AgentPolicy or ClusterAgentPolicy; it concerns so many `agents`."""
    status = say.head(_policy(observed, policy, agents), observed, previous, now)
    if policy is not None:
        in_force = {"generationInForce": policy.generation, "hash": policy.hash, "rules": len(policy.rules)}
        status |= in_force | {"agents": agents}
    return status


def _policy(observed: Observed, policy: sl.Policy | None, agents: int) -> Verdict:
    if observed.faults:
        return say.invalid(observed)
    if policy is None:
        return say.moving("Propagating", "the operator has not taken it in yet")
    if not agents:
        return say.ready("NoAgents", "no agent is among its subjects")
    does = "governs" if policy.enforcement == "Enforce" else "changes nothing (Audit), and is recorded for"
    return say.ready("InForce", f"{does} {count(agents, 'agent')}")


def catalog_status(
    observed: Observed, catalog: ActionCatalog | None, previous: Mapping[str, Any], now: datetime
) -> Json:
    """Give the status of an ActionCatalog; `catalog` is what governs."""
    entries = len(catalog.spec.entries) if catalog is not None else 0
    if observed.faults:
        verdict = say.invalid(observed)
    elif catalog is None:
        verdict = say.moving("Propagating", "the operator has not taken it in yet")
    else:
        verdict = say.ready("InForce", f"describes actions by {count(entries, 'entry', 'entries')}")
    status = say.head(verdict, observed, previous, now)
    if catalog is not None:
        status |= {"generationInForce": catalog.metadata.generation, "entries": entries}
    return status


def sink_status(
    observed: Observed,
    sink: AuditSink | None,
    delivery: SinkStatus | None,
    previous: Mapping[str, Any],
    now: datetime,
) -> Json:
    """Give the status of an AuditSink; `delivery` says how far it has come."""
    status = say.head(_sink(observed, sink, delivery), observed, previous, now)
    if sink is not None:
        status["generationInForce"] = sink.metadata.generation
    if delivery is not None:
        status |= {"delivered": delivery.position, "behind": delivery.lag}
        if delivery.error:
            status["lastError"] = say.cut(delivery.error)
        last = previous.get("lastDelivered")
        if delivery.position > (previous.get("delivered") or 0):
            last = say.seconds(now)
        if last:
            status["lastDelivered"] = last
    return status


def _sink(observed: Observed, sink: AuditSink | None, delivery: SinkStatus | None) -> Verdict:
    if observed.faults:
        return say.invalid(observed)
    if sink is None or delivery is None:
        return say.moving("Propagating", "the operator has not taken it in yet")
    behind = count(delivery.lag, "record")
    if delivery.rejected:
        return say.stalled("Rejected", f"the target refuses a record, {behind} behind: {delivery.error}")
    if delivery.error:
        return say.moving("Failing", f"{behind} behind, and tried again: {delivery.error}")
    return say.ready("InForce", "delivers")
