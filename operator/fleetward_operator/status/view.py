"""What status, Events and the kill surface look at: the operator's view of the cluster and of its hub."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fleetward.audit.forward import SinkStatus
from fleetward.registry.registry import Registry
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.pods import Pods
from fleetward_operator.view.quarantine import Cuts


class Link(Protocol):
    """A connected decision webhook, as `fleetward_operator.hub.hub.LinkStatus` describes it."""

    @property
    def workload(self) -> str:
        """Its pod, as `namespace/name`."""

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents it serves."""

    @property
    def running(self) -> str:
        """The registry version it decides by; empty before the first."""


class ClusterView(Protocol):
    """What holds in the cluster, as far as the operator has seen. All of it is read on the main loop."""

    @property
    def registry(self) -> Registry:
        """The registry in force."""

    @property
    def observed(self) -> Mapping[tuple[str, str], Observed]:
        """Every object of our kinds, by kind and key."""

    @property
    def pods(self) -> Pods:
        """All pods."""

    def age_seconds(self) -> float:
        """Say for how long, at most, something may have gone unseen."""


class StatusView(ClusterView, Protocol):
    """What statuses are made from. Nothing here may block: what takes a while is kept ready by others."""

    def links(self) -> Sequence[Link]:
        """Give the connected decision webhooks."""

    def last_decision(self, agent: str) -> Mapping[str, Any] | None:
        """Give the agent's last decision as its status has it; see `LastDecisions`."""

    def sink_status(self, name: str) -> SinkStatus | None:
        """Say how an audit sink is doing; None where it has not started."""

    def blocked(self) -> Mapping[str, str]:
        """Say, by pod, why evictions are refused; see `KillSurface.blocked`."""

    def cuts(self) -> Cuts:
        """Say where the NetworkPolicy for quarantine stands; see `Keeper.cuts`."""
