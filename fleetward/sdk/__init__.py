"""The client that agents use: ask before acting, carry out what is owed, report what came of it.

    from fleetward.sdk import Client

    client = Client(agent="reports/data-worker")

    @client.tool("crm.customers.read")
    def read_customers(segment: str, limit: int = 100) -> list[dict]: ...

A refusal is an exception that says why; where the webhook is not there, every action is refused.

A run, and work handed to another agent in it:

    with client.run(requester="ana", purpose="answer ticket 7", limits={"steps": 10}) as run:
        send("care/data-worker", question, run.delegate("care/data-worker", actions=["db.customers.read"]))

The grant is a text. The agent that gets it says `with context(grant=grant):` around what it does.
"""

from typing import TYPE_CHECKING, Any

from fleetward.sdk.asking import Estimate, Facts
from fleetward.sdk.client import Client, Permit, Run
from fleetward.sdk.context import context
from fleetward.sdk.errors import (
    ApprovalRequired,
    Denied,
    InvalidAction,
    OutcomeRefused,
    Refused,
    Throttled,
    Unavailable,
)
from fleetward.sdk.runs import Limits, Step
from fleetward.sdk.usage import Used

if TYPE_CHECKING:
    from fleetward.sdk.aio import AsyncClient, AsyncPermit, AsyncRun

__all__ = [
    "ApprovalRequired",
    "AsyncClient",
    "AsyncPermit",
    "AsyncRun",
    "Client",
    "Denied",
    "Estimate",
    "Facts",
    "InvalidAction",
    "Limits",
    "OutcomeRefused",
    "Permit",
    "Refused",
    "Run",
    "Step",
    "Throttled",
    "Unavailable",
    "Used",
    "context",
]


def __getattr__(name: str) -> Any:
    """Load the asynchronous client only where it is used: aiohttp is ten times as large as all the rest."""
    if name in {"AsyncClient", "AsyncPermit", "AsyncRun"}:
        from fleetward.sdk import aio  # noqa: PLC0415 - see above

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
