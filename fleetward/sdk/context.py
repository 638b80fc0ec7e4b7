"""The run that actions belong to, said once instead of at each call."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[dict[str, str]] = ContextVar("fleetward_context", default={})  # noqa: B039 - never changed, only replaced


@contextmanager
def context(*, run: str | None = None, parent: str | None = None, traceparent: str | None = None) -> Iterator[None]:
    """Have all actions asked for inside belong to this run, parent and trace; what is left out stays as it is outside.

    Holds for the current thread or task, like any context variable.
    """
    given = {"run": run, "parent": parent, "traceparent": traceparent}
    token = _current.set(_current.get() | {key: value for key, value in given.items() if value is not None})
    try:
        yield
    finally:
        _current.reset(token)


def current() -> dict[str, str]:
    """Give what is said for the current thread or task."""
    return _current.get()
