"""The document review: forty readings, each in scope alone, together out of what was authorised.

`python examples/document-review/review.py` serves a copy of this folder and plays the agents over plain HTTP: once with
a plan, which is stopped before the first step, and once without, stopped at the step that crosses the line.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LEAD, PLANNER = "review/lead", "review/planner"
READERS = [f"review/reader-{number:02}" for number in range(1, 41)]
READING = {"kind": "ToolCall", "name": "documents.contracts.read"}
MANDATE = {
    "requester": "legal@example.com",
    "purpose": "review the supplier contracts of last year",
    "dataClasses": ["contract"],
    "limits": {"records": 3000},
}


class Team:
    """The agents at their decision webhooks."""

    def __init__(self, webhooks: list[dict[str, Any]]) -> None:
        self._addresses = {agent: webhook["address"] for webhook in webhooks for agent in webhook["agents"]}

    def ask(self, agent: str, path: str, **body: Any) -> dict[str, Any]:
        """Ask in the agent's name."""
        data = json.dumps({"agent": agent, **body}).encode()
        request = urllib.request.Request(self._addresses[agent] + path, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request) as reply:  # noqa: S310 - our own webhook
            answer: dict[str, Any] = json.load(reply)
        return answer

    def hand_out(self, run: str, to: str) -> str:
        """Hand work from the lead to another; give the grant."""
        return str(self.ask(LEAD, "/v1/delegations", to=to, run=run)["grant"])


def main() -> None:
    """Tell the story."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / HERE.name
        shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", ".*"))
        with serving(folder) as ready:
            team = Team(ready["webhooks"])
            print("Forty readers, 100 records each; the mandate says 3000 records in all.")
            with_a_plan(team)
            without_a_plan(team)


def with_a_plan(team: Team) -> None:
    """Have the plan checked before the first step."""
    run = team.ask(LEAD, "/v1/runs", mandate=MANDATE)["run"]
    grant = team.hand_out(run, PLANNER)
    steps = [{"id": f"read-{number:02}", "agent": agent, "action": READING} for number, agent in enumerate(READERS, 1)]
    for count in (30, 40):
        answer = team.ask(PLANNER, "/v1/plans", run=run, grant=grant, steps=steps[:count])
        print(f"\nA plan of {count} readings: {answer['decision']}: {answer['reason']}")
    print(f"  violations: {json.dumps(answer['violations'])}")


def without_a_plan(team: Team) -> None:
    """Have all forty read at the same time."""
    run = team.ask(LEAD, "/v1/runs", mandate=MANDATE)["run"]
    grants = {reader: team.hand_out(run, reader) for reader in READERS}

    def read(reader: str) -> dict[str, Any]:
        return team.ask(reader, "/v1/decisions", run=run, grant=grants[reader], action=READING)

    with ThreadPoolExecutor(len(READERS)) as pool:
        answers = list(pool.map(read, READERS))
    print(f"\nWithout a plan, all forty at once: {dict(Counter(answer['decision'] for answer in answers))}")
    refused = next(answer for answer in answers if answer["decision"] == "Deny")
    print(f"  {refused['reason']}")


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """Run `fleetward serve`; four decision webhooks share the agents, where each reader could have its own."""
    command = [sys.executable, "-m", "fleetward.cli.main", "serve", str(folder)]
    command += ["--port", "0", "--webhooks", "4", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            line = server.stdout.readline() if server.stdout is not None else b""
            if not line:
                sys.exit("fleetward serve did not start")
            yield json.loads(line)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
