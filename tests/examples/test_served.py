"""The ready rules on a served folder: history is one for all webhooks, here one for each agent."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.serving import Serve, post
from support.waiting import until

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "ready-rules"
SPARE = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: spare, namespace: team}
spec: {role: Worker}
---
apiVersion: fleetward.dev/v1alpha1
kind: ActionCatalog
metadata: {name: targets}
spec:
  entries:
"""
TARGETS = [f"u{number}" for number in range(60)]
"""Targets that a catalog gives by name; each is for one test, since what was done on it is remembered for an hour."""
WORKERS = ("one", "two", "clerk", "vault")
Answer = dict[str, Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("ready") / "folder"
    shutil.copytree(FOLDER, folder)
    entries = [f'  - {{names: ["{target}.**"], target: {target}}}\n' for target in TARGETS]
    entries += [f"  - {{names: [tell.{name}], target: team/{name}}}\n" for name in ("lead", *WORKERS)]
    (folder / "more.yaml").write_text(SPARE + "".join(entries))
    server = Serve(folder, "--port", "0")
    try:
        yield server.until_ready()
    finally:
        server.stop()


class Team:
    """A run of the lead's, in which each worker holds a grant. `target` is its alone."""

    _targets = iter(TARGETS)

    def __init__(self, served: Serve, *workers: str) -> None:
        self._served = served
        self.target = next(self._targets)
        self.run = str(self.post("lead", "/v1/runs", mandate={"requester": "ana", "purpose": "try"})["run"])
        self._grants: dict[str, str] = {}
        for worker in workers:
            self.take(worker, self.hand("lead", worker)["grant"])

    def post(self, agent: str, path: str, **body: Any) -> Answer:
        key = f"team/{agent}"
        status, answer = post(self._served.address(key) + path, json.dumps({"agent": key, **body}).encode())
        assert status == 200, answer
        return answer

    def hand(self, agent: str, to: str, **scope: Any) -> Answer:
        return self.post(agent, "/v1/delegations", to=f"team/{to}", run=self.run, scope=scope, **self._held(agent))

    def ask(self, agent: str, name: str, kind: str = "ToolCall", **action: Any) -> Answer:
        asked = {"kind": kind, "name": name, **action}
        return self.post(agent, "/v1/decisions", run=self.run, action=asked, **self._held(agent))

    def do(self, agent: str, what: str, **action: Any) -> Answer:
        """Do something on the target."""
        return self.ask(agent, f"{self.target}.{what}", **action)

    def tell(self, agent: str, to: str) -> Answer:
        return self.ask(agent, f"tell.{to}", "Message")

    def take(self, agent: str, grant: str) -> None:
        self._grants[agent] = grant

    def _held(self, agent: str) -> dict[str, str]:
        return {"grant": self._grants[agent]} if agent in self._grants else {}


def deciding(answer: Answer) -> tuple[str, set[str]]:
    """Give the decision, and the rules that brought it about."""
    found = answer["decision"]
    return found, {ref["rule"] for ref in answer["rules"] if ref["decision"] == found}


ALLOWED = ("Allow", {"anything"})


def test_each_agent_has_a_webhook_of_its_own(served: Serve) -> None:
    assert [webhook["agents"] for webhook in served.ready["webhooks"]] == [
        [f"team/{name}"] for name in ("clerk", "lead", "one", "spare", "two", "vault")
    ]


def test_repetition_is_counted_for_each_agent(served: Serve) -> None:
    team = Team(served, "one", "two")
    same = {"arguments": {"page": 1}}
    assert [deciding(team.do("one", "read", **same)) for _ in range(5)] == [ALLOWED] * 5
    assert deciding(team.do("one", "read", **same)) == ("RequireApproval", {"same-action-often"})
    assert deciding(team.do("one", "read", arguments={"page": 2})) == ALLOWED
    assert deciding(team.do("two", "read", **same)) == ALLOWED


def test_agents_that_take_turns_make_no_progress_either(served: Serve) -> None:
    team = Team(served, "one", "two")
    same = {"arguments": {"page": 1}}
    turns = [deciding(team.do(("lead", "one", "two")[turn % 3], "read", **same)) for turn in range(11)]
    assert turns == [ALLOWED] * 10 + [("Throttle", {"no-progress-slow-down"})]
    assert deciding(team.do("two", "read", arguments={"page": 2})) == ALLOWED
    assert deciding(team.do("one", "read", **same)) == ALLOWED


def test_ping_pong_is_seen_from_both_ends(served: Serve) -> None:
    team = Team(served, "one", "two")
    assert [deciding(team.tell(*("one", "two")[:: 1 if turn % 2 else -1])) for turn in range(6)] == [ALLOWED] * 6
    assert deciding(team.tell("two", "one")) == ("RequireApproval", {"back-and-forth-often"})
    assert deciding(team.tell("two", "lead")) == ALLOWED
    assert deciding(team.tell("one", "two")) == ALLOWED


def test_ping_pong_between_delegations_and_messages(served: Serve) -> None:
    team = Team(served, "one")
    for _ in range(2):
        assert deciding(team.tell("one", "lead")) == ALLOWED
        assert deciding(team.hand("lead", "one", actions=["*.read"])) == ALLOWED
    assert deciding(team.tell("one", "lead")) == ALLOWED
    assert deciding(team.hand("lead", "one", actions=["*.read"])) == ("RequireApproval", {"back-and-forth-often"})
    assert deciding(team.hand("lead", "two", actions=["*.read"])) == ALLOWED


def test_who_proposed_may_not_approve_or_execute(served: Serve) -> None:
    team = Team(served, "one", "two")
    assert deciding(team.do("one", "propose")) == ALLOWED
    of_proposer = {"not-by-another-run-either"}
    assert deciding(team.do("one", "approve")) == ("Deny", {"proposer-does-not-approve", *of_proposer})
    assert deciding(team.do("lead", "execute")) == ("RequireApproval", {"approved-by-another"})
    assert deciding(team.do("two", "approve")) == ALLOWED
    assert deciding(team.do("one", "execute")) == ("Deny", {"proposer-does-not-execute", *of_proposer})
    assert deciding(team.do("two", "execute")) == ("RequireApproval", {"approved-by-another"})
    assert deciding(team.do("lead", "execute")) == ALLOWED


def test_whom_the_proposer_sends_does_not_approve_alone(served: Serve) -> None:
    team = Team(served, "one")
    assert deciding(team.do("lead", "propose")) == ALLOWED
    assert deciding(team.do("one", "approve")) == ("RequireApproval", {"not-by-whom-the-proposer-sends"})


def test_another_run_does_not_help_the_proposer(served: Serve) -> None:
    team, other = Team(served, "one"), Team(served, "one", "two")
    other.target = team.target
    assert deciding(team.do("one", "propose")) == ALLOWED
    assert deciding(other.do("one", "approve")) == ("Deny", {"not-by-another-run-either"})
    assert deciding(other.do("two", "approve")) == ALLOWED


def test_two_writers_of_one_run_and_of_two(served: Serve) -> None:
    team, other = Team(served, "one", "two"), Team(served, "vault")
    other.target = team.target
    assert deciding(team.do("one", "write")) == ALLOWED
    assert deciding(team.do("two", "update")) == ("RequireApproval", {"two-writers"})
    assert deciding(other.do("vault", "write")) == ("Throttle", {"two-runs-write"})
    # What was not allowed was not done, as soon as its webhook has said so.
    until(lambda: deciding(team.do("one", "write")) == ALLOWED, "the writer goes on")


def test_a_step_of_another_agent_is_seen_also_when_asked_for_again(served: Serve) -> None:
    team = Team(served, "one", "two")
    assert deciding(team.do("one", "send", arguments={"to": "ana"})) == ALLOWED
    held = ("RequireApproval", {"same-step-by-another"})
    assert [deciding(team.do("two", "send", arguments={"to": "ana"})) for _ in range(3)] == [held] * 3
    assert deciding(team.do("two", "send", arguments={"to": "bob"})) == ALLOWED


def test_of_agents_that_export_at_the_same_instant_one_may(served: Serve) -> None:
    team = Team(served, *WORKERS)
    agents = ("lead", *WORKERS)
    for number in range(5):
        with ThreadPoolExecutor(len(agents)) as pool:
            asked = [pool.submit(team.do, agent, f"round{number}.export") for agent in agents]
        found = [each.result() for each in asked]
        assert sorted(answer["decision"] for answer in found) == ["Allow"] + ["RequireApproval"] * len(WORKERS)


def test_records_are_counted_together(served: Serve) -> None:
    team = Team(served, "clerk", "two")
    half = {"estimate": {"records": 500}}
    assert deciding(team.do("clerk", "read", arguments={"n": 1}, **half)) == ALLOWED
    assert deciding(team.do("two", "read", arguments={"n": 2}, **half)) == ALLOWED
    over = team.do("clerk", "read", arguments={"n": 3}, estimate={"records": 1})
    assert deciding(over) == ("RequireApproval", {"records-of-all-together"})


def test_work_is_handed_on_four_times_at_most(served: Serve) -> None:
    team = Team(served, "one")
    for agent, to in (("one", "two"), ("two", "clerk"), ("clerk", "vault")):
        answer = team.hand(agent, to)
        assert deciding(answer) == ALLOWED
        team.take(to, answer["grant"])
    assert deciding(team.hand("vault", "spare")) == ("Deny", {"handed-on-too-often"})
    assert deciding(team.do("vault", "read")) == ALLOWED


def test_untrusted_content_is_followed_to_other_agents(served: Serve) -> None:
    team = Team(served, "vault")
    assert deciding(team.hand("lead", "vault", actions=["*.read"])) == ALLOWED
    assert deciding(team.do("lead", "fetch", labels=["web"])) == ALLOWED
    assert deciding(team.hand("lead", "vault", actions=["*.*"])) == ("Deny", {"not-to-a-powerful-agent"})
    assert deciding(team.hand("lead", "clerk")) == ("RequireApproval", {"not-to-an-agent-with-data"})
    assert deciding(team.tell("lead", "vault")) == ("Deny", {"not-to-a-powerful-agent"})
    assert deciding(team.tell("lead", "clerk")) == ("RequireApproval", {"not-to-an-agent-with-data"})
    handed = team.hand("lead", "one")
    assert deciding(handed) == ALLOWED
    team.take("one", handed["grant"])
    assert deciding(team.ask("one", "mail.send")) == ("RequireApproval", {"nothing-outside-on-its-word"})
    cleansing = team.ask("one", "text.sanitize")
    assert deciding(cleansing) == ("Allow", {"anything", "sanitizer"})
    done = f"{served.address('team/one')}/v1/decisions/{cleansing['id']}/outcome"
    assert post(done, b'{"status": "Succeeded"}')[0] == 200
    assert deciding(team.ask("one", "mail.send")) == ALLOWED


def test_plans_are_judged_as_a_whole(served: Serve) -> None:
    team = Team(served)

    def plan(count: int, *, chained: bool) -> Answer:
        steps = [
            {
                "id": f"s{number}",
                "agent": "team/one",
                "action": {"kind": "ToolCall", "name": f"{team.target}.read"},
                "dependsOn": [f"s{number - 1}"] if chained and number else [],
            }
            for number in range(count)
        ]
        return team.post("lead", "/v1/plans", run=team.run, steps=steps)

    assert deciding(plan(10, chained=False)) == ALLOWED
    assert deciding(plan(11, chained=False)) == ("RequireApproval", {"wide"})
    assert deciding(plan(15, chained=True)) == ALLOWED
    assert deciding(plan(31, chained=True)) == ("RequireApproval", {"many-steps", "deep"})
    assert deciding(plan(201, chained=True)) == ("Deny", {"too-many-steps"})
