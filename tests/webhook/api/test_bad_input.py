"""Whatever is sent, the answer is a problem that says what is wrong, and the webhook goes on deciding."""

import json
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.webhook import Webhook, await_condition, head

PATH = "/v1/decisions"
GOOD = b'{"action": {"kind": "ToolCall", "name": "crm.read"}}'


@pytest.fixture(autouse=True)
def _goes_on(webhook: Webhook) -> Iterator[None]:
    yield
    assert webhook.decide()[1]["decision"] == "Allow"


def post(webhook: Webhook, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    status, named, problem = webhook.call(
        "POST", PATH, body, {name.replace("_", "-"): v for name, v in headers.items()}
    )
    assert named["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["type"].startswith("urn:fleetward:problem:")
    assert problem["title"]
    assert problem["detail"]
    return status, problem


def with_arguments(arguments: bytes) -> bytes:
    return b'{"action": {"kind": "ToolCall", "name": "crm.read", "arguments": %b}}' % arguments


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"", "", "JSON"),
        (b"{", "", "JSON"),
        (b"[]", "", "object"),
        (b"\xff\xfe", "", "JSON"),
        (GOOD + b"x", "", "JSON"),
        (b'{"action": {"kind": "ToolCall", "name": "a"}, "action": {}}', "", "uplicate"),
        (b"[" * 10_000 + b"]" * 10_000, "", ""),
        (with_arguments(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "", ""),
        (with_arguments(b'{"a":' * 40 + b"1" + b"}" * 40), "action.arguments.a", "32 levels"),
        (with_arguments(b'{"a": 1e309}'), "", ""),
        (with_arguments(b'{"a": NaN}'), "", ""),
        (with_arguments(b'{"a": "\\ud800"}'), "", ""),
        (with_arguments(b'{"a": ' + b"9" * 5000 + b"}"), "", ""),
        (b'{"action": {"kind": "ToolCall", "name": "a\\u0000b"}}', "action.name", ""),
        (b'{"action": {"kind": "ToolCall", "name": "crm read"}}', "action.name", ""),
        (b'{"action": {"kind": "Toolcall", "name": "a"}}', "action.kind", ""),
        (b'{"action": {"kind": "ToolCall"}}', "action.name", "missing"),
        (b'{"action": {"kind": "ToolCall", "name": "a", "risktags": []}}', "action.risktags", "riskTags"),
        (b'{"action": {"kind": "ToolCall", "name": "a", "estimate": {"records": 1e309}}}', "", ""),
        (b'{"action": {"kind": "ToolCall", "name": "a", "estimate": {"records": "5"}}}', "action.estimate.records", ""),
        (b'{"agent": "Reports/X", "action": {"kind": "ToolCall", "name": "a"}}', "agent", ""),
    ],
)
def test_a_body_that_cannot_be_accepted(webhook: Webhook, body: bytes, field: str, words: str) -> None:
    status, problem = post(webhook, body)
    assert status == 400
    assert problem["type"] == "urn:fleetward:problem:invalid-request"
    assert words in problem["detail"]
    if field:
        assert problem["field"].startswith(field)
    assert len(problem["detail"]) < 1000


def test_a_nul_in_arguments_is_data_like_any_other(webhook: Webhook) -> None:
    status, _, answer = webhook.call("POST", PATH, with_arguments(b'{"a\\u0000": "\\u0000"}'))
    assert (status, answer["decision"]) == (200, "Allow")


def test_a_large_body_is_refused_by_its_length_alone(webhook: Webhook) -> None:
    assert b" 413 " in webhook.raw(head(Content_Length=100 * 2**20) + b"x" * 1000)


def test_a_hundred_megabytes_are_refused_and_never_held(webhook: Webhook) -> None:
    before = psutil.Process(webhook.process.pid).memory_info().rss
    head_ = head(Content_Length=100 * 2**20)
    assert b"body-too-large" in webhook.raw(head_ + b" " * (100 * 2**20))
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert b"body-too-large" in webhook.raw(head(Transfer_Encoding="chunked") + chunk * 1600)
    assert psutil.Process(webhook.process.pid).memory_info().rss - before < 20 * 2**20


def test_outcomes_may_be_larger_than_decisions_up_to_their_own_limit(webhook: Webhook) -> None:
    decision = webhook.decide()[1]["id"]
    assert post(webhook, json.dumps({"pad": "x" * 300_000}).encode())[0] == 413
    assert webhook.report(decision, status="Failed", error="x" * 4096, result="x" * 600_000)[0] == 200
    assert webhook.report(decision, status="Failed", result="x" * 2**20)[0] == 413


@pytest.mark.parametrize(
    "given", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
def test_other_content_types_are_refused(webhook: Webhook, given: str) -> None:
    status, problem = post(webhook, GOOD, Content_Type=given)
    assert (status, problem["field"]) == (415, "Content-Type")


@pytest.mark.parametrize(
    "given", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
def test_json_is_accepted_however_it_is_written(webhook: Webhook, given: str) -> None:
    assert webhook.call("POST", PATH, GOOD, {"Content-Type": given})[0] == 200


def test_compressed_bodies_are_refused(webhook: Webhook) -> None:
    status, problem = post(webhook, GOOD, Content_Encoding="gzip")
    assert (status, problem["field"]) == (415, "Content-Encoding")


def test_what_a_web_page_could_send_is_refused(webhook: Webhook) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost:80:80"):
        status, problem = post(webhook, GOOD, Host=host)
        assert (status, problem["field"]) == (421, "Host")
    status, problem = post(webhook, GOOD, Origin="http://localhost")
    assert (status, problem["field"]) == (403, "Origin")
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8180", "[::1]:9"):
        assert webhook.call("POST", PATH, GOOD, {"Host": host})[0] == 200


def test_paths_and_methods(webhook: Webhook) -> None:
    for path in ("/", "/v1", "/v1/decisions/", "/v1/decisions/a/b/outcome", "/v1/decisions//outcome", "/v2/decisions"):
        status, _, problem = webhook.call("POST", path, GOOD)
        assert (status, problem["type"]) == (404, "urn:fleetward:problem:unknown-path")
    for method, path, allow in (
        ("GET", PATH, "POST"),
        ("PUT", "/v1/decisions/a-1/outcome", "POST"),
        ("POST", "/healthz", "GET"),
        ("OPTIONS", PATH, "POST"),
    ):
        status, headers, problem = webhook.call(method, path)
        assert (status, headers["allow"], problem["status"]) == (405, allow, 405)
    assert webhook.call("POST", PATH + "?pretty=1", GOOD)[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 3 + b"\r\n\r\n", b" 400 "),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n", b" 400 "),
        (head(Content_Length="x"), b" 400 "),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 431 "),
        (head(X_Long="a" * 9000), b" 431 "),
        (head(**{f"X_{n}": str(n) for n in range(500)}), b" 431 "),
        (head(Transfer_Encoding="chunked") + b"zz\r\n", b" 400 "),
    ],
)
def test_what_is_no_http_gets_a_problem_and_the_connection_is_closed(
    webhook: Webhook, sent: bytes, status: bytes
) -> None:
    received = webhook.raw(sent)
    assert status in received.split(b"\r\n")[0]
    assert b"application/problem+json" in received
    assert b"urn:fleetward:problem:" in received


def test_old_and_closing_clients_are_answered(webhook: Webhook) -> None:
    for sent in (
        b"POST /v1/decisions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(GOOD),
        head(Content_Length=len(GOOD), Connection="close"),
    ):
        received = webhook.raw(sent + GOOD)
        assert b" 200 " in received.split(b"\r\n")[0]
        assert b'"decision":"Allow"' in received


def test_pipelined_requests_are_answered_in_order(webhook: Webhook) -> None:
    one = head(Content_Length=len(GOOD)) + GOOD
    with socket.create_connection(("127.0.0.1", webhook.port), 10) as connection:
        connection.sendall(one * 50)
        received = b""
        while received.count(b'"registryVersion"') < 50:
            received += connection.recv(65536)
    ids = [int(part.split(b'"')[0].split(b"-")[1]) for part in received.split(b'{"id":"')[1:]]
    assert ids == sorted(ids)


def test_a_client_that_waits_to_be_told_to_go_on(webhook: Webhook) -> None:
    with socket.create_connection(("127.0.0.1", webhook.port), 10) as connection:
        connection.sendall(head(Content_Length=len(GOOD), Expect="100-continue"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(GOOD)
        assert b'"decision":"Allow"' in connection.recv(65536)


def test_no_file_is_left_open(webhook: Webhook) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    await_condition(lambda: psutil.Process(webhook.process.pid).num_fds() < min(soft, 40), "closed connections")


def test_the_log_holds_no_traceback(webhook: Webhook) -> None:
    assert "Traceback" not in Path(webhook.log).read_text()
