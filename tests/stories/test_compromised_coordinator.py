"""A coordinator that was taken over holds a valid grant, and tries everything.

The fleet's default is Allow, so that no rule is in the way: what is refused is refused by the chain itself.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stories.world import Agents, Answer, World, serving
from support.waiting import until

from fleetward.delegation.keys import KeyRing

CHIEF, ROGUE, FIRST, SECOND = "office/chief", "office/rogue", "office/first", "office/second"
NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata: {name: office}
---
"""
AGENT = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {{name: {name}, namespace: office, labels: {{team: office}}}}
spec: {{role: {role}, workload: {{selector: {{matchLabels: {{app: {name}}}}}}}}}
---
"""
REST = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentFleet
metadata: {name: office}
spec: {agents: {agentSelector: {matchLabels: {team: office}}}, defaultDecision: Allow}
---
apiVersion: fleetward.dev/v1alpha1
kind: ActionCatalog
metadata: {name: office}
spec:
  entries:
  - {names: ["db.read"], dataClasses: [customer], target: db, estimate: {calls: 1, records: 10}}
  - {names: ["db.salaries"], dataClasses: [salary], target: db}
  - {names: ["mail.send"], target: mail}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: office, namespace: office}
spec:
  rules:
  - {name: nothing-untrusted, match: {kinds: [Delegation], labels: [untrusted]}, decision: Deny}
  # Anybody may open a run, so rules say in whose runs the vault is opened.
  - name: only-for-the-chief
    match: {names: ["vault.open"]}
    when: "!has(run.openedBy) || run.openedBy != 'office/chief'"
    decision: Deny
"""
LIMITS = {"steps": 50, "calls": 40, "records": 50, "inputTokens": 1000, "outputTokens": 500, "costMicroUsd": 90}
SCOPE = {"actions": ["db.*"], "dataClasses": ["customer"], "targets": ["db"], "depth": 1, "limits": LIMITS}


def resources() -> str:
    roles = {"chief": "Coordinator", "rogue": "Coordinator", "first": "Worker", "second": "Worker"}
    agents = "".join(AGENT.format(name=name, role=role) for name, role in roles.items())
    return f"{NAMESPACE}{agents}{REST}"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("office") / "folder"
    folder.mkdir()
    (folder / "office.yaml").write_text(resources())
    with serving(folder) as world:
        yield world


@dataclass
class Given:
    """A run of the chief's, and the rogue's valid grant."""

    world: Agents
    run: str
    grant: str

    def act(self, name: str = "db.read", agent: str = ROGUE, **changes: Any) -> Answer:
        """Act; each try has to be refused and on record, as the answer has it."""
        body = {"run": self.run, "grant": self.grant, "action": {"kind": "ToolCall", "name": name}, **changes}
        return self.refused(self.world.call(agent, "/v1/decisions", body))

    def hand_on(self, to: str = FIRST, **asked: Any) -> Answer:
        return self.refused(self.world.delegate(ROGUE, to, self.run, **{"grant": self.grant, **asked}))

    def refused(self, answer: Answer) -> Answer:
        assert answer["decision"] == "Deny", answer
        assert "grant" not in answer
        (record,) = self.world.recorded(answer)
        assert (record["decision"], record["reason"]) == ("Deny", answer["reason"])
        return answer


@pytest.fixture
def given(office: Agents) -> Given:
    run = office.open(CHIEF, limits={"depth": 3})
    return Given(office, run, office.give(CHIEF, ROGUE, run, scope=SCOPE))


def test_the_grant_is_valid(given: Given) -> None:
    assert given.world.act(ROGUE, "db.read", given.run, given.grant)["decision"] == "Allow"
    assert given.world.delegate(ROGUE, FIRST, given.run, grant=given.grant)["decision"] == "Allow"


@pytest.mark.parametrize(
    ("scope", "total"),
    [
        ({"actions": ["**"]}, "actions"),
        ({"actions": ["db.*", "mail.send"]}, "actions"),
        ({"dataClasses": ["customer", "salary"]}, "dataClasses"),
        ({"targets": ["db", "mail"]}, "targets"),
        ({"depth": 1}, "depth"),
        *(({"limits": {name: limit + 1}}, name) for name, limit in LIMITS.items()),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else value,
)
def test_a_wider_scope(given: Given, scope: dict[str, Any], total: str) -> None:
    answer = given.hand_on(scope=scope)
    assert "the scope of the delegation goes beyond what was authorised" in answer["reason"]
    assert [violation["total"] for violation in answer["violations"]] == [total]
    assert answer["violations"][0]["by"].startswith("grant g-")


def test_a_longer_life(given: Given) -> None:
    short = given.world.give(CHIEF, ROGUE, given.run, scope={"expiresInSeconds": 60})
    token = given.world.give(ROGUE, FIRST, given.run, grant=short, scope={"expiresInSeconds": 3600})
    assert claims(token)["exp"] <= claims(short)["exp"]


@pytest.mark.parametrize(
    ("name", "totals"),
    [("mail.send", ["actions", "targets"]), ("db.salaries", ["dataClasses"]), ("vault", ["actions", "targets"])],
)
def test_an_action_out_of_scope(given: Given, name: str, totals: list[str]) -> None:
    assert [violation["total"] for violation in given.act(name)["violations"]] == totals


def test_a_target_or_less_on_its_own_word(given: Given) -> None:
    """No catalog says where db.other goes, nor that db.salaries is harmless; the agent's word for it does not count."""
    other = given.act(action={"kind": "ToolCall", "name": "db.other", "target": "db"})
    assert [violation["total"] for violation in other["violations"]] == ["targets"]
    salaries = given.act(action={"kind": "ToolCall", "name": "db.salaries", "dataClasses": ["customer"]})
    assert [violation["total"] for violation in salaries["violations"]] == ["dataClasses"]


def test_more_than_its_share(given: Given) -> None:
    """Also by way of others: what it hands on comes out of its own share."""
    below = given.world.give(ROGUE, FIRST, given.run, grant=given.grant)
    for _ in range(5):
        assert given.world.act(FIRST, "db.read", given.run, below)["decision"] == "Allow"
    assert given.act()["violations"][0]["found"] == "60"


def test_anothers_grant(given: Given) -> None:
    theirs = given.world.give(CHIEF, FIRST, given.run)
    assert "was given to office/first, not to office/rogue" in given.act(grant=theirs)["reason"]
    assert "was given to office/first, not to office/rogue" in given.hand_on(SECOND, grant=theirs)["reason"]


def test_no_grant(given: Given) -> None:
    answer = given.refused(given.world.act(ROGUE, "db.read", given.run))
    assert "did not open run" in answer["reason"]
    assert "says no grant" in answer["reason"]
    stranger = given.refused(given.world.act(SECOND, "db.read", given.run))
    assert f"neither opened run {given.run} nor holds a grant of it" in stranger["reason"]


def test_an_expired_one(given: Given) -> None:
    short = given.world.give(CHIEF, ROGUE, given.run, scope={"expiresInSeconds": 1})
    until(lambda: time.time() > claims(short)["exp"], "the grant's time is over")
    assert "expired" in given.act(grant=short)["reason"]
    assert "expired" in given.hand_on(grant=short)["reason"]


def test_one_made_by_itself(given: Given) -> None:
    """With its own key, under the hub's key id and under one of its own; with no signature; with the public key."""
    ring = KeyRing.load(given.world.grant_keys())
    wide = {**claims(given.grant), "scope": {}}
    own = Ed25519PrivateKey.generate()
    head = {"alg": "EdDSA", "typ": "fleetward-grant+jwt", "kid": ring.kid}
    public = ring.public()[ring.kid]
    hashed = hmac.new(public.encode(), signed_part({**head, "alg": "HS256"}, wide), hashlib.sha256).digest()
    header, _, signature = given.grant.split(".")
    forged = {
        "its signature is wrong": f"{signed_part(head, wide).decode()}.{b64(own.sign(signed_part(head, wide)))}",
        "its claims were changed": f"{header}.{b64(json.dumps(wide).encode())}.{signature}",
        "its key is unknown": jws({**head, "kid": "mine"}, wide, own),
        "it is not signed": f"{signed_part({**head, 'alg': 'none'}, wide).decode()}.{b64(b'x')}",
        "it is signed with the public key": f"{signed_part({**head, 'alg': 'HS256'}, wide).decode()}.{b64(hashed)}",
        "it is something else": jws({**head, "typ": "JWT"}, wide, own),
        "it says more": jws({**head, "crit": ["x"]}, wide, own),
    }
    reasons = {
        "its signature is wrong": "the grant's signature is wrong: it was changed or forged",
        "its claims were changed": "the grant's signature is wrong: it was changed or forged",
        "its key is unknown": "signed with a key that is not, or no longer, one of the hub's",
        "it is not signed": "not signed with EdDSA, the only algorithm allowed",
        "it is signed with the public key": "not signed with EdDSA, the only algorithm allowed",
        "it is something else": "its type is not fleetward-grant+jwt",
        "it says more": "the grant's header is not made of alg, kid and typ",
    }
    for name, token in forged.items():
        for answer in (given.act("mail.send", grant=token), given.hand_on(grant=token)):
            assert reasons[name] in answer["reason"], name


def test_a_cleared_label(given: Given) -> None:
    """Labels cannot be cut out of a grant, and asking without them brings them back."""
    carried = given.world.give(CHIEF, ROGUE, given.run)
    header, _, signature = carried.split(".")
    cut = b64(json.dumps({**claims(carried), "labels": []}).encode())
    assert "the grant's signature is wrong" in given.act(grant=f"{header}.{cut}.{signature}")["reason"]
    given.world.act(ROGUE, "db.read", given.run, given.grant, labels=["untrusted"])
    for labels in ([], ["trusted"]):
        assert given.hand_on(labels=labels)["rules"][0]["rule"] == "nothing-untrusted"
    given.refused(given.world.delegate(CHIEF, SECOND, given.run))


def test_a_deeper_chain(given: Given) -> None:
    last = given.world.give(ROGUE, FIRST, given.run, grant=given.grant)
    answer = given.refused(given.world.delegate(FIRST, SECOND, given.run, grant=last))
    assert "depth" in answer["reason"]
    assert answer["violations"][0]["allowed"] == "not at all: the scope has depth 0"
    flat = given.world.open(CHIEF, limits={"depth": 1})
    grant = given.world.give(CHIEF, ROGUE, flat)
    answer = given.refused(given.world.delegate(ROGUE, FIRST, flat, grant=grant))
    assert answer["violations"] == [{"total": "depth", "found": "2", "allowed": "1", "by": "mandate"}]


@pytest.mark.parametrize("to", [CHIEF, ROGUE])
def test_a_circle(given: Given, to: str) -> None:
    assert "would go round in a circle: office/chief → office/rogue → " in given.hand_on(to)["reason"]


def test_to_nobody_that_is_governed(given: Given) -> None:
    assert "is not governed" in given.hand_on("office/ghost")["reason"]


def test_a_grant_of_a_closed_run(given: Given) -> None:
    given.world.close(ROGUE, given.run, status=409)
    assert given.world.act(ROGUE, "db.read", given.run, given.grant)["decision"] == "Allow"
    given.world.close(CHIEF, given.run)
    assert "is closed: office/chief, which opened it, closed it" in given.act()["reason"]
    assert "is closed" in given.hand_on()["reason"]


def test_a_grant_of_another_run(given: Given) -> None:
    other = given.world.open(CHIEF)
    answer = given.act(run=other)
    assert f"the grant is for run {given.run}, and the request names {other}" in answer["reason"]
    own = given.world.open(ROGUE)
    assert "the request names" in given.act(run=own)["reason"]


def test_in_another_agents_name(given: Given) -> None:
    """A webhook speaks for its own agents only."""
    for agent in (CHIEF, FIRST):
        body = {"agent": agent, "run": given.run, "action": {"kind": "ToolCall", "name": "db.read"}}
        answer = given.refused(given.world.ask(ROGUE, "/v1/decisions", body))
        assert f"agent {agent} is not governed here" in answer["reason"]
        body = {"agent": agent, "to": SECOND, "run": given.run}
        given.refused(given.world.ask(ROGUE, "/v1/delegations", body))


def test_a_run_of_its_own_is_not_the_chiefs(given: Given) -> None:
    """Anybody may open a run; what rules tie to the chief's runs stays out of reach, also through a worker."""
    own = given.world.open(ROGUE)
    assert given.refused(given.world.act(ROGUE, "vault.open", own))["rules"][0]["rule"] == "only-for-the-chief"
    grant = given.world.give(ROGUE, FIRST, own)
    given.refused(given.world.act(FIRST, "vault.open", own, grant))
    alone = {"action": {"kind": "ToolCall", "name": "vault.open"}}
    given.refused(given.world.call(FIRST, "/v1/decisions", alone))
    grant = given.world.give(CHIEF, FIRST, given.run)
    assert given.world.act(FIRST, "vault.open", given.run, grant)["decision"] == "Allow"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    data: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return data


def signed_part(header: dict[str, Any], payload: dict[str, Any]) -> bytes:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(payload).encode())}".encode()


def jws(header: dict[str, Any], payload: dict[str, Any], key: Ed25519PrivateKey) -> str:
    part = signed_part(header, payload)
    return f"{part.decode()}.{b64(key.sign(part))}"
