"""The portable CEL runtime: cel-python's parser and interpreter behind the interface of `runtime.py`.

For platforms that cel-expr-python has no build for, and as its second opinion in the differential test. About a
hundred times slower. cel-python itself departs from the specification in many places, some of them dangerous
in a policy (`has()` of anything that errs is false, a negative index counts from the end, no limit on cost), so
its operators and macros are replaced by strict ones (`portable_eval.py`, `portable_functions.py`) and what its
parser lets pass is checked (`portable_parse.py`). Its interpreter is used, never its CompiledRunner, which fails
on common expressions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from celpy import celtypes
from celpy.evaluation import CELEvalError
from lark import Token, Tree

from fleetward.decision.cel import values
from fleetward.decision.cel.portable_eval import evaluate
from fleetward.decision.cel.portable_meter import BudgetError
from fleetward.decision.cel.portable_parse import parse
from fleetward.decision.cel.runtime import EvaluationError, vet

NAME: Final = "cel-python"
_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The variables as cel-python's types; one that cannot be converted stands as its error."""

    variables: Mapping[str, object]
    flaw: str | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class PortableProgram:
    """A parsed and checked expression of cel-python."""

    source: str
    tree: Tree[Token]

    def evaluate(self, activation: object) -> bool | EvaluationError:
        """Return the verdict; see `runtime.Program`."""
        if not isinstance(activation, _Prepared):
            return EvaluationError("the activation was made by another runtime")
        if activation.flaw is not None:
            return EvaluationError(activation.flaw)
        try:
            result = evaluate(self.tree, activation.variables)
        except BudgetError as error:
            return EvaluationError(str(error))
        except Exception as error:  # noqa: BLE001  # raising nothing is the interface's promise
            return EvaluationError(f"{type(error).__name__}: {error}"[:_LONGEST])
        return bool(result) if isinstance(result, celtypes.BoolType) else _no_verdict(result)


def _no_verdict(result: object) -> EvaluationError:
    if isinstance(result, CELEvalError):
        return EvaluationError(str(result.args[0])[:_LONGEST] if result.args else "error")
    kind = "null" if result is None else type(result).__name__.removesuffix("Type").lower()
    return EvaluationError(f"the result is of type {kind}, not bool")


class PortableRuntime:
    """Compiles against the variables of `fields.VARIABLES`."""

    name = NAME

    def __init__(self) -> None:
        self._programs: WeakValueDictionary[str, PortableProgram] = WeakValueDictionary()

    def compile(self, source: str) -> PortableProgram:
        """Compile; see `runtime.Runtime`."""
        known = self._programs.get(source)
        if known is None:
            vet(source)
            known = self._programs[source] = PortableProgram(source, parse(source))
        return known

    def activation(self, variables: Mapping[str, object]) -> object:
        """Prepare the data; see `runtime.Runtime`."""
        if found := values.flaw(variables):
            return _Prepared({}, flaw=found)
        prepared: dict[str, object] = {}
        for name, value in variables.items():
            try:
                prepared[name] = _variable(value)
            except (TypeError, ValueError) as error:
                prepared[name] = CELEvalError(f"{name}: {error}")
        return _Prepared(prepared)


def load() -> PortableRuntime:
    """Return a new runtime."""
    return PortableRuntime()


def _variable(value: object) -> object:
    if type(value) is not dict:
        msg = f"a {type(value).__name__}, not a map"
        raise TypeError(msg)
    if not all(type(key) is str for key in value):
        raise TypeError("a key that is not a string")
    return to_cel(value)


def to_cel(value: object) -> object:  # noqa: PLR0911  # one line a type
    """Convert JSON data; raises TypeError or ValueError for what cel-expr refuses, too.

    The types must match exactly, as they must for cel-expr: a subclass of str is refused by both.
    """
    kind = type(value)
    if value is None:
        return None
    if kind is str:
        return celtypes.StringType(value)  # type: ignore[arg-type]
    if kind is bool:
        return celtypes.BoolType(value)
    if kind is int:
        # As in cel-expr: what only fits unsigned is unsigned.
        return celtypes.UintType(value) if value >= 2**63 else celtypes.IntType(value)  # type: ignore[operator]
    if kind is float:
        return celtypes.DoubleType(value)
    if isinstance(value, list) and kind is list:
        return celtypes.ListType([to_cel(item) for item in value])  # type: ignore[misc]
    if isinstance(value, dict) and kind is dict:
        return celtypes.MapType({to_cel(key): to_cel(item) for key, item in value.items()})
    msg = f"a value of type {kind.__name__}; only JSON values can be read"
    raise TypeError(msg)
