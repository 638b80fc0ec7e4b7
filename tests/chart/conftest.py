"""Helm for every test in here, built before any of them runs; where that cannot be, they are skipped, or fail in CI."""

import contextlib
import os

import pytest
from support.controlplane.build import helm
from support.controlplane.errors import BuildError, UnavailableError
from support.controlplane.fixtures import WITHOUT


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build it outside of any test's time limit, with progress shown."""
    if session.config.option.collectonly or not session.items:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    shown = capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext()
    with shown, contextlib.suppress(UnavailableError, BuildError):  # the fixture raises them again
        helm()


@pytest.fixture(scope="session", autouse=True)
def _helm() -> None:
    try:
        helm()
    except UnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{WITHOUT}{error}", pytrace=False)
        pytest.skip(f"{WITHOUT}{error}")
