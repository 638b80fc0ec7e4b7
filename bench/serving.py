"""Processes to measure: `fleetward serve` on a folder, and a bare aiohttp echo."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.world import as_yaml

ECHO = """
import sys
from aiohttp import web

async def echo(request):
    return web.Response(body=await request.read(), content_type="application/json")

app = web.Application()
app.router.add_post("/v1/decisions", echo)
listening = __import__("socket").create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
web.run_app(app, sock=listening, access_log=None, print=None)
"""


@dataclass(frozen=True)
class Served:
    """A running `fleetward serve`."""

    folder: Path
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    @property
    def port(self) -> int:
        """The port of its first webhook."""
        return int(self.ready["webhooks"][0]["address"].rpartition(":")[2])


@contextlib.contextmanager
def served(folder: Path, manifests: list[dict[str, Any]], *options: str) -> Iterator[Served]:
    """Serve these resources from `folder` until the context is left."""
    folder.mkdir(parents=True, exist_ok=True)
    agents = [data for data in manifests if data["kind"] == "Agent"]
    (folder / "agents.yaml").write_text(as_yaml(agents))
    (folder / "policies.yaml").write_text(as_yaml(data for data in manifests if data not in agents))
    command = [sys.executable, "-m", "fleetward.cli.main", "serve", str(folder), "--port", "0", "-o", "json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Served(folder, process, json.loads(process.stdout.readline()))
        finally:
            process.terminate()


@contextlib.contextmanager
def echoing() -> Iterator[tuple[int, int]]:
    """Run a bare aiohttp echo; give its port and its process id."""
    with subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()


class Poster:
    """Posts one body again and again over one connection, with as little of its own as can be."""

    def __init__(self, port: int, body: bytes, path: str = "/v1/decisions") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def __call__(self) -> bytes:
        """Post once; give the body of the answer."""
        self._socket.sendall(self._request)
        received = self._socket.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._socket.recv(65536)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(received.decode())
        return body

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
