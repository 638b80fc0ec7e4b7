"""A world for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.streams import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One hub, its store, its sidecars: stopped when the test ends."""
    opened = World(tmp_path)
    try:
        yield opened
    finally:
        await opened.close()
