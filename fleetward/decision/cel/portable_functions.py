"""Strict operators and functions for the portable runtime, in place of cel-python's.

They follow the CEL specification's definitions (github.com/google/cel-spec, doc/langdef.md, "List of Standard
Definitions") where Fleetward's dialect has them: numbers compare across types, values of different types are
unequal, anything else that does not fit is an error. Errors are values: an operand that is one comes out again.
"""

import math
import operator
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import re2  # type: ignore[import-untyped]  # google-re2 ships no types
from celpy import celtypes
from celpy.evaluation import CELEvalError

from fleetward.decision.cel.portable_meter import spend

_QUIET: Final = re2.Options()
_QUIET.log_errors = False  # else RE2 writes to standard error

MAX_TEXT: Final = 1_000_000
"""Characters of a string, or items of a list, that `+` may make."""

Function = Callable[..., object]

_INT: Final = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_DOUBLE: Final = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_NUMBERS: Final = (celtypes.IntType, celtypes.UintType, celtypes.DoubleType)
_KEYS: Final = (celtypes.StringType, celtypes.BoolType, *_NUMBERS)
_ORDERED: Final = (celtypes.StringType, celtypes.BoolType, celtypes.BytesType)
_SIZED: Final = (celtypes.StringType, celtypes.BytesType, celtypes.ListType, celtypes.MapType)
_ADDABLE: Final = (*_NUMBERS, celtypes.StringType, celtypes.BytesType, celtypes.ListType)


def error(message: str) -> CELEvalError:
    """Return an error value."""
    return CELEvalError(message)


def _strict(function: Function) -> Function:
    """Pass error operands on, and turn what Python raises into an error value."""

    @wraps(function)
    def call(*args: object) -> object:
        for arg in args:
            if isinstance(arg, CELEvalError):
                return arg
        try:
            return function(*args)
        except TypeError:
            names = ", ".join(_name(arg) for arg in args)
            return error(f"no such overload: {function.__name__.strip('_')}({names})")
        except (ValueError, ArithmeticError, LookupError) as raised:
            return error(str(raised) or type(raised).__name__)

    return call


def _name(value: object) -> str:
    return "null" if value is None else type(value).__name__.removesuffix("Type").lower()


def _numbers(left: object, right: object) -> tuple[int | float, int | float]:
    """Return plain numbers to compare: where one is a double, the other becomes one, as in cel-expr."""
    if isinstance(left, celtypes.DoubleType) or isinstance(right, celtypes.DoubleType):
        return float(_number(left)), float(_number(right))
    return _number(left), _number(right)


def _number(value: object) -> int | float:
    if isinstance(value, celtypes.DoubleType):
        return float(value)
    if isinstance(value, (celtypes.IntType, celtypes.UintType)):
        return int(value)
    raise TypeError


def equal(left: object, right: object) -> bool:
    """Compare as the specification does: across number types, deeply, unequal where the types differ."""
    spend(1)
    if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
        one, other = _numbers(left, right)
        return one == other
    if type(left) is not type(right):
        return False
    if isinstance(left, celtypes.ListType) and isinstance(right, celtypes.ListType):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, celtypes.MapType) and isinstance(right, celtypes.MapType):
        return len(left) == len(right) and all(key in right and equal(left[key], right[key]) for key in left)
    return bool(left == right)


def _comparison(name: str, compare: Callable[[Any, Any], bool]) -> Function:
    def call(left: object, right: object) -> celtypes.BoolType:
        if isinstance(left, _NUMBERS):
            return celtypes.BoolType(compare(*_numbers(left, right)))
        if type(left) is type(right) and isinstance(left, _ORDERED):
            plain = {celtypes.StringType: str, celtypes.BoolType: bool, celtypes.BytesType: bytes}[type(left)]
            return celtypes.BoolType(compare(plain(left), plain(right)))
        raise TypeError

    call.__name__ = name
    return _strict(call)


def _arithmetic(name: str, types: tuple[type, ...], compute: Callable[[Any, Any], object]) -> Function:
    def call(left: object, right: object) -> object:
        if type(left) is not type(right) or not isinstance(left, types):
            raise TypeError
        return compute(left, right)

    call.__name__ = name
    return _strict(call)


def _add(left: Any, right: Any) -> object:
    if isinstance(left, _SIZED):
        length = len(left) + len(right)
        if length > MAX_TEXT:
            msg = f"longer than {MAX_TEXT}"
            raise ValueError(msg)
        spend(length // 100)
    return type(left)(operator.add(left, right))


def _divide(left: Any, right: Any) -> object:
    if isinstance(left, celtypes.DoubleType) and isinstance(right, celtypes.DoubleType):
        return celtypes.DoubleType(_ieee_quotient(float(left), float(right)))
    if right == type(right)(0):
        raise ZeroDivisionError("divide by zero")
    return operator.truediv(left, right)


def _ieee_quotient(left: float, right: float) -> float:
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, math.copysign(1, left) * math.copysign(1, right))


def _modulo(left: Any, right: Any) -> object:
    if right == type(right)(0):
        raise ZeroDivisionError("modulus by zero")
    if int(left) == -(2**63) and int(right) == -1:
        raise OverflowError("integer overflow")
    return operator.mod(left, right)


def _negate(value: object) -> object:
    if isinstance(value, (celtypes.IntType, celtypes.DoubleType)):
        return -value
    raise TypeError


def _not(value: object) -> object:
    if isinstance(value, celtypes.BoolType):
        return celtypes.BoolType(not value)
    raise TypeError


def _in(item: object, container: object) -> celtypes.BoolType:
    if isinstance(container, celtypes.ListType):
        return celtypes.BoolType(any(equal(item, member) for member in container))
    if isinstance(container, celtypes.MapType) and isinstance(item, _KEYS):
        return celtypes.BoolType(isinstance(item, celtypes.StringType) and item in container)
    raise TypeError


def _index(container: object, index: object) -> object:
    if isinstance(container, celtypes.MapType):
        if not isinstance(index, celtypes.StringType):
            raise KeyError("no such key")
        return container[index]
    if isinstance(container, celtypes.ListType):
        number = _number(index)
        if number == math.floor(number) and 0 <= number < len(container):
            return container[int(number)]
        msg = f"index {number} is not in a list of {len(container)}"
        raise IndexError(msg)
    raise TypeError


def _size(value: object) -> object:
    if isinstance(value, _SIZED):
        return celtypes.IntType(len(value))
    raise TypeError


def _text_method(name: str, test: Callable[[str, str], bool]) -> Function:
    def call(text: object, argument: object) -> object:
        if isinstance(text, celtypes.StringType) and isinstance(argument, celtypes.StringType):
            spend((len(text) + len(argument)) // 100)
            return celtypes.BoolType(test(str(text), str(argument)))
        raise TypeError

    call.__name__ = name
    return _strict(call)


def _matches(text: str, pattern: str) -> bool:
    try:
        return re2.compile(pattern, _QUIET).search(text) is not None
    except re2.error as raised:
        msg = f"not an RE2 pattern: {raised}"
        raise ValueError(msg) from None


def _int(value: object) -> object:
    if isinstance(value, celtypes.StringType):
        if not _INT.fullmatch(value):
            raise ValueError("cannot convert string to int")
        return celtypes.IntType(int(value))
    if isinstance(value, celtypes.BoolType):
        return celtypes.IntType(1 if value else 0)  # beyond the specification, but cel-expr does it at run time
    if isinstance(value, celtypes.DoubleType) and not -(2.0**63) < value < 2.0**63:
        raise ValueError("double out of int64 range")
    return celtypes.IntType(int(_number(value)))


def _double(value: object) -> object:
    if isinstance(value, celtypes.StringType):
        if not _DOUBLE.fullmatch(value):
            raise ValueError("cannot convert string to double")
        return celtypes.DoubleType(float(value))
    return celtypes.DoubleType(float(_number(value)))


def _string(value: object) -> object:
    """Convert; a double is an error here, since the runtimes write it differently."""
    if isinstance(value, celtypes.BoolType):
        return celtypes.StringType("true" if value else "false")
    if isinstance(value, (celtypes.IntType, celtypes.UintType)):
        return celtypes.StringType(str(int(value)))
    if isinstance(value, celtypes.StringType):
        return value
    raise TypeError


def _dyn(value: object) -> object:
    return value


FUNCTIONS: Final[dict[str, tuple[int, Function]]] = {
    "size": (1, _strict(_size)),
    "matches": (2, _text_method("matches", _matches)),
    "int": (1, _strict(_int)),
    "double": (1, _strict(_double)),
    "string": (1, _strict(_string)),
    "dyn": (1, _strict(_dyn)),
}
"""Global functions: number of arguments and implementation."""

METHODS: Final[dict[str, tuple[int, Function]]] = {
    "size": FUNCTIONS["size"],
    "matches": FUNCTIONS["matches"],
    "contains": (2, _text_method("contains", lambda text, part: part in text)),
    "startsWith": (2, _text_method("startsWith", str.startswith)),
    "endsWith": (2, _text_method("endsWith", str.endswith)),
}
"""Methods: number of arguments, the receiver included, and implementation."""

OPERATORS: Final[dict[str, Function]] = {
    "_==_": _strict(lambda left, right: celtypes.BoolType(equal(left, right))),
    "_!=_": _strict(lambda left, right: celtypes.BoolType(not equal(left, right))),
    "_<_": _comparison("<", operator.lt),
    "_<=_": _comparison("<=", operator.le),
    "_>_": _comparison(">", operator.gt),
    "_>=_": _comparison(">=", operator.ge),
    "_+_": _arithmetic("+", _ADDABLE, _add),
    "_-_": _arithmetic("-", _NUMBERS, lambda left, right: type(left)(operator.sub(left, right))),
    "_*_": _arithmetic("*", _NUMBERS, lambda left, right: type(left)(operator.mul(left, right))),
    "_/_": _arithmetic("/", _NUMBERS, _divide),
    "_%_": _arithmetic("%", (celtypes.IntType, celtypes.UintType), _modulo),
    "-_": _strict(_negate),
    "!_": _strict(_not),
    "_in_": _strict(_in),
    "_[_]": _strict(_index),
}
"""Operators by cel-python's names for them."""
