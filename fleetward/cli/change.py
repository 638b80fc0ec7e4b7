"""A change of operating mode: what is asked for, and what came of it, whatever the source."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fleetward.registry.registry import Registry
from fleetward.registry.slice import MODES, Agent, OperatingMode
from fleetward.resources.document import Identity


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    kind: str
    """Agent or AgentFleet."""
    name: str
    """As the user gave it: `namespace/name`, or a bare name."""
    mode: OperatingMode
    reason: str | None = None
    by: str | None = None
    """Who does this, where the user says so."""


@dataclass(frozen=True)
class Change:
    """What came of it."""

    identity: Identity
    before: OperatingMode
    after: OperatingMode
    changed: bool
    agents: tuple[Agent, ...]
    """The agents concerned, with what holds for each now; those that are known."""
    notes: tuple[str, ...] = ()
    """What else the user should know."""
    place: str = ""
    """Where it is written, as `file:line`; empty in a cluster."""
    facts: Mapping[str, str | int] = field(default_factory=dict)
    """More for programs, such as the file."""
    generation: int | None = None
    """In a cluster: the metadata.generation that has to come into force."""


@dataclass(frozen=True)
class Standing:
    """How far a change has come into force."""

    reached: bool
    text: str


def differs(before: OperatingMode, known_reason: str, wanted: Wanted) -> bool:
    """Say whether there is something to do: nothing weakens a stronger mode but Running, and a reason is kept."""
    if wanted.mode == "Running":
        return before != "Running"
    if MODES.index(before) > MODES.index(wanted.mode):
        return False
    return before != wanted.mode or (wanted.reason is not None and wanted.reason != known_reason)


def concerned(registry: Registry, identity: Identity) -> Iterator[Agent]:
    """Give the agents that a mode on this agent or fleet holds for."""
    for key in sorted(registry.agents):
        agent = registry.agents[key]
        if identity.key in (agent.fleets if identity.kind == "AgentFleet" else (agent.key,)):
            yield agent


def keys(agents: Iterable[Agent]) -> str:
    """Name agents in a line."""
    return ", ".join(agent.key for agent in agents) or "none"
