"""Google's CEL runtime (cel-expr-python) behind the interface of `runtime.py`.

Variables are maps of dyn: an absent key is then an error at evaluation and `has()` works, where a protobuf
message would read as 0 or "" (a Deny on `records > 100` would not fire). Typed checking is `typed.py`'s.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from cel_expr_python import cel

from fleetward.decision.cel import fields, values
from fleetward.decision.cel.runtime import EvaluationError, ExpressionError, vet

NAME: Final = "cel-expr"

_LONGEST: Final = 300
_ERROR: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_STATUS: Final = re.compile(r"^(?:[A-Z_]+: )(.*?)(?: \[[A-Z_]+\])?$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Unusable:
    """Stands for an activation over data that no runtime should see."""

    message: str


@dataclass(frozen=True, slots=True, weakref_slot=True)
class GoogleProgram:
    """A compiled expression of cel-expr-python."""

    source: str
    expression: cel.Expression

    def evaluate(self, activation: object) -> bool | EvaluationError:
        """Return the verdict; see `runtime.Program`."""
        try:
            value = self.expression.eval(activation)
            plain = value.plain_value()
        except Exception as error:  # noqa: BLE001  # the iteration budget, and whatever the library raises on odd data
            if isinstance(activation, _Unusable):
                return EvaluationError(activation.message)
            return EvaluationError(_reason(str(error)))
        if plain is True or plain is False:
            return plain
        kind = value.type().name()
        if kind == "ERROR":
            return EvaluationError(_reason(str(plain)))
        return EvaluationError(f"the result is of type {kind.lower()}, not bool")


class GoogleRuntime:
    """Compiles against the untyped variables of `fields.VARIABLES`."""

    name = NAME

    def __init__(self) -> None:
        dyn_map = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
        self._env = cel.NewEnv(variables=dict.fromkeys(fields.VARIABLES, dyn_map))
        self._programs: WeakValueDictionary[str, GoogleProgram] = WeakValueDictionary()

    def compile(self, source: str) -> GoogleProgram:
        """Compile; see `runtime.Runtime`."""
        known = self._programs.get(source)
        if known is None:
            known = self._programs[source] = GoogleProgram(source, compile_in(self._env, source))
        return known

    def activation(self, variables: Mapping[str, object]) -> object:
        """Prepare the data; see `runtime.Runtime`."""
        if found := values.flaw(variables):
            return _Unusable(found)
        try:
            return self._env.Activation(variables)
        except Exception as error:  # noqa: BLE001  # raising nothing is the interface's promise
            return _Unusable(f"unsuitable data: {str(error).splitlines()[0]}")


def load() -> GoogleRuntime:
    """Return a new runtime."""
    return GoogleRuntime()


def compile_in(env: cel.Env, source: str) -> cel.Expression:
    """Compile in `env`, its first complaint raised as an ExpressionError."""
    vet(source)
    try:
        return env.compile(source)
    except RuntimeError as error:
        text = str(error)
    if found := _ERROR.search(text):
        line, column, message = int(found[1]), int(found[2]), found[3]
    else:
        line, column, message = 1, 1, text
    raise ExpressionError(_reason(message), source=source, line=line, column=column)


def _reason(text: str) -> str:
    """Strip the status codes that absl puts around a message, and bound what it quotes from the data."""
    found = _STATUS.match(text)
    reason = (found[1] if found else text).removesuffix(" [INVALID_ARGUMENT]")
    return reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
