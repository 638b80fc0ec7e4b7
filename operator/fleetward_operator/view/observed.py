"""What the operator observed of a custom resource: the object as stored, and whether it governs."""

from dataclasses import dataclass, field
from typing import Any

from fleetward.resources import Resource


@dataclass(frozen=True, slots=True)
class Observed:
    """One object of one of our kinds, as last seen.

    `resource` is what governs: the object itself or, while that has faults, the last good version of it (None where
    there never was one). `faults` say what is wrong with the object as it stands: `field: message`.
    """

    kind: str
    namespace: str
    """Empty for a cluster-scoped kind."""
    name: str
    uid: str
    generation: int
    resource_version: int
    resource: Resource | None
    faults: tuple[str, ...] = ()
    status: dict[str, Any] = field(default_factory=dict)
    """The status as last seen."""

    @property
    def key(self) -> str:
        """`namespace/name`, or `name` for a cluster-scoped kind."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def governs(self) -> bool:
        """Whether the object as it stands is in force."""
        return not self.faults
