"""Runs while processes die: grants go on, what was used stands, no limit is overspent; and many runs, and long ones."""

import itertools
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest
from stories.world import Answer, Line, World, at_once, copied, serving
from support.serving import Serve
from support.waiting import until

DESK, READER, MAILER = "care/desk", "care/data-worker", "care/mailer"
pytestmark = pytest.mark.slow
READ = {"kind": "ToolCall", "name": "db.customers.read"}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Serve]]:
    """Servers that are stopped in the end, also those that were killed."""
    servers: list[Serve] = []
    yield servers
    for server in servers:
        server.stop()


def start(servers: list[Serve], folder: Path) -> World:
    server = Serve(folder, "--port", "0")
    servers.append(server)
    return World(server.until_ready())


def kill(world: World) -> None:
    """Kill the hub with SIGKILL, and wait until its webhooks have gone, too."""
    children = world.server.children
    world.server.process.kill()
    world.server.process.wait(20)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def decides(world: World) -> bool:
    """Say whether the reader's webhook decides, and not only denies since it cannot."""
    try:
        return world.server.decide(READER, "nothing")[0] == 200
    except OSError:
        return False


def test_the_hub_is_killed_in_the_middle_of_a_chain(started: list[Serve], tmp_path: Path) -> None:
    folder = copied("accountability-chain", tmp_path)
    world = start(started, folder)
    run = world.open(DESK, limits={"records": 200})
    mine = world.give(DESK, MAILER, run)
    grant = world.give(MAILER, READER, run, grant=mine, scope={"actions": ["db.**"]})
    dead = world.open(DESK)
    over = world.give(DESK, READER, dead)
    world.close(DESK, dead)
    world.act(DESK, "web.page.fetch", run, labels=["odd"])
    before = [world.act(READER, READ["name"], run, grant) for _ in range(4)]
    kill(world)

    world = start(started, folder)
    after = [world.act(READER, READ["name"], run, grant) for _ in range(8)]
    assert [answer["decision"] for answer in (*before, *after)] == ["Allow"] * 10 + ["Deny"] * 2
    assert after[-1]["violations"] == [{"total": "records", "found": "220", "allowed": "200", "by": "mandate"}]
    assert world.delegate(MAILER, READER, run, grant=mine)["decision"] == "Allow", "the chain goes on"
    assert "is closed" in world.act(READER, READ["name"], dead, over)["reason"], "what ended stays ended"
    (handed,) = world.recorded(world.delegate(DESK, MAILER, run))
    assert handed["action"]["trusted"]["labels"] == ["odd"]
    records = world.records(run, 18)
    assert len({record["id"] for record in records}) == len(records)
    tree = world.trace(run)
    assert tree.count("db.customers.read") >= 12


def test_killed_while_many_ask_no_limit_is_overspent(started: list[Serve], tmp_path: Path) -> None:
    """Whoever was told Allow counts; the hub is killed while six ask without pause."""
    folder, limit, answered = copied("accountability-chain", tmp_path), 1000, Counter[str]()
    world = start(started, folder)
    run = world.open(DESK, limits={"steps": limit + 1})
    grant = world.give(DESK, READER, run)
    body = {"agent": READER, "run": run, "grant": grant, "action": READ}
    lock = threading.Lock()

    def insist(address: str) -> None:
        with Line(address) as line:
            while True:
                try:
                    answer = line.ask("/v1/decisions", body)
                except (OSError, HTTPException):
                    return
                with lock:
                    answered[answer.get("decision", "none")] += answer["status"] == 200
                if answer["status"] == 200 and answer["decision"] == "Deny":
                    return

    askers = [threading.Thread(target=insist, args=(world.server.address(READER),)) for _ in range(6)]
    for asker in askers:
        asker.start()
    until(lambda: answered["Allow"] > 100, "a hundred steps were allowed")
    kill(world)
    for asker in askers:
        asker.join(30)
    told = answered["Allow"]
    assert 100 < told < limit
    world = start(started, folder)
    at_once(insist, [world.server.address(READER)] * 6)
    assert answered["Allow"] <= limit
    assert answered["Allow"] >= limit - 12, "only what was under way at the kill may be lost, and counts as used"
    allowed = [r for r in world.records(run) if r.get("decision") == "Allow" and r["action"]["kind"] == "ToolCall"]
    assert len(allowed) <= limit


def test_a_webhook_is_killed_and_comes_back(started: list[Serve], tmp_path: Path) -> None:
    world = start(started, copied("accountability-chain", tmp_path))
    run = world.open(DESK, limits={"records": 100})
    grant = world.give(DESK, READER, run)
    before = [world.act(READER, READ["name"], run, grant)["decision"] for _ in range(3)]
    (webhook,) = [child for child in world.server.children if "care/app=data-worker" in child.cmdline()]
    webhook.send_signal(signal.SIGKILL)
    gone = psutil.wait_procs([webhook], timeout=20)[1]
    assert not gone
    until(lambda: decides(world), "the webhook is back at its address")
    after = at_once(lambda _: world.act(READER, READ["name"], run, grant)["decision"], range(20))
    assert (before, Counter(after)) == (["Allow"] * 3, {"Allow": 2, "Deny": 18})


def test_a_run_that_is_never_closed_ends_by_its_time(care: World) -> None:
    run = care.open(DESK, expiresInSeconds=2)
    grant = care.give(DESK, READER, run)
    assert care.act(READER, READ["name"], run, grant)["decision"] == "Allow"
    until(lambda: "has expired" in care.act(DESK, "web.page.fetch", run)["reason"], "the run's time is over")
    assert "expired" in care.act(READER, READ["name"], run, grant)["reason"]
    assert "has expired" in care.delegate(DESK, READER, run)["reason"]
    assert care.plan(DESK, run, [{"id": "a", "agent": READER, "action": READ}])["decision"] == "Deny"

    def states() -> list[str]:
        return [record["state"] for record in care.server.records() if record["type"] == "Run" and record["run"] == run]

    until(lambda: states() == ["Opened", "Expired"], "its end is on record")


def test_a_thousand_runs_at_once(care: World) -> None:
    """Each with a limit of its own, ten hands opening them; none sees another's use."""

    def open_hundred(_: int) -> list[tuple[str, str]]:
        found = []
        with Line(care.server.address(DESK)) as line:
            for _ in range(100):
                mandate = {"requester": "ana", "purpose": "one of many", "limits": {"steps": 2}}
                run = line.ask("/v1/runs", {"agent": DESK, "mandate": mandate})["run"]
                body = {"agent": DESK, "run": run, "action": {"kind": "ToolCall", "name": "web.page.fetch"}}
                found.append((run, line.ask("/v1/decisions", body)["decision"]))
        return found

    opened = [pair for found in at_once(open_hundred, range(10)) for pair in found]
    assert len({run for run, _ in opened}) == 1000
    assert {decision for _, decision in opened} == {"Allow"}
    for run, _ in opened[::100]:
        decisions = [care.act(DESK, "web.page.fetch", run)["decision"] for _ in range(2)]
        assert decisions == ["Allow", "Deny"]


CHAIN = 21
"""Agents in a row: the work is handed on twenty times."""
LONG = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentFleet
metadata: {name: row}
spec: {agents: {agentSelector: {matchLabels: {team: row}}}, defaultDecision: Allow}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: first, namespace: row}
spec:
  subjects: {agents: [a0]}
  rules:
  - {name: never, match: {names: ["never.*"]}, decision: Deny}
"""


def test_two_thousand_actions_at_depth_twenty(tmp_path: Path) -> None:
    """Ten thousand are in tests/run/test_many.py; over HTTP they would take longer than a test may."""
    actions, hands = 2000, 8
    folder = tmp_path / "row"
    folder.mkdir()
    agents = "".join(
        "---\napiVersion: fleetward.dev/v1alpha1\nkind: Agent\n"
        f"metadata: {{name: a{number}, namespace: row, labels: {{team: row}}}}\nspec: {{role: Worker}}\n"
        for number in range(CHAIN)
    )
    (folder / "row.yaml").write_text(LONG + agents)
    with serving(folder, "--webhooks", "1") as world:
        run = world.open("row/a0", limits={"steps": actions + CHAIN - 1, "depth": CHAIN - 1})
        grant: Answer = {}
        for one, next_ in itertools.pairwise(f"row/a{number}" for number in range(CHAIN)):
            grant = {"grant": world.give(one, next_, run, **grant)}
        last = f"row/a{CHAIN - 1}"
        body = {"agent": last, "run": run, **grant, "action": {"kind": "ToolCall", "name": "work.do"}}
        denied = world.act(last, "never.do", run, grant["grant"])
        assert denied["rules"][0]["principal"] == "row/a0", "the first one's rule binds the twentieth"

        def work(_: int) -> Counter[str]:
            with Line(world.server.address(last)) as line:
                return Counter(line.ask("/v1/decisions", body)["decision"] for _ in range(actions // hands + 10))

        found = sum(at_once(work, range(hands)), Counter[str]())
        assert found == {"Allow": actions, "Deny": hands * 10}
        records = world.records(run, actions + CHAIN + 1 + hands * 10)
        assert {len(record["path"]) for record in records if record["agent"] == last} == {CHAIN - 1}
        begun = time.perf_counter()
        tree = json.loads(world.trace(run, "-o", "json"))
        print(f"traced {len(records)} records in {time.perf_counter() - begun:.1f} s")  # noqa: T201
        assert tree
