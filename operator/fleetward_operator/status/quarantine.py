"""How far an agent's quarantine has come: pods labelled, the NetworkPolicy there, nothing open all the same. Pure."""

from collections.abc import Sequence

from fleetward.resources.names import QUARANTINE_POLICY
from fleetward_operator.status import conditions as say
from fleetward_operator.status.conditions import Verdict, count, names
from fleetward_operator.status.facts import AgentFacts, PodNow


def quarantining(facts: AgentFacts) -> Verdict | None:
    """Say how far it has come; None where no pod runs Quarantined agents alone.

    Decision webhooks that are cut off cannot confirm anything and are not waited for: their authority ends. Those that
    are still connected are.
    """
    alone = [p for p in facts.pods if not p.mates]
    if not alone:
        return None
    labelled = sum(p.pod.quarantined for p in alone)
    so_far = f"{labelled} of {count(len(alone), 'pod')} labelled"
    if labelled < len(alone):
        return say.moving("Quarantining", f"{so_far} to be cut off the network")
    if not facts.cut:
        return say.moving("Quarantining", f"{so_far}, and the NetworkPolicy {QUARANTINE_POLICY} is not seen there yet")
    connected, current = sum(p.connected for p in alone), sum(p.connected and p.current for p in alone)
    if current < connected:
        return say.moving(
            "Quarantining", f"{so_far}; in force at {current} of {count(connected, 'decision webhook')} connected"
        )
    if why := _open(alone):
        return say.stalled(
            "NotCutOff", f"every decision is denied, pods are kept, but the network of some is not cut: {why}"
        )
    return say.ready("Quarantined", _done(alone, so_far, facts))


def _open(pods: Sequence[PodNow]) -> str:
    """Say what keeps pods from being cut off; empty where nothing does."""
    there = [p for p in pods if not p.pod.held]
    why = []
    if host := [p.pod.key for p in there if p.pod.host_network]:
        why.append(f"{names(host)}: on the host network, where no NetworkPolicy applies")
    if opened := [p for p in there if p.opened and not p.pod.host_network]:
        policies = names(sorted({policy for p in opened for policy in p.opened}))
        why.append(
            f"{names([p.pod.key for p in opened])}: allowed traffic by another NetworkPolicy ({policies}),"
            " and what one of them allows, no other forbids"
        )
    return "; ".join(why)


def _done(pods: Sequence[PodNow], so_far: str, facts: AgentFacts) -> str:
    held = sum(p.pod.held for p in pods)
    parts = [f"every decision is denied, pods are kept, their network is cut ({so_far})"]
    if held:
        parts[0] += f", {count(held, 'is held', 'are held')}"
    if without := facts.without:
        has = count(len(without), "pod has", "pods have")
        parts.append(f"{has} no decision webhook, so only that holds: {names([p.pod.key for p in without])}")
    parts.append("cutting needs a network plugin that enforces NetworkPolicy")
    return "; ".join(parts)
