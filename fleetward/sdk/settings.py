"""Where a client finds its webhook, and for whom it asks."""

import os
from dataclasses import dataclass

from fleetward.stream.address import Address, parse_address

DEFAULT_URL = "http://127.0.0.1:8180"
DEFAULT_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """A client's settings. `timeout` is in seconds."""

    address: Address
    agent: str | None
    timeout: float


def settings(url: str | None, agent: str | None, timeout: float) -> Settings:
    """Complete what is given from the environment: FLEETWARD_URL, FLEETWARD_AGENT.

    Raises ValueError for an address that is not on this machine: a webhook listens on loopback only.
    """
    return Settings(
        address=parse_address(url or os.environ.get("FLEETWARD_URL") or DEFAULT_URL),
        agent=agent or os.environ.get("FLEETWARD_AGENT") or None,
        timeout=timeout,
    )
