"""The second listener: probes and metrics for other machines, and nothing else; and the process with a hub over TLS."""

import asyncio
import contextlib
import http.client
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from support import make
from support.certificates import Authority
from support.gate import Gate
from support.streams import World, until
from support.webhook import WEBHOOK, Webhook, await_condition, small_hub


def get(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    host, _, port = address.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, int(port), timeout=20)
    try:
        connection.request(method, path, b"{}" if method == "POST" else None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_other_machines_may_ask_how_it_is_and_nothing_else(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub, Webhook(hub.address, tmp_path, "--health-listen", "0.0.0.0:0") as webhook:
        webhook.await_ready()
        assert webhook.health.startswith("http://0.0.0.0:")
        # As the kubelet and Prometheus do, by the pod's address.
        host = {"Host": "10.0.0.7:8182"}
        assert get(webhook.health, "/healthz", **host) == (200, "ok\n")
        assert get(webhook.health, "/readyz", **host) == (200, "ready\n")
        assert "fleetward_decisions_total" in get(webhook.health, "/metrics", **host)[1]
        for method, path in (("POST", "/v1/decisions"), ("GET", "/v1/agents"), ("GET", "/openapi.json")):
            status, said = get(webhook.health, path, method, **host)
            assert status == 404
            assert "here is only /healthz, /readyz, /metrics" in said
        assert get(webhook.health, "/readyz", "POST")[0] == 405
        hub.withheld = "of this test"
        await_condition(lambda: webhook.call("GET", "/readyz")[0] == 503, "unreadiness")
        assert get(webhook.health, "/readyz")[0] == 503
        assert get(webhook.health, "/healthz")[0] == 200
        assert webhook.call("GET", "/readyz", headers=host)[0] == 421, "the API itself stays on this machine"


def test_a_flood_of_probes_is_bounded_and_slows_no_decision(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub, Webhook(hub.address, tmp_path, "--health-listen", "127.0.0.1:0") as webhook:
        webhook.await_ready()
        assert 429 in {get(webhook.health, "/healthz")[0] for _ in range(300)}
        port = int(webhook.health.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port))))
            assert webhook.decide()[1]["decision"] == "Allow"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hub", "https://hub.example:8443"), "--hub-ca is missing, and https://hub.example:8443 needs it"),
        (("--hub", "https://hub.example:8443", "--hub-ca", "/x"), "--hub-token is missing"),
        (("--hub", "unix:///hub.sock", "--hub-ca", "/x"), "--hub-ca goes with https://"),
        (("--hub", "http://127.0.0.1:1", "--hub-token", "/x"), "--hub-token goes with https://"),
        (("--hub", "http://hub.example:80"), "other hosts need https"),
        (("--hub", "unix:///hub.sock", "--health-listen", "8182"), "'8182' is not of the form HOST:PORT"),
        (("--hub", "unix:///hub.sock", "--health-listen", "0.0.0.0:99999"), "not of the form HOST:PORT"),
        (("--hub", "unix:///hub.sock", "--health-listen", "203.0.113.7:1"), "cannot listen on http://203.0.113.7:1: "),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [str(WEBHOOK), "--listen", "http://127.0.0.1:0", "--workload", "w", "--spool", str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={},
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


class SecureHub:
    """A real hub over TLS, in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gate = Gate()
        self.gate.tokens["first"] = "reports"
        self.gate.serves["reports"] = ["reports/alpha"]
        self.ca = Authority(directory / "ca")
        (directory / "token").write_text("first")
        self.address = ""
        self.running: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        world = World(self.directory)
        world.address = "https://localhost:0"
        try:
            context = self.ca.context("localhost")
            await world.hub_up(make.registry(policies=1), binding=self.gate, server={"ssl": context})
            self.address, self.version = world.address, world.registry.version
            self._up.set()

            def told() -> Any:
                self.running = [link.running for link in world.hub.status().links]
                return self._stop is not None and self._stop.is_set()

            await until(told, within=60)
        finally:
            await world.close()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[SecureHub]:
    with SecureHub(tmp_path) as hub:
        yield hub


def test_a_webhook_process_over_tls_decides_and_stays_small(secure: SecureHub, tmp_path: Path) -> None:
    files = ("--hub-ca", str(secure.ca.file), "--hub-token", str(tmp_path / "token"))
    (tmp_path / "webhook").mkdir()
    with Webhook(secure.address, tmp_path / "webhook", *files, "--health-listen", "127.0.0.1:0") as webhook:
        webhook.await_ready()
        status, answer = webhook.decide("tool-0.read")
        assert (status, answer["decision"]) == (200, "Allow")
        await_condition(lambda: secure.running == [secure.version], "the version that runs")
        assert psutil.Process(webhook.process.pid).memory_info().rss < 60 * 2**20
        assert answer["registryVersion"] == secure.version
