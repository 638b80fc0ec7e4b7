"""Whatever is wrong with the webhook, the action is refused, and the tool function is never called."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.webhook import SmallHub, Webhook, await_condition

from fleetward.sdk import AsyncClient, Client, InvalidAction, OutcomeRefused, Refused, Throttled, Unavailable

ALLOW: dict[str, Any] = {
    "id": "w-1",
    "decision": "Allow",
    "reason": "because",
    "rules": [],
    "obligations": [],
    "registryVersion": "1",
}


def http(status: str, body: bytes | dict[str, Any], *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + data


def problem(status: str, **fields: Any) -> bytes:
    return http(status, {"type": "urn:x", "title": "t", "status": 1} | fields, "Content-Type: application/problem+json")


@contextmanager
def impostor(behave: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """Listen where a webhook should, and treat every request as `behave` does."""
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    open_now: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := _read_request(connection):
                requests.append(data)
                try:
                    behave(connection)
                except OSError:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_now.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_now:
            connection.close()
        thread.join(10)


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
            head, found, body = data.partition(b"\r\n\r\n")
            if found:
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if len(body) >= int(lengths[0].split(b":")[1]):
                    return data
    except OSError:
        pass
    return b""


def sending(data: bytes, *, close: bool = False) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        connection.sendall(data)
        if close:
            connection.shutdown(socket.SHUT_RDWR)

    return behave


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang(_: socket.socket) -> None:
    """Say nothing."""


FAULTS: dict[str, Callable[[socket.socket], None]] = {
    "hang": hang,
    "reset": reset,
    "closed without an answer": sending(b"", close=True),
    "garbage": sending(b"\x00\xff\x16garbage\r\n\r\n", close=True),
    "no HTTP": sending(b"SSH-2.0-OpenSSH_9.2\r\n", close=True),
    "half a head": sending(b"HTTP/1.1 200 OK\r\nContent-", close=True),
    "half a body": sending(http("200 OK", ALLOW)[:-30], close=True),
    "a body that never ends": sending(http("200 OK", ALLOW)[:-30]),
    "not JSON": sending(http("200 OK", b"<html>Allow</html>")),
    "not an answer": sending(http("200 OK", {"decision": "Allow"})),
    "an unknown decision": sending(http("200 OK", ALLOW | {"decision": "Perhaps"})),
    "an obligation nobody knows": sending(
        http("200 OK", ALLOW | {"obligations": [{"type": "Encrypt", "field": "arguments.a"}]})
    ),
    "a field nobody knows": sending(http("200 OK", ALLOW | {"unless": "it rains"})),
    "an empty answer": sending(http("200 OK", b"")),
    "no content": sending(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "a redirect": sending(http("307 Temporary Redirect", b"", "Location: http://127.0.0.1:9/")),
    "an answer with another status": sending(http("201 Created", ALLOW)),
    "an error": sending(problem("500 Internal Server Error", decision="Deny", reason="broken")),
    "an error that says Allow": sending(http("500 Internal Server Error", ALLOW)),
    "not ready": sending(problem("503 Service Unavailable", decision="Deny", reason="no authority: cut off")),
    "two megabytes": sending(http("200 OK", json.dumps(ALLOW | {"reason": "x" * 2**21}).encode())),
}


@pytest.fixture(params=FAULTS)
def faulty(request: pytest.FixtureRequest) -> Iterator[str]:
    with impostor(FAULTS[request.param]) as (address, _):
        yield address


def never(*_: object) -> None:
    pytest.fail("the function ran")


def test_a_tool_is_never_run_by_the_synchronous_client(faulty: str) -> None:
    with Client(faulty, timeout=0.3) as client:
        tool = client.tool("crm.read")(never)
        for _ in range(2):  # the second time, on whatever the first one left behind
            with pytest.raises(Unavailable) as caught:
                tool()
            assert caught.value.decision == "Deny"
            assert caught.value.reason
        with pytest.raises(Unavailable), client.action("ToolCall", "crm.read"):
            never()


async def test_a_tool_is_never_run_by_the_asynchronous_client(faulty: str) -> None:
    async with AsyncClient(faulty, timeout=0.3) as client:

        @client.tool("crm.read")
        async def tool() -> None:
            never()

        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await tool()
            assert caught.value.decision == "Deny"
            assert caught.value.reason


async def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}", f"unix://{tmp_path}/nobody.sock"):
        with Client(address) as client, pytest.raises(Unavailable, match="cannot be asked"):
            client.decide("ToolCall", "crm.read")
        async with AsyncClient(address) as async_client:
            with pytest.raises(Unavailable, match="cannot be asked"):
                await async_client.decide("ToolCall", "crm.read")


async def test_the_webhooks_own_refusals_are_told_apart() -> None:
    invalid = problem("400 Bad Request", detail="action.name: is missing", field="action.name")
    flooded = problem("429 Too Many Requests", detail="at most 5000 requests a second").replace(
        b"\r\n\r\n", b"\r\nRetry-After: 3\r\n\r\n", 1
    )
    for sent, kind, field, value in (
        (invalid, InvalidAction, "field", "action.name"),
        (flooded, Throttled, "retry_after_seconds", 3),
    ):
        with impostor(sending(sent)) as (address, _):
            with Client(address) as client, pytest.raises(kind) as caught:
                client.decide("ToolCall", "crm.read")
            assert getattr(caught.value, field) == value
            async with AsyncClient(address) as async_client:
                with pytest.raises(kind):
                    await async_client.decide("ToolCall", "crm.read")


@pytest.mark.parametrize("make", [Client, AsyncClient])
async def test_a_request_is_repeated_once_where_a_kept_connection_broke_and_never_otherwise(make: Any) -> None:
    async def ask(client: Any) -> Any:
        answer = client.decide("ToolCall", "crm.read")
        return answer if make is Client else await answer

    served = 0

    def once_then_close(connection: socket.socket) -> None:
        nonlocal served
        served += 1
        if served == 2:
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(http("200 OK", ALLOW))

    with impostor(once_then_close) as (address, requests):
        client = make(address)
        await ask(client)
        assert (await ask(client)).id == "w-1"
        assert len(requests) == 3
        if make is Client:
            client.close()
        else:
            await client.close()

    for fault in (sending(b"", close=True), reset):
        with impostor(fault) as (address, requests):
            client = make(address)
            with pytest.raises(Unavailable):
                await ask(client)
            assert len(requests) == 1
            if make is AsyncClient:
                await client.close()

    with impostor(hang) as (address, requests):
        client = make(address, timeout=0.2)
        with pytest.raises(Unavailable, match=r"timed out|no answer within"):
            await ask(client)
        assert len(requests) == 1
        if make is AsyncClient:
            await client.close()


def test_a_result_is_withheld_when_nobody_can_say_whether_it_may_be_used(own: tuple[SmallHub, Webhook]) -> None:
    _, webhook = own
    with Client(webhook.address, timeout=1) as client:
        permit = client.decide("ToolCall", "crm.read")
        webhook.kill()
        with pytest.raises(Unavailable):
            permit.succeed({"secret": 1})


def test_an_error_that_cannot_be_reported_is_still_the_error(own: tuple[SmallHub, Webhook]) -> None:
    _, webhook = own
    with Client(webhook.address, timeout=1) as client:
        with pytest.raises(ZeroDivisionError) as caught, client.action("ToolCall", "crm.read"):  # noqa: PT012
            webhook.kill()
            1 / 0  # noqa: B018
        assert "could not be told" in caught.value.__notes__[0]


def test_a_lapsed_lease_refuses_what_was_allowed_before(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    with Client(webhook.address) as client:
        permit = client.decide("ToolCall", "crm.read")
        hub.withheld = "the folder cannot be read"

        def refusal() -> Refused | None:
            try:
                client.decide("ToolCall", "crm.read")
            except Refused as refused:
                return refused
            return None

        refused = await_condition(refusal, "the lease's end")
        assert isinstance(refused, Unavailable)
        assert "the folder cannot be read" in refused.reason
        with pytest.raises(Unavailable):
            permit.succeed(1)
        hub.withheld = ""
        webhook.await_ready()
        assert permit.succeed(1) == 1


def test_a_restarted_webhook_does_not_know_the_decision_so_the_result_is_withheld(
    own: tuple[SmallHub, Webhook],
) -> None:
    hub, webhook = own
    with Client(webhook.address) as client:
        permit = client.decide("ToolCall", "crm.read")
        webhook.kill()
        with Webhook(hub.address, webhook.spool.parent, listen=webhook.address) as again:
            again.await_ready()
            with pytest.raises(OutcomeRefused, match="not open here"):
                permit.succeed(1)
