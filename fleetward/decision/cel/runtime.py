"""The one small interface to a CEL runtime, and the choice between the two that implement it.

`google.py` wraps cel-expr-python, Google's own C++ runtime, and is the default where it is installed.
`portable.py` wraps cel-python, pure Python. Neither is imported before it is asked for.
"""

import os
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Final, Protocol, cast

MAX_SOURCE: Final = 4096
"""Characters of one expression."""

ENV_VAR: Final = "FLEETWARD_CEL_RUNTIME"

_MODULES: Final = {"cel-expr": "google", "cel-python": "portable"}  # the default first
_INSTALL: Final = {
    "cel-expr": "pip install cel-expr-python",
    "cel-python": "pip install 'fleetward[portable]'",
}
_EXCERPT: Final = 100


class ExpressionError(ValueError):
    """An expression refused when compiled or linted; `str()` shows the source line and a caret.

    `line` and `column` count from 1, columns in characters.
    """

    def __init__(self, message: str, *, source: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.line = max(line, 1)
        self.column = max(column, 1)

    def __str__(self) -> str:
        lines = self.source.split("\n")
        text = lines[self.line - 1] if self.line <= len(lines) else ""
        start = max(0, self.column - 1 - _EXCERPT * 3 // 4) if len(text) > _EXCERPT else 0
        shown = "".join(c if c.isprintable() else " " for c in text[start : start + _EXCERPT])
        before = shown[: self.column - 1 - start]
        pad = " " * sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in before)
        return f"{self.line}:{self.column}: {self.message}\n  | {shown}\n  | {pad}^"


@dataclass(frozen=True, slots=True)
class EvaluationError:
    """What evaluating gave where it gave no verdict: a value, since the hot path avoids exceptions."""

    message: str


class RuntimeUnavailableError(RuntimeError):
    """The CEL runtime asked for does not exist or is not installed; the message says what to do."""


class Program(Protocol):
    """A compiled expression."""

    @property
    def source(self) -> str:
        """The expression as it was written."""

    def evaluate(self, activation: object) -> bool | EvaluationError:
        """Return the verdict over what `Runtime.activation` made; raises nothing, whatever the data.

        A result that is not a boolean, an error inside the expression and an exhausted budget are all an
        EvaluationError.
        """


class Runtime(Protocol):
    """Compiles expressions and prepares the data they read."""

    @property
    def name(self) -> str:
        """`cel-expr` or `cel-python`."""

    def compile(self, source: str) -> Program:
        """Compile; the same source gives the same Program while anyone holds it. Raises ExpressionError."""

    def activation(self, variables: Mapping[str, object]) -> object:
        """Prepare `action`, `agent` and, During and After, `outcome` once, for all programs of a request.

        The values are plain dicts, lists and scalars, as `fields.py` lists them. Raises nothing: unsuitable
        data makes every evaluation over it an EvaluationError. The dicts must not change afterwards.
        """


def vet(source: str) -> None:
    """Raise ExpressionError for a source that no parser should see: empty, too long, with odd characters."""
    if not source.strip():
        raise ExpressionError("the expression is empty", source=source)
    if len(source) > MAX_SOURCE:
        msg = f"the expression has {len(source)} characters; at most {MAX_SOURCE} are allowed"
        raise ExpressionError(msg, source=source)
    for offset, char in enumerate(source):
        if char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cs"):
            line, column = position(source, offset)
            msg = f"the character U+{ord(char):04X} is not allowed in an expression; write it as an escape"
            raise ExpressionError(msg, source=source, line=line, column=column)


def position(source: str, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of a character offset."""
    return source.count("\n", 0, offset) + 1, offset - source.rfind("\n", 0, offset)


def load_runtime(name: str | None = None) -> Runtime:
    """Return the runtime called `name`, or what FLEETWARD_CEL_RUNTIME names, or the best one installed.

    Raises RuntimeUnavailableError for an unknown name, and for a runtime that is not installed.
    """
    wanted = name or os.environ.get(ENV_VAR) or None
    if wanted is not None:
        if wanted not in _MODULES:
            where = "" if name else f"{ENV_VAR}: "
            msg = f"{where}{wanted!r} is not a CEL runtime; allowed: {', '.join(_MODULES)}"
            raise RuntimeUnavailableError(msg)
        return _load(wanted)
    missing: list[RuntimeUnavailableError] = []
    for candidate in _MODULES:
        try:
            return _load(candidate)
        except RuntimeUnavailableError as error:
            missing.append(error)
    raise RuntimeUnavailableError("no CEL runtime: " + "; ".join(map(str, missing)))


@cache
def _load(name: str) -> Runtime:
    try:
        module = import_module(f"{__package__}.{_MODULES[name]}")
    except ImportError as error:
        msg = f"the CEL runtime {name} is not installed ({error}); {_INSTALL[name]}"
        raise RuntimeUnavailableError(msg) from error
    return cast("Callable[[], Runtime]", module.load)()
