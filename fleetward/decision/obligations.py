"""Obligations: what a constrained action owes, carried out by the client and checked by the webhook, with one code.

A field is a dotted path. Lists on the way are gone through element by element; `*` stands for every element or key.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fleetward.registry.slice import Obligation

REDACTED = "[REDACTED]"
"""What a redacted value is replaced by."""


class ObligationError(ValueError):
    """An obligation that cannot be carried out on the data there is: `field`, and why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


def apply_to_arguments(arguments: Mapping[str, Any], obligations: Iterable[Obligation]) -> dict[str, Any]:
    """Give the arguments an action may be run with: clamped, then redacted. Raises ObligationError."""
    owed = [obligation for obligation in obligations if obligation.field.startswith("arguments.")]
    clamps = [obligation for obligation in owed if obligation.type == "Clamp"]
    held: dict[str, Any] = dict(arguments)
    # A clamp sets what is absent, which another one may have to hold; each only adds or lowers, so this comes to rest.
    while (clamped := _carry_out(clamps, held)) != held:
        held = clamped
    redacted: dict[str, Any] = _carry_out((obligation for obligation in owed if obligation.type == "Redact"), held)
    return redacted


def apply_to_result(result: Any, obligations: Iterable[Obligation]) -> Any:
    """Give the result as it may be used. Raises ObligationError."""
    return _carry_out((obligation for obligation in obligations if obligation.field.startswith("result.")), result)


def _carry_out(obligations: Iterable[Obligation], data: Any) -> Any:
    for obligation in obligations:
        data = _edit(data, obligation.field.split(".")[1:], _Editor(obligation))
    return data


def concern(obligations: Iterable[Obligation], root: str) -> bool:
    """Say whether any obligation is about `arguments` or about the `result`."""
    return any(obligation.field.startswith(f"{root}.") for obligation in obligations)


def unmet(result: Any, obligations: Iterable[Obligation]) -> list[str]:
    """Give the fields of the result that should have been redacted and are not."""
    return [o.field for o in obligations if apply_to_result(result, (o,)) != result]


class _Editor:
    """What one obligation does at the end of its path, and where the data does not follow the path."""

    def __init__(self, obligation: Obligation) -> None:
        self._field = obligation.field
        self._clamps = obligation.type == "Clamp"
        self._maximum = obligation.maximum or 0

    def present(self, value: Any) -> Any:
        if not self._clamps:
            return REDACTED
        if value is None:
            return self._maximum
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ObligationError(self._field, f"must be a number to be clamped, found {value!r:.40}")
        return value if value <= self._maximum else self._maximum  # noqa: FURB136  # min() lets a NaN pass

    def absent(self, rest: list[str]) -> Any:
        """Give what to put where the path ends early: an absent limit would mean no limit, so it is set.

        None: nothing. There are no elements yet that a `*` further on could stand for.
        """
        if not self._clamps or "*" in rest:
            return None
        value: Any = self._maximum
        for step in reversed(rest):
            value = {step: value}
        return value

    def in_the_way(self, value: Any) -> Any:
        """Deal with a value that cannot be looked into: a text may well hold what should be redacted."""
        if self._clamps:
            raise ObligationError(self._field, f"cannot be reached through {value!r:.40}; send an object")
        return REDACTED if isinstance(value, str) else value


def _edit(data: Any, path: list[str], editor: _Editor) -> Any:
    """Give `data` with the fields at `path` edited; whatever is not on the path is shared, not copied."""
    if not path:
        return editor.present(data)
    step, rest = path[0], path[1:]
    if isinstance(data, list | tuple):
        return [_edit(item, rest if step == "*" else path, editor) for item in data]
    if not isinstance(data, dict):
        return editor.in_the_way(data)
    if step == "*":
        return {key: _edit(item, rest, editor) for key, item in data.items()}
    if step in data:
        return {**data, step: _edit(data[step], rest, editor)}
    value = editor.absent(rest)
    return data if value is None else {**data, step: value}
