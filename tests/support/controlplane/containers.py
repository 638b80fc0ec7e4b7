"""One container of a pod as a local process."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.controlplane.leash import leashed
from support.controlplane.podfields import MissingError, Objects
from support.controlplane.podfields import field as pod_field
from support.controlplane.probes import Prober
from support.controlplane.rewrite import Rewriter, expand

FIRST_BACKOFF = 0.25
LONGEST_BACKOFF = 10.0
"""Seconds until a container that ended is started again, doubled each time. The kubelet's are 10 and 300."""

CONFIG_RETRY = 0.5
"""Seconds until a container is tried again that refers to something missing."""

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@dataclass
class State:
    """What the pod's status says of a container."""

    waiting: tuple[str, str] | None = ("ContainerCreating", "")
    """Reason and message."""
    since: datetime | None = None
    terminated: dict[str, Any] | None = None
    last: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    started: bool = False
    ready: bool = False


@dataclass(frozen=True)
class Place:
    """Where the containers of one pod run."""

    pod: Mapping[str, Any]
    address: str
    directory: Path
    objects: Objects
    base_env: Mapping[str, str]
    """Set in each container unless it sets the same itself."""
    entrypoints: Mapping[str, Sequence[str]]
    """By image: what it runs where the container has no `command`."""


class Container:
    """Runs one container, again and again if its restart policy says so."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        place: Place,
        rewrite: Rewriter,
        *,
        log: Path,
        env: Mapping[str, str],
        changed: Callable[[], None],
    ) -> None:
        self.spec, self.state = spec, State()
        self.name: str = spec["name"]
        self._place, self._rewrite, self._log, self._extra_env, self._changed = place, rewrite, log, env, changed
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self.up = asyncio.Event()
        """Set once it has started for the first time, a startup probe included."""
        self._env: dict[str, str] = {}

    @property
    def sidecar(self) -> bool:
        """Whether it is a native sidecar, if it is an init container."""
        return bool(self.spec.get("restartPolicy") == "Always")

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self, policy: str) -> int:
        """Run until it is over for good under a restart policy, or stopped. Gives the last exit code."""
        delay = FIRST_BACKOFF
        while True:
            code = await self._once()
            if self._stopping.is_set() or policy == "Never" or (policy == "OnFailure" and code == 0):
                return code
            again = f"back-off {delay:g}s restarting container {self.name}"
            self.state.last, self.state.terminated = self.state.terminated or {}, None
            self.state.waiting = ("CrashLoopBackOff", again)
            self._changed()
            if await self._stopped_within(delay):
                return code
            delay = min(delay * 2, LONGEST_BACKOFF)
            self.state.restarts += 1

    async def stop(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after some seconds."""
        self._stopping.set()
        self.signal(signal.SIGTERM)
        if self._process is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the container's processes, if there are any."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def execute(self, command: Sequence[str]) -> int:
        """Run another command in the container; gives its exit code."""
        process = await self._spawn(command)
        try:
            return await process.wait()
        finally:
            await _end(process)

    async def _once(self) -> int:
        command = await self._prepared()
        if not command:
            return 1
        self._process = await self._spawn(command)
        if self._stopping.is_set():  # asked to stop while it was being started
            self.signal(signal.SIGKILL)
        began = datetime.now(UTC)
        self.state.waiting, self.state.terminated, self.state.since = None, None, began
        probing = asyncio.create_task(self._probe())
        self._changed()
        try:
            code = await self._process.wait()
        finally:
            probing.cancel()
            await _end(self._process)
            await asyncio.gather(probing, return_exceptions=True)
        self._over(code, began)
        return code if code >= 0 else 128 - code

    def _over(self, code: int, began: datetime) -> None:
        self.state.started = self.state.ready = False
        self.state.since = None
        self.state.terminated = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": stamp(began),
            "finishedAt": stamp(datetime.now(UTC)),
        }
        self._changed()

    async def _prepared(self) -> list[str]:
        """Give the command line once all that the container refers to is there; empty when it is stopped first."""
        while not self._stopping.is_set():
            try:
                return await self._prepare()
            except MissingError as error:
                self.state.waiting = ("CreateContainerConfigError", str(error))
                self._changed()
            await self._stopped_within(CONFIG_RETRY)
        return []

    async def _stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _prepare(self) -> list[str]:
        """Set up the environment and give the command line."""
        env: dict[str, str] = {**self._place.base_env, **self._extra_env}
        for source in self.spec.get("envFrom") or ():
            env |= await self._all_of(source)
        for entry in self.spec.get("env") or ():
            value = await self._referred(entry) if "valueFrom" in entry else expand(entry.get("value", ""), env)
            if value is not None:
                env[entry["name"]] = value
        self._env = {name: self._rewrite(value) for name, value in env.items()}
        image = self.spec.get("image", "")
        command = self.spec.get("command") or self._place.entrypoints.get(image)
        if not command:
            known = ", ".join(self._place.entrypoints) or "none"
            message = f"container {self.name} has no command, and what image {image} runs is not known here"
            raise MissingError(f"{message} (this node knows: {known})")
        return [self._rewrite(expand(part, env)) for part in (*command, *(self.spec.get("args") or ()))]

    async def _all_of(self, source: Mapping[str, Any]) -> dict[str, str]:
        key, kind = ("configMapRef", "configmaps") if "configMapRef" in source else ("secretRef", "secrets")
        data = await self._object(kind, source[key])
        return {f"{source.get('prefix', '')}{name}": value.decode() for name, value in data.items()}

    async def _referred(self, entry: Mapping[str, Any]) -> str | None:
        source = entry["valueFrom"]
        if "fieldRef" in source:
            return pod_field(self._place.pod, source["fieldRef"]["fieldPath"], self._place.address)
        for key, kind in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if key in source:
                data = await self._object(kind, source[key])
                if source[key]["key"] in data:
                    return data[source[key]["key"]].decode()
                if source[key].get("optional"):
                    return None
                raise MissingError(f"{kind.removesuffix('s')} {source[key]['name']} has no key {source[key]['key']}")
        raise MissingError(f"environment variable {entry['name']}: this node knows no {', '.join(source)}")

    async def _object(self, kind: str, reference: Mapping[str, Any]) -> dict[str, bytes]:
        namespace = self._place.pod["metadata"]["namespace"]
        if reference.get("optional"):
            return await self._place.objects.data(kind, namespace, reference["name"]) or {}
        return await self._place.objects.required(kind, namespace, reference["name"])

    async def _spawn(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *leashed(find_program(command[0]), *command[1:]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._working_directory(),
                env=self._env,
                start_new_session=True,
            )

    def _working_directory(self) -> Path:
        named = Path(self._rewrite(self.spec.get("workingDir") or ""))
        return named if named.is_absolute() and named.is_dir() else self._place.directory

    async def _probe(self) -> None:
        startup, readiness, liveness = (self.spec.get(name) for name in PROBES)
        prober = Prober(self.spec, self._place.address, self.execute)
        up = asyncio.Event()
        async with asyncio.TaskGroup() as probes:
            if startup:
                watching = probes.create_task(prober.watch(startup, lambda ok: up.set() if ok else self._unhealthy()))
                await up.wait()
                watching.cancel()
            self.state.started = True
            self.up.set()
            self._set_ready(not readiness)
            if readiness:
                probes.create_task(prober.watch(readiness, self._set_ready))
            if liveness:
                probes.create_task(prober.watch(liveness, lambda ok: None if ok else self._unhealthy()))

    def _set_ready(self, ready: bool) -> None:  # noqa: FBT001 - what a probe found
        self.state.ready = ready
        self._changed()

    def _unhealthy(self) -> None:
        """End the process as the kubelet does when a startup or liveness probe failed; the restart policy goes on."""
        self.signal(signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that a process and what it started are gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())


def find_program(name: str) -> str:
    """Find a program where this Python's own programs are (its venv), else leave it to PATH."""
    beside = Path(sys.executable).parent / name
    if "/" not in name and beside.exists():
        return str(beside)
    return shutil.which(name) or name


def stamp(moment: datetime) -> str:
    """Give a time as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
