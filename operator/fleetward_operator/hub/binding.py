"""Which sidecar may speak for which agents."""

import hmac
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from fleetward.registry.registry import Registry


class Binding(Protocol):
    """Says who a connecting sidecar is, and which agents it serves.

    Except where it is a WorkloadBinding, the hub holds a sidecar to the workload it proved to be: its writer's id stays
    with that workload, and what it records must be about the workload's agents.
    """

    async def authenticate(self, workload: str, token: str | None) -> None:
        """Let whoever presents the bearer `token` speak for `workload`.

        Raises PermissionError with the reason (which is recorded), another OSError where it cannot be found out now.
        """

    def agents(self, workload: str, registry: Registry) -> Collection[str]:
        """Give the keys of the agents of `workload`. Asked again at every new registry, and at `Hub.recheck`.

        Raises, to have the link ended, LookupError where the workload is gone, PermissionError where it may not
        connect any more (which is recorded). Both with the reason.
        """


class WorkloadBinding:
    """Believes the workload that a sidecar names, which is right where only our own processes can reach the hub.

    `groups` gives the agents' keys by workload. With `token`, a sidecar must present it as well.
    """

    def __init__(
        self, groups: Callable[[Registry], Mapping[str, Collection[str]]], *, token: str | None = None
    ) -> None:
        self._groups = groups
        self._token = token
        self._last: tuple[Registry | None, Mapping[str, Collection[str]]] = (None, {})

    async def authenticate(self, workload: str, token: str | None) -> None:  # noqa: ARG002 - any workload may be named
        """Compare the token, where one is asked for. Raises PermissionError."""
        if self._token is not None and not hmac.compare_digest(self._token.encode(), (token or "").encode()):
            raise PermissionError("the bearer token is missing or is not this hub's")

    def agents(self, workload: str, registry: Registry) -> Collection[str]:
        """Give the agents of the group; none where there is no such group (yet)."""
        if self._last[0] is not registry:
            self._last = (registry, self._groups(registry))
        return self._last[1].get(workload, ())
