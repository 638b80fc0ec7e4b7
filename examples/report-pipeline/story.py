"""The report pipeline's story: agents ask before they act, and the folder beside this file decides.

`make demo` runs it. It serves a copy of this folder and plays the agents through the public client, as one run in which
the desk hands work to the others; stops one of them by editing its YAML, breaks a policy, and ends with the trace.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Unpack

from telling import aside, decision_line, heading, screen

from fleetward.sdk import Client, Refused, Run, context
from fleetward.sdk.runs import Handing

HERE = Path(__file__).parent
FOLDER = Path("build/demo/report-pipeline")
CUSTOMERS = [{"name": "Ada", "segment": "gold"}, {"name": "Grace", "segment": "gold"}]


class Team:
    """A client for each agent, and a line on the screen for each decision."""

    def __init__(self, webhooks: list[dict[str, Any]]) -> None:
        self._grants: dict[str, str] = {}
        self._addresses = {agent: webhook["address"] for webhook in webhooks for agent in webhook["agents"]}
        self._clients = {agent: Client(url, agent=agent) for agent, url in self._addresses.items()}

    def act(
        self, agent: str, kind: Any, name: str, work: Callable[..., list[Any]] | None = None, **arguments: Any
    ) -> None:
        """Let an agent try an action: it runs only if it is allowed, with the arguments it is allowed with."""
        start = time.perf_counter()
        try:
            with context(grant=self._grants.get(agent)):
                permit = self._clients[f"reports/{agent}"].decide(kind, name, arguments=arguments)
        except Refused as refused:
            took = time.perf_counter() - start
            rules = refused.rules
            decision_line(agent, name, refused.decision, rules[0].rule if rules else "", took)
            aside(refused.reason)
            return
        took = time.perf_counter() - start
        decision_line(agent, name, permit.answer.decision, permit.answer.rules[0].rule, took)
        if permit.arguments != arguments:
            aside(f"runs with {permit.arguments} instead of {arguments}")
        result = work(**(permit.arguments or {})) if work else []
        permit.succeed(result, records=len(result))

    def run(self) -> Run:
        """Have the desk open a run, with what Ana authorised."""
        return self._clients["reports/planner-desk"].run(
            requester="ana@example.com",
            purpose="the weekly report on gold customers",
            data_classes=["customer"],
            limits={"steps": 40, "agents": 4, "depth": 2},
        )

    def hand(self, giver: str, to: str, **scope: Unpack[Handing]) -> None:
        """Let an agent hand work to another; what that one does from now on, it does under the grant."""
        name, start = f"delegate.{to}", time.perf_counter()
        try:
            with context(grant=self._grants.get(giver)):
                self._grants[to] = self._clients[f"reports/{giver}"].delegate(f"reports/{to}", **scope)
        except Refused as refused:
            rules = refused.rules
            took = time.perf_counter() - start
            decision_line(giver, name, refused.decision, rules[0].rule if rules else "", took)
            aside(refused.reason)
            return
        decision_line(giver, name, "Allow", "delegate-inside", time.perf_counter() - start)

    def mode(self, agent: str) -> str:
        """Ask the agent's webhook what it knows of the agent."""
        with urllib.request.urlopen(f"{self._addresses[f'reports/{agent}']}/v1/agents") as answer:  # noqa: S310 - ours
            (known,) = json.load(answer)["agents"]
        return str(known["operatingMode"])


def main() -> None:
    """Tell the story."""
    _copy()
    with _serving() as (ready, log):
        team = Team(ready["webhooks"])
        with team.run() as run:
            _act_out(team, log)

    heading(f"Everything is on record, and each step with the decision that authorised it. The run, {run.id}:")
    _fleetward("trace", run.id, "--dir", str(FOLDER))
    screen.print(f"\nThe records are in {FOLDER}/.fleetward/audit.db and, as JSON lines, in its sinks folder. Try:")
    screen.print(f"  .venv/bin/fleetward trace {run.id} --dir {FOLDER} --html build/demo/trace.html")
    screen.print(f"  .venv/bin/fleetward audit list --dir {FOLDER} --decision Deny")
    screen.print(f"  .venv/bin/fleetward policy test {HERE.relative_to(Path.cwd())}")


def _act_out(team: Team, log: Path) -> None:
    """Play the agents, and the people who edit the folder meanwhile."""
    heading("Four agents prepare a customer report. Each asks its own webhook before it acts.")
    team.hand("planner-desk", "report-planner", depth=0)
    team.act("report-planner", "Plan", "plan.report", steps=["read customers", "write", "send"])
    team.hand("planner-desk", "data-worker", actions=["crm.customers.*"], depth=0)
    team.hand("planner-desk", "report-writer", actions=["llm.**", "report.**", "mail.**", "shell.**"])
    team.act("data-worker", "ToolCall", "crm.customers.read", _read, segment="gold")
    team.act("report-writer", "ModelCall", "llm.chat", model="large-1", prompt="Summarise ...", max_tokens=8000)
    team.act("report-writer", "ToolCall", "report.draft.write", text="Our gold customers ...")

    heading("What needs a person is held, whoever starts it; what is never allowed is denied.")
    team.act("report-writer", "ToolCall", "crm.customers.read", segment="gold")
    team.act("report-writer", "Message", "mail.send.customer", to="ada@example.com")
    team.act("planner-desk", "ToolCall", "mail.send.customer", to="ada@example.com")
    team.act("data-worker", "ToolCall", "crm.customers.bulk-export")
    team.act("report-writer", "ToolCall", "shell.run", command="curl ...")

    heading("The writer goes round in circles. Its budget has room for five model calls an hour, and then pauses it.")
    for _ in range(5):
        team.act("report-writer", "ModelCall", "llm.chat", model="large-1", prompt="Again ...", max_tokens=1000)
    _until(lambda: team.mode("report-writer") == "Paused")
    team.act("report-writer", "ToolCall", "report.read")
    _fleetward("budgets", "--dir", str(FOLDER))

    heading("Somebody edits one line of agents.yaml: data-worker is paused.")
    edited = _edit("agents.yaml", "operatingMode: Running           #", "operatingMode: Paused            #")
    _until(lambda: team.mode("data-worker") == "Paused")
    screen.print(f"      in force {1000 * (time.perf_counter() - edited):.0f} ms after the edit")
    team.act("data-worker", "ToolCall", "crm.customers.read", segment="gold")

    heading("Somebody breaks a policy. The last good version goes on governing; the server says:")
    _edit("policies.yaml", "outcome.actual.records > 500", "outcome.actual.recrods > 500")
    _until(lambda: "recrods" in log.read_text())
    for line in log.read_text().splitlines()[-3:]:
        aside(line)
    team.act("planner-desk", "ToolCall", "mail.send.customer", to="ada@example.com")


def _copy() -> None:
    """Serve a copy, so that the story's edits leave the example as it is."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(HERE, FOLDER, ignore=shutil.ignore_patterns("*.py", "__pycache__", ".*"))


@contextlib.contextmanager
def _serving() -> Iterator[tuple[dict[str, Any], Path]]:
    """Run `fleetward serve` on the copy; give what it says when it is ready, and its log."""
    log = FOLDER.parent / "serve.log"
    command = [sys.executable, "-m", "fleetward.cli.main", "serve", str(FOLDER), "--port", "0", "-o", "json"]
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as server:
        try:
            line = server.stdout.readline() if server.stdout is not None else b""
            if not line:
                sys.exit(f"fleetward serve did not start:\n{log.read_text()}")
            yield json.loads(line), log
        finally:
            server.terminate()


def _edit(file: str, old: str, new: str) -> float:
    """Edit a file of the copy; give the moment it was done."""
    text = (FOLDER / file).read_text()
    if old not in text:
        sys.exit(f"{file} holds no {old!r}")
    (FOLDER / file).write_text(text.replace(old, new, 1))
    return time.perf_counter()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("the edit did not come into force within 10 seconds")
        time.sleep(0.001)


def _read(segment: str) -> list[dict[str, str]]:
    return [customer for customer in CUSTOMERS if customer["segment"] == segment]


def _fleetward(*arguments: str) -> None:
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "fleetward.cli.main", *arguments], check=True)


if __name__ == "__main__":
    main()
