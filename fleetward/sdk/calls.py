"""A function's call as an action's arguments, and the arguments an obligation changed back in the call."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fleetward.sdk.errors import Denied
from fleetward.sdk.permit import PermitState
from fleetward.sdk.plain import plain

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Binder:
    """Knows one function's parameters. `ignore` names those that are not part of the action, such as a session."""

    def __init__(self, function: Callable[..., Any], ignore: Collection[str] = ()) -> None:
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters
        if unknown := set(ignore) - parameters.keys():
            raise TypeError(f"ignore names {', '.join(sorted(unknown))}, which {function.__qualname__} does not take")
        first = next(iter(parameters), "")
        self._ignore = {*ignore, *({first} & {"self", "cls"})}
        self._rest = next((n for n, p in parameters.items() if p.kind is inspect.Parameter.VAR_KEYWORD), None)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Call":
        """Give the call as the action's arguments, defaults included.

        Raises TypeError where the function could not be called so, and InvalidAction for an argument that is not JSON.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name == self._rest:
                arguments |= {key: plain(item, f"arguments.{key}") for key, item in value.items()}
            elif name not in self._ignore:
                arguments[name] = plain(value, f"arguments.{name}")
        return Call(bound, arguments, self._rest)


@dataclass(slots=True)
class Call:
    """One call."""

    bound: inspect.BoundArguments
    arguments: dict[str, Any]
    _rest: str | None

    def under(self, permit: PermitState) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give what to call the function with. Raises Denied for an obligation that the function cannot take."""
        held = permit.arguments or {}
        parameters = self.bound.signature.parameters
        for name, value in held.items():
            if name in self.arguments and self.arguments[name] == value:
                continue
            if name in parameters and parameters[name].kind not in _VARIADIC:
                self.bound.arguments[name] = value
            elif name in parameters and parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                self.bound.arguments[name] = tuple(value)
            elif self._rest is not None:
                self.bound.arguments[self._rest] = self.bound.arguments[self._rest] | {name: value}
            else:
                raise Denied(
                    f"the function takes no argument {name}, on which the action is allowed only", permit.answer
                )
        return self.bound.args, self.bound.kwargs
