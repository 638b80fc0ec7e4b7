"""Budgets on a cluster: agents in pods, connected to two replicas of the operator, and what can be seen of budgets."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from support.chain import Answer, Chain, post, replicas
from support.controlplane.build import program
from support.serving import stored
from support.spine import WITHIN, Body, agent, resource
from support.waiting import until

NS = "reports"
ALPHA, BETA = f"{NS}/alpha", f"{NS}/beta"
PLACES = {ALPHA: "one", BETA: "two"}
"""Alpha's webhook is connected to the replica that keeps the ledger in a file, beta's to the other one."""

ALLOWS = {"rules": [{"name": "reads", "match": {"names": ["crm.**"]}, "decision": "Allow"}]}

ALL_THERE_IS = 10**12
"""Records that no budget has: an action that would read so many is always denied, and costs nothing."""


class Spenders(Chain):
    """Agents that spend, on two replicas: `fleetward.operator`, which keeps the ledger, and `second`."""

    urls: dict[str, str]

    def spend(self, agent: str, records: int = 1, name: str = "crm.customers.read", **body: Any) -> Answer:
        """Have an agent ask for an action that reads so many records; give the status, and the answer or problem."""
        action = {"kind": "ToolCall", "name": name, "estimate": {"records": records}}
        return self.asks(agent, "/v1/decisions", action=action, **body)

    def asks(self, agent: str, path: str, **body: Any) -> Answer:
        """Ask an agent's own webhook; like `ask`, without looking up each time where it listens."""
        if agent not in self.urls:
            self.urls[agent] = self.url(agent)
        return post(self.urls[agent] + path, {"agent": agent, **body})

    def used(self, agent: str, answer: Body, records: int) -> None:
        """Report what an action really used."""
        outcome = {"status": "Succeeded", "actual": {"records": records}}
        status, said = post(f"{self.urls[agent]}/v1/decisions/{answer['id']}/outcome", outcome)
        assert status == 200, said

    def until_spends(self, agent: str, what: str, records: int = 1) -> Body:
        """Wait until an action of an agent is allowed; give the answer."""
        said: list[Answer] = []

        def allowed() -> bool:
            said[:] = [self.spend(agent, records)]
            return said[0][1].get("decision") == "Allow"

        until(allowed, f"{agent} may spend: {what}", WITHIN)
        return said[0][1]

    def until_refused(self, agent: str, words: str, records: int = 1) -> tuple[Body, int]:
        """Wait until an action is refused for that reason; give the answer, and how many were allowed before."""
        said: list[Answer] = []

        def refused() -> bool:
            said.append(self.spend(agent, records))
            return words in str(said[-1][1].get("reason"))

        try:
            until(refused, f"{agent} is refused: {words}", WITHIN)
        except AssertionError as error:
            raise AssertionError(f"{error}; it was answered {said[-1]}") from None
        return said[-1][1], sum(answer.get("decision") == "Allow" for _, answer in said)

    def stopped_by(self, agent: str) -> str:
        """Give the budget that would have no room for more than there is; empty where none would say so."""
        _, answer = self.spend(agent, ALL_THERE_IS)
        return str((answer.get("shortfall") or {}).get("budget") or "")

    @contextmanager
    def under(self, name: str, spec: Body, agents: Iterable[str] = PLACES) -> Iterator[str]:
        """Have a budget in force for agents while the block lasts; give its key."""
        agents, key = tuple(agents), f"AgentBudget/{NS}/{name}"
        subjects = {"agents": [each.partition("/")[2] for each in agents]}
        self.apply(resource("AgentBudget", name, {"subjects": subjects, **spec}, NS))
        try:
            self.plane.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "agentbudget", name, "-n", NS)
            for each in agents:
                until(lambda: self.stopped_by(each) == key, f"{each} is under {key}", WITHIN)  # noqa: B023 - at once
            yield key
        finally:
            self.plane.kubectl("delete", "agentbudget", name, "-n", NS, "--ignore-not-found")
            for program in (self.fleetward.operator, self.second):
                program.start_if_down()
            for each in agents:
                until(lambda: self.stopped_by(each) == "", f"{each} is no more under {key}", WITHIN)  # noqa: B023

    def budget(self, name: str) -> Body:
        """Give the status of a budget."""
        return self.status("agentbudget", name, NS)

    def records(self, **fields: str) -> list[Body]:
        """Give what both stores hold with these fields."""
        directory = self.fleetward.directory
        both = [record for name in ("operator", "second") for record in stored(directory / f"{name}-audit")]
        return [record for record in both if all(record.get(name) == value for name, value in fields.items())]

    def reserved(self, budget: str) -> int:
        """Add up the records that decisions took out of a budget, by what is on record."""
        return sum(
            spend["amounts"]["records"]
            for record in self.records(type="Decision")
            for spend in record.get("spends") or ()
            if spend["budget"] == budget
        )

    def pot(self, budget: str, *, replica: str = "") -> Body:
        """Give the limit of the one pot of a budget, as `kubectl fleetward budgets list` tells; empty: untouched."""
        told = json.loads(self.kubectl_fleetward("list", "-o", "json", replica=replica))
        return next((pot["limits"][0] for pot in told["pots"] if pot["budget"] == budget), {})

    def kubectl_fleetward(self, *arguments: str, replica: str = "") -> str:
        """Run `kubectl fleetward budgets` as people do; `replica`: the hub that is asked, else the first."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETWARD_", "KUBE"))}
        env = {**kept, "FLEETWARD_KUBECTL": str(program("kubectl")), "KUBECONFIG": str(self.plane.admin_kubeconfig)}
        beside = str(Path(sys.executable).with_name("kubectl-fleetward"))
        done = subprocess.run(
            [beside, "budgets", *arguments, "--hub", replica or self.fleetward.hub],
            capture_output=True, text=True, timeout=60, check=False, env={**env, "TZ": "UTC"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rush(self, times: int, *, records: int = 1) -> "list[Said]":
        """Have all agents spend at once, each so many times."""
        with ThreadPoolExecutor(16) as pool:
            asked = [(each, pool.submit(self.spend, each, records)) for _ in range(times) for each in PLACES]
            return [Said(each, *one.result()) for each, one in asked]

    def until_used_up(self, limit: int, spent: int) -> "list[Said]":
        """Have all agents spend until `limit` records are spent, `spent` of them before, and see that no more are.

        Give what was allowed.
        """
        said: list[Said] = []

        def used_up() -> bool:
            said.extend(allowed(self.rush(20 if limit - spent - len(said) > 100 else 1)))
            return spent + len(said) >= limit

        until(used_up, f"the last of {limit} records can be spent", WITHIN)
        said += allowed(self.rush(10))
        assert spent + len(said) == limit
        return said

    def settle(self, said: "Iterable[Said]") -> None:
        """Report that each of these actions really used one record."""
        with ThreadPoolExecutor(16) as pool:
            for reported in [pool.submit(self.used, each.agent, each.answer, 1) for each in said]:
                reported.result()

    def figure(self, what: str, budget: str) -> float:
        """Give a figure of the records of a budget, of the metrics of the replica that keeps the ledger; else 0."""
        name = f'fleetward_budget_{what}{{budget="{budget}",limit="records"}} '
        lines = self.fleetward.operator.get("/metrics").splitlines()
        return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


class Said(NamedTuple):
    """What an agent was answered."""

    agent: str
    status: int
    answer: Body


def allowed(said: Iterable[Said]) -> list[Said]:
    """Give what was allowed."""
    return [each for each in said if each.answer.get("decision") == "Allow"]


@contextmanager
def spenders(directory: Path) -> Iterator[Spenders]:
    """Have them while the block lasts."""
    with replicas(directory) as chain:
        running = Spenders(chain.fleetward, chain.node)
        running.nodes, running.second, running.second_hub = chain.nodes, chain.second, chain.second_hub
        running.places, running.urls = {}, {}
        running.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        running.apply(
            *(agent(each.partition("/")[2], NS) for each in PLACES),
            resource("AgentPolicy", "reads", ALLOWS, NS),
        )
        running.deploy(PLACES)
        for each in PLACES:
            running.until_spends(each, "nothing limits it yet")
        yield running


def manifest(name: str, spec: Body) -> str:
    """Write a budget as people keep it in Git."""
    return yaml.safe_dump(resource("AgentBudget", name, spec, NS), sort_keys=False)
