"""Grants: who handed what work to whom, in which run and within which scope."""

from fleetward.delegation.scope import Scope
from fleetward.registry.slice import Wire


class Grant(Wire, frozen=True, kw_only=True):
    """A delegation that was allowed. It travels signed; see `token`."""

    id: str
    run: str
    path: tuple[str, ...]
    """Who handed the work down: the agent that opened the run first, the one that gave this grant last."""
    to: str
    """The agent that may use it."""
    scope: Scope
    labels: tuple[str, ...] = ()
    """Provenance labels of what was handed over."""
    parent: str | None = None
    """The id of the grant it comes from; None where the delegating agent opened the run."""
    cause: str = ""
    """The id of the decision that allowed the delegation."""
    issued_at: int
    """In seconds since the epoch, as is `expires_at`."""
    expires_at: int

    @property
    def depth(self) -> int:
        """How often the work was handed on: 1 for whoever got it from the agent that opened the run."""
        return len(self.path)
