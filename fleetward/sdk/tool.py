"""What both clients' decorators know of a tool."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from fleetward.registry.slice import ActionKind
from fleetward.sdk.asking import Estimate, Facts
from fleetward.sdk.calls import Binder, Call
from fleetward.sdk.usage import Used

Expect = Callable[[Mapping[str, Any]], Estimate]
"""Gives the estimate from a call's arguments."""

Measure = Callable[[Any], Used]
"""Gives from a result what was really used, such as `lambda rows: {"records": len(rows)}`."""


class Tool:
    """One decorated function: what to say of each call of it."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        kind: ActionKind,
        facts: Facts,
        *,
        ignore: Collection[str],
        expect: Expect | None,
        measure: Measure | None,
    ) -> None:
        if "arguments" in facts:
            raise TypeError("a tool's arguments are those it is called with; leave arguments out")
        self.name = name
        self.kind = kind
        self._facts = facts
        self._binder = Binder(function, ignore)
        self._expect = expect
        self._measure = measure

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """See `Binder.bind`."""
        return self._binder.bind(args, kwargs)

    def facts(self, call: Call) -> Facts:
        """Give what to say of one call."""
        facts: Facts = {**self._facts, "arguments": call.arguments}
        if self._expect is not None:
            facts["estimate"] = self._expect(call.arguments)
        return facts

    def used(self, result: Any) -> Used:
        """Give what a call used, as far as its result shows it."""
        return {} if self._measure is None else self._measure(result)
