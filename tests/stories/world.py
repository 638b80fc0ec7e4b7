"""Agents of a served folder as they speak: over HTTP, each at its own decision webhook."""

import http.client
import json
import shutil
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from support.serving import Serve, post
from support.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"

Answer = dict[str, Any]


class Agents(ABC):
    """What agents can ask, wherever they run; the stories go by this."""

    @abstractmethod
    def post(self, agent: str, path: str, body: Any) -> tuple[int, Answer]:
        """Ask at the agent's webhook: the status, and the answer or problem."""

    @abstractmethod
    def line(self, agent: str) -> "Line":
        """Give a connection to the agent's webhook."""

    @abstractmethod
    def stored(self) -> list[Answer]:
        """Give what is on record."""

    @abstractmethod
    def grant_keys(self) -> bytes:
        """Give the keys that grants are signed with, as they are kept."""

    def ask(self, agent: str, path: str, body: Any, *, status: int = 200) -> Answer:
        """Ask at the agent's webhook; the status is what is expected."""
        found, answer = self.post(agent, path, body)
        assert found == status, answer
        return answer

    def call(self, agent: str, path: str, body: Answer, *, status: int = 200) -> Answer:
        """Ask in the agent's name."""
        return self.ask(agent, path, {"agent": agent, **body}, status=status)

    def open(self, agent: str, *, status: int = 200, **mandate: Any) -> str:
        body = {"mandate": {"requester": "ana", "purpose": "answer ticket 7", **mandate}}
        return str(self.call(agent, "/v1/runs", body, status=status).get("run"))

    def close(self, agent: str, run: str, *, status: int = 200) -> Answer:
        return self.call(agent, f"/v1/runs/{run}/close", {}, status=status)

    def delegate(self, agent: str, to: str, run: str, **asked: Any) -> Answer:
        return self.call(agent, "/v1/delegations", {"to": to, "run": run, **asked})

    def give(self, agent: str, to: str, run: str, **asked: Any) -> str:
        """Delegate, where that has to be allowed: the grant."""
        answer = self.delegate(agent, to, run, **asked)
        assert answer["decision"] == "Allow", answer
        return str(answer["grant"])

    def act(
        self, agent: str, name: str, run: str, grant: str | None = None, *, parent: str = "", **action: Any
    ) -> Answer:
        body: Answer = {"run": run, "action": {"kind": "ToolCall", "name": name, **action}}
        if grant is not None:
            body["grant"] = grant
        if parent:
            body["parent"] = parent
        return self.call(agent, "/v1/decisions", body)

    def plan(self, agent: str, run: str, steps: list[Answer], **asked: Any) -> Answer:
        return self.call(agent, "/v1/plans", {"run": run, "steps": steps, **asked})

    def ended(self, agent: str, decision: Answer, *, expect: int = 200, **outcome: Any) -> Answer:
        """Report that an action succeeded."""
        return self.ask(
            agent, f"/v1/decisions/{decision['id']}/outcome", {"status": "Succeeded", **outcome}, status=expect
        )

    def records(self, run: str, count: int = 0) -> list[Answer]:
        """Give what is on record of a run, once there are `count` records at least."""
        until(lambda: len(self._records(run)) >= count, f"{count} records of {run}")
        return self._records(run)

    def recorded(self, *answers: Answer) -> list[Answer]:
        """Give the records of answers, once they are all there."""
        ids = [answer["id"] for answer in answers]
        until(lambda: {*ids} <= {record["id"] for record in self.stored()}, "all is on record")
        found = {record["id"]: record for record in self.stored()}
        return [found[id_] for id_ in ids]

    def _records(self, run: str) -> list[Answer]:
        return [record for record in self.stored() if record.get("run") == run]


class World(Agents):
    """A served folder, and what its agents can ask."""

    def __init__(self, server: Serve) -> None:
        self.server = server

    @property
    def data(self) -> Path:
        return self.server.folder / ".fleetward"

    def post(self, agent: str, path: str, body: Any) -> tuple[int, Answer]:
        return post(self.server.address(agent) + path, json.dumps(body).encode())

    def line(self, agent: str) -> "Line":
        return Line(self.server.address(agent))

    def stored(self) -> list[Answer]:
        return self.server.records()

    def grant_keys(self) -> bytes:
        return (self.data / "grant-keys.json").read_bytes()

    def fleetward(self, *arguments: str) -> str:
        """Run a command of `fleetward` as a process; give what it prints."""
        command = [sys.executable, "-m", "fleetward.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def trace(self, *arguments: str) -> str:
        return self.fleetward("trace", *arguments, "--data", str(self.data))


class Line:
    """A connection to a webhook that stays open, for whoever asks often; `headers` go with each request."""

    def __init__(self, address: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        self._headers = {"Content-Type": "application/json", **headers}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, path: str, body: Answer) -> Answer:
        """Ask. Raises OSError or HTTPException where nobody answers."""
        self._connection.request("POST", path, json.dumps(body).encode(), self._headers)
        with self._connection.getresponse() as response:
            return {"status": response.status, **json.load(response)}


def at_once(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Have each item worked on by a thread of its own, all from the same instant; give what came of each, in order."""
    items = list(items)
    barrier = threading.Barrier(len(items))

    def one(item: Any) -> Any:
        barrier.wait(30)
        return work(item)

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(one, items))


def copied(example: str, directory: Path) -> Path:
    """Copy an example to serve it."""
    folder = directory / example
    shutil.copytree(EXAMPLES / example, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", ".*"))
    return folder


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[World]:
    server = Serve(folder, "--port", "0", *options)
    try:
        yield World(server.until_ready())
    finally:
        server.stop()
