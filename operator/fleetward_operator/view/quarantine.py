"""Where agents and pods are quarantined, and what stands there. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fleetward.registry.registry import Registry
from fleetward.resources.base import LabelSelector
from fleetward_operator.view.pods import Pod
from fleetward_operator.view.workloads import excluded


@dataclass(frozen=True, slots=True)
class Quarantines:
    """The namespaces that quarantine is about."""

    agents: frozenset[str]
    """Those with a Quarantined agent."""
    pods: frozenset[str]
    """Those with a pod that has the label."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Another NetworkPolicy that allows something: policies add up, so ours does not cut off what one allows."""

    policy: str
    """Its name."""
    selector: LabelSelector
    """The pods that it allows something to."""


Cuts = Mapping[str, tuple[Opening, ...]]
"""By namespace in which our NetworkPolicy stands: what is open all the same."""


def quarantines(registry: Registry, pods: Iterable[Pod], never: Collection[str] = ()) -> Quarantines:
    """Say where agents and pods are quarantined. `never`: namespaces that are never governed."""
    agents = {a.namespace for a in registry.not_running.values() if a.mode.operating_mode == "Quarantined"}
    return Quarantines(
        agents=frozenset(namespace for namespace in agents if not excluded(namespace, registry, never)),
        pods=frozenset(pod.namespace for pod in pods if pod.quarantined),
    )
