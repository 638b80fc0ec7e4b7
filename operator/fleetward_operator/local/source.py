"""A folder of YAML as the source of the registry: read, checked, and read again whenever it changes."""

import asyncio
import contextlib
import getpass
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch

from fleetward.decision.lint import check_resource
from fleetward.registry.registry import Registry
from fleetward.resources import Agent, AgentFleet, Resource
from fleetward.resources.base import SET_BY_ANNOTATION
from fleetward.resources.finding import Finding
from fleetward.resources.folder import FolderError, FolderReader
from fleetward.resources.lastgood import LastGood

READ_AGAIN_SECONDS = 3.0
"""How often the folder is read even if nothing says that it changed: not every file system tells."""

PENDING_SECONDS = 0.05
"""How soon it is read again while a file is just being written."""


@dataclass(frozen=True)
class Reading:
    """What governs after the folder was read, and what is wrong with what was read."""

    registry: Registry
    findings: tuple[Finding, ...]


class FolderSource:
    """The registry that a folder makes, and what is wrong with the folder. A mistake never loosens what governed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = FolderReader(folder)
        self._last_good = LastGood(check_resource)
        self._registry = Registry()
        self._pending = False
        self._read_at = float("-inf")

    def read(self) -> Reading:
        """Read the folder now. Raises FolderError where there is none."""
        content = self._reader.read()
        self._pending = bool(content.pending)
        files = {(loaded.resource.kind, loaded.resource.key): loaded.file for loaded in content.resources}
        update = self._last_good.update(content)
        before = self._registry.resources
        resources = [
            _who_set_mode(r, before.get((r.kind, r.key)), files.get((r.kind, r.key))) for r in update.resources
        ]
        self._registry = self._registry.replace_all(resources, self._last_good.namespaces)
        self._read_at = time.monotonic()
        return Reading(self._registry, update.findings)

    def age_seconds(self) -> float:
        """Say how long ago the folder was last read."""
        return time.monotonic() - self._read_at

    async def readings(self, stop: asyncio.Event) -> AsyncIterator[Reading]:
        """Give a reading whenever something changed or is wrong in a new way, until `stop` is set.

        While the folder cannot be read nothing is given, and `age_seconds` grows.
        """
        last: tuple[str, Sequence[Finding]] | None = None
        async for _ in self._occasions(stop):
            try:
                reading = await asyncio.to_thread(self.read)
            except FolderError as error:
                reading = Reading(self._registry, (Finding(str(self._folder), 0, "", str(error)),))
            seen = (reading.registry.version, reading.findings)
            if seen != last:
                last = seen
                yield reading

    async def _occasions(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Tick whenever the folder may have changed."""
        changed = asyncio.Event()
        watching = asyncio.create_task(self._watch(changed, stop))
        try:
            while not stop.is_set():
                yield
                wait = PENDING_SECONDS if self._pending else READ_AGAIN_SECONDS
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), wait)
                changed.clear()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _watch(self, changed: asyncio.Event, stop: asyncio.Event) -> None:
        """Set `changed` at each change on disk. Where watching fails, reading again and again remains."""
        while not stop.is_set():
            try:
                async for _ in awatch(self._folder, step=5, debounce=20, stop_event=stop, watch_filter=None):
                    changed.set()
            except (OSError, RuntimeError):
                await asyncio.sleep(READ_AGAIN_SECONDS)
        changed.set()  # wakes whoever waits for a change, to see that it is over


def _who_set_mode(resource: Resource, before: Resource | None, file: str | None) -> Resource:
    """Say who set an operating mode where the YAML does not: whoever owns the file that was edited."""
    if not isinstance(resource, Agent | AgentFleet):
        return resource
    mode = resource.spec.operating_mode
    if resource.metadata.annotations.get(SET_BY_ANNOTATION, "").startswith(f"{mode} by "):
        return resource
    note = None
    if isinstance(before, Agent | AgentFleet) and before.spec.operating_mode == mode:
        note = before.metadata.annotations.get(SET_BY_ANNOTATION)
    elif file is not None and (before is not None or mode != "Running"):
        note = f"{mode} by an edit of {Path(file).name} (owned by {_owner(file)})"
    if note is None:
        return resource
    annotations = {**resource.metadata.annotations, SET_BY_ANNOTATION: note}
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"annotations": annotations})})


def _owner(file: str) -> str:
    try:
        return Path(file).owner()
    except (OSError, KeyError):
        return getpass.getuser()
