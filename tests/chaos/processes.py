"""The processes of a run: hubs, webhooks, PostgreSQL. Each can be killed, frozen, ended and begun anew."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

WEBHOOK = Path(sys.executable).with_name("fleetward-webhook")
IN_FORCE = re.compile(r"registry (\w+) is in force")

START_SECONDS = 60.0
STOP_SECONDS = 30.0

CUT_RECORDS = 40
"""Records that a machine takes with it when it dies."""


class DidNotStartError(Exception):
    """A process ended before it was ready, or did not get ready in time."""


class Program:
    """A process that says in its first line that it is ready, in JSON. Whoever works on it holds `lock`."""

    def __init__(self, name: str, logs: Path) -> None:
        self.name = name
        self.lock = asyncio.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.said: dict[str, Any] = {}
        """What it said when it was ready; empty before."""
        self.log = logs / f"{name}.log"
        self._out = logs / f"{name}.out"
        self._starts = 0

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def begin(self) -> None:
        """Start the process."""
        self._starts += 1
        self.said = {}
        with self.log.open("ab") as log, self._out.open("wb") as out:
            log.write(f"--- start {self._starts}, {time.strftime('%H:%M:%S')}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("FLEETWARD_")},
            )

    async def ready(self) -> None:
        """Wait until it is ready. Raises DidNotStartError."""
        deadline = time.monotonic() + START_SECONDS
        while b"\n" not in (said := self._out.read_bytes()):
            if not self.runs or time.monotonic() > deadline:
                raise DidNotStartError(f"{self.name} did not start; see {self.log}")
            await asyncio.sleep(0.02)
        self.said = json.loads(said)

    async def start(self) -> None:
        """Start it, again and again until it is ready: what it needs may be away."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.begin()
            try:
                await self.ready()
            except DidNotStartError:
                await self.end(signal.SIGKILL)
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def end(self, number: signal.Signals) -> None:
        """End the process by a signal, and wait for it; one that does not go is killed."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
            await asyncio.sleep(0.01)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        self.said = {}

    def kill(self) -> None:
        """Kill it; `end` is still to be awaited."""
        if self.process is not None:
            self.process.kill()

    async def freeze(self, seconds: float, last: Callable[[], None] = lambda: None) -> None:
        """Stop it for a while; do a last thing before it goes on."""
        process = self.process
        if process is None:
            return
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            last()
            process.send_signal(signal.SIGCONT)


class Hub(Program):
    """`fleetward serve` without webhooks."""

    def __init__(self, number: int, root: Path, ledger: str | None) -> None:
        super().__init__(f"hub{number}", root)
        self.data = root / f"data{number}"
        self.address = f"unix://{root}/hub{number}.sock"
        self._folder = root / "folder"
        self._ledger = ledger
        self._read = 0
        self._version = ""

    def command(self) -> Sequence[str]:
        serve = [sys.executable, "-m", "fleetward.cli.main", "serve", str(self._folder), "-o", "json"]
        options = ["--webhooks", "0", "--data", str(self.data), "--hub", self.address]
        return [*serve, *options, *(["--ledger", self._ledger] if self._ledger else [])]

    @property
    def version(self) -> str:
        """The registry in force there, as it says; empty before it is ready."""
        if not self.said:
            self._version = ""
            return ""
        with self.log.open("rb") as log:
            log.seek(self._read)
            said = log.read().rpartition(b"\n")[0]
        self._read += len(said)
        found = IN_FORCE.findall(said.decode(errors="replace").rpartition("--- start ")[2])
        self._version = str(found[-1]) if found else self._version or str(self.said["registryVersion"])
        return self._version


class Webhook(Program):
    """A decision webhook for all agents, with a spool of its own."""

    def __init__(self, number: int, root: Path, hub: Hub) -> None:
        super().__init__(f"webhook{number}", root)
        self.number = number
        self.hub = hub
        self.socket = root / f"w{number}.sock"
        self._root = root
        self._spools = 0
        self.lost: list[str] = []
        """The writers of spools that were thrown away."""
        self.cut: list[dict[str, Any]] = []
        """Records that died with a machine; the hub may have had them before."""

    @property
    def spool(self) -> Path:
        return self._root / f"spool{self.number}-{self._spools}"

    def command(self) -> Sequence[str]:
        where = ["--listen", f"unix://{self.socket}", "--hub", self.hub.address, "--workload", "all"]
        return [
            str(WEBHOOK),
            *where,
            "--spool",
            str(self.spool),
            "--rate",
            "100000",
            "--burst",
            "100000",
            "--exit-with-parent",
        ]

    def writer(self) -> str:
        """Give the id under which its spool is numbered; empty before there is one."""
        try:
            return str(json.loads((self.spool / "writer.json").read_bytes())["writer"])
        except (OSError, ValueError):
            return ""

    def throw_spool_away(self) -> None:
        """Have the next start begin with a new spool. What was in the old one is never seen again."""
        if writer := self.writer():
            self.lost.append(writer)
        self._spools += 1

    def pretend_the_machine_died(self, stored: Collection[str]) -> None:
        """Cut the last records off, and have the spool believe that it was open before the machine started.

        What a hub has `stored` stays: were it not settled there yet, it never would be.
        """
        for segment in sorted(self.spool.glob("*.jsonl"))[-1:]:
            lines = segment.read_bytes().splitlines(keepends=True)
            whole = [json.loads(line) for line in lines[-CUT_RECORDS:] if line.endswith(b"\n")]
            cut = list(itertools.takewhile(lambda record: record["id"] not in stored, reversed(whole)))
            self.cut += cut
            segment.write_bytes(b"".join(lines[: len(lines) - len(cut)]))
        file = self.spool / "writer.json"
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(file.read_bytes())
            file.write_bytes(json.dumps(state | {"boot": "another", "clean": False}).encode().ljust(511) + b"\n")
