"""`fleetward-webhook` as a process: how it starts, what it refuses, how it ends."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.webhook import WEBHOOK, SmallHub, Webhook, await_condition, head, small_hub

from fleetward.audit.spool import Spool

FORBIDDEN = ("pydantic", "yaml", "sqlite3", "click", "rich", "kubernetes", "kopf", "fleetward.resources", "jsonschema")


def start(*arguments: str, **environment: str) -> tuple[int, str]:
    """Start a webhook that is expected not to start; return its exit code and what it said."""
    done = subprocess.run(
        [str(WEBHOOK), *arguments], capture_output=True, text=True, timeout=30, env=environment, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_it_says_where_it_listens(own: tuple[SmallHub, Webhook]) -> None:
    _, webhook = own
    assert webhook.address.startswith("http://127.0.0.1:")
    assert "listening on " + webhook.address in webhook.log.read_text()


def test_it_serves_on_a_unix_socket_and_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "webhook.sock"
    with small_hub(tmp_path) as hub:
        for _ in range(2):  # the second time over what the killed one left behind
            with Webhook(hub.address, tmp_path, listen=f"unix://{path}") as webhook:
                assert webhook.address == f"unix://{path}"
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(path))
                    connection.sendall(head("GET", "/healthz"))
                    assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                webhook.kill()
            assert path.exists()
        with Webhook(hub.address, tmp_path, listen=f"unix://{path}") as webhook:
            code, said = start(
                *("--listen", f"unix://{path}", "--hub", hub.address),
                *("--workload", "w", "--spool", str(tmp_path / "other")),
            )
            assert (code, said.count("\n")) == (2, 1)
            assert "Address already in use" in said
            assert webhook.stop() == 0
        assert not path.exists()


def test_settings_come_from_the_environment_too(tmp_path: Path) -> None:
    code, said = start(
        FLEETWARD_LISTEN="http://127.0.0.1:0",
        FLEETWARD_HUB=f"unix://{tmp_path}/hub.sock",
        FLEETWARD_WORKLOAD="reports",
        FLEETWARD_SPOOL=str(tmp_path / "spool"),
        FLEETWARD_BURST="none",
    )
    assert code == 2
    assert "--burst" in said
    assert "positive whole number" in said


def test_a_port_in_use_a_locked_spool_and_bad_addresses_are_said_in_a_line(
    own: tuple[SmallHub, Webhook], tmp_path: Path
) -> None:
    hub, webhook = own
    rest = ("--hub", hub.address, "--workload", "w", "--spool")
    for arguments, words in (
        (("--listen", webhook.address, *rest, str(tmp_path / "other")), "Address already in use"),
        (("--listen", "http://127.0.0.1:0", *rest, str(webhook.spool)), "is in use by process"),
        (("--listen", "http://0.0.0.0:0", *rest, str(tmp_path / "other")), "not on this machine"),
        (("--listen", "http://[::]:0", *rest, str(tmp_path / "other")), "not on this machine"),
        (("--listen", "https://127.0.0.1:0", *rest, str(tmp_path / "other")), "asks for TLS"),
        (("--listen", "http://127.0.0.1:0", "--workload", "w", "--spool", "x"), "--hub is missing"),
        (("--listen", "http://127.0.0.1:0", *rest, "/proc/nothing"), "cannot open the spool"),
    ):
        code, said = start(*arguments)
        assert code == 2
        assert words in said
        assert "Traceback" not in said
        assert len([line for line in said.splitlines() if not line.startswith(("usage:", " "))]) == 1
    assert webhook.decide()[1]["decision"] == "Allow"


def test_it_stops_when_told_and_leaves_the_spool_whole(own: tuple[SmallHub, Webhook]) -> None:
    hub, webhook = own
    hub.acknowledges = False
    decision = webhook.decide()[1]["id"]
    webhook.process.send_signal(signal.SIGTERM)
    assert webhook.process.wait(10) == 0
    with Spool.open(webhook.spool) as spool:
        assert [json.loads(line)["id"] for line in spool.unacknowledged()] == [decision]
    assert "Traceback" not in webhook.log.read_text()


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """The starter is killed with kill -9, so it can tell nobody; its end of the pipe closes all the same."""
    script = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "print(p.stdout.readline().decode(), flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [str(WEBHOOK), "--listen", "http://127.0.0.1:0", "--hub", f"unix://{tmp_path}/hub.sock"]
    command += ["--workload", "w", "--spool", str(tmp_path / "spool"), "--exit-with-parent"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as starter:
        assert starter.stdout is not None
        child = psutil.Process(json.loads(starter.stdout.readline())["pid"])
        starter.kill()
    try:
        child.wait(10)
    finally:
        if child.is_running():
            child.kill()


def test_it_needs_a_pipe_to_end_with_its_parent(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(WEBHOOK), "--exit-with-parent", "--hub", "unix:///x", "--workload", "w", "--spool", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "needs a pipe" in done.stderr


@pytest.mark.parametrize("module", ["fleetward_webhook.sidecar.main", "fleetward.sdk"])
def test_nothing_heavy_is_loaded(module: str) -> None:
    script = f"import {module}, sys; print([m for m in {FORBIDDEN!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_running_process_maps_nothing_of_pydantic_yaml_or_sqlite(webhook: Webhook) -> None:
    webhook.decide()
    maps = Path(f"/proc/{webhook.process.pid}/maps").read_text()
    assert not [name for name in ("pydantic_core", "_yaml", "_sqlite3") if name in maps]


def test_unacknowledged_records_survive_a_restart(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub:
        hub.acknowledges = False
        with Webhook(hub.address, tmp_path) as webhook:
            ids = [webhook.await_ready().decide()[1]["id"] for _ in range(3)]
            webhook.kill()
        hub.acknowledges = True
        with Webhook(hub.address, tmp_path) as webhook:
            await_condition(lambda: len(hub.records) >= 3, "the records of the killed process")
            assert [record["id"] for record in hub.records] == ids
            later = webhook.await_ready().decide()[1]["id"]
            assert int(later.split("-")[1]) > int(ids[-1].split("-")[1])
