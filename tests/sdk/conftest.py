import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.serving import Serve
from support.webhook import SmallHub, Webhook, running

from fleetward.sdk import AsyncClient, Client


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLEETWARD_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SmallHub, Webhook]]:
    yield from running(tmp_path_factory.mktemp("webhook"))


@pytest.fixture
def webhook(served: tuple[SmallHub, Webhook]) -> Webhook:
    return served[1]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[SmallHub, Webhook]]:
    yield from running(tmp_path)


@pytest.fixture
def client(webhook: Webhook) -> Iterator[Client]:
    with Client(webhook.address) as client:
        yield client


@pytest.fixture
async def async_client(webhook: Webhook) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(webhook.address) as client:
        yield client


EXAMPLE = Path(__file__).parents[2] / "examples" / "accountability-chain"


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """The example of a chain of three agents, served: a real hub, and a real webhook for each."""
    folder = tmp_path_factory.mktemp("chain") / "policies"
    shutil.copytree(EXAMPLE, folder)
    server = Serve(folder, "--port", "0")
    try:
        yield server.until_ready()
    finally:
        server.stop()
