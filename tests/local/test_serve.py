"""`fleetward serve`: a folder of YAML governs, an edit stops an agent, and nothing outlives the server."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.serving import AGENTS, POLICIES, Serve, post, replace, stored
from support.waiting import until

Start = Callable[..., Serve]
READER, WRITER = "shop/reader", "shop/writer"


def test_a_webhook_for_each_group_says_where_it_is_and_decides(serve: Start) -> None:
    server = serve()
    assert {tuple(webhook["agents"]) for webhook in server.ready["webhooks"]} == {(READER,), (WRITER,)}
    assert len({webhook["address"] for webhook in server.ready["webhooks"]}) == 2
    status, answer = server.decide(READER)
    assert (status, answer["decision"], answer["rules"][0]["rule"]) == (200, "Allow", "read")
    assert server.decision(READER, "stock.write") == "Deny"


def test_only_its_own_agents_are_accepted(serve: Start) -> None:
    server = serve()
    body = json.dumps({"agent": WRITER, "action": {"kind": "ToolCall", "name": "stock.read"}}).encode()
    status, answer = post(f"{server.address(READER)}/v1/decisions", body)
    assert (status, answer["decision"]) == (200, "Deny")
    assert "not governed here" in answer["reason"]


def test_agents_of_one_workload_share_a_webhook(serve: Start, folder: Path) -> None:
    workload = "  workload: {selector: {matchLabels: {app: crew}}}\n"
    (folder / "agents.yaml").write_text(AGENTS.replace("spec:\n", f"spec:\n{workload}"))
    (webhook,) = serve().ready["webhooks"]
    assert webhook["workload"] == "shop/app=crew"
    assert webhook["agents"] == [READER, WRITER]


def test_webhooks_1_serves_all_in_one_on_the_port_given(serve: Start) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve("--webhooks", "1", "--port", str(port))
    (webhook,) = server.ready["webhooks"]
    assert webhook["address"] == f"http://127.0.0.1:{port}"
    assert server.decision(READER) == server.decision(WRITER) == "Allow"


def test_text_output_names_each_address(folder: Path) -> None:
    command = [sys.executable, "-m", "fleetward.cli.main", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.terminate()
    assert process.returncode == 0
    for line, agent in zip(sorted(lines, key=lambda line: line.split()[-1]), (READER, WRITER), strict=True):
        assert line.startswith("ready: http://127.0.0.1:")
        assert line.endswith(f"decides for {agent}\n")


def test_an_edit_stops_an_agent_at_its_next_call_and_another_lets_it_go(serve: Start, folder: Path) -> None:
    server = serve()
    replace(folder / "agents.yaml", "Running", 'Paused\n  operatingReason: "too many orders"')
    until(lambda: server.decision(READER) == "Deny", "the agent is paused")
    answer = server.decide(READER)[1]
    assert "Paused" in answer["reason"]
    assert "too many orders" in answer["reason"]
    assert answer["mode"]["operatingMode"] == "Paused"
    assert answer["mode"]["setBy"].startswith("an edit of agents.yaml")
    assert server.decision(WRITER) == "Allow", "the other agent goes on"
    replace(folder / "agents.yaml", "Paused", "Running")
    until(lambda: server.decision(READER) == "Allow", "the agent runs again")
    until(lambda: len(_mode_changes(server)) == 2, "both changes are recorded")
    assert [(r["subject"], r["before"], r["after"]) for r in _mode_changes(server)] == [
        ("Agent shop/reader", "Running", "Paused"),
        ("Agent shop/reader", "Paused", "Running"),
    ]
    assert all(r["setBy"].startswith("an edit of agents.yaml (owned by ") for r in _mode_changes(server))


def test_a_fleet_stops_all_its_agents(serve: Start, folder: Path) -> None:
    server = serve()
    replace(folder / "fleet.yaml", "spec:\n", "spec:\n  operatingMode: Quarantined\n  operatingReason: leak\n")
    until(lambda: {server.decision(READER), server.decision(WRITER)} == {"Deny"}, "the fleet is quarantined")
    assert "AgentFleet shop" in server.decide(WRITER)[1]["reason"]


def test_pause_and_resume_by_command(serve: Start, folder: Path) -> None:
    server = serve()
    before = (folder / "agents.yaml").read_text()
    _fleetward("pause", READER, "--dir", str(folder), "--reason", "night shift", "--by", "alice")
    until(lambda: server.decision(READER) == "Deny", "the agent is paused")
    answer = server.decide(READER)[1]
    assert answer["mode"]["setBy"] == "alice"
    assert "night shift" in answer["reason"]
    _fleetward("resume", READER, "--dir", str(folder), "--by", "alice")
    until(lambda: server.decision(READER) == "Allow", "the agent runs again")
    after = (folder / "agents.yaml").read_text()
    until(lambda: len(_mode_changes(server)) == 2, "both changes are recorded")
    assert [r["setBy"] for r in _mode_changes(server)] == ["alice", "alice"]
    assert "# a comment that stays" in after
    assert after.splitlines()[-6:] == before.splitlines()[-6:], "the other document is as it was"


def test_a_broken_policy_leaves_the_last_good_one_and_says_where_it_is_broken(serve: Start, folder: Path) -> None:
    server = serve()
    replace(folder / "policies.yaml", "    decision: Allow", "    when: action.nme == 'x'\n    decision: Deny")
    until(lambda: "spec.rules[0].when" in server.log, "the mistake is reported")
    assert "policies.yaml:8:" in server.log
    assert "did you mean 'name'" in server.log
    assert server.decision(READER) == "Allow"
    replace(folder / "agents.yaml", "Running", "Paused")
    until(lambda: server.decision(READER) == "Deny", "a pause gets through all the same")


def test_who_paused_stays_known_while_the_file_is_broken(serve: Start, folder: Path) -> None:
    server = serve()
    replace(folder / "agents.yaml", "Running", "Paused")
    until(lambda: server.decision(READER) == "Deny", "the agent is paused")
    said = server.decide(READER)[1]["mode"]
    assert said["setBy"].startswith("an edit of agents.yaml")
    replace(folder / "agents.yaml", "kind: Agent\n", "kind: [\n")
    until(lambda: "agents.yaml:" in server.log, "the mistake is reported")
    replace(folder / "policies.yaml", "- name: read\n", "- name: reads\n")
    until(lambda: server.decide(WRITER)[1]["rules"][0]["rule"] == "reads", "a later reading is in force")
    assert server.decide(READER)[1]["mode"] == said


def test_a_pause_waits_for_no_webhook_that_is_being_stopped(serve: Start, folder: Path) -> None:
    server = serve()
    writers = next(c for c in server.children if WRITER in " ".join(c.cmdline()))
    writers.suspend()  # it cannot stop when it is told to: only the time limit ends it
    second = folder / "agents.yaml"
    second.write_text(AGENTS.split("---\n")[0])
    first = server.ready["registryVersion"]
    until(lambda: server.decide(READER)[1]["registryVersion"] != first, "the second agent is gone")
    replace(second, "Running", "Paused")
    until(lambda: server.decision(READER) == "Deny", "the pause is in force")
    assert writers.is_running(), "the other webhook was still being stopped"


def test_a_half_written_file_changes_nothing_until_it_is_whole(serve: Start, folder: Path) -> None:
    server = serve()
    deny = '  - name: never\n    match: {names: ["**"]}\n    decision: Deny\n'
    with (folder / "policies.yaml").open("r+") as file:
        file.truncate(0)
        file.write(POLICIES[:-17])  # ends within the last line: were it read, nothing would allow any more
        file.flush()
        replace(folder / "agents.yaml", "Running", "Paused")
        until(lambda: server.decision(READER) == "Deny", "the other file is read meanwhile")
        assert server.decision(WRITER) == "Allow", "the last good version governs"
        file.write(POLICIES[-17:] + deny)
    until(lambda: server.decision(WRITER) == "Deny", "the whole file is in force")


def test_a_new_agent_gets_a_webhook_and_a_removed_one_is_known_no_more(serve: Start, folder: Path) -> None:
    server = serve("--webhooks", "1")
    third = AGENTS.split("---\n")[1].replace("name: writer", "name: third")
    (folder / "third.yaml").write_text(third)
    address = server.ready["webhooks"][0]["address"]
    body = json.dumps({"agent": "shop/third", "action": {"kind": "ToolCall", "name": "stock.read"}}).encode()
    until(lambda: post(f"{address}/v1/decisions", body)[1]["decision"] == "Allow", "the new agent is governed")
    (folder / "third.yaml").unlink()
    until(lambda: post(f"{address}/v1/decisions", body)[1]["decision"] == "Deny", "the agent is gone")


def test_webhooks_come_and_go_with_their_groups(serve: Start, folder: Path) -> None:
    server = serve()
    third = AGENTS.split("---\n")[1].replace("name: writer", "name: third")
    (folder / "third.yaml").write_text(third)
    until(lambda: len(server.children) == 3, "a third webhook runs")
    (folder / "third.yaml").unlink()
    until(lambda: len(server.children) == 2, "it is stopped")


def test_a_webhook_that_dies_comes_back_on_its_address(serve: Start) -> None:
    server = serve("--webhooks", "1")
    (child,) = server.children
    assert server.decision(READER) == "Allow"
    child.kill()
    until(lambda: server.decision(READER) == "Allow" and server.children[0].pid != child.pid, "it is back")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_webhook_outlives_the_server(serve: Start, how: signal.Signals) -> None:
    server = serve()
    children = server.children
    assert len(children) == 2
    server.process.send_signal(how)
    assert server.process.wait(15) == (-9 if how == signal.SIGKILL else 0)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive


def test_without_the_hub_leases_lapse_and_come_back_alone(serve: Start) -> None:
    server = serve("--lease-seconds", "1")
    assert server.decision(READER) == "Allow"
    server.process.send_signal(signal.SIGSTOP)
    until(lambda: server.decide(READER)[0] == 503, "the lease lapses")
    status, problem = server.decide(READER)
    assert (status, problem["decision"]) == (503, "Deny")
    assert "hub" in problem["reason"]
    server.process.send_signal(signal.SIGCONT)
    until(lambda: server.decision(READER) == "Allow", "authority is back")
    until(lambda: any("no authority" in r["reason"] for r in server.records()), "the refusal is on record, too")


def test_kill_9_of_the_server_under_load_loses_and_doubles_nothing(serve: Start, folder: Path) -> None:
    server = serve("--webhooks", "1")
    answered: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answered.append(server.decide(READER)[1]["id"])
            except (OSError, KeyError):
                return

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    until(lambda: len(answered) > 300, "there is load")
    server.process.kill()
    for asker in askers:
        asker.join()
    again = serve("--webhooks", "1")
    until(lambda: set(answered) <= _ids(again), "every answered decision is in the store")
    assert len(_ids(again)) == len(again.records())
    stop.set()


def test_kill_9_of_a_webhook_under_load_leaves_no_answer_without_a_record(serve: Start) -> None:
    server = serve("--webhooks", "1")
    answered: list[str] = []
    for round_ in range(3):
        until(lambda: server.decision(READER) == "Allow", "it decides")
        (child,) = server.children
        threading.Timer(0.15, child.kill).start()
        try:
            while True:
                answered.append(server.decide(READER)[1]["id"])
        except (OSError, KeyError):
            assert len(answered) > round_
    until(lambda: set(answered) <= _ids(server), "every answered decision is in the store")
    assert len(_ids(server)) == len(server.records())


def test_a_folder_with_mistakes_does_not_start(folder: Path) -> None:
    replace(folder / "policies.yaml", "decision: Allow", "decision: Alow")
    done = _run("serve", str(folder), "--port", "0")
    assert done.returncode == 2
    assert "policies.yaml:8: spec.rules[0].decision:" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_start_says_why(serve: Start, folder: Path) -> None:
    done = _run("serve", str(folder / "nowhere"))
    assert (done.returncode, "does not exist" in done.stderr) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = _run("serve", str(folder), "--webhooks", "1", "--port", str(taken.getsockname()[1]))
    assert (done.returncode, "in use" in done.stderr) == (2, True)
    serve()
    done = _run("serve", str(folder), "--port", "0")
    assert (done.returncode, "another fleetward serve" in done.stderr) == (2, True)


def test_a_deep_folder_still_has_a_hub(tmp_path: Path, folder: Path) -> None:
    """A unix socket's path is bounded; the data folder's is not."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    os.replace(folder, deep / "policies")  # noqa: PTH105
    server = Serve(deep / "policies", "--port", "0").until_ready()
    try:
        assert server.decision(READER) == "Allow"
    finally:
        server.stop()


def test_records_reach_a_sink_and_stay_when_the_server_is_gone(serve: Start, folder: Path) -> None:
    (folder / "sink.yaml").write_text(
        "apiVersion: fleetward.dev/v1alpha1\nkind: AuditSink\nmetadata: {name: lines}\n"
        "spec: {type: JsonLines, jsonLines: {path: records.jsonl}}\n"
    )
    server = serve()
    answered = server.decide(READER)[1]["id"]
    lines = folder / ".fleetward" / "sinks" / "records.jsonl"
    until(lambda: lines.exists() and answered in lines.read_text(), "the sink has the record")
    server.stop()
    assert answered in {record["id"] for record in stored(folder / ".fleetward")}


@pytest.mark.parametrize(("workload", "decisions"), [("all", ["Allow", "Allow"]), (READER, ["Allow", "Deny"])])
def test_a_webhook_started_by_hand(serve: Start, tmp_path: Path, workload: str, decisions: list[str]) -> None:
    hub = f"unix://{tmp_path}/hub.sock"
    server = serve("--webhooks", "0", "--hub", hub)
    assert server.ready["webhooks"] == []
    assert server.ready["hub"] == hub
    command = [sys.executable, "-m", "fleetward_webhook", "--listen", "http://127.0.0.1:0", "--hub", hub]
    command += ["--workload", workload, "--spool", str(tmp_path / "spool")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as webhook:
        try:
            assert webhook.stdout is not None
            address = json.loads(webhook.stdout.readline())["address"]
            server.ready["webhooks"] = [{"address": address, "agents": [READER, WRITER]}]
            until(lambda: server.decision(READER) == "Allow", "it decides")
            assert [server.decision(agent) for agent in (READER, WRITER)] == decisions
        finally:
            webhook.terminate()


def test_records_are_kept_where_data_says(serve: Start, folder: Path, tmp_path: Path) -> None:
    server = serve("--data", str(tmp_path / "elsewhere"))
    answered = server.decide(READER)[1]["id"]
    server.stop()
    assert answered in {record["id"] for record in stored(tmp_path / "elsewhere")}
    assert not (folder / ".fleetward").exists()


def test_a_server_that_stops_takes_in_the_last_records_first(serve: Start, folder: Path) -> None:
    server = serve()
    answered = {server.decide(agent)[1]["id"] for agent in (READER, WRITER) for _ in range(20)}
    server.stop()
    assert answered <= {record["id"] for record in stored(folder / ".fleetward")}


def test_an_outcome_without_a_status_is_a_success(serve: Start) -> None:
    server = serve()
    decision = server.decide(READER)[1]["id"]
    status, answer = post(f"{server.address(READER)}/v1/decisions/{decision}/outcome", b'{"actual": {"records": 3}}')
    assert (status, answer["decision"]) == (200, "Allow")
    until(lambda: any(r.get("status") == "Succeeded" for r in server.records()), "the outcome is on record")


def _ids(server: Serve) -> set[str]:
    return {record["id"] for record in server.records()}


def _mode_changes(server: Serve) -> list[dict[str, Any]]:
    return [record for record in server.records() if record["type"] == "ModeChange"]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleetward.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _fleetward(*arguments: str) -> None:
    done = _run(*arguments)
    assert done.returncode == 0, done.stderr
