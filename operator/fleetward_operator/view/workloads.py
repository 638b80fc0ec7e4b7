"""Which agents a pod runs, found without asking every agent of its namespace."""

from collections.abc import Collection, Iterable, Mapping

from fleetward.registry.registry import Registry
from fleetward.registry.selector import selects
from fleetward.resources import Agent
from fleetward.resources.names import INJECTION_LABEL, SYSTEM_NAMESPACE
from fleetward_operator.view.pods import Pod

_Bucket = tuple[str, str, str, str]
"""Namespace, service account, and a label that a pod must have; an empty label where the selector names none."""


def left_alone(system: str = SYSTEM_NAMESPACE, more: Iterable[str] = ()) -> frozenset[str]:
    """Give the namespaces that are never governed: `system`, where Fleetward itself runs, is one."""
    return frozenset({"kube-system", system, *more})


def excluded(namespace: str, registry: Registry, never: Collection[str]) -> str:
    """Say why the pods of a namespace are not governed; empty where they are. `never`: see `left_alone`."""
    if namespace in never:
        return f"the namespace {namespace} is never governed"
    if (registry.namespaces.get(namespace) or {}).get(INJECTION_LABEL) == "disabled":
        return f"the namespace {namespace} is labelled {INJECTION_LABEL}: disabled"
    return ""


class Workloads:
    """The agents of a registry by what selects their pods.

    Gives just what `pods.agents_of` gives, in a time that does not grow with the agents of a namespace as long as
    selectors name labels.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self._buckets: dict[_Bucket, dict[str, Agent]] = {}

    def follow(self, registry: Registry) -> set[str]:
        """Take over a registry; give the namespaces where another set of pods may now run some agent."""
        if registry is self.registry:
            return set()
        old, self.registry = self.registry, registry
        touched = {n for n in old.agents_in if n not in registry.agents_in}
        for namespace in touched:
            for agent in old.agents_in[namespace].values():
                self._remove(agent)
        for namespace, agents in registry.agents_in.items():
            known_there = old.agents_in.get(namespace)
            if known_there is agents:
                continue
            before: Mapping[str, Agent] = known_there if known_there is not None else {}
            for key, agent in agents.items():
                known = before.get(key)
                if known is not agent:
                    touched |= {namespace} if known is None or known.spec.workload != agent.spec.workload else set()
                    self._replace(known, agent)
            for key, agent in before.items():
                if key not in agents:
                    touched.add(namespace)
                    self._remove(agent)
        return touched

    def agents_of(self, pod: Pod) -> list[Agent]:
        """Give the agents that a pod runs."""
        found: list[Agent] = []
        for label in [("", ""), *pod.labels.items()]:
            bucket = self._buckets.get((pod.namespace, pod.service_account, *label))
            found += [agent for agent in bucket.values() if _selects(agent, pod)] if bucket is not None else []
        return found

    def _replace(self, old: Agent | None, new: Agent) -> None:
        if old is not None:
            self._remove(old)
        if (bucket := _bucket(new)) is not None:
            self._buckets.setdefault(bucket, {})[new.key] = new

    def _remove(self, agent: Agent) -> None:
        if (bucket := _bucket(agent)) is None:
            return
        agents = self._buckets[bucket]
        del agents[agent.key]
        if not agents:
            del self._buckets[bucket]


def _selects(agent: Agent, pod: Pod) -> bool:
    return agent.spec.workload is not None and selects(agent.spec.workload.selector, pod.labels)


def _bucket(agent: Agent) -> _Bucket | None:
    workload = agent.spec.workload
    if workload is None:
        return None
    key, value = next(iter(workload.selector.match_labels.items()), ("", ""))
    return agent.metadata.namespace or "", workload.service_account_name, key, value
