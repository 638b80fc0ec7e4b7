"""A start that takes longer than the folder may go unread still ends with everything deciding."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.serving import AGENTS, FLEET, POLICIES
from support.waiting import until

BOUND = 4.0
"""Seconds that the folder may go unread; ten, where nobody says otherwise."""
SERVE = """\
import sys
from fleetward_operator.local import server
server.VIEW_BOUND_SECONDS = float(sys.argv.pop(1))
from fleetward.cli.main import main
main()
"""


@pytest.mark.slow
def test_the_folder_is_followed_while_webhooks_start(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "all.yaml").write_text(f"{AGENTS}---\n{FLEET}---\n{POLICIES}")
    command = [sys.executable, "-c", SERVE, str(BOUND), "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            until(lambda: psutil.Process(server.pid).children(), "a webhook starts")
            webhook = psutil.Process(server.pid).children()[0]
            webhook.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            until(lambda: time.monotonic() - stopped > BOUND + 1, "the first reading is too old to count")
            webhook.send_signal(signal.SIGCONT)
            assert server.stdout is not None
            assert server.stdout.readline().startswith("ready: ")
        finally:
            server.terminate()
