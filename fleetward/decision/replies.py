"""What any question of a decision webhook to the hub may be answered with, whatever it is about."""

from fleetward.registry.slice import Wire


class Done(Wire, frozen=True, tag=True):
    """It is kept."""


class Failed(Wire, frozen=True, tag=True):
    """It cannot be said now: the hub cannot keep it, or is not the one that keeps it."""

    reason: str
