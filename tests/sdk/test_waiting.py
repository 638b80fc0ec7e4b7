"""Waiting where there is no room now: as long as the answer says, and no longer than the caller wants."""

import pytest
from support.webhook import Webhook

from fleetward.decision.action import Answer, Shortfall
from fleetward.sdk import AsyncClient, Client, Denied, Throttled

SLOW = "slow.report"  # is told to come back in 7 seconds


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("fleetward.sdk.client.time.sleep", waits.append)
    monkeypatch.setattr("fleetward.sdk.aio.asyncio.sleep", sleep)
    return waits


@pytest.mark.parametrize(("most", "waits"), [(6.9, []), (7, [7]), (13, [7]), (35, [7] * 5), (0, []), (-1, [])], ids=str)
def test_waits_for_no_longer_than_told_in_all(
    client: Client, slept: list[float], most: float, waits: list[int]
) -> None:
    with pytest.raises(Throttled) as caught:
        client.decide("ToolCall", SLOW, max_wait=most)
    assert slept == waits
    assert caught.value.retry_after_seconds == 7


def test_who_does_not_want_to_wait_does_not(client: Client, slept: list[float]) -> None:
    with pytest.raises(Throttled):
        client.decide("ToolCall", SLOW, wait=False, max_wait=100)
    assert slept == []


def test_every_call_of_a_tool_may_wait_as_long(client: Client, slept: list[float]) -> None:
    @client.tool(SLOW, max_wait=20)
    def report() -> None: ...

    for _ in range(2):
        with pytest.raises(Throttled):
            report()
    assert slept == [7] * 4


async def test_the_asynchronous_client_waits_alike(async_client: AsyncClient, slept: list[float]) -> None:
    with pytest.raises(Throttled):
        await async_client.decide("ToolCall", SLOW, max_wait=15)
    assert slept == [7, 7]


def test_other_refusals_are_not_waited_for(client: Client, slept: list[float], webhook: Webhook) -> None:
    with pytest.raises(Denied):
        client.decide("ToolCall", "crm.all.export", max_wait=100)
    assert slept == []


def test_a_refusal_says_what_was_short() -> None:
    short = Shortfall(budget="AgentBudget/reports/day", limit="records", needed=20, left=12, resets_at=1795302000)
    answer = Answer(
        id="a-1", decision="Deny", reason="no room", rules=(), obligations=(), registry_version="1", shortfall=short
    )
    assert Denied("no room", answer).shortfall is short
    assert Throttled("asked too often").shortfall is None
