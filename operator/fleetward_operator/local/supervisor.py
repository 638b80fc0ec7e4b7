"""Decision webhooks as child processes: one for each group of agents, restarted on the same address when one dies."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote

import aiohttp
import msgspec

START_SECONDS = 30.0
"""How long a webhook may take from its start until it is ready."""

STOP_SECONDS = 5.0
"""How long a webhook may take to stop before it is killed."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0

_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.5
"""Seconds between looks at a webhook that is not ready yet. Many, looked at often, would keep the hub from its work."""

_log = logging.getLogger(__name__)


class SupervisorError(Exception):
    """A webhook could not be started; the message says why."""


class _Listening(msgspec.Struct):
    address: str


@dataclass(eq=False)
class Webhook:
    """One webhook process and the address it keeps."""

    workload: str
    listen: str
    """What it is told to listen on; after its first start, the address it got."""
    starts: int = 0
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str | None = None
    stopping: bool = False


class Supervisor:
    """Keeps one webhook for each workload named by `run`. Use as an asynchronous context manager: leaving stops all.

    `port` is the first port; 0 lets the system choose. `spools` is the folder that holds a spool for each.
    """

    def __init__(self, *, hub: str, spools: Path, port: int) -> None:
        self._hub = hub
        self._spools = spools
        self._next_port = port
        self._webhooks: dict[str, Webhook] = {}
        self._addresses: dict[str, str] = {}
        """Every address ever given to a workload: one that comes back gets its own again."""

    @property
    def webhooks(self) -> Mapping[str, Webhook]:
        """The webhooks by workload."""
        return self._webhooks

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.run([])

    async def run(self, workloads: list[str]) -> None:
        """Start and stop webhooks so that just these workloads have one."""
        gone = [webhook for name, webhook in self._webhooks.items() if name not in workloads]
        for webhook in gone:
            del self._webhooks[webhook.workload]
        await asyncio.gather(*map(self._stop, gone))
        for name in workloads:
            if name not in self._webhooks:
                webhook = Webhook(name, self._address(name))
                self._webhooks[name] = webhook
                webhook.task = asyncio.create_task(self._keep(webhook))

    async def ready(self) -> None:
        """Wait until every webhook decides. Raises SupervisorError for one that cannot be started."""
        for webhook in list(self._webhooks.values()):
            try:
                await asyncio.wait_for(webhook.ready.wait(), START_SECONDS)
            except TimeoutError:
                raise SupervisorError(f"the webhook for {webhook.workload} is not ready: it did not start") from None
            if webhook.failure is not None:
                raise SupervisorError(f"the webhook for {webhook.workload} cannot be started: {webhook.failure}")

    def _address(self, workload: str) -> str:
        if workload not in self._addresses:
            self._addresses[workload] = f"http://127.0.0.1:{self._next_port}"
            self._next_port += 1 if self._next_port else 0
        return self._addresses[workload]

    async def _keep(self, webhook: Webhook) -> None:
        """Start the webhook, and again whenever it dies."""
        pause = _FIRST_PAUSE
        while True:
            webhook.starts += 1
            ended = await self._run_once(webhook)
            if webhook.stopping:
                return
            if webhook.starts == 1 and not webhook.ready.is_set():
                webhook.failure = ended
                webhook.ready.set()
                return
            _log.warning("the webhook for %s ended (%s); starting it again", webhook.workload, ended)
            pause = _FIRST_PAUSE if webhook.ready.is_set() else min(2 * pause, _LONGEST_PAUSE)
            webhook.ready.clear()
            await asyncio.sleep(pause)

    async def _run_once(self, webhook: Webhook) -> str:
        """Run the process to its end; say how it ended."""
        process = await asyncio.create_subprocess_exec(
            *self._command(webhook),
            stdin=asyncio.subprocess.PIPE,  # closes when this process ends, however it ends; then the webhook stops
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        webhook.process = process
        said: list[str] = []
        errors = asyncio.create_task(_relay(process.stderr, said))
        waiting = asyncio.create_task(self._await_ready(webhook, process))
        try:
            code = await process.wait()
            await errors
        finally:
            waiting.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()
        return said[-1] if said else f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def _command(self, webhook: Webhook) -> list[str]:
        spool = self._spools / quote(webhook.workload, safe="")
        return [
            *(sys.executable, "-m", "fleetward_webhook"),
            *("--listen", webhook.listen),
            *("--hub", self._hub),
            *("--workload", webhook.workload),
            *("--spool", str(spool)),
            "--exit-with-parent",
        ]

    async def _await_ready(self, webhook: Webhook, process: asyncio.subprocess.Process) -> None:
        """Learn the address the webhook got, and wait until it decides."""
        line = await process.stdout.readline() if process.stdout is not None else b""
        if not line:
            return
        webhook.listen = msgspec.json.decode(line, type=_Listening).address
        self._addresses[webhook.workload] = webhook.listen
        pause = _FIRST_LOOK
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{webhook.listen}/readyz", timeout=aiohttp.ClientTimeout(1)) as answer:
                        if answer.status == 200:
                            webhook.ready.set()
                            return
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_LOOK)

    async def _stop(self, webhook: Webhook) -> None:
        webhook.stopping = True
        process = webhook.process
        if process is not None and process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
        if webhook.task is not None:
            webhook.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await webhook.task


async def _relay(stream: asyncio.StreamReader | None, last: list[str]) -> None:
    """Pass on what a webhook logs, and remember its last words."""
    while stream is not None and (line := await stream.readline()):
        text = line.decode(errors="replace").rstrip()
        last[:] = [text]
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - its log, not ours
