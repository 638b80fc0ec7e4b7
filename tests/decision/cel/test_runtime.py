"""The interface, held by both runtimes."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.decision.cel.runtime import (
    ENV_VAR,
    MAX_SOURCE,
    EvaluationError,
    ExpressionError,
    Runtime,
    RuntimeUnavailableError,
    load_runtime,
)

ROOT = Path(__file__).resolve().parents[3]
ACTION: dict[str, Any] = {
    "kind": "ToolCall",
    "name": "crm.customers.read",
    "riskTags": ["pii"],
    "dataClasses": ["customer"],
    "estimate": {"records": 20},
    "arguments": {"ids": [1, 2, 3], "deep": {"x": None}, "ratio": 0.5},
    "labels": ["web"],
}
AGENT: dict[str, Any] = {"name": "data-worker", "namespace": "reports", "labels": {"team": "reports"}, "fleets": []}


def verdict(runtime: Runtime, source: str, variables: Mapping[str, Any] | None = None) -> bool | EvaluationError:
    data = {"action": ACTION, "agent": AGENT} if variables is None else variables
    return runtime.compile(source).evaluate(runtime.activation(data))


@pytest.mark.parametrize(
    "source",
    [
        "action.estimate.records > 0 || 'customer' in action.dataClasses",
        "action.name.startsWith('crm.') && action.name.matches('^crm[.].*read$')",
        "agent.namespace == 'reports' && agent.labels.team == 'reports'",
        "action.arguments.ids.exists(i, i == 2) && action.arguments.ids.all(i, i < 4)",
        "has(action.arguments.deep) && !has(action.arguments.shallow)",
        "size(action.labels) == 1 && action.labels.map(l, l + '!') == ['web!']",
        "action.arguments.deep.x == null",
        "has(action.target) ? action.target == 'crm' : true",
        "action.target == 'crm' || true",
        "action.arguments.ratio < 1",
        "true // a comment",
    ],
)
def test_true(runtime: Runtime, source: str) -> None:
    assert verdict(runtime, source) is True


@pytest.mark.parametrize(
    "source",
    [
        "action.target == 'crm'",
        "has(action.result.rows)",
        "outcome.status == 'Succeeded'",
        "action.estimate.records",
        "'true'",
        "1",
        "[true]",
        "null",
        "action.estimate.records > '1'",
        "action.arguments.ids[3] == 1",
        "action.arguments.ids[-1] == 3",
        "1 / (action.estimate.records - 20) == 1",
        "action.name.matches(action.name + '(')",
        "int(action.name) == 1",
        "action.estimate.records ? true : false",
        "action.arguments.ids.all(i, i)",
        "action.name.exists(c, true)",
        "'crm' in action.name",
        "size(action.estimate.records) == 1",
    ],
)
def test_an_error_is_a_value(runtime: Runtime, source: str) -> None:
    assert isinstance(verdict(runtime, source), EvaluationError)


def test_only_a_bool_is_a_verdict_and_says_what_it_was_else(runtime: Runtime) -> None:
    assert verdict(runtime, "action.kind") == EvaluationError("the result is of type string, not bool")
    assert verdict(runtime, "1 == 1") is True
    assert verdict(runtime, "1 == 2") is False


def test_an_absent_outcome_is_an_error_and_a_present_one_is_read(runtime: Runtime) -> None:
    source = "outcome.status == 'Failed'"
    assert isinstance(verdict(runtime, source), EvaluationError)
    assert verdict(runtime, source, {"action": {}, "agent": {}, "outcome": {"status": "Failed"}}) is True


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("actoin.kind == 'x'", 1, None),
        ("action.kind == 'x' &&\n  bar", 2, 3),
        ("true &&\n\n\tfalse &&\n  nope(1)", 4, None),
        ("action.kind ==", 1, 15),
        ("action.kind == 'abc", 1, 16),
        ("'é😀' == 'é😀' && bar", 1, 17),
        ("true\n&& 'a\\qb' == 'x'", 2, None),
        ("true &&\n'\x01' == ''", 2, 2),
        ("99999999999999999999 > 1", 1, 1),
        ("for", 1, 1),
        ("[1].all(1, true)", 1, 9),
    ],
)
def test_a_refusal_points_at_the_place(runtime: Runtime, source: str, line: int, column: int | None) -> None:
    with pytest.raises(ExpressionError) as raised:
        runtime.compile(source)
    error = raised.value
    assert (error.source, error.line) == (source, line)
    assert column is None or error.column == column
    first, shown, caret = str(error).split("\n")
    assert first == f"{error.line}:{error.column}: {error.message}"
    assert caret.strip(" |") == "^"
    assert shown.startswith("  | ")


def test_the_caret_stands_under_its_column_also_after_wide_characters_and_in_long_lines() -> None:
    error = ExpressionError("here", source="'日本' == x", column=9)
    assert str(error).split("\n")[1:] == ["  | '日本' == x", "  | " + " " * 10 + "^"]
    long = "a" * 300 + "!" + "b" * 300
    _, shown, caret = str(ExpressionError("here", source=long, column=301)).split("\n")
    assert len(shown) < 110
    assert shown[len(caret) - 1] == "!"


@pytest.mark.parametrize(
    "source", ["", "  \n ", "x" * (MAX_SOURCE + 1), "true\0", "'\ud800' == ''", "(" * 400, "a" * 4096]
)
def test_sources_no_parser_should_see(runtime: Runtime, source: str) -> None:
    with pytest.raises(ExpressionError):
        runtime.compile(source)


def test_the_longest_source_compiles(runtime: Runtime) -> None:
    source = "true" + " " * (MAX_SOURCE - 4)
    assert verdict(runtime, source) is True


def test_one_program_a_source(runtime: Runtime) -> None:
    first = runtime.compile("action.kind == 'a'")
    assert runtime.compile("action.kind == 'a'") is first
    assert first.source == "action.kind == 'a'"


@pytest.mark.parametrize("size", [40, 9_998])
def test_three_nested_macros_end_as_an_error(runtime: Runtime, size: int) -> None:
    source = "action.l.all(x, action.l.all(y, action.l.all(z, x + y + z >= 0)))"
    assert isinstance(verdict(runtime, source, {"action": {"l": list(range(size))}}), EvaluationError)


def test_the_iteration_budget_is_the_same_in_both(runtime: Runtime) -> None:
    source = "action.l.all(x, x >= 0)"
    assert verdict(runtime, source, {"action": {"l": list(range(9_999))}}) is True
    assert isinstance(verdict(runtime, source, {"action": {"l": list(range(10_000))}}), EvaluationError)


@pytest.mark.parametrize(
    "source",
    [
        "action.l.all(x, !((x + 100000) in action.l))",
        "action.l.all(x, action.l == action.l)",
        "action.l.all(x, !action.s.contains('b'))",
        "[action.s]" + ".map(x, x + x)" * 20 + "[0].size() > 1",
    ],
)
def test_the_portable_runtime_counts_work_outside_of_macros_too(source: str) -> None:
    variables = {"action": {"l": list(range(5_000)), "s": "a" * 100_000}}
    assert isinstance(verdict(load_runtime("cel-python"), source, variables), EvaluationError)


def test_a_budget_is_for_one_evaluation(runtime: Runtime) -> None:
    program = runtime.compile("action.l.all(x, x >= 0)")
    activation = runtime.activation({"action": {"l": list(range(9_000))}})
    results: list[bool | EvaluationError] = []
    threads = [threading.Thread(target=lambda: results.append(program.evaluate(activation))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True, True, True]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
ODD = st.sampled_from(
    [object(), {1}, (1, 2), b"x", 1j, {1: 2}, {(1, 2): 3}, type("S", (str,), {})("x"), 2**70, 10**5000]
)
SOURCES = (
    "action.a == 1",
    "action.a",
    "has(action.a.a)",
    "action.a.exists(x, x == 'a')",
    "action == action",
    "action.a > 1 || action.b.startsWith('x')",
    "size(action.a) > 1 && action.a[0] == action.b",
    "int(action.a) > 1 || double(action.b) > 1.0 || string(action.a) == ''",
)


@settings(max_examples=300)
@given(
    action=st.dictionaries(st.sampled_from("abc"), JSON | ODD, max_size=3) | JSON | ODD, source=st.sampled_from(SOURCES)
)
def test_never_raises_whatever_the_data_and_only_true_is_true(action: Any, source: str) -> None:
    for name in ("cel-expr", "cel-python"):
        result = verdict(load_runtime(name), source, {"action": action})
        assert result is True or result is False or isinstance(result, EvaluationError)
        if isinstance(result, EvaluationError):
            assert 0 < len(result.message) < 400


@settings(max_examples=300)
@given(
    st.text(st.sampled_from("action.kind=='x'&|!?:()[]{}1.0 \\n\n\"rb+-*/%<>intrue,`é") | st.characters(), max_size=60)
)
def test_compiling_any_text_gives_a_program_or_an_expression_error(source: str) -> None:
    for name in ("cel-expr", "cel-python"):
        found: ExpressionError | None = None
        try:
            load_runtime(name).compile(source)
        except ExpressionError as error:
            found = error
        assert found is None or (1 <= found.line <= source.count("\n") + 1 and "^" in str(found))


def test_the_environment_variable_picks_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_VAR, raising=False)
    assert load_runtime().name == "cel-expr"
    monkeypatch.setenv(ENV_VAR, "cel-python")
    assert load_runtime().name == "cel-python"
    assert load_runtime("cel-expr").name == "cel-expr"
    monkeypatch.setenv(ENV_VAR, "")
    assert load_runtime().name == "cel-expr"
    monkeypatch.setenv(ENV_VAR, "v8")
    with pytest.raises(
        RuntimeUnavailableError, match="FLEETWARD_CEL_RUNTIME: 'v8' is not a CEL runtime; allowed: cel-expr"
    ):
        load_runtime()


def run(code: str) -> str:
    blocker = (
        "import sys\n"
        "class Blocker:\n"
        "    def __init__(self, *names): self.names = names\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in self.names: raise ModuleNotFoundError(f'no {name}', name=name)\n"
        "def block(*names): sys.meta_path.insert(0, Blocker(*names))\n"
        "from fleetward.decision.cel.runtime import *\n"
        "from fleetward.decision.cel.runtime import RuntimeUnavailableError, load_runtime\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocker + code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
        env={},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_cel_expr_the_portable_runtime_serves() -> None:
    code = "block('cel_expr_python')\nr = load_runtime()\n"
    code += "print(r.name, r.compile('action.a == 1').evaluate(r.activation({'action': {'a': 1}})))"
    assert run(code) == "cel-python True"


def test_a_runtime_that_is_not_installed_says_what_to_do() -> None:
    code = "block('cel_expr_python', 'celpy')\nfor name in ('cel-python', None):\n"
    code += "    try: load_runtime(name)\n    except RuntimeUnavailableError as error: print(error)"
    first, second = run(code).splitlines()
    assert first == "the CEL runtime cel-python is not installed (no celpy); pip install 'fleetward[portable]'"
    assert "cel-expr is not installed" in second
    assert "cel-python is not installed" in second


def test_only_what_is_used_is_imported() -> None:
    loaded = (
        "print([n for n in ('celpy', 'lark', 'cel_expr_python', 'google.protobuf', 'pydantic') if n in sys.modules])"
    )
    assert run("import fleetward.decision.cel.fields, fleetward.decision.cel.values\n" + loaded) == "[]"
    # cel-expr-python's own environment pulls protobuf in; our modules do not.
    assert "celpy" not in run("load_runtime()\n" + loaded)
    assert run("load_runtime('cel-python')\n" + loaded) == "['celpy', 'lark']"


def test_loading_the_portable_runtime_leaves_the_recursion_limit_alone() -> None:
    code = "before = sys.getrecursionlimit()\nload_runtime('cel-python').compile('1 == 1')\n"
    assert run(code + "print(before == sys.getrecursionlimit())") == "True"
