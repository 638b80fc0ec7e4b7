"""What must be done to pods so that stopped agents do not run, and others do. Pure.

Only two things are ever done: a pod is evicted, or our scheduling gate is taken off. `replicas` stays what it is.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from fleetward.registry.registry import Registry
from fleetward_operator.view.pods import Pod
from fleetward_operator.view.workloads import Workloads, excluded


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do to a pod."""

    verb: Literal["Evict", "Release"]
    """Evict it, or take our gate off it."""
    pod: Pod
    agents: tuple[str, ...]
    """The agents that it runs."""


def plan(registry: Registry, pods: Iterable[Pod], workloads: Workloads, never: Collection[str] = ()) -> list[Action]:
    """Say what is to be done. `workloads` follows the registry.

    A pod is evicted when every agent that it runs is Stopped and it has a node; one that has none yet is evicted once
    it has one. A pod is released when it is held and need not be: not all agents that it runs are Stopped, or none
    selects it any more. Pods of an excluded namespace run no agents of ours; `never` names such.
    """
    workloads.follow(registry)
    stopping = {namespace for namespace, agents in registry.agents_in.items() if _any_stopped(registry, agents)}
    actions = []
    for pod in pods:
        if pod.over or pod.terminating or not (pod.held or pod.namespace in stopping):
            continue
        agents = () if excluded(pod.namespace, registry, never) else tuple(a.key for a in workloads.agents_of(pod))
        stopped = bool(agents) and all(_stopped(registry, agent) for agent in agents)
        if stopped and pod.node and not pod.held:
            actions.append(Action("Evict", pod, agents))
        elif not stopped and pod.held:
            actions.append(Action("Release", pod, agents))
    return actions


def _any_stopped(registry: Registry, agents: Iterable[str]) -> bool:
    return any(_stopped(registry, agent) for agent in agents)


def _stopped(registry: Registry, agent: str) -> bool:
    return registry.agents[agent].mode.operating_mode == "Stopped"
