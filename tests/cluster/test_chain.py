"""The accountability chain on a cluster: runs, grants and limits hold across replicas, restarts and changes of keys."""

import base64
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.chain import CARE, DESK, MAILER, WORKER, Chain, chain
from support.chart import NAMESPACE
from support.clusterpods import pod_token
from support.controlplane.build import program
from support.serving import stored
from support.spine import WITHIN
from support.waiting import until

from fleetward.delegation.keys import KeyRing
from fleetward.resources.names import AUDIENCE, GRANT_KEYS_SECRET
from fleetward_operator.relay import wire

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("cluster")]

SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/{GRANT_KEYS_SECRET}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(tmp_path_factory.mktemp("chain")) as running:
        run = running.open()
        until(lambda: running.ask(DESK, "/v1/delegations", to=WORKER, run=run)[0] == 200, "grants are signed", WITHIN)
        running.until_reads(run, running.delegate(run)["grant"])
        yield running


MANDATE = {"requester": "ana", "purpose": "whether it works"}


def delegates(world: Chain) -> bool:
    """Say whether work of the desk reaches the worker, whose webhook is connected to the other replica."""
    run = world.open()
    status, answer = world.ask(DESK, "/v1/delegations", to=WORKER, run=run)
    return status == 200 and world.read(run, answer["grant"])[1].get("decision") == "Allow"


def kid(grant: str) -> str:
    head = grant.partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


def records(world: Chain, run: str) -> list[dict[str, Any]]:
    """Give what both stores hold of a run."""
    directory = world.fleetward.directory
    both = [record for name in ("operator", "second") for record in stored(directory / f"{name}-audit")]
    return [record for record in both if record.get("run") == run]


def trace(world: Chain, run: str, *options: str) -> str:
    """Run `kubectl fleetward trace` as an auditor does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETWARD_", "KUBE"))}
    env = {**kept, "FLEETWARD_KUBECTL": str(program("kubectl")), "KUBECONFIG": str(world.plane.admin_kubeconfig)}
    command = [str(Path(sys.executable).with_name("kubectl-fleetward")), "trace", run, "--hub", world.fleetward.hub]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_chain_is_told_as_one_trace(world: Chain) -> None:
    run = world.open(steps=10, depth=2)
    handed = world.delegate(run, actions=["db.customers.read"], dataClasses=["customer"], targets=["customer-db"])
    assert handed["decision"] == "Allow"
    status, read = world.read(run, handed["grant"])
    assert (status, read["decision"]) == (200, "Allow"), read
    _, bulk = world.read(run, handed["grant"], estimate={"records": 500})
    assert bulk["decision"] == "Deny"
    assert "nothing-in-bulk" in json.dumps(bulk), "the desk's own rule binds whoever it hands work to"
    mails = world.delegate(run, MAILER, actions=["mail.send.*"])
    mail = {"kind": "ToolCall", "name": "mail.send.customer"}
    _, held = world.ask(MAILER, "/v1/decisions", run=run, grant=mails["grant"], action=mail)
    assert held["decision"] == "RequireApproval"
    _, beyond = world.ask(WORKER, "/v1/decisions", run=run, grant=handed["grant"], action=mail)
    assert beyond["decision"] == "Deny"
    _, stolen = world.ask(WORKER, "/v1/decisions", run=run, grant=mails["grant"], action=mail)
    assert stolen["decision"] == "Deny"
    until(lambda: len(records(world, run)) >= 8, "all of it is stored", WITHIN)
    told = records(world, run)
    assert {record.get("agent") for record in told} == {DESK, WORKER, MAILER}
    sent = [r for r in told if r["type"] == "Decision" and r["action"]["name"].startswith("mail.")]
    assert sent
    assert all(record["decision"] != "Allow" for record in sent)
    tree = trace(world, run)
    assert all(record["id"] in tree for record in told if record["type"] == "Decision"), tree
    assert "mail.send.customer" in tree


def test_metrics_tell_of_runs(world: Chain) -> None:
    run = world.open()
    grant = world.delegate(run)["grant"]
    world.until_reads(run, grant)
    here, there = world.fleetward.operator.get("/metrics"), world.second.get("/metrics")
    assert 'fleetward_run_questions_total{answer="Opened",kept="here",question="OpenRun"}' in here
    assert 'fleetward_run_questions_total{answer="Taken",kept="elsewhere",question="Step"}' in there
    assert "fleetward_runs_open 0.0" in there
    assert "fleetward_runs_open 0.0" not in here


def test_a_policy_patched_binds_under_a_grant_at_once(world: Chain) -> None:
    run = world.open()
    grant = world.delegate(run)["grant"]
    world.until_reads(run, grant)
    before = world.get("agentpolicy", "desk", CARE)["spec"]["rules"]
    no = {"name": "no-reading-today", "match": {"names": ["db.**"]}, "decision": "Deny", "message": "Not today"}
    world.patch("agentpolicy", "desk", {"rules": [*before, no]}, CARE)
    try:
        until(lambda: "no-reading-today" in json.dumps(world.read(run, grant)[1]), "the desk's rule binds", WITHIN)
        _, answer = world.read(run, grant)
        assert answer["decision"] == "Deny"
    finally:
        world.patch("agentpolicy", "desk", {"rules": before}, CARE)
    world.until_reads(run, grant)


def test_a_paused_coordinator_stops_the_work_it_handed_out(world: Chain) -> None:
    run = world.open()
    grant = world.delegate(run)["grant"]
    world.until_reads(run, grant)
    world.patch("agent", "desk", {"operatingMode": "Paused", "operatingReason": "ticket 4711"}, CARE)
    try:
        until(lambda: "ticket 4711" in json.dumps(world.read(run, grant)[1]), "the worker is denied, and why", WITHIN)
        assert world.read(run, grant)[1]["decision"] == "Deny"
    finally:
        world.patch("agent", "desk", {"operatingMode": "Running", "operatingReason": None}, CARE)
    world.until_reads(run, grant)


def test_one_limit_is_exact_across_replicas(world: Chain) -> None:
    """The desk's webhook asks the replica that keeps the run, the worker's asks the other one, all at once."""
    run = world.open(steps=41)
    grant = world.delegate(run)["grant"]  # is a step of its own
    with ThreadPoolExecutor(16) as pool:
        asked = [(pool.submit(world.fetch, run), pool.submit(world.read, run, grant)) for _ in range(60)]
        fetched, read = zip(*((one.result(), other.result()) for one, other in asked), strict=True)
    by = [Counter((status, answer.get("decision")) for status, answer in each) for each in (fetched, read)]
    assert by[0] + by[1] == {(200, "Allow"): 40, (200, "Deny"): 80}
    assert all(each[200, "Allow"] for each in by), "both had some of it"


def test_the_keeping_replica_killed(world: Chain) -> None:
    run = world.open(steps=8)
    grant = world.delegate(run)["grant"]
    world.until_reads(run, grant)
    world.fleetward.operator.kill()
    try:
        status, problem = world.read(run, grant)
        assert status == 503, problem
        assert "this run is kept by another replica" in problem["detail"]
        assert world.ask(WORKER, "/v1/runs", mandate=MANDATE)[0] == 200, "runs of its own replica go on"
        assert (
            world.ask(DESK, "/v1/decisions", run=run, action={"kind": "ToolCall", "name": "web.page.fetch"})[0] == 503
        )
    finally:
        world.fleetward.operator.start_if_down()
    allowed, deadline = 0, time.monotonic() + WITHIN
    while True:
        status, answer = world.read(run, grant)
        if status == 200 and answer["decision"] == "Deny":
            break
        allowed += status == 200
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    assert "steps: found 9, allowed" in answer["reason"]
    assert allowed <= 6, "the delegation and the first reading still count"
    assert allowed >= 1, "nothing was counted that was not asked for"


def test_the_operators_restarted_in_the_middle(world: Chain) -> None:
    run = world.open(steps=20)
    handed = world.delegate(run)
    for replica in (world.fleetward.operator, world.second):
        assert replica.stop() == 0
        replica.start().until_ready()
    world.until_reads(run, handed["grant"])
    until(lambda: world.fetch(run)[0] == 200, "the desk goes on", WITHIN)
    grant = world.delegate(run, MAILER, actions=["mail.send.*"])["grant"]
    mail = {"kind": "ToolCall", "name": "mail.send.customer"}

    def held() -> bool:
        status, answer = world.ask(MAILER, "/v1/decisions", run=run, grant=grant, action=mail)
        assert status == 503 or answer["decision"] == "RequireApproval", answer
        return status == 200

    until(held, "the mailer's webhook is back", WITHIN)


def older(ring: bytes, seconds: int) -> str:
    """Give a ring whose key began to sign so much earlier, as a Secret holds it."""
    stored = json.loads(ring)
    stored["signing"]["since"] -= seconds
    return base64.b64encode(KeyRing.load(json.dumps(stored).encode()).dump()).decode()


def keys(world: Chain) -> dict[str, bytes]:
    data = world.plane.request("GET", SECRET)["data"]
    return {name: base64.b64decode(value) for name, value in data.items()}


def test_keys_rotated_in_the_middle(world: Chain) -> None:
    run = world.open()
    old = world.delegate(run)["grant"]
    world.until_reads(run, old)

    def patch(**data: str) -> None:
        named = {key.replace("_", "."): value for key, value in data.items()}
        world.plane.kubectl("patch", "secret", GRANT_KEYS_SECRET, "-n", NAMESPACE, "-p", json.dumps({"data": named}))

    patch(keys_json=older(keys(world)["keys.json"], 90_000))
    until(lambda: "next.json" in keys(world), "the next key is published", WITHIN)
    soon = KeyRing.load(keys(world)["next.json"]).kid
    published = time.monotonic()
    while time.monotonic() < published + 5:  # it is published, and does not sign yet
        grant = world.delegate(run)["grant"]
        assert kid(grant) == kid(old) != soon
        assert world.read(run, grant)[1]["decision"] == "Allow"
    patch(next_json=older(keys(world)["next.json"], 60))
    until(lambda: kid(world.delegate(run)["grant"]) == soon, "the next key signs", WITHIN)
    assert world.read(run, world.delegate(run)["grant"])[1]["decision"] == "Allow"
    assert world.read(run, old)[1]["decision"] == "Allow"
    assert "next.json" not in keys(world)


def test_the_secret_deleted(world: Chain) -> None:
    run = world.open()
    old = world.delegate(run)["grant"]
    world.until_reads(run, old)
    world.plane.kubectl("delete", "secret", GRANT_KEYS_SECRET, "-n", NAMESPACE)
    until(lambda: world.read(run, old)[1].get("decision") == "Deny", "old grants are not believed", WITHIN)
    assert "the grant is refused" in world.read(run, old)[1]["reason"]
    until(lambda: delegates(world), "grants are signed with a new key, and believed", WITHIN)
    assert kid(world.delegate(run)["grant"]) != kid(old)
    assert world.read(run, old)[1]["decision"] == "Deny"

    def told() -> bool:
        events = world.plane.request("GET", f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")["items"]
        return any(event["reason"] == "GrantKeysLost" and "not believed" in event["note"] for event in events)

    until(told, "an Event tells of it", WITHIN)


def test_nobody_but_replicas_may_ask_about_runs(world: Chain) -> None:
    pod = world.running(CARE, "desk")["metadata"]["name"]
    sidecar = pod_token(world.plane, CARE, pod, account="desk")
    operator = world.plane.token_for(NAMESPACE, "fleetward-operator", audiences=(AUDIENCE,))
    for_the_api_server = world.plane.token_for(NAMESPACE, "fleetward-operator")
    auditor = world.plane.token_for(NAMESPACE, "fleetward-auditor", audiences=(AUDIENCE,))
    found = [asked(world, token) for token in ("", "x", for_the_api_server, sidecar, auditor, operator)]
    assert [status for status, _ in found] == [401, 401, 401, 403, 403, 400]
    assert "only system:serviceaccount:fleetward-system:fleetward-operator may" in found[3][1]


def asked(world: Chain, token: str) -> tuple[int, str]:
    data = world.plane.request("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/fleetward-hub-tls")["data"]
    trust = ssl.create_default_context(cadata=base64.b64decode(data["ca.crt"]).decode())
    request = urllib.request.Request(  # noqa: S310 - our own hub
        world.fleetward.hub + wire.PATH, b"{}", {"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
