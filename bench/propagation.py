"""From an edit on disk to the last decision that still allowed, over many connected webhook links."""

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from bench.serving import Served, served
from bench.stats import Samples
from bench.world import REQUEST, governed, other_rules
from fleetward.audit.spool import Spool
from fleetward.decision.engine import Engine
from fleetward.decision.request import parse_request
from fleetward.registry.slice import Slice
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.link import Link

LINKS = 100


class _Sidecar:
    """The part of a webhook that matters here: a real link, a real engine, no HTTP."""

    def __init__(self, hub: str, spool: Path) -> None:
        self._request = parse_request(json.dumps(REQUEST).encode())
        self.engine: Engine | None = None
        self.decision_changed = asyncio.Event()
        self.changed_at = 0.0
        self.spool = Spool.open(spool)
        self.link = Link(hub, workload="webhook-1", spool=self.spool, on_slice=self._take, authority=Authority())

    def _take(self, slice_: Slice) -> None:
        if self.engine is None:
            self.engine = Engine(slice_)
        else:
            self.engine.apply(slice_)
        self.changed_at = time.perf_counter()
        self.decision_changed.set()

    @property
    def allows(self) -> bool:
        return self.engine is not None and self.engine.decide(self._request).allowed


def measure(folder: Path, rounds: int) -> dict[str, Samples]:
    """Pause and resume the agent `rounds` times; give the time to each link's change and to the last one's."""
    with (
        tempfile.TemporaryDirectory() as spools,
        served(folder, [*governed(), *other_rules(1_000)], "--webhooks", "1", "--lease-seconds", "60") as serving,
    ):
        return asyncio.run(_measure(serving, Path(spools), rounds))


async def _measure(serving: Served, spools: Path, rounds: int) -> dict[str, Samples]:
    sidecars = [_Sidecar(serving.ready["hub"], spools / str(number)) for number in range(LINKS)]
    running = [asyncio.create_task(sidecar.link.run()) for sidecar in sidecars]
    each: list[float] = []
    last: list[float] = []
    try:
        await asyncio.gather(*(sidecar.decision_changed.wait() for sidecar in sidecars))
        for _ in range(rounds):
            for mode in ("Paused", "Running"):
                for sidecar in sidecars:
                    sidecar.decision_changed.clear()
                start = _edit(serving.folder / "agents.yaml", mode)
                await asyncio.gather(*(_until(sidecar, allowed=mode == "Running") for sidecar in sidecars))
                if mode == "Paused":
                    micros = [(sidecar.changed_at - start) * 1e6 for sidecar in sidecars]
                    each.extend(micros)
                    last.append(max(micros))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for sidecar in sidecars:
            sidecar.spool.close()
    return {
        "edit on disk to change, each of 100 links": Samples("edit on disk to change, each of 100 links", each),
        "edit on disk to last allowed decision": Samples("edit on disk to last allowed decision", last),
    }


def _edit(file: Path, mode: str) -> float:
    """Replace the file as an editor does; give the moment at which the new content was there."""
    text = file.read_text()
    changed = text.replace("  operatingMode: Paused\n", "")
    if mode == "Paused":
        changed = changed.replace("  role: Worker\n", "  role: Worker\n  operatingMode: Paused\n", 1)
    temporary = file.with_name(".editing")
    temporary.write_text(changed)
    os.replace(temporary, file)  # noqa: PTH105 - the call whose moment is measured
    return time.perf_counter()


async def _until(sidecar: _Sidecar, *, allowed: bool) -> None:
    while sidecar.allows != allowed:
        await asyncio.wait_for(sidecar.decision_changed.wait(), 30)
        sidecar.decision_changed.clear()
