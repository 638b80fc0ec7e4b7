"""Where an action stands: who handed the work down, what its run has done so far, and what the hub knows of it.

The hub says all this, so it is trusted like a catalog.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

_NO_RUN: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "steps": 0,
        "used": {},
        "agents": [],
        "depth": 0,
        "ageSeconds": 0,
        "repeats": 0,
        "idleSteps": 0,
        "exchanges": 0,
        "onTarget": {},
        "recentOnTarget": {},
    }
)
"""What expressions read as `run` of an action that belongs to none."""


class Situation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is true of an action beyond what it is."""

    path: tuple[str, ...] = ()
    """Who handed the work down to the agent, the agent that opened the run first."""
    labels: tuple[str, ...] = ()
    """Provenance labels that ride along."""
    target: str | None = None
    data_classes: tuple[str, ...] = ()
    run: Mapping[str, Any] = {}
    to: Mapping[str, Any] = {}
    """The agent that work is to be handed to, as expressions read it."""
    plan: Mapping[str, Any] = {}


_NO_DELEGATE: Final[Mapping[str, Any]] = MappingProxyType({"dataClasses": [], "labels": {}, "fleets": []})
_NO_PLAN: Final[Mapping[str, Any]] = MappingProxyType(
    {"steps": 0, "agents": [], "fanOut": 0, "depth": 0, "dataClasses": [], "targets": [], "used": {}}
)

ALONE: Final = Situation()
"""An agent acts for itself, in no run."""


def variables(situation: Situation) -> dict[str, Any]:
    """Give what expressions read of a situation."""
    return {
        "run": dict(_NO_RUN) | dict(situation.run),
        "delegation": {"depth": len(situation.path), "path": list(situation.path)},
        "to": dict(_NO_DELEGATE) | dict(situation.to),
        "plan": dict(_NO_PLAN) | dict(situation.plan),
    }
