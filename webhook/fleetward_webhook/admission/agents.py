"""Agents and fleets as admission needs them: which agents a pod runs, and whether these may run at all.

Read by msgspec straight from the API server's lists, since that happens while a pod waits.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from pydantic import BaseModel

from fleetward.registry.selector import selects
from fleetward.registry.slice import HOLDING_MODES, MODES, OperatingMode
from fleetward.resources.base import LabelSelector
from fleetward.resources.names import INJECTION_LABEL
from fleetward_webhook.admission.review import Camel

_EVERYTHING = LabelSelector()


class Metadata(Camel, frozen=True):
    """Who an object is."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Workload(Camel, frozen=True):
    """Which pods run an agent."""

    selector: LabelSelector
    service_account_name: str = "default"


class AgentSpec(Camel, frozen=True):
    """What of an agent concerns its pods."""

    workload: Workload | None = None
    operating_mode: OperatingMode = "Running"


class Agent(Camel, frozen=True):
    """An agent."""

    metadata: Metadata
    spec: AgentSpec

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class FleetAgents(Camel, frozen=True):
    """Which agents belong to a fleet."""

    namespace_selector: LabelSelector = _EVERYTHING
    agent_selector: LabelSelector = _EVERYTHING


class FleetSpec(Camel, frozen=True):
    """What of a fleet concerns its agents' pods."""

    agents: FleetAgents
    operating_mode: OperatingMode = "Running"


class Fleet(Camel, frozen=True):
    """A fleet."""

    metadata: Metadata
    spec: FleetSpec


class Namespace(Camel, frozen=True):
    """A namespace."""

    metadata: Metadata

    @property
    def excluded(self) -> bool:
        """Whether nothing is governed in it."""
        return self.metadata.labels.get(INJECTION_LABEL) == "disabled"


class PodSpec(Camel, frozen=True):
    """As whom a pod runs."""

    containers: list[dict[str, Any]]
    service_account_name: str | None = None


class PodMetadata(Camel, frozen=True):
    """A pod's labels; its name may not be known yet."""

    labels: dict[str, str] | None = None


class Pod(Camel, frozen=True):
    """What of a pod says which agents it runs."""

    metadata: PodMetadata
    spec: PodSpec


def hook(wanted: type, found: Any) -> Any:
    """Read a part that is a pydantic model, for msgspec. Raises ValueError, as msgspec wants it."""
    if issubclass(wanted, BaseModel):
        return wanted.model_validate(found)
    raise NotImplementedError(wanted)


def running(agents: Iterable[Agent], pod: Pod) -> list[Agent]:
    """Give the agents that the pod runs, by name. All of them are of the pod's namespace.

    The operator's rule (`fleetward_operator.view.pods.runs`): labels and service account must fit.
    """
    labels, account = pod.metadata.labels or {}, pod.spec.service_account_name or "default"
    found = [
        agent
        for agent in agents
        if (workload := agent.spec.workload) is not None
        and workload.service_account_name == account
        and selects(workload.selector, labels)
    ]
    return sorted(found, key=lambda agent: agent.key)


def of(agents: Iterable[Agent], fleets: Iterable[Fleet], namespace_labels: Mapping[str, str]) -> list[Fleet]:
    """Give the fleets that one of the agents belongs to."""
    return [fleet for fleet in fleets if any(_belongs(agent, fleet, namespace_labels) for agent in agents)]


def held(agents: Iterable[Agent], fleets: Iterable[Fleet], namespace_labels: Mapping[str, str]) -> bool:
    """Say whether none of the agents may have a new pod: each is stopped or quarantined, by itself or by a fleet."""
    around = list(fleets)

    def mode(agent: Agent) -> OperatingMode:
        of_fleets = [f.spec.operating_mode for f in around if _belongs(agent, f, namespace_labels)]
        return max([agent.spec.operating_mode, *of_fleets], key=MODES.index)  # the strongest counts

    return all(mode(agent) in HOLDING_MODES for agent in agents)


def _belongs(agent: Agent, fleet: Fleet, namespace_labels: Mapping[str, str]) -> bool:
    chosen = fleet.spec.agents
    return selects(chosen.namespace_selector, namespace_labels) and selects(
        chosen.agent_selector, agent.metadata.labels
    )
