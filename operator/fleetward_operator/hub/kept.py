"""Which runs a hub keeps, as its status tells the other replicas."""

from fleetward.registry.slice import Wire


class KeptRuns(Wire, frozen=True):
    """The journal of one hub."""

    tag: str
    """What the ids of its runs carry."""
    instance: str
    """Another one each time the hub starts, so that it does not take itself for another one."""
