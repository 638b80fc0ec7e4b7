"""The run and the grant that actions belong to, said once instead of at each call."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final

import msgspec
from msgspec import UNSET

from fleetward.sdk.errors import InvalidAction

STANDING: Final = ("run", "grant", "parent", "traceparent")
"""What is said of where an action stands."""

_current: ContextVar[dict[str, str]] = ContextVar("fleetward_context", default={})  # noqa: B039 - never changed, only replaced


class _Claims(msgspec.Struct):
    run: str


_read_claims = msgspec.json.Decoder(_Claims).decode


@contextmanager
def context(
    *,
    run: str | None = None,
    grant: str | None = None,
    parent: str | None = None,
    traceparent: str | None = None,
) -> Iterator[None]:
    """Have all actions asked for inside belong to this run, grant, parent and trace.

    A grant says of which run it is, so the agent that was given one needs no more than `context(grant=...)`. What is
    left out stays as it is outside, save that another run leaves the grant behind: a grant is for one run only.
    Holds for the current thread or task, like any context variable. Raises InvalidAction for what is no grant.
    """
    given = {"run": run, "grant": grant, "parent": parent, "traceparent": traceparent}
    token = _current.set(joined(_current.get(), given))
    try:
        yield
    finally:
        with suppress(ValueError):  # left in another task than it was entered in, where it never held
            _current.reset(token)


def current() -> dict[str, str]:
    """Give what is said for the current thread or task."""
    return _current.get()


def joined(outside: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, str]:
    """Give where an action stands that says `given` of it, within what is said outside. Raises InvalidAction.

    None says nothing, and UNSET takes back what is said outside.
    """
    said = {key: given[key] for key in STANDING if given.get(key) not in (None, UNSET)}
    if "grant" in said and "run" not in said:
        said["run"] = run_of(said["grant"])
    inherited = {key: value for key, value in outside.items() if given.get(key) is not UNSET}
    if "run" in said and "grant" not in said and said["run"] != outside.get("run"):
        inherited.pop("grant", None)
    return inherited | said


def run_of(grant: str) -> str:
    """Say which run a grant is for. It is not checked here: the decision webhook does that. Raises InvalidAction."""
    try:
        _, payload, _ = grant.split(".")
        return _read_claims(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))).run
    except (ValueError, AttributeError, msgspec.MsgspecError):
        shown = f"{grant!r:.40}"
        raise InvalidAction(f"found {shown}, allowed: a grant as `delegate` gave it", "grant") from None
