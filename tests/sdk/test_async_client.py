"""The asynchronous client against a real webhook."""

import asyncio

import pytest
from support.webhook import SmallHub, Webhook

from fleetward.sdk import ApprovalRequired, AsyncClient, OutcomeRefused, Throttled, context

RUN = "crm.customers.read"


async def test_many_at_once_each_under_its_own_parent(async_client: AsyncClient, webhook: Webhook) -> None:
    async def act(number: int) -> tuple[str, str]:
        with context(parent=f"parent-{number}"):
            async with async_client.action("ToolCall", RUN) as permit:
                assert await permit.succeed(number) == number
                return permit.id, f"parent-{number}"

    done = dict(await asyncio.gather(*(act(number) for number in range(100))))
    parents = {r["id"]: r["parent"] for r in webhook.spooled() if r["type"] == "Decision" and r["id"] in done}
    assert parents == done


async def test_refusals_and_progress(async_client: AsyncClient, webhook: Webhook) -> None:
    with pytest.raises(ApprovalRequired):
        await async_client.decide("Message", "mail.send")
    with pytest.raises(OutcomeRefused, match="Stop at ten"):  # noqa: PT012 - the block's end is the test
        async with async_client.action("ToolCall", RUN) as permit:
            await permit.progress(records=10)
            await permit.progress(records=11)
    assert webhook.spooled()[-1]["status"] == "Failed"
    async with async_client.action("ToolCall", RUN) as permit:
        pass
    assert webhook.spooled()[-1]["status"] == "Succeeded"
    with pytest.raises(ZeroDivisionError):
        async with async_client.action("ToolCall", RUN):
            1 / 0  # noqa: B018
    assert webhook.spooled()[-1]["error"] == "ZeroDivisionError: division by zero"


async def test_waiting_has_an_end(async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("fleetward.sdk.aio.asyncio.sleep", sleep)
    with pytest.raises(Throttled):
        await async_client.decide("ToolCall", "slow.report", wait=True)
    assert waits == [7, 7, 7]


async def test_a_restarted_webhook_is_asked_over_a_new_connection(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    async with AsyncClient(webhook.address) as client:
        await client.decide("ToolCall", RUN)
        webhook.kill()
        with Webhook(hub.address, webhook.spool.parent, listen=webhook.address) as again:
            again.await_ready()
            assert (await client.decide("ToolCall", RUN)).answer.decision == "Allow"


async def test_a_closed_client_opens_again(webhook: Webhook) -> None:
    client = AsyncClient(webhook.address)
    await client.decide("ToolCall", RUN)
    await client.close()
    await client.decide("ToolCall", RUN)
    await client.close()
