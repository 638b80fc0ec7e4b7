"""Conditions, as kstatus and people read them.

Ready is always there. Reconciling is there while something moves by itself, Stalled while somebody must act; so kstatus
says InProgress and Failed, and Current where Ready is True for the latest generation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fleetward.registry.slice import Mode
from fleetward_operator.view.observed import Observed

LONGEST = 1024
"""Characters of a text in a status; a longer one would be refused."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a resource is in force, and if not why."""

    ready: bool
    reason: str
    message: str
    because: Literal["", "Reconciling", "Stalled"] = ""
    """The condition beside Ready that is True."""


def ready(reason: str, message: str) -> Verdict:
    """Say that a resource is in force."""
    return Verdict(True, reason, message)


def moving(reason: str, message: str) -> Verdict:
    """Say that a resource will be in force without anybody's doing."""
    return Verdict(False, reason, message, "Reconciling")


def stalled(reason: str, message: str) -> Verdict:
    """Say that somebody must act before a resource can be in force."""
    return Verdict(False, reason, message, "Stalled")


_NEVER_RIGHT = {
    "Agent": "it is as if it were not there, so the agent may do nothing",
    "AgentFleet": "every action of every agent is denied, as it may have forbidden any",
    "ActionCatalog": "every action of every agent is denied, as it may have led to that",
    "AgentPolicy": "its rules count at their strictest; where they do not read at all, they deny everything",
    "ClusterAgentPolicy": "its rules count at their strictest; where they do not read at all, they deny everything",
    "AgentBudget": "its subjects, as far as they read, may do nothing, as what they may spend is not known",
    "ClusterAgentBudget": "its subjects, as far as they read, may do nothing, as what they may spend is not known",
    "AuditSink": "nothing is delivered to it",
}
"""What holds for a resource of which no generation was ever right; see `cluster.reading.stand_in`."""


def invalid(observed: Observed) -> Verdict:
    """Say what is wrong with a resource's specification, and what holds meanwhile."""
    good = observed.resource
    if good is not None:
        meanwhile = f"generation {good.metadata.generation} is still in force"
    else:
        meanwhile = f"no generation of it was ever right: {_NEVER_RIGHT[observed.kind]}"
    return stalled("Invalid", f"{'; '.join(observed.faults)}. Meanwhile {meanwhile}")


def head(verdict: Verdict, observed: Observed, previous: Mapping[str, Any], now: datetime) -> Json:
    """Give what every status begins with. A condition keeps its time for as long as its status stays."""
    conditions = [_condition("Ready", verdict, observed.generation, previous, now, holds=verdict.ready)]
    if verdict.because:
        conditions.append(_condition(verdict.because, verdict, observed.generation, previous, now, holds=True))
    return {"conditions": conditions, "observedGeneration": observed.generation}


def holding(type_: str, verdict: Verdict, observed: Observed, previous: Mapping[str, Any], now: datetime) -> Json:
    """Give a condition that holds, beside those of `head`, with the verdict's reason and message."""
    return _condition(type_, verdict, observed.generation, previous, now, holds=True)


def _condition(
    type_: str, verdict: Verdict, generation: int, previous: Mapping[str, Any], now: datetime, *, holds: bool
) -> Json:
    status = "True" if holds else "False"
    before = condition(previous, type_)
    unchanged = before is not None and before.get("status") == status and before.get("lastTransitionTime")
    return {
        "type": type_,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else seconds(now),
        "reason": verdict.reason,
        "message": cut(verdict.message),
    }


def condition(status: Mapping[str, Any], type_: str) -> Json | None:
    """Give the condition of a type, as far as there is one."""
    return next((c for c in status.get("conditions") or () if c.get("type") == type_), None)


def mode_of(mode: Mode, previous: Mapping[str, Any], now: datetime) -> Json:
    """Give a mode as a status has it; `since` stays for as long as the mode and where it comes from do."""
    said = {
        "operatingMode": mode.operating_mode,
        "reason": cut(mode.reason),
        "setBy": cut(mode.set_by),
        "source": cut(mode.source),
    }
    fresh = {key: value for key, value in said.items() if value}
    before = previous.get("mode") or {}
    same = all(before.get(key) == fresh.get(key) for key in ("operatingMode", "source"))
    return fresh | {"since": before["since"] if same and before.get("since") else seconds(now)}


def meaning(status: Mapping[str, Any]) -> Json:
    """Give a status without what changes by itself and means nothing alone: times of transition, registry versions."""
    plain = dict(status)
    plain["conditions"] = sorted(
        ({k: v for k, v in c.items() if k != "lastTransitionTime"} for c in status.get("conditions") or ()),
        key=lambda c: str(c.get("type")),
    )
    if "webhooks" in plain:
        plain["webhooks"] = {k: v for k, v in plain["webhooks"].items() if k != "registryVersion"}
    return plain


def gist(status: Mapping[str, Any]) -> Json:
    """Give what of a status cannot wait: what holds and why, not how much of it there is."""
    conditions = status.get("conditions") or ()
    return {
        "conditions": sorted((c.get("type"), c.get("status"), c.get("reason")) for c in conditions),
        "generation": status.get("observedGeneration"),
        "mode": (status.get("mode"), status.get("recordedMode")),
        "generationInForce": status.get("generationInForce"),
    }


def seconds(moment: datetime) -> str:
    """Write a time as metav1.Time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cut(text: str, longest: int = LONGEST) -> str:
    """Cut a text to what a status may hold, and show that something is missing."""
    return text if len(text) <= longest else text[: longest - 6] + " [...]"


def count(number: int, one: str, several: str = "") -> str:
    """Give a number with its noun."""
    return f"{number} {one}" if number == 1 else f"{number} {several or one + 's'}"


def names(items: Sequence[str], most: int = 3) -> str:
    """Name a few things, and say how many more there are."""
    shown = ", ".join(sorted(items)[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
