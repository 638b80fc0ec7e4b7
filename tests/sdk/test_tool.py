"""The decorator: a function's calls, governed. Synchronous and asynchronous alike."""

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.webhook import Webhook

from fleetward.decision.canonical import digest
from fleetward.sdk import AsyncClient, Client, Denied, InvalidAction, OutcomeRefused


def test_a_call_is_asked_for_run_and_reported(client: Client, webhook: Webhook) -> None:
    @client.tool(
        "crm.customers.read",
        data_classes=["customer"],
        expect=lambda arguments: {"records": arguments["limit"]},
        measure=lambda rows: {"records": len(rows)},
    )
    def read(segment: str, *more: int, limit: int = 3, **rest: Any) -> list[int]:
        """Read customers."""
        return list(range(limit))

    assert read("trial", 1, 2, limit=2, deep={"a": 1}) == [0, 1]
    decision, outcome = webhook.spooled()[-2:]
    assert decision["action"]["argumentsDigest"] == digest(
        {"segment": "trial", "more": [1, 2], "limit": 2, "deep": {"a": 1}}
    )
    assert decision["action"]["declared"]["estimate"] == {"records": 2}
    assert decision["action"]["declared"]["dataClasses"] == ["customer"]
    assert (outcome["decisionId"], outcome["status"]) == (decision["id"], "Succeeded")
    assert outcome["actual"]["records"] == 2
    assert read.__doc__ == "Read customers."
    assert list(inspect.signature(read).parameters) == ["segment", "more", "limit", "rest"]


def test_a_refused_call_never_reaches_the_function(client: Client) -> None:
    @client.tool("crm.all.export")
    def export() -> None:
        pytest.fail("the function ran")

    with pytest.raises(Denied):
        export()


def test_a_failing_call_is_reported_and_fails(client: Client, webhook: Webhook) -> None:
    @client.tool("crm.customers.read")
    def read() -> None:
        raise LookupError("no such customer")

    with pytest.raises(LookupError) as caught:
        read()
    assert not getattr(caught.value, "__notes__", [])
    assert webhook.spooled()[-1]["error"] == "LookupError: no such customer"


def test_obligations_reach_the_function_and_the_result(client: Client) -> None:
    seen: list[Any] = []

    @client.tool("list.orders")
    def orders(what: str, limit: int | None = None) -> int | None:
        seen.append((what, limit))
        return limit

    assert [orders("a", 500), orders("b", limit=7), orders("c")] == [100, 7, 100]
    assert seen == [("a", 100), ("b", 7), ("c", 100)]

    @client.tool("list.orders")
    def anything(**options: Any) -> dict[str, Any]:
        return options

    assert anything() == {"limit": 100}
    assert anything(limit=500, other=1) == {"limit": 100, "other": 1}

    @client.tool("masked.read")
    def masked() -> list[dict[str, Any]]:
        return [{"email": "a@example.com", "id": 1}]

    assert masked() == [{"email": "[REDACTED]", "id": 1}]


def test_an_obligation_the_function_cannot_take_denies(client: Client, webhook: Webhook) -> None:
    @client.tool("list.orders")
    def orders(what: str) -> None:
        pytest.fail("the function ran")

    with pytest.raises(Denied, match="takes no argument limit"):
        orders("a")
    assert webhook.spooled()[-1]["status"] == "Failed"


def test_a_result_that_is_refused_is_not_handed_over(client: Client) -> None:
    @client.tool("crm.customers.read", measure=lambda rows: {"records": len(rows)})
    def read() -> list[int]:
        return [0] * 1001

    with pytest.raises(OutcomeRefused, match="More than a thousand"):
        read()


def test_parameters_that_are_no_part_of_the_action(client: Client, webhook: Webhook) -> None:
    class Store:
        @client.tool("crm.customers.read", ignore=["session"])
        def read(self, session: object, limit: int) -> object:
            return session if limit else None

    session = object()
    assert Store().read(session, 5) is session
    assert webhook.spooled()[-2]["action"]["argumentsDigest"] == digest({"limit": 5})
    with pytest.raises(InvalidAction, match=r"arguments.limit: found object"):
        Store().read(session, object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ignore names sesion"):
        client.tool("a", ignore=["sesion"])(lambda session: session)
    with pytest.raises(TypeError, match="missing a required argument"):
        Store().read(session)  # type: ignore[call-arg]


def test_other_kinds_of_function_are_told_where_to_go(client: Client, async_client: AsyncClient) -> None:
    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    def plain() -> None: ...

    for function in (coroutine, async_generator):
        with pytest.raises(TypeError, match="AsyncClient"):
            client.tool("a")(function)
    with pytest.raises(TypeError, match="generator"):
        client.tool("a")(generator)
    for other in (plain, async_generator):
        with pytest.raises(TypeError, match="no coroutine function"):
            async_client.tool("a")(other)  # type: ignore[arg-type]


async def test_the_asynchronous_decorator_does_the_same(async_client: AsyncClient, webhook: Webhook) -> None:
    @async_client.tool("list.orders", measure=lambda limit: {"records": limit})
    async def orders(limit: int) -> int:
        return limit

    assert await orders(500) == 100
    assert webhook.spooled()[-1]["actual"]["records"] == 100

    @async_client.tool("masked.read")
    async def masked() -> list[dict[str, Any]]:
        return [{"email": "a@example.com"}]

    assert await masked() == [{"email": "[REDACTED]"}]

    @async_client.tool("crm.all.export")
    async def export() -> None:
        pytest.fail("the function ran")

    with pytest.raises(Denied):
        await export()

    @async_client.tool("crm.read")
    async def fails() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError):
        await fails()
    assert webhook.spooled()[-1]["error"] == "LookupError: gone"
