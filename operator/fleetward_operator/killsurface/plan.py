"""What must be done to pods so that stopped agents do not run, quarantined ones are cut off, and others are free. Pure.

Only this is ever done: a pod is evicted, our scheduling gate is taken off, and our label is put on or taken off by
which a NetworkPolicy (`keeper.quarantine`) cuts a pod off. `replicas` stays what it is.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from fleetward.registry.registry import Registry
from fleetward.registry.slice import HOLDING_MODES, OperatingMode
from fleetward_operator.view.pods import Pod
from fleetward_operator.view.workloads import Workloads, excluded

Verb = Literal["Evict", "Release", "Quarantine", "Unquarantine"]


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do to a pod."""

    verb: Verb
    """Evict it, take our gate off it, or put our label on it or take that off."""
    pod: Pod
    agents: tuple[str, ...]
    """The agents that it runs."""


def plan(registry: Registry, pods: Iterable[Pod], workloads: Workloads, never: Collection[str] = ()) -> list[Action]:
    """Say what is to be done. `workloads` follows the registry.

    A pod is evicted when every agent that it runs is Stopped and it has a node; one that has none yet is evicted once
    it has one. A pod is released when it is held and need not be: not all agents that it runs are Stopped or
    Quarantined, or none selects it any more. It gets the label when every agent that it runs is Quarantined, also on
    its way out, and keeps it until one may act again: one that is stopped next ends without having had a network.
    Pods of an excluded namespace run no agents of ours; `never` names such.
    """
    workloads.follow(registry)
    concerned = {
        agent.namespace for agent in registry.not_running.values() if agent.mode.operating_mode in HOLDING_MODES
    }
    actions: list[Action] = []
    for pod in pods:
        if not (pod.held or pod.quarantined or pod.namespace in concerned):
            continue
        agents = () if excluded(pod.namespace, registry, never) else tuple(a.key for a in workloads.agents_of(pod))
        modes = {registry.agents[agent].mode.operating_mode for agent in agents}
        actions += (Action(verb, pod, agents) for verb in _wanted(pod, modes))
    return actions


def _wanted(pod: Pod, modes: Collection[OperatingMode]) -> Iterator[Verb]:
    """Give what a pod needs whose agents are in these modes; none where it runs none."""
    holding = bool(modes) and HOLDING_MODES.issuperset(modes)
    if not (pod.over or pod.terminating):
        if modes == {"Stopped"} and pod.node and not pod.held:
            yield "Evict"
        if pod.held and not holding:
            yield "Release"
    if modes == {"Quarantined"}:
        if not pod.over and not pod.quarantined:
            yield "Quarantine"
    elif pod.quarantined and not holding:
        yield "Unquarantine"
