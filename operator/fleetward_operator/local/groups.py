"""Which agents share a decision webhook on one machine: those that on Kubernetes would share a pod."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from fleetward.registry.registry import Registry
from fleetward.resources import Agent

MAX_NAME = 200


class _Pod(NamedTuple):
    """What makes agents share a pod."""

    namespace: str
    selector: str
    account: str


def pod_groups(registry: Registry) -> dict[str, frozenset[str]]:
    """Give the agents of each pod-like group by the group's name.

    Agents of one namespace with the same workload (selector and service account) share a pod; an agent that names no
    workload is alone. The name depends on the workloads only, so it stays while agents come and go.
    """
    pods: dict[_Pod, set[str]] = {}
    for agents in registry.agents_in.values():
        for key, agent in agents.items():
            pods.setdefault(_pod(agent), set()).add(key)
    alike = Counter((pod.namespace, pod.selector) for pod in pods)
    named = {_name(pod, alone=alike[pod.namespace, pod.selector] == 1): pod for pod in pods}
    return {name: frozenset(pods[named[name]]) for name in sorted(named)}


def at_most(groups: Mapping[str, frozenset[str]], count: int) -> dict[str, frozenset[str]]:
    """Deal the groups out to `count` webhooks, so that each has about as many."""
    dealt: dict[str, frozenset[str]] = {f"webhook-{number + 1}": frozenset() for number in range(count)}
    for number, name in enumerate(sorted(groups) if count else ()):
        webhook = f"webhook-{number % count + 1}"
        dealt[webhook] |= groups[name]
    return dealt


def _pod(agent: Agent) -> _Pod:
    namespace = agent.metadata.namespace or "default"
    if agent.spec.workload is None:
        return _Pod(namespace, agent.metadata.name, "")
    selector = agent.spec.workload.selector
    said = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    said += [f"{r.key} {r.operator} {' '.join(sorted(r.values))}".strip() for r in selector.match_expressions]
    return _Pod(namespace, ",".join(said) or "every pod", agent.spec.workload.service_account_name)


def _name(pod: _Pod, *, alone: bool) -> str:
    name = f"{pod.namespace}/{pod.selector}" + ("" if alone else f" as {pod.account or 'no workload'}")
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
