"""Mandates: what the requester of a run authorised."""

from typing import Annotated

from msgspec import Meta

from fleetward.delegation.scope import Amounts, DataClasses, Depth, Targets
from fleetward.registry.slice import Wire
from fleetward.registry.text import Count

MAX_RUN_SECONDS = 7 * 86_400
DEFAULT_RUN_SECONDS = 86_400
"""A run that nobody closes ends by itself."""


class Limits(Amounts, frozen=True):
    """What all agents of a run may use together."""

    agents: Count | None = None
    """How many different agents may act, the one that opened the run included."""
    depth: Depth | None = None
    """How often work may be handed on."""


class Mandate(Wire, frozen=True):
    """What a run may do, whatever rules allow beyond. A field left out narrows nothing; an empty list allows none."""

    requester: Annotated[str, Meta(min_length=1, max_length=253)]
    """Who asked for it: a person, a service, a ticket."""
    purpose: Annotated[str, Meta(min_length=1, max_length=1024)]
    data_classes: DataClasses | None = None
    targets: Targets | None = None
    limits: Limits = Limits()
    expires_in_seconds: Annotated[int, Meta(ge=1, le=MAX_RUN_SECONDS)] = DEFAULT_RUN_SECONDS
