"""The live state of agents and fleets, as the operator writes it under `status`."""

from collections.abc import Mapping
from typing import Any

import msgspec


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of a status. Fields that a newer operator adds are passed over."""


class ModeInForce(_Part, frozen=True, kw_only=True):
    """The operating mode that decisions are made under, and the resource that says so."""

    operating_mode: str = ""
    source: str = ""


class Pods(_Part, frozen=True, kw_only=True):
    """An agent's pods, counted."""

    total: int = 0
    ready: int = 0
    held: int = 0
    without_webhook: int = 0
    terminating: int = 0

    @property
    def left(self) -> int:
        """How many are there that the scheduling gate does not hold: they run, or could start to."""
        return max(0, self.total - self.held)


class Webhooks(_Part, frozen=True, kw_only=True):
    """An agent's decision webhooks: connected to the hub, and of those deciding by the version in force."""

    connected: int = 0
    current: int = 0


class LastDecision(_Part, frozen=True, kw_only=True):
    """The last decision made for an agent."""

    id: str = ""
    time: str = ""
    decision: str = ""
    action: str = ""


class Condition(_Part, frozen=True, kw_only=True):
    """One condition."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class Live(_Part, frozen=True, kw_only=True):
    """What the CLI shows of a status; what the operator has not written is None."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    mode: ModeInForce | None = None
    fleets: tuple[str, ...] = ()
    pods: Pods | None = None
    webhooks: Webhooks | None = None
    last_decision: LastDecision | None = None

    def condition(self, type_: str) -> Condition | None:
        """Give the condition of a type."""
        return next((each for each in self.conditions if each.type == type_), None)


def read_live(body: Mapping[str, Any]) -> Live | None:
    """Read an object's status. None where there is none, or none that this version understands."""
    status = body.get("status")
    if not status:
        return None
    try:
        return msgspec.convert(status, Live)
    except msgspec.ValidationError:
        return None
