"""The differential test: both runtimes over the CEL specification's cases, against it and each other.

`divergences.txt` lists every case in which a runtime departs from the specification or the two from each other,
under the construct to blame. It is checked exactly. To write it anew after a deliberate change, set
FLEETWARD_WRITE_DIVERGENCES=1, run this file and read the difference.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from cel_expr_python import cel
from celpy.evaluation import CELEvalError

from fleetward.decision.cel import google, portable, typed
from fleetward.decision.cel.portable_eval import evaluate
from fleetward.decision.cel.portable_parse import parse
from fleetward.decision.cel.runtime import ExpressionError, vet

if TYPE_CHECKING:
    from decision.cel.conftest import Case, Spec

LIST: Final = Path(__file__).with_name("divergences.txt")

# construct: pattern of the expressions it explains. The first that fits counts.
CONSTRUCTS: Final = {
    "control characters in the source (both runtimes refuse them)": r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
    "timestamps and durations": r"\b(timestamp|duration)\(|\.get[A-Z]",
    "types as values, type()": r"\btype\(|^(bool|int|uint|double|null_type|string|bytes|list|map|type)$",
    "conversions to uint, bytes and bool": r"\b(uint|bytes|bool)\(",
    "string() of a double or of bytes": r"\bstring\((-?[0-9.e-]+|b')",
    "escapes \\X, \\? and \\`": r"\\[X?`]",
    "strings over several lines": r"\n",
    "field names in backticks": r"`",
    "map keys that are not strings": r"\{(('\w+': ?[^,]+, ?)?([0-9]+u?|true)): ?",
}

Outcome = tuple[str, Any]


def by_google(case: "Case") -> Outcome:
    try:
        expression = google.compile_in(cel.NewEnv(variables=dict.fromkeys(case.variables, cel.Type.DYN)), case.expr)
        env = cel.NewEnv(variables=dict.fromkeys(case.variables, cel.Type.DYN))
        return from_google(expression.eval(env.Activation(case.variables)))
    except (ExpressionError, RuntimeError):
        return "error", None


def from_google(value: Any) -> Outcome:
    kind = value.type().name()
    if kind.startswith("LIST"):
        return "list", [from_google(item) for item in value.value()]
    if kind.startswith("MAP"):
        keys = {bool: "bool", int: "int", str: "string"}
        return "map", sorted((((keys[type(k)], k), from_google(v)) for k, v in value.value().items()), key=repr)
    if kind == "TYPE":
        return "type", value.plain_value().name().lower()
    plain = value.plain_value()
    return kind.lower(), None if kind == "ERROR" else bytes(plain) if kind == "BYTES" else plain


def by_python(case: "Case") -> Outcome:
    try:
        vet(case.expr)
        tree = parse(case.expr, case.variables)
    except ExpressionError:
        return "error", None
    return from_python(evaluate(tree, {name: portable.to_cel(value) for name, value in case.variables.items()}))


def from_python(value: Any) -> Outcome:
    if value is None:
        return "null", None
    if isinstance(value, CELEvalError):
        return "error", None
    kind = type(value).__name__.removesuffix("Type").lower()
    if kind == "list":
        return kind, [from_python(item) for item in value]
    if kind == "map":
        return kind, sorted(((from_python(k), from_python(v)) for k, v in value.items()), key=repr)
    plain = {"bool": bool, "int": int, "uint": int, "double": float, "string": str, "bytes": bytes}
    return kind, plain[kind](value)


def shown(outcome: Outcome) -> str:
    return outcome[0] if outcome[0] in ("error", "null") else f"{outcome[0]} {outcome[1]!r}"


def construct(case: "Case") -> str:
    for name, pattern in CONSTRUCTS.items():
        if re.search(pattern, case.expr):
            return name
    return "not explained"


def divergences(spec: "Spec") -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case in spec.cases:
        outcomes = [shown(outcome) for outcome in (case.expected, by_google(case), by_python(case))]
        if len(set(outcomes)) > 1:
            line = " | ".join((case.id, *outcomes))
            found.setdefault(construct(case), []).append(line)
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def found(spec: "Spec") -> Mapping[str, list[str]]:
    return divergences(spec)


def test_every_divergence_is_listed_and_every_listed_one_is_there(found: Mapping[str, list[str]]) -> None:
    text = "case | specification | cel-expr | cel-python\n"
    for name, lines in found.items():
        text += f"\n# {name}\n" + "".join(f"{line}\n" for line in lines)
    if os.environ.get("FLEETWARD_WRITE_DIVERGENCES"):
        LIST.write_text(text)
    assert text.splitlines() == LIST.read_text().splitlines()


def test_every_divergence_is_explained_by_a_construct(found: Mapping[str, list[str]]) -> None:
    assert "not explained" not in found
    assert set(found) == set(CONSTRUCTS)


def test_where_both_give_a_value_it_is_the_same(spec: "Spec") -> None:
    # The one thing that must never happen: an expression that both evaluate, to different verdicts.
    for case in spec.cases:
        first, second = by_google(case), by_python(case)
        if "error" not in (first[0], second[0]):
            assert shown(first) == shown(second), case.id


def test_lint_refuses_what_the_runtimes_disagree_on(spec: "Spec", found: Mapping[str, list[str]]) -> None:
    divergent = {line.split(" | ")[0] for lines in found.values() for line in lines}
    for case in spec.cases:
        if case.id in divergent:
            with pytest.raises(ExpressionError):
                typed.check(f"dyn({case.expr}) == dyn({case.expr})", "Before")


def test_the_cases_in_reach_are_many_and_the_others_counted(spec: "Spec") -> None:
    assert len(spec.cases) == 1010
    assert spec.excluded == {
        "a binding that is no JSON data (uint, bytes, type)": 2,
        "cases that the checker refuses (disable_check)": 60,
        "containers (packages)": 82,
        "deduced types only": 40,
        "extension libraries": 667,
        "protobuf messages and enums": 587,
        "qualified variable names": 8,
    }
