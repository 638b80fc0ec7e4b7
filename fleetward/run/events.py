"""Events: what happened to runs, one after the other. The state of all runs is what they add up to.

They are kept on the disk, so a field's place and meaning never change; new fields go last and have a default.
"""

import msgspec

from fleetward.delegation.grant import Grant
from fleetward.run.amounts import Six
from fleetward.run.mandate import Mandate


class _Event(msgspec.Struct, frozen=True, array_like=True):
    at: float
    """When the hub took it up, in seconds since the epoch."""


class RunOpened(_Event, frozen=True, tag=0):
    """A run began."""

    id: str
    agent: str
    mandate: Mandate


class RunEnded(_Event, frozen=True, tag=1):
    """A run is over: closed by the agent that opened it, or by its time."""

    expired: bool


class RunForgotten(_Event, frozen=True, tag=2):
    """A run that ended long ago may be deleted."""


class Took(_Event, frozen=True, tag=3):
    """An action, a delegation or a plan was taken up, and what it may use was reserved."""

    seq: int
    agent: str
    grant: str | None
    kind: str
    name: str
    target: str | None
    fingerprint: int
    """Tells the very same action again."""
    labels: tuple[str, ...]
    amounts: Six
    webhook: str
    turns_to: str | None = None
    """The agent that it turns to, by message or by delegation."""
    proposed: Grant | None = None
    brings: tuple[str, ...] = ()
    """Labels of its result."""


class Settled(_Event, frozen=True, tag=4):
    """An action went ahead, or did not."""

    seq: int
    allowed: bool


class Learned(_Event, frozen=True, tag=5):
    """It became known what came of an action."""

    seq: int
    agent: str
    labels: tuple[str, ...]
    cleansed: tuple[str, ...]
    actual: Six | None


class GrantIssued(_Event, frozen=True, tag=6):
    """A proposed grant was given."""

    grant: str
    cause: str


class OpeningRecorded(_Event, frozen=True, tag=7):
    """The opening is on record."""

    cause: str


Event = RunOpened | OpeningRecorded | RunEnded | RunForgotten | Took | Settled | Learned | GrantIssued

encode_event = msgspec.msgpack.Encoder().encode
decode_event = msgspec.msgpack.Decoder(Event).decode
