"""The operator's view of the cluster: all objects it cares about, and how old that knowledge may be at most."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Self

from kubernetes.aio.client import ApiClient

from fleetward_operator.kube.access import Access
from fleetward_operator.view.liveness import Liveness
from fleetward_operator.view.relist import RELIST_SECONDS, Relister
from fleetward_operator.view.source import Source
from fleetward_operator.view.watching import FOLLOWED, Watching


class ClusterView:
    """Follows the cluster while it is entered. `failed` is called, with the reason, should watching end for good."""

    def __init__(
        self,
        client: ApiClient,
        access: Access,
        *,
        failed: Callable[[str], None],
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        self.source = Source()
        self.liveness = Liveness(FOLLOWED)
        self.relister = Relister(client, self.source, self.liveness, FOLLOWED, interval=relist_seconds)
        self._access = access
        self._failed = failed
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._relisting = asyncio.create_task(self.relister.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._relisting.cancel()
        await asyncio.gather(self._relisting, return_exceptions=True)

    async def follow(self, changed: Callable[[str, str], None]) -> None:
        """List everything, then begin to watch. Returns once everything that is there at the start is in.

        `changed` is called with plural and key of whatever changes. Listing goes first: it waits for the kinds to be
        installed, which kopf would not.
        """
        self.source.changed = changed
        for plural in FOLLOWED:
            self.relister.want(plural)
        await self.relister.complete()
        # Thousands of policies take seconds to work out, which other work on this loop must not wait for. Nothing else
        # touches the source before watching begins.
        await asyncio.to_thread(lambda: self.source.registry)
        await self._stack.enter_async_context(
            Watching(self._access, self.liveness, saw=self._saw, listed=self.relister.want, failed=self._failed)
        )

    def age_seconds(self) -> float:
        """Say for how long, at most, a change may have gone unseen; infinite before everything was seen once."""
        return self.liveness.age_seconds()

    def _saw(self, plural: str, type_: str | None, body: Mapping[str, Any]) -> None:
        if type_ == "DELETED":
            self.source.gone(plural, body)
        else:
            self.source.see(plural, body)
