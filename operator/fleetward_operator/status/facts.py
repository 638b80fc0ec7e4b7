"""What is known of an agent besides its object: what its status is worked out from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetward.registry import slice as sl
from fleetward_operator.view.pods import Pod


@dataclass(frozen=True, slots=True)
class PodNow:
    """One pod of the agent."""

    pod: Pod
    connected: bool = False
    """Whether its decision webhook is connected and serves the agent."""
    current: bool = False
    """Whether that decides by what holds for the agent now."""
    mates: tuple[str, ...] = ()
    """Other agents of the pod whose operating mode is another."""
    blocked: str = ""
    """Why its eviction is refused."""
    opened: tuple[str, ...] = ()
    """NetworkPolicies that allow it something, though ours is to cut it off."""

    @property
    def runs(self) -> bool:
        """Whether the pod runs, or is about to: then it must have a decision webhook."""
        return not self.pod.held and not self.pod.terminating


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """What is known of an agent besides the object itself."""

    item: sl.Agent | None
    """It, as the registry has it; None where nothing of it governs."""
    has_workload: bool = True
    pods: Sequence[PodNow] = ()
    """The pods it selects that are not over."""
    cut: bool = False
    """Whether the NetworkPolicy stands in its namespace that cuts quarantined pods off."""
    excluded: str = ""
    """Why pods of its namespace are not governed."""
    patient: bool = False
    """Whether webhooks that are not current may be so for a moment: the last change was not about the agent itself."""
    version: str = ""
    """The registry version that last changed what holds for the agent."""
    last_decision: Mapping[str, Any] | None = field(default=None)

    @property
    def without(self) -> list[PodNow]:
        """The pods that run, or are about to, and have no decision webhook."""
        return [p for p in self.pods if p.runs and not p.pod.injected and not p.connected]
