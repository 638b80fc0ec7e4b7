"""A keeper and its election, running against a real API server as whoever the client is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from kubernetes.aio.client import ApiClient
from support.controlplane.plane import ControlPlane

from fleetward_operator.cluster.election import Election
from fleetward_operator.keeper import Keeper, KeeperSettings
from fleetward_operator.view.quarantine import Quarantines

CLUSTER_OBJECTS = (
    "mutatingwebhookconfiguration/fleetward",
    "validatingwebhookconfiguration/fleetward",
    "validatingadmissionpolicybinding/fleetward-governed-pods",
    "validatingadmissionpolicybinding/fleetward-injected-pods",
    "validatingadmissionpolicy/fleetward-governed-pods",
    "validatingadmissionpolicy/fleetward-injected-pods",
)
"""What a keeper makes outside of namespaces."""


class Keeping:
    """A keeper that runs, and the namespaces it is told to be governed, and those with something quarantined."""

    def __init__(self, api: ApiClient, settings: KeeperSettings) -> None:
        self.namespaces: Collection[str] | None = set()
        self.quarantines: Quarantines | None = Quarantines(frozenset(), frozenset())
        self.election = Election(api, settings.namespace, "one", duration=3, renew_deadline=2, retry=0.3)
        self.keeper = Keeper(api, settings, self.election, lambda: self.namespaces, lambda: self.quarantines)
        self._tasks = [asyncio.create_task(part.run()) for part in (self.keeper, self.election)]

    async def stop(self) -> None:
        """Stop the keeper, then the election."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def keeping(api: ApiClient, settings: KeeperSettings) -> AsyncIterator[Keeping]:
    """Have a keeper while the block lasts."""
    running = Keeping(api, settings)
    try:
        yield running
    finally:
        await running.stop()


def clean(plane: ControlPlane) -> None:
    """Remove what keepers made outside of namespaces."""
    plane.kubectl("delete", *CLUSTER_OBJECTS, "--ignore-not-found")
    plane.kubectl("delete", "clusterrole/fleetward-operator", "--ignore-not-found")
