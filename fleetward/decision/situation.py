"""Where an action stands: who handed the work down, what its run has done so far, and what the hub knows of it.

The hub says all this, so it is trusted like a catalog.
"""

import re
from collections.abc import Callable, Iterable, Mapping
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
    grants: tuple[str, ...] = ()
    """The ids of the grants by which it came down, the first one first."""
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


VARIABLES: Final[Mapping[str, Callable[[Situation], dict[str, Any]]]] = MappingProxyType(
    {
        "run": lambda situation: {**_NO_RUN, **situation.run},
        "delegation": lambda situation: {"depth": len(situation.path), "path": list(situation.path)},
        "to": lambda situation: {**_NO_DELEGATE, **situation.to},
        "plan": lambda situation: {**_NO_PLAN, **situation.plan},
    }
)
"""What expressions read of a situation, by the name of the variable."""

_NAMES: Final = re.compile(r"\b(" + "|".join(VARIABLES) + r")\b")


def named_in(sources: Iterable[str]) -> tuple[str, ...]:
    """Give the variables that expressions may name: making the others would cost each decision time for nothing."""
    return tuple(sorted({name for source in sources for name in _NAMES.findall(source)}))
