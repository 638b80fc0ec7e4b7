"""How scopes narrow: what a delegation may ask for under the grant it comes from, and what goes beyond a scope.

Whatever a scope permits, the one it comes from permits: `narrow` refuses anything else, it never trims in silence.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import msgspec

from fleetward.delegation.globset import matches, uncovered
from fleetward.delegation.scope import DEFAULT_GRANT_SECONDS, Amounts, AskedScope, Scope, Violation
from fleetward.registry.slice import ActionKind

_Value = TypeVar("_Value")

_AMOUNTS = {field.name: field.encode_name for field in msgspec.structs.fields(Amounts)}
"""The names of the amounts, and as they travel."""

_SHOWN = 10
"""How many entries of a list a message shows."""

_SCOPED_KINDS: frozenset[ActionKind] = frozenset({"ToolCall", "ModelCall", "Message"})
"""Kinds whose names a scope's actions are about. Depth governs delegations; a plan is judged by its steps."""

_TARGETED_KINDS: frozenset[ActionKind] = frozenset({"ToolCall", "Message"})
"""Kinds that always act on something, so that an unknown target may be any."""


class WiderError(ValueError):
    """A delegation asks for more than its grant allows; `violations` has one entry for each field that is wider."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(
            "the scope is wider than the one it comes from: "
            + "; ".join(f"{one.total}: found {one.found}, allowed {one.allowed}" for one in violations)
        )
        self.violations = violations


class DepthError(WiderError):
    """The work may not be handed on at all, whatever the scope."""


class Bounds(Protocol):
    """What says which data classes and targets may be touched: a scope, or a mandate. None: any."""

    @property
    def data_classes(self) -> tuple[str, ...] | None:
        """The data classes."""

    @property
    def targets(self) -> tuple[str, ...] | None:
        """The targets."""


def narrow(parent: Scope | None, asked: AskedScope, *, by: str = "grant") -> Scope:
    """Give the scope of a delegation that asks for `asked` under `parent`; None: the agent opened the run itself.

    A field left out takes the parent's, depth one less. `by` names the parent in violations. Raises DepthError where
    the parent may not hand on, and WiderError where a field is wider than the parent's.
    """
    if parent is None:
        parent, depth = Scope(), None
    else:
        depth = None if parent.depth is None else parent.depth - 1
        if depth is not None and depth < 0:
            message = "not at all: the scope has depth 0"
            raise DepthError((Violation(total="depth", found="work handed on once more", allowed=message, by=by),))
    violations = [
        *_wider_list("actions", asked.actions, parent.actions, by),
        *_wider_list("dataClasses", asked.data_classes, parent.data_classes, by),
        *_wider_list("targets", asked.targets, parent.targets, by),
        *_wider_number("depth", asked.depth, depth, by),
    ]
    for name, wire in _AMOUNTS.items():
        violations += _wider_number(wire, getattr(asked.limits, name), getattr(parent.limits, name), by)
    if violations:
        raise WiderError(tuple(violations))
    return Scope(
        actions=_first(asked.actions, parent.actions),
        data_classes=_first(asked.data_classes, parent.data_classes),
        targets=_first(asked.targets, parent.targets),
        depth=_first(asked.depth, depth),
        limits=Amounts(**{one: _first(getattr(asked.limits, one), getattr(parent.limits, one)) for one in _AMOUNTS}),
    )


def expiry(asked: AskedScope, now: int, *, parent_expires_at: int | None = None) -> int:
    """Give when a delegation ends that is given `now`, both in seconds since the epoch: never after its parent."""
    seconds = DEFAULT_GRANT_SECONDS if asked.expires_in_seconds is None else asked.expires_in_seconds
    return now + seconds if parent_expires_at is None else min(now + seconds, parent_expires_at)


def _first(asked: _Value | None, parent: _Value | None) -> _Value | None:
    return parent if asked is None else asked


def _wider_list(
    field: str, asked: tuple[str, ...] | None, allowed: tuple[str, ...] | None, by: str
) -> Iterable[Violation]:
    if asked is None or allowed is None:
        return
    wider = uncovered(allowed, asked) if field == "actions" else tuple(one for one in asked if one not in allowed)
    if wider:
        yield Violation(total=field, found=_listed(wider), allowed=_listed(allowed), by=by)


def _wider_number(field: str, asked: int | None, allowed: int | None, by: str) -> Iterable[Violation]:
    if asked is not None and allowed is not None and asked > allowed:
        yield Violation(total=field, found=str(asked), allowed=f"at most {allowed}", by=by)


def beyond(
    scope: Scope, kind: ActionKind, name: str, target: str | None, data_classes: Sequence[str], *, by: str = "grant"
) -> tuple[Violation, ...]:
    """Say where an action goes beyond `scope`. An unknown target (None) is beyond any list of targets.

    `by` names the scope in violations. Depth and limits are not looked at: they are about more than one action.
    """
    violations = outside(scope, kind, target, data_classes, by=by)
    if scope.actions is not None and kind in _SCOPED_KINDS and not matches(scope.actions, name):
        return (Violation(total="actions", found=name, allowed=_listed(scope.actions), by=by), *violations)
    return violations


def outside(
    bounds: Bounds, kind: ActionKind, target: str | None, data_classes: Sequence[str], *, by: str
) -> tuple[Violation, ...]:
    """Say which of an action's data classes, and whether its target, are not among those of a scope or a mandate."""
    violations = []
    if bounds.data_classes is not None:
        found = tuple(one for one in data_classes if one not in bounds.data_classes)
        if found:
            allowed = _listed(bounds.data_classes)
            violations.append(Violation(total="dataClasses", found=_listed(found), allowed=allowed, by=by))
    if bounds.targets is not None and kind != "Delegation" and target not in bounds.targets:
        allowed = _listed(bounds.targets)
        if target is not None:
            violations.append(Violation(total="targets", found=target, allowed=allowed, by=by))
        elif kind in _TARGETED_KINDS:
            found_none = "no known target: give the action a target in an ActionCatalog"
            violations.append(Violation(total="targets", found=found_none, allowed=allowed, by=by))
    return tuple(violations)


def _listed(entries: Sequence[str]) -> str:
    if not entries:
        return "none"
    rest = len(entries) - _SHOWN
    return ", ".join(entries[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
