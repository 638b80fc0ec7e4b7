"""kill -9 under load, and a full disk: no answer without its record, above all no Allow."""

import http.client
import json
import resource
import threading
from pathlib import Path

import pytest
from support.webhook import SmallHub, Webhook, await_condition, running

BODY = json.dumps({"action": {"kind": "ToolCall", "name": "crm.read", "arguments": {"n": 1}}}).encode()


def ask_until_it_dies(port: int, answers: list[dict[str, object]], started: threading.Barrier) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    started.wait()
    try:
        while True:
            connection.request("POST", "/v1/decisions", BODY)
            response = connection.getresponse()
            answers.append(json.loads(response.read()) | {"status": response.status})
    except (OSError, http.client.HTTPException):
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("acknowledges", [True, False])
def test_every_answer_has_its_record_after_kill_9(tmp_path: Path, *, acknowledges: bool) -> None:
    for hub, webhook in running(tmp_path):
        hub.acknowledges = acknowledges
        answers: list[list[dict[str, object]]] = [[] for _ in range(6)]
        started = threading.Barrier(7)
        threads = [threading.Thread(target=ask_until_it_dies, args=(webhook.port, mine, started)) for mine in answers]
        for thread in threads:
            thread.start()
        started.wait()
        await_condition(lambda: sum(map(len, answers)) > 1500, "load")  # noqa: B023 - waited for here
        webhook.kill()
        for thread in threads:
            thread.join(20)
        given = {str(answer["id"]): answer for mine in answers for answer in mine if answer["status"] == 200}
        on_file = webhook.spooled() + hub.records
        recorded = {record["id"]: record for record in on_file}
        assert len(given) > 1500
        assert given.keys() <= recorded.keys()
        assert all(recorded[i]["decision"] == answer["decision"] for i, answer in given.items())
        # Numbers have no hole: nothing that was written in between is missing.
        numbers = sorted({record["seq"] for record in on_file})
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.slow
def test_a_full_disk_denies_says_so_and_recovers(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    hub.acknowledges = False
    decision = webhook.decide()[1]["id"]
    size = max(path.stat().st_size for path in webhook.spool.glob("*.jsonl"))
    pid = webhook.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 100, before[1]))
    try:
        for _ in range(3):
            status, headers, problem = webhook.call("POST", "/v1/decisions", BODY)
            assert (status, headers["retry-after"]) == (503, "1")
            assert problem["type"] == "urn:fleetward:problem:spool-unavailable"
            assert (problem["decision"], problem["title"][-6:]) == ("Deny", "denied")
            assert str(webhook.spool) in problem["reason"]
        status, problem = webhook.report(decision, status="Succeeded")
        assert (status, problem["decision"]) == (503, "Deny")
        assert [record["id"] for record in webhook.spooled()] == [decision]
        assert webhook.call("GET", "/healthz")[0] == 200
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    status, answer = webhook.decide()
    assert (status, answer["decision"]) == (200, "Allow")
    assert webhook.report(decision, status="Succeeded")[1]["decision"] == "Allow"
    records = webhook.spooled()
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    await_condition(lambda: len(hub.seen) == len(records), "the records, not to be acknowledged")
    hub.acknowledges = True
    hub.drop_all()
    await_condition(lambda: len(hub.records) == len(records), "the records")
