"""Runs of several replicas: kept by one, asked about through any, in order, once, and by nobody else."""

import asyncio
import contextlib
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from support.relaying import OURS, A, B, Known, Replica, relaying, step
from support.streams import until

from fleetward.decision.replies import Done, Failed
from fleetward.delegation.token import verify
from fleetward.run import calls
from fleetward_operator.relay import lane, serving, wire
from fleetward_operator.relay.tags import TagError, open_tag, run_ids, tag_of


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    """The one that keeps the run, and another one."""
    async with relaying(tmp_path / "keeper") as keeper, relaying(tmp_path / "other") as other:
        other.known.urls[keeper.tag] = keeper.url
        keeper.known.urls[other.tag] = other.url
        yield keeper, other


def body(tag: str, *requests: calls.Request, webhook: str = "one", agent: str | None = A) -> bytes:
    asked = tuple(wire.Asked(webhook, agent, request) for request in requests)
    return wire.encode(wire.Questions(tag, asked))


async def post(url: str, data: bytes, token: str | None = OURS) -> tuple[int, bytes]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + wire.PATH, data=io.BytesIO(data), headers=headers) as answer,
    ):
        return answer.status, await answer.read()


# Tags


def test_a_tag_stays_with_its_journal(tmp_path: Path) -> None:
    file = tmp_path / "data" / "runs.tag"
    tag = open_tag(file)
    assert open_tag(file) == tag
    run, grant = run_ids(tag)("run-"), run_ids(tag)("grant-")
    assert (tag_of(run), len(run)) == (tag, len("run-") + 6 + 1 + 26)
    assert grant.startswith("grant-")
    assert tag not in grant.removeprefix("grant-")[:6]
    assert msgspec.convert(step(run).run, str) == run
    assert list(tmp_path.joinpath("data").iterdir()) == [file]


@pytest.mark.parametrize("run", ["run-01k9zq3v5w6x7y8z9a0b1c2d3e", "run-nope", "", "run-ABCDEF-x", "x-run-abcdef-"])
def test_other_ids_carry_none(run: str) -> None:
    assert tag_of(run) == ""


def test_a_tag_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs.tag").write_text("what?\n")
    with pytest.raises(TagError, match="holds 'what\\?', allowed are 6 of"):
        open_tag(tmp_path / "runs.tag")
    with pytest.raises(TagError, match="cannot be used: Is a directory"):
        open_tag(tmp_path)


# Asking


async def test_a_run_is_kept_where_it_was_opened(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open(steps=10)
    taken = await other.ask(step(run))
    assert isinstance(taken, calls.Taken), taken
    assert (taken.seq, taken.view.run) == (1, run)
    assert keeper.used(run) == 1
    assert isinstance(await other.ask(calls.Settle(run, taken.seq, allowed=False)), Done)
    assert keeper.used(run) == 0
    assert other.store.book.ledger.runs == {}
    counted = {("Step", "Taken", "elsewhere"): 1, ("Settle", "Done", "elsewhere"): 1}
    assert other.desk.answers == counted
    assert keeper.desk.answers == {("OpenRun", "Opened", "here"): 1}
    assert (keeper.desk.open_runs, other.desk.open_runs) == (1, 0)


async def test_all_kinds_of_questions_are_answered_from_afar(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open(steps=10)
    proposed = await other.ask(calls.Propose(run=run, agent=A, to=B))
    assert isinstance(proposed, calls.Proposed), proposed
    assert proposed.to.name == "beta"
    issued = await other.ask(calls.Issue(run=run, grant=proposed.grant.id, cause="w-1"))
    assert isinstance(issued, calls.Issued), issued
    grant = verify(issued.token, keeper.keys.public(), B, int(proposed.grant.expires_at) - 10)
    assert grant.run == run
    acted = await other.ask(step(run, B, grant=grant.id))
    assert isinstance(acted, calls.Taken)
    assert acted.view.path == (A,)
    assert isinstance(await other.ask(calls.Learn(run=run, agent=B, seq=acted.seq, labels=("seen",))), Done)
    action = {"kind": "ToolCall", "name": "tool-1.x"}
    plan = msgspec.convert(
        {"run": run, "agent": A, "steps": [{"id": "a", "agent": B, "action": action}]}, calls.CheckPlan
    )
    checked = await other.ask(plan)
    assert isinstance(checked, calls.PlanChecked), checked
    assert "seen" in checked.view.labels
    refused = await other.ask(calls.CloseRun(run=run, agent=B))
    assert isinstance(refused, calls.NotAllowed)
    assert isinstance(await other.ask(calls.CloseRun(run=run, agent=A)), Done)
    over = await keeper.ask(step(run))
    assert isinstance(over, calls.NotAllowed)
    assert "is closed" in over.reason


async def test_a_large_plan_is_checked_from_afar(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open()
    steps = [
        {"id": f"s{number}", "agent": A, "action": {"kind": "ToolCall", "name": "x", "arguments": {"text": "y" * 3000}}}
        for number in range(1000)
    ]
    plan = msgspec.convert({"run": run, "agent": A, "steps": steps}, calls.CheckPlan)
    assert len(msgspec.json.encode(plan)) > 3_000_000
    checked = await other.ask(plan)
    assert isinstance(checked, calls.PlanChecked), checked
    assert checked.totals.steps == 1000


async def test_the_order_of_asking_holds(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open(steps=2000)
    replies = await asyncio.gather(*(other.ask(step(run, number=number)) for number in range(1000)))
    assert [reply.seq for reply in replies if isinstance(reply, calls.Taken)] == list(range(1, 1001))
    taken = [keeper.store.book.ledger.runs[run].reservations.get(seq) for seq in range(1, 1001)]
    assert [each.name for each in taken if each] == [f"crm.read{number}" for number in range(1000)]


async def test_one_limit_is_exact_across_replicas(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open(steps=40)
    asked = [(keeper, other)[number % 2].ask(step(run, number=number), webhook=f"w{number}") for number in range(200)]
    kinds = Counter(type(reply).__name__ for reply in await asyncio.gather(*asked))
    assert kinds == {"Taken": 40, "NotAllowed": 160}
    assert keeper.used(run) == 40


async def test_only_the_webhook_that_took_an_action_up_settles_it(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open()
    taken = await other.ask(step(run), webhook="one")
    assert isinstance(taken, calls.Taken)
    refused = await other.ask(calls.Settle(run, taken.seq, allowed=False), webhook="two")
    assert isinstance(refused, calls.NotAllowed)
    assert "through another decision webhook" in refused.reason
    # The same webhook may have come to another replica meanwhile.
    assert isinstance(await keeper.ask(calls.Settle(run, taken.seq, allowed=False), webhook="one"), Done)


async def test_a_webhook_speaks_for_its_own_agents_only(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open()
    refused = await other.ask(step(run), agents=(B,))
    assert isinstance(refused, calls.NotAllowed)
    status, data = await post(keeper.url, body(keeper.tag, step(run), agent=B))
    assert status == 200
    (reply,) = wire.decode_answers(data).replies
    assert isinstance(reply, calls.NotAllowed)
    assert "is not one that this webhook serves" in reply.reason
    assert keeper.used(run) == 0


# What goes wrong


async def test_nobody_else_is_answered(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open()
    assert (await post(keeper.url, body(keeper.tag, step(run)), None))[0] == 401
    status, said = await post(keeper.url, body(keeper.tag, step(run)), "system:serviceaccount:reports:alpha")
    assert (status, said.decode()) == (
        403,
        f"system:serviceaccount:reports:alpha may not ask about runs here; only {OURS} may",
    )
    other.known.said = "system:serviceaccount:reports:alpha"
    failed = await other.ask(step(run))
    assert isinstance(failed, Failed)
    assert "answered 403" in failed.reason
    assert keeper.used(run) == 0


async def test_a_question_is_never_sent_further(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await other.open()
    for questions in (body(other.tag, step(run)), body(keeper.tag, step(run)), body(keeper.tag, step("run-x"))):
        status, data = await post(keeper.url, questions)
        assert (status, wire.decode_answers(data).replies) == (
            200,
            (Failed(reason="the replica that was asked does not keep this run"),),
        )
    assert other.used(run) == 0


async def test_what_is_no_question(pair: tuple[Replica, Replica]) -> None:
    keeper, _ = pair
    for data in (b"", b"{", b'{"tag": "abcdef", "asked": []}', b'{"tag": "abcdef", "asked": [{"webhook": "A b"}]}'):
        status, said = await post(keeper.url, data)
        assert status == 400
        assert said.startswith(b"these are no questions about runs: ")
    too_many = [step("run-x")] * (wire.MAX_QUESTIONS + 1)
    assert (await post(keeper.url, body(keeper.tag, *too_many)))[0] == 400
    with contextlib.suppress(aiohttp.ClientError):  # it may hang up before all is sent
        assert (await post(keeper.url, b" " * (wire.MAX_BODY + 1)))[0] == 413


async def test_a_run_whose_keeper_is_not_known(pair: tuple[Replica, Replica]) -> None:
    _, other = pair
    failed = await other.ask(step("run-zzzzzz-01k9zq3v5w6x7y8z9a0b1c2d3e"))
    assert failed == Failed(reason="this run is kept by another replica: no replica is known that keeps it")
    unknown = await other.ask(step("run-nope"))
    assert isinstance(unknown, calls.NotAllowed)
    assert "is unknown" in unknown.reason


async def test_a_keeper_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    async with relaying(tmp_path / "other") as other:
        async with relaying(tmp_path / "keeper") as keeper:
            tag = keeper.tag
            other.known.urls[tag] = keeper.url
            run = await keeper.open(steps=2)
            assert isinstance(await other.ask(step(run)), calls.Taken)
        failed = await other.ask(step(run, number=1))
        assert isinstance(failed, Failed)
        assert f"{keeper.url} cannot be asked: " in failed.reason
        async with relaying(tmp_path / "keeper") as back:
            assert back.tag == tag
            other.known.urls[tag] = back.url
            assert isinstance(await other.ask(step(run, number=2)), calls.Taken)
            refused = await other.ask(step(run, number=3))
            assert isinstance(refused, calls.NotAllowed), "what was counted before still is, and the failed one is not"


@contextlib.asynccontextmanager
async def between(
    keeper: Replica, spoil: Callable[[web.Request, int, bytes], Awaitable[web.Response]]
) -> AsyncIterator[str]:
    """Stand between a replica and the keeper, which does get the question; give the address."""

    async def handle(request: web.Request) -> web.Response:
        status, data = await post(keeper.url, await request.read())
        return await spoil(request, status, data)

    app = web.Application(client_max_size=wire.MAX_BODY)
    app.router.add_post(wire.PATH, handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_lost_answer_stays_counted_and_is_not_asked_for_again(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open(steps=3)

    async def lose(request: web.Request, *_: object) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with between(keeper, lose) as url:
        other.known.urls[keeper.tag] = url
        failed = await other.ask(step(run))
        assert isinstance(failed, Failed)
        assert "cannot be asked: " in failed.reason
    assert keeper.used(run) == 1
    other.known.urls[keeper.tag] = keeper.url
    left = [await other.ask(step(run, number=number)) for number in range(1, 4)]
    assert [type(reply).__name__ for reply in left] == ["Taken", "Taken", "NotAllowed"]


async def test_an_answer_that_is_none(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open()
    for data, words in ((b"?", "answered what is not understood here"), (b'{"replies": []}', "gave 0 answers to 1")):

        async def spoil(_: web.Request, status: int, real: bytes, data: bytes = data) -> web.Response:
            assert (status, real[:10]) == (200, b'{"replies"')
            return web.Response(body=data)

        async with between(keeper, spoil) as url:
            other.known.urls[keeper.tag] = url
            failed = await other.ask(step(run))
        assert isinstance(failed, Failed)
        assert words in failed.reason


async def test_a_slow_keeper_is_not_asked_for_those_who_gave_up(tmp_path: Path) -> None:
    """What waits behind a request that takes long is not counted for nobody; what gives something back still goes."""
    async with relaying(tmp_path / "keeper") as keeper, relaying(tmp_path / "other", patience=0.0) as other:
        run = await keeper.open(steps=10)
        first = await keeper.ask(step(run))
        assert isinstance(first, calls.Taken)
        let_go = asyncio.Event()

        async def hold(_: web.Request, status: int, data: bytes) -> web.Response:
            await let_go.wait()
            return web.Response(status=status, body=data)

        async with between(keeper, hold) as url:
            other.known.urls[keeper.tag] = url
            settles = calls.Settle(run, first.seq, allowed=True)
            under_way = asyncio.create_task(other.ask(settles))
            await until(lambda: keeper.store.book.ledger.runs[run].reservations.get(1).settled)  # type: ignore[union-attr]
            behind = [asyncio.create_task(other.ask(ask)) for ask in (step(run, number=1), settles)]
            await asyncio.sleep(0)
            let_go.set()
            assert isinstance(await under_way, Done)
            failed, done = await asyncio.gather(*behind)
        assert isinstance(failed, Failed)
        assert "which was not asked within 0 s" in failed.reason
        assert isinstance(done, Done)
        assert keeper.used(run) == 1


async def test_no_more_wait_than_may(pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, other = pair
    monkeypatch.setattr(lane, "MAX_WAITING", 10)
    run = await keeper.open()
    kinds = Counter(type(r).__name__ for r in await asyncio.gather(*(other.ask(step(run)) for _ in range(30))))
    assert kinds == {"Taken": 10, "Failed": 20}
    assert isinstance(await other.ask(step(run)), calls.Taken)
    monkeypatch.setattr(serving, "MAX_REQUESTS", 0)
    assert (await post(keeper.url, body(keeper.tag, step(run))))[0] == 503


async def test_a_journal_and_its_copy_keep_nothing(pair: tuple[Replica, Replica]) -> None:
    keeper, _ = pair
    run = await keeper.open()
    keeper.known.twin_url = "https://10.0.0.7:8443"
    failed = await keeper.ask(step(run))
    assert isinstance(failed, Failed)
    assert "https://10.0.0.7:8443 keeps a journal of runs with the same tag" in failed.reason
    assert keeper.desk.problem == failed.reason
    keeper.known.twin_url = ""
    assert isinstance(await keeper.ask(step(run)), calls.Taken)


async def test_a_journal_that_cannot_be_written_is_told(pair: tuple[Replica, Replica]) -> None:
    keeper, other = pair
    run = await keeper.open(steps=10)
    keeper.store._connection.execute("PRAGMA query_only = ON")
    for replica in (keeper, other):
        failed = await replica.ask(step(run))
        assert isinstance(failed, Failed)
        assert "attempt to write a readonly database" in failed.reason
    assert "attempt to write a readonly database" in keeper.desk.problem
    keeper.store._connection.execute("PRAGMA query_only = OFF")
    assert isinstance(await other.ask(step(run)), calls.Taken)
    assert keeper.desk.problem == ""


async def test_what_waits_when_the_hub_stops_is_answered(tmp_path: Path) -> None:
    known = Known()
    async with relaying(tmp_path / "keeper") as keeper:
        run = await keeper.open()

        async def never(*_: object) -> web.Response:
            await asyncio.Event().wait()
            return web.Response()

        async with between(keeper, never) as url:
            known.urls[keeper.tag] = url
            async with relaying(tmp_path / "other", known=known) as other:
                asked = [asyncio.create_task(other.ask(step(run)))]
                await until(lambda: keeper.used(run) == 1)
                asked.append(asyncio.create_task(other.ask(step(run))))
                await asyncio.sleep(0)
            replies = await asyncio.gather(*asked)
    assert all(isinstance(reply, Failed) and "the hub stops" in reply.reason for reply in replies), replies
