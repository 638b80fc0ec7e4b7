"""The asynchronous client's runs, against `fleetward serve`."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.serving import Serve
from support.waiting import until

from fleetward.sdk import ApprovalRequired, AsyncClient, Denied, Step, Unavailable, context

DESK, WORKER, MAILER = "care/desk", "care/data-worker", "care/mailer"
READ, FETCH = "db.customers.read", "web.page.fetch"


@pytest.fixture
async def desk(chain: Serve) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(chain.address(DESK), agent=DESK, timeout=20) as client:
        yield client


@pytest.fixture
async def worker(chain: Serve) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(chain.address(WORKER), agent=WORKER, timeout=20) as client:
        yield client


async def test_the_accountability_chain(chain: Serve, desk: AsyncClient, worker: AsyncClient) -> None:
    async with desk.run(requester="ana", purpose="answer ticket 7", limits={"steps": 10}) as run:
        steps = [Step("read", WORKER, "ToolCall", READ), Step("send", MAILER, "ToolCall", "mail.send.customer")]
        assert (await run.plan(steps)).decision == "Allow"
        grant = await run.delegate(WORKER, actions=[READ, "mail.**"])
        with context(grant=grant):

            @worker.tool(READ, measure=lambda rows: {"records": len(rows)})
            async def read() -> list[str]:
                with pytest.raises(Denied) as beyond:
                    await worker.decide("ToolCall", "web.page.fetch")
                assert beyond.value.violations[0].total == "actions"
                return ["Ada"]

            assert await read() == ["Ada"]
            onward = await worker.delegate(MAILER, actions=["mail.**"])
        async with AsyncClient(chain.address(MAILER), agent=MAILER, timeout=20) as mailer:
            with context(grant=onward), pytest.raises(ApprovalRequired):
                await mailer.decide("ToolCall", "mail.send.customer")
    with context(run=run.id), pytest.raises(Denied, match="is closed"):
        await desk.decide("ToolCall", FETCH)


async def test_a_governed_coroutine_is_the_parent_of_what_it_asks_for(chain: Serve, desk: AsyncClient) -> None:
    @desk.tool(FETCH)
    async def fetch(number: int) -> tuple[int, str]:
        await asyncio.sleep(0)
        return number, (await desk.decide("ToolCall", "text.sanitize")).id

    async with desk.run(requester="ana", purpose="many at once"):
        done = await asyncio.gather(*(fetch(number) for number in range(10)))
    wanted = {decision for _, decision in done}
    await asyncio.to_thread(until, lambda: wanted <= {r["id"] for r in chain.records()}, "the records")
    records = {record["id"]: record for record in chain.records()}
    parents = {records[decision]["parent"] for decision in wanted}
    assert len(parents) == 10
    assert {records[parent]["action"]["name"] for parent in parents} == {FETCH}


async def test_runs_of_tasks_are_their_own_and_are_closed_on_an_exception(desk: AsyncClient) -> None:
    async def act() -> str:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block's end is the test
            async with desk.run(requester="ana", purpose="x") as run:
                assert (await desk.plan([Step("a", WORKER, "ToolCall", READ)])).decision == "Allow"
                1 / 0  # noqa: B018
        with context(run=run.id), pytest.raises(Denied, match="is closed"):
            await desk.decide("ToolCall", FETCH)
        return run.id

    assert len(set(await asyncio.gather(*(act() for _ in range(5))))) == 5


async def test_a_run_that_cannot_be_closed_says_so(desk: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: object) -> None:
        raise Unavailable("the decision webhook is gone")

    with pytest.raises(Unavailable):
        async with desk.run(requester="ana", purpose="x"):
            monkeypatch.setattr(desk._transport, "exchange", gone)
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012 - the block's end is the test
        async with desk.run(requester="ana", purpose="x"):
            monkeypatch.setattr(desk._transport, "exchange", gone)
            1 / 0  # noqa: B018
    assert "could not be closed" in caught.value.__notes__[0]
