"""The examples, served: one server for all tests of a file, since each test opens runs of its own."""

from collections.abc import Iterator

import pytest
from stories.world import World, copied, serving


@pytest.fixture(scope="module")
def care(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Serve examples/accountability-chain."""
    with serving(copied("accountability-chain", tmp_path_factory.mktemp("care"))) as world:
        yield world
