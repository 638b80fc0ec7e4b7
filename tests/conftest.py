"""What a run as a whole does: build what tests need before they run, and say at the end what did not run."""

from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from support.controlplane.fixtures import build_before_tests, report_skips
from support.postgres import report_skips as report_skips_of_postgres

# How long an example takes says how busy the machine is: no such time fails a test.
settings.register_profile("fleetward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fleetward")


def pytest_collection_finish(session: pytest.Session) -> None:
    build_before_tests(session)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    yield  # pytest's own summary first: what did not run shall be the last that is read
    report_skips(terminalreporter)
    report_skips_of_postgres(terminalreporter)
