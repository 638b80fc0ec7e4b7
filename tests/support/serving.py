"""`fleetward serve` as its users run it: a process, a folder, HTTP."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

AGENTS = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: reader, namespace: shop, labels: {team: shop}}
spec:
  role: Worker   # a comment that stays
  operatingMode: Running
---
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: writer, namespace: shop, labels: {team: shop}}
spec:
  role: Worker
"""
FLEET = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentFleet
metadata: {name: shop}
spec:
  agents: {agentSelector: {matchLabels: {team: shop}}}
"""
POLICIES = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: reading, namespace: shop}
spec:
  rules:
  - name: read
    match: {names: ["stock.read"]}
    decision: Allow
"""


class Serve:
    """A running `fleetward serve`, and what a user can see of it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "fleetward.cli.main", "serve", str(folder), "-o", "json", *options]
        self._log = (folder.parent / "serve.log").open("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self.ready: dict[str, Any] = {}

    def until_ready(self) -> "Serve":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        self.ready = json.loads(line)
        return self

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    @property
    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def address(self, agent: str) -> str:
        return next(str(w["address"]) for w in self.ready["webhooks"] if agent in w["agents"])

    def decide(self, agent: str, name: str = "stock.read") -> tuple[int, dict[str, Any]]:
        """Ask at the agent's own webhook: the status, and the answer or problem."""
        body = json.dumps({"agent": agent, "action": {"kind": "ToolCall", "name": name}}).encode()
        return post(f"{self.address(agent)}/v1/decisions", body)

    def decision(self, agent: str, name: str = "stock.read") -> str:
        """Give the decision; `none` while nobody answers."""
        try:
            return str(self.decide(agent, name)[1].get("decision"))
        except OSError:
            return "none"

    def records(self) -> list[dict[str, Any]]:
        return stored(self.folder / ".fleetward")

    def stop(self) -> None:
        children = self.children if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()


def stored(data: Path) -> list[dict[str, Any]]:
    """Read what the audit store holds, as anybody could."""
    with contextlib.closing(sqlite3.connect(f"file:{data / 'audit.db'}?mode=ro", uri=True)) as store:
        return [json.loads(body) for (body,) in store.execute("SELECT body FROM records ORDER BY position")]


def post(url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own webhook
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, json.load(problem)


def replace(file: Path, old: str, new: str) -> None:
    """Edit a file as editors do: the new content appears at once, under the old name."""
    text = file.read_text()
    assert old in text
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text.replace(old, new, 1))
    os.replace(temporary, file)  # noqa: PTH105
