"""The accountability chain: the desk hands out work, a worker reads, mail is held, and the trace tells it all.

`python examples/accountability-chain/chain.py` serves a copy of this folder and plays the agents over plain HTTP.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DESK, READER, MAILER = "care/desk", "care/data-worker", "care/mailer"


class Team:
    """The agents, each at its own decision webhook, and a line on the screen for each answer."""

    def __init__(self, webhooks: list[dict[str, Any]]) -> None:
        self._addresses = {agent: webhook["address"] for webhook in webhooks for agent in webhook["agents"]}

    def ask(self, agent: str, path: str, **body: Any) -> dict[str, Any]:
        """Ask in the agent's name."""
        data = json.dumps({"agent": agent, **body}).encode()
        request = urllib.request.Request(self._addresses[agent] + path, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request) as reply:  # noqa: S310 - our own webhook
            answer: dict[str, Any] = json.load(reply)
        what = body.get("to") or body.get("action", {}).get("name", "")
        said = f"{answer['decision']:<16} {answer['reason']}" if "decision" in answer else answer["run"]
        print(f"  {agent:<17} {path:<16} {what:<19} {said}")
        return answer

    def act(self, agent: str, name: str, **rest: Any) -> dict[str, Any]:
        """Ask for a call of a tool."""
        return self.ask(agent, "/v1/decisions", action={"kind": "ToolCall", "name": name}, **rest)


def main() -> None:
    """Tell the story."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / HERE.name
        shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", ".*"))
        with serving(folder) as ready:
            held, run = play(Team(ready["webhooks"]))
            print("\nWhat happened, from the record (fleetward trace RUN):\n")
            fleetward("trace", run, "--dir", str(folder))
            print("\nWho authorised the mail that was held (fleetward trace --why RECORD):\n")
            fleetward("trace", "--why", held, "--dir", str(folder))


def play(team: Team) -> tuple[str, str]:
    """Play the agents; give the decision on the mail, and the run."""
    outbox: list[str] = []
    mandate = {
        "requester": "ana@example.com",
        "purpose": "answer ticket 7",
        "dataClasses": ["customer"],
        "limits": {"steps": 10, "agents": 3, "depth": 1},
    }
    print("The desk opens a run, and hands reading to the data worker:")
    run = team.ask(DESK, "/v1/runs", mandate=mandate)["run"]
    scope = {"actions": ["db.customers.read"], "dataClasses": ["customer"], "targets": ["customer-db"], "depth": 0}
    reading = team.ask(DESK, "/v1/delegations", to=READER, run=run, scope=scope)["grant"]
    read = team.act(READER, "db.customers.read", run=run, grant=reading)
    print("The worker may do nothing else with that grant:")
    team.act(READER, "mail.send.customer", run=run, grant=reading)
    print("The desk hands writing to the mailer. What goes to customers, a person reads first:")
    scope = {"actions": ["mail.send.*"], "depth": 0}
    mailing = team.ask(DESK, "/v1/delegations", to=MAILER, run=run, scope=scope, parent=read["id"])["grant"]
    mail = team.act(MAILER, "mail.send.customer", run=run, grant=mailing)
    if mail["decision"] == "Allow":
        outbox.append("Dear Ada, ...")
    print(f"Sent: {outbox or 'nothing'}")
    team.ask(DESK, f"/v1/runs/{run}/close")
    return str(mail["id"]), str(run)


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Run `fleetward serve` on a folder; give what it says when it is ready."""
    command = [sys.executable, "-m", "fleetward.cli.main", "serve", str(folder), "--port", "0", "-o", "json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            line = server.stdout.readline() if server.stdout is not None else b""
            if not line:
                sys.exit("fleetward serve did not start")
            yield json.loads(line)
        finally:
            server.terminate()


def fleetward(*arguments: str) -> None:
    """Run a command of `fleetward`."""
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "fleetward.cli.main", *arguments], check=True)


if __name__ == "__main__":
    main()
