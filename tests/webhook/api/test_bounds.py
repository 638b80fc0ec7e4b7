"""The bounds that can be set, set low enough to be met."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.webhook import Webhook, await_condition, head, running

from fleetward_webhook.sidecar.limits import TokenBucket


@pytest.fixture
def slow_bodies(tmp_path: Path) -> Iterator[Webhook]:
    for _, webhook in running(tmp_path, "--body-timeout", "0.3"):
        yield webhook


def test_a_body_that_stays_out_is_given_up(slow_bodies: Webhook) -> None:
    with socket.create_connection(("127.0.0.1", slow_bodies.port), 10) as connection:
        started = time.monotonic()
        connection.sendall(head(Content_Length=100) + b"{")
        received = connection.recv(65536)
    assert b" 408 " in received.split(b"\r\n")[0]
    assert b"slow-body" in received
    assert time.monotonic() - started > 0.25


def test_a_body_that_drips_is_given_up_too(slow_bodies: Webhook) -> None:
    with socket.create_connection(("127.0.0.1", slow_bodies.port), 10) as connection:
        connection.settimeout(0.05)
        connection.sendall(head(Content_Length=10_000))
        received = b""
        deadline = time.monotonic() + 10
        while not received and time.monotonic() < deadline:
            connection.sendall(b"x")
            try:
                received = connection.recv(65536)
            except TimeoutError:
                continue
    assert b" 408 " in received.split(b"\r\n")[0]
    assert slow_bodies.decide()[1]["decision"] == "Allow"


def test_a_flood_is_told_to_come_back(tmp_path: Path) -> None:
    for _, webhook in running(tmp_path, "--rate", "50", "--burst", "100"):
        answers = (webhook.call("POST", "/v1/decisions", b"{}") for _ in range(2000))
        status, headers, problem = next(answer for answer in answers if answer[0] != 400)
        assert (status, headers["retry-after"], problem["status"]) == (429, "1", 429)
        assert problem["type"] == "urn:fleetward:problem:rate-limited"
        await_condition(lambda: webhook.decide()[0] == 200, "the next token")  # noqa: B023 - asked at once


def test_too_many_connections_are_told_so(tmp_path: Path) -> None:
    for _, webhook in running(tmp_path, "--max-connections", "8"):
        address = ("127.0.0.1", webhook.port)
        held = [socket.create_connection(address, 10) for _ in range(8)]
        try:
            with socket.create_connection(address, 10) as connection:
                received = connection.recv(65536)
        finally:
            for connection in held:
                connection.close()
        assert b" 429 " in received.split(b"\r\n")[0]
        assert b"too-many-connections" in received
        assert b"Retry-After: 1" in received
        ask = head("GET", "/healthz")
        await_condition(lambda: webhook.raw(ask).startswith(b"HTTP/1.1 200"), "room again")  # noqa: B023 - as above


def test_the_bucket_fills_with_time_up_to_the_burst() -> None:
    now = 100.0
    bucket = TokenBucket(rate=2, burst=3, clock=lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert bucket.seconds_to_next == 1
    now += 0.5
    assert [bucket.take(), bucket.take()] == [True, False]
    now += 1000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert TokenBucket(rate=0.1, burst=1, clock=lambda: now).seconds_to_next == 1
    slow = TokenBucket(rate=0.1, burst=1, clock=lambda: now)
    assert [slow.take(), slow.take()] == [True, False]
    assert slow.seconds_to_next == 10
