"""The API of records: who may read, and the stores of several replicas as one trail."""

import asyncio
import base64
import contextlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from kubernetes.aio.client import ApiClient, Configuration
from support.controlplane.flags import ISSUER
from support.controlplane.plane import ControlPlane
from support.replica import Replica
from support.trail import api, at, authority, ids, line, name, one, peers, problem, start, system, token, two

from fleetward.resources.names import AUDIENCE
from fleetward_operator.records.access import READ_RECORDS, AccessRefused, ClusterAccess, User

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

BIN = Path(sys.executable).parent

__all__ = ["api", "authority", "name", "one", "peers", "start", "system", "token", "two"]


def expired(plane: ControlPlane, namespace: str) -> str:
    """A token as the API server would have signed it, an hour past its end."""
    key = serialization.load_pem_private_key((plane.directory / "service-account.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    account = json.loads(plane.kubectl("get", "serviceaccount", "fleetward-auditor", "-n", namespace, "-o", "json"))
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "iat": now - 7200,
        "nbf": now - 7200,
        "exp": now - 3600,
        "sub": f"system:serviceaccount:{namespace}:fleetward-auditor",
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": "fleetward-auditor", "uid": account["metadata"]["uid"]},
        },
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "ES256", "typ": "JWT"}, claims)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    signature = base64.urlsafe_b64encode(r.to_bytes(32) + s.to_bytes(32)).rstrip(b"=")
    return (signed + b"." + signature).decode()


async def test_who_is_not_let_in(plane: ControlPlane, system: str, one: Replica) -> None:
    for path in ("/v1/records", "/v1/gaps", "/v1/status"):
        nobody = await problem(one, None, path)
        assert (nobody["status"], nobody["type"]) == (401, "urn:fleetward:problem:unauthenticated")
        assert nobody["detail"] == "found no bearer token, needed one for the audience fleetward"
        stranger = await problem(one, plane.token_for(system, "stranger", audiences=(AUDIENCE,)), path)
        assert stranger["status"] == 403
        assert stranger["detail"].startswith(f"system:serviceaccount:{system}:stranger may not ")
        assert "a ClusterRole with this verb lets it" in stranger["detail"]
    elsewhere = await problem(one, plane.token_for(system, "fleetward-auditor"))
    assert elsewhere["status"] == 401
    assert "needed for audience fleetward" in elsewhere["detail"]
    assert (await problem(one, "nonsense"))["status"] == 401
    old = await problem(one, expired(plane, system))
    assert old["status"] == 401
    assert "expired" in old["detail"]


async def test_who_is_let_in(one: Replica, token: str) -> None:
    one.store.append([line("a", 1, 1)])
    assert ids(await one.lines(token)) == ["a-1"]
    async with one.get("/v1/status", token) as response:
        assert (await response.json())["links"] == []


async def test_answers_are_remembered_for_ten_seconds(
    plane: ControlPlane, system: str, token: str, api: ApiClient
) -> None:
    now = 100.0
    access = ClusterAccess(api, clock=lambda: now)
    user = await access.authenticate(token)
    assert user.username == f"system:serviceaccount:{system}:fleetward-auditor"
    await access.authorize(user, READ_RECORDS)
    plane.kubectl("delete", "clusterrolebinding", f"auditor-{system}")
    plane.kubectl("delete", "serviceaccount", "fleetward-auditor", "-n", system)
    now = 109.9
    assert await access.authenticate(token) == user
    await access.authorize(user, READ_RECORDS)
    now = 110.1
    with pytest.raises(AccessRefused) as refused:
        await access.authorize(user, READ_RECORDS)
    assert refused.value.status == 403
    deadline = time.monotonic() + 30  # the API server itself remembers a token for ten seconds
    with pytest.raises(AccessRefused) as unknown:  # noqa: PT012 - asked again until the API server has forgotten
        while time.monotonic() < deadline:
            now += 10.1
            await access.authenticate(token)
            await asyncio.sleep(0.2)
    assert unknown.value.status == 401


async def test_an_api_server_that_does_not_answer_lets_nobody_in() -> None:
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as nowhere:
        access = ClusterAccess(nowhere)
        for asking in (access.authenticate("t"), access.authorize(User(username="u"), READ_RECORDS)):
            with pytest.raises(AccessRefused) as refused:
                await asking
            assert refused.value.status == 503


# What is asked for


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"decision": "Maybe"}, "decision: Invalid enum value 'Maybe', allowed Allow, Constrain, Throttle, Req"),
        ({"type": "Thing"}, "type: Invalid enum value 'Thing', allowed Decision, Outcome, Run, ModeChange"),
        ({"limit": "10001"}, "limit: Expected `int` <= 10000"),
        ({"limit": "few"}, "limit: "),
        ({"since": "2026-03-01T10:00:00"}, "since: "),
        ({"agnet": "x"}, "found agnet, allowed agent, namespace, run, "),
        ({"agent": ["a", "b"]}, "agent is given twice, allowed once"),
        ({"after": "3"}, "after: found it without local"),
        ({"limit": "0", "order": "NewestFirst"}, "order: found NewestFirst without a limit"),
    ],
)
async def test_queries_that_do_not_read(one: Replica, token: str, parameters: dict[str, Any], words: str) -> None:
    found = await problem(one, token, **parameters)
    assert found["status"] == 400
    assert found["detail"].startswith(words)


async def test_filters(one: Replica, token: str) -> None:
    one.store.append(
        [
            line("a", 1, 1),
            line("a", 2, 2, agent="other/beta", decision="Deny", run="r1"),
            line("a", 3, 3, agent="reports/beta", run="r1"),
        ]
    )
    for parameters, expected in (
        ({"namespace": "reports"}, ["a-1", "a-3"]),
        ({"agent": "beta"}, ["a-2", "a-3"]),
        ({"agent": "beta", "decision": "Deny"}, ["a-2"]),
        ({"run": "r1", "since": at(3)}, ["a-3"]),
        ({"until": at(2)}, ["a-1"]),
        ({"decisionId": "a-2"}, ["a-2"]),
        ({"type": ["Outcome", "ModeChange"]}, []),
        ({"limit": "2", "order": "NewestFirst"}, ["a-3", "a-2"]),
        ({"limit": "0"}, ["a-1", "a-2", "a-3"]),
    ):
        assert ids(await one.lines(token, **parameters)) == expected, parameters


async def test_records_come_byte_for_byte_and_an_answer_says_that_it_is_whole(one: Replica, token: str) -> None:
    bodies = [line("a", seq, seq) for seq in range(1, 4)]
    one.store.append(bodies)
    async with one.get("/v1/records", token, limit="2") as response:
        *records, end = (await response.read()).splitlines()
    assert records == bodies[:2]
    assert msgspec.json.decode(end) == {"type": "End", "more": True}


async def test_reading_on_from_a_position(one: Replica, token: str) -> None:
    one.store.append([line("a", seq, seq) for seq in range(1, 6)])
    seen, after, more = [], 0, True
    while more:
        *records, end = await one.lines(token, local="true", limit="2", after=str(after))
        seen += ids(records)
        after, more = end["position"], end.get("more", False)
    assert seen == [f"a-{seq}" for seq in range(1, 6)]
    one.store.append([line("a", 6, 6)])
    assert ids(await one.lines(token, local="true", after=str(after))) == ["a-6"]


# Several replicas


async def test_two_stores_are_one_trail(two: tuple[Replica, Replica], token: str) -> None:
    left, right = two
    left.store.append([line("a", 1, 1), line("a", 2, 4), line("c", 1, 6)])
    right.store.append([line("b", 1, 2), line("a", 2, 4), line("b", 2, 5)])
    for asked in two:
        assert ids(await asked.lines(token)) == ["a-1", "b-1", "a-2", "b-2", "c-1"]
        assert ids(await asked.lines(token, limit="0")) == ["a-1", "b-1", "a-2", "b-2", "c-1"]
        newest = await asked.lines(token, limit="2", order="NewestFirst")
        assert ids(newest) == ["c-1", "b-2"]
        assert newest[-1] == {"type": "End", "more": True}
    assert ids(await left.lines(token, local="true")) == ["a-1", "a-2", "c-1"]


async def test_many_records_of_two_stores(two: tuple[Replica, Replica], token: str) -> None:
    left, right = two
    await asyncio.to_thread(left.store.append, [line("a", n, 2 * n) for n in range(1, 1800)])
    await asyncio.to_thread(right.store.append, [line("b", n, 2 * n + 1) for n in range(1, 1800)])
    lines = await left.lines(token, limit="0")
    assert lines[-1] == {"type": "End"}
    times = [each["time"] for each in lines[:-1]]
    assert (len(times), times) == (3598, sorted(times))


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """Somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


async def test_a_replica_that_does_not_answer_is_named(
    two: tuple[Replica, Replica], token: str, peers: list[str]
) -> None:
    left, right = two
    left.store.append([line("a", 1, 1)])
    right.store.append([line("b", 1, 2)])
    dead = "https://127.0.0.1:1"
    async with silent() as mute:
        peers += [dead, mute]
        for limit in ("10", "0"):
            lines = await left.lines(token, limit=limit)
            assert ids(lines) == ["a-1", "b-1"]
            notices = {each["peer"]: each["message"] for each in lines if each["type"] == "Notice"}
            assert notices.keys() == {dead, mute}
            assert all(words.startswith("its records are missing here: ") for words in notices.values())
            assert lines[-1]["type"] == "End"


async def test_a_replica_that_does_not_let_us_in_is_named(
    plane: ControlPlane, system: str, start: Callable[..., Any], one: Replica, token: str
) -> None:
    stranger = plane.token_for(system, "stranger", audiences=(AUDIENCE,))
    async with start("asking", lambda: [one.url], stranger) as asked:
        (told, _) = await asked.lines(token)
    assert told["type"] == "Notice"
    assert "it answered 403: " in told["message"]


async def gaps(asked: Replica, token: str, **parameters: Any) -> dict[str, Any]:
    async with asked.get("/v1/gaps", token, **parameters) as response:
        assert response.status == 200
        return cast("dict[str, Any]", await response.json())


async def test_a_number_is_missing_only_where_no_replica_has_it(
    two: tuple[Replica, Replica], token: str, peers: list[str]
) -> None:
    left, right = two
    left.store.append([line("a", seq, seq) for seq in (1, 2, 3)])
    right.store.append([line("a", seq, seq) for seq in (6, 7, 9)])
    right.store.report("a", "reports/pod", 12)
    left.store.append([line("b", 3, 3)])
    right.store.append([line("b", 1, 1)])
    right.store.append([line("b", 2, 2)])
    alone = await gaps(right, token, local="true")
    assert [(gap["writer"], gap["first"], gap["last"], gap["state"]) for gap in alone["gaps"]] == [
        ("a", 1, 5, "Missing"),
        ("a", 8, 8, "Missing"),
        ("a", 10, 12, "Awaited"),
    ]
    for asked in two:
        assert await gaps(asked, token) == {
            "gaps": [
                {"writer": "a", "workload": "reports/pod", "first": first, "last": last, "state": state}
                for first, last, state in ((4, 5, "Missing"), (8, 8, "Missing"), (10, 12, "Awaited"))
            ]
        }
    peers.append("https://127.0.0.1:1")
    assert [told["peer"] for told in (await gaps(left, token))["notices"]] == ["https://127.0.0.1:1"]


class Follow:
    """Somebody who follows, with what came so far."""

    def __init__(self, asked: Replica, token: str, **parameters: Any) -> None:
        self.lines: list[dict[str, Any]] = []
        self.ended = False
        self._reading = asyncio.create_task(self._read(asked, token, parameters))

    async def _read(self, asked: Replica, token: str, parameters: dict[str, Any]) -> None:
        async with asked.get("/v1/records", token, follow="true", **parameters) as response:
            async for each in response.content:
                if each.strip():
                    self.lines.append(msgspec.json.decode(each))
        self.ended = True

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                assert not self._reading.done() or self.ended, self._reading
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


StartFollow = Callable[..., Awaitable[Follow]]


@pytest.fixture
async def follow(token: str) -> AsyncIterator[StartFollow]:
    started: list[Follow] = []

    async def start(asked: Replica, **parameters: Any) -> Follow:
        started.append(Follow(asked, token, **parameters))
        await started[-1].until(lambda: {"type": "Following"} in started[-1].lines)
        return started[-1]

    yield start
    for each in started:
        await each.stop()


async def test_following_two_stores(two: tuple[Replica, Replica], follow: StartFollow) -> None:
    left, right = two
    left.store.append([line("a", 1, 1), line("a", 2, 3)])
    right.store.append([line("b", 1, 2)])
    following = await follow(left, limit="2")
    assert ids(following.lines) == ["b-1", "a-2"]
    right.store.append([line("b", 2, 4)])
    await following.until(lambda: "b-2" in ids(following.lines))
    # An old record that comes late comes all the same, and one that both stores get comes once.
    left.store.append([line("c", 1, 0)])
    await following.until(lambda: "c-1" in ids(following.lines))
    for each in two:
        each.store.append([line("d", 1, 5)])
        each.store.append([line("d", 2, 6)])
    await following.until(lambda: "d-2" in ids(following.lines))
    left.store.append([line("e", 1, 7)])
    await following.until(lambda: "e-1" in ids(following.lines))
    assert sorted(ids(following.lines)) == ["a-2", "b-1", "b-2", "c-1", "d-1", "d-2", "e-1"]


async def test_following_ends_when_a_replica_comes(
    one: Replica, two: tuple[Replica, Replica], peers: list[str], follow: StartFollow
) -> None:
    """Whoever follows asks again then, and misses nothing."""
    following = await follow(two[0])
    peers.append(one.url)
    # The new one is not known to the auditor's token only: it answers like the others.
    await following.until(lambda: following.ended)
    assert following.lines[-1] == {"type": "End", "more": True}


async def test_following_ends_when_the_right_is_gone(
    plane: ControlPlane, one: Replica, system: str, follow: StartFollow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetward_operator.records.routes.CHECK_SECONDS", 0.1)
    monkeypatch.setattr("fleetward_operator.records.access.REMEMBERED_SECONDS", 0.1)
    following = await follow(one)
    plane.kubectl("delete", "clusterrolebinding", f"auditor-{system}")
    await following.until(lambda: following.ended)
    told, end = following.lines[-2:]
    assert told["message"].startswith("this ends here: system:serviceaccount:")
    assert end["type"] == "End"
