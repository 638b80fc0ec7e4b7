"""Folders to serve, and servers that are stopped in the end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.serving import AGENTS, FLEET, POLICIES, Serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with two agents, one of which may read the stock."""
    made = tmp_path / "policies"
    made.mkdir()
    (made / "agents.yaml").write_text(AGENTS)
    (made / "fleet.yaml").write_text(FLEET)
    (made / "policies.yaml").write_text(POLICIES)
    return made


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Serve]]:
    """Start `fleetward serve` on the folder; every one is stopped in the end."""
    started: list[Serve] = []

    def start(*options: str, wait: bool = True) -> Serve:
        server = Serve(folder, *(options if "--port" in options else ("--port", "0", *options)))
        started.append(server)
        return server.until_ready() if wait else server

    yield start
    for server in started:
        server.stop()
