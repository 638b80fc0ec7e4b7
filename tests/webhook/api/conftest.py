from collections.abc import Iterator
from pathlib import Path

import pytest
from support.webhook import SmallHub, Webhook, running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SmallHub, Webhook]]:
    """A webhook that decides, shared by a module's tests."""
    yield from running(tmp_path_factory.mktemp("webhook"))


@pytest.fixture
def webhook(served: tuple[SmallHub, Webhook]) -> Webhook:
    return served[1]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[SmallHub, Webhook]]:
    """A webhook of the test's own, to be broken."""
    yield from running(tmp_path)
