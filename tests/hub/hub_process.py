"""A hub in a process of its own, to be killed. Run by test_crash.py: DIRECTORY [before|after]."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from fleetward.audit.store import Store
from fleetward.registry.registry import Registry
from fleetward.resources import Agent
from fleetward_operator.hub.binding import WorkloadBinding
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.server import HubServer


class DyingStore(Store):
    """Kills its own process when the records are in and not committed, or committed and not acknowledged."""

    moment = ""

    def append(self, lines: Sequence[bytes]) -> None:
        if self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().append(lines)
        if self.moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)


async def main(directory: str, moment: str) -> None:
    agent = {"role": "Worker"}
    metadata = {"name": "alpha", "namespace": "reports"}
    document = {"apiVersion": "fleetward.dev/v1alpha1", "kind": "Agent", "metadata": metadata, "spec": agent}
    registry = Registry.build([Agent.model_validate(document)])
    store = DyingStore.open(f"{directory}/audit.db")
    store.moment = moment
    binding = WorkloadBinding(lambda registry: {"alpha": list(registry.agents)})
    async with Hub(store, binding) as hub, HubServer(hub, f"unix://{directory}/hub.sock"):
        hub.publish(registry)
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], (sys.argv[2:] or [""])[0]))
