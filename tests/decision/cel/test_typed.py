"""Lint: types, fields, dialect, and where the caret stands."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.decision.cel import fields, typed
from fleetward.decision.cel.runtime import ExpressionError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "expressions.md"
SAMPLES = {
    "string": "{} == 'x'",
    "int": "{} > 1",
    "list(string)": "'x' in {}",
    "map(string, string)": "{}['x'] == 'y'",
    "map(string, dyn)": "{}.x.y == 1",
    "dyn": "{}.x == 1",
    "Estimate": "{}.records > 1",
    "Actual": "{}.durationMs > 1",
    "Amounts": "{}.records > 1",
}


def refusal(source: str, phase: str = "Before") -> ExpressionError:
    with pytest.raises(ExpressionError) as raised:
        typed.check(source, phase)
    return raised.value


@pytest.mark.parametrize(("path", "field"), list(fields.paths()))
def test_every_field_is_known_with_its_type_and_no_other(path: str, field: fields.Field) -> None:
    typed.check(SAMPLES[field.type].format(path), "After")
    refusal(f"{path}x == 'x'", "After")
    if field.type in ("string", "list(string)", "map(string, string)"):
        refusal(f"{path} > 1", "After")
    if field.type == "int":
        refusal(f"{path} == '1'", "After")


@pytest.mark.parametrize(("path", "field"), list(fields.paths()))
def test_has_works_on_every_field(path: str, field: fields.Field) -> None:
    typed.check(f"has({path})", "After")


def test_a_misspelt_field_is_refused_with_what_was_meant_and_what_is_allowed() -> None:
    error = refusal("action.kind == 'ToolCall' &&\n  action.estimate.recrods > 0")
    assert (error.line, error.column) == (2, 19)
    assert error.message == (
        "unknown field 'recrods' of action.estimate; did you mean 'records'? "
        "allowed: inputTokens, outputTokens, costMicroUsd, calls, records"
    )
    assert str(error).split("\n")[1:] == [
        "  |   action.estimate.recrods > 0",
        "  |                   ^",
    ]


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        ("agent.risk_tier == 'High'", 7, "unknown field 'risk_tier' of agent; did you mean 'riskTier'?"),
        ("has(action.taget)", 12, "unknown field 'taget' of action; did you mean 'target'?"),
        ("acton.kind == 'x'", 1, "unknown variable 'acton'; did you mean 'action'? variables: action, agent"),
        ("true && zzz", 9, "unknown variable 'zzz'; variables: action, agent"),
        ("siz(action.kind) == 1", 1, "unknown function 'siz'; did you mean 'size'?"),
        ("action.kind.lowerAscii() == 'x'", 13, "unknown function 'lowerAscii'; functions: contains,"),
        (
            "action.arguments.x",
            1,
            "the result may be of any type; it must be bool: compare it, for example `... == true`",
        ),
        ("size(action.labels)", 1, "the result is of type int; it must be bool"),
        ("action.kind", 1, "the result is of type string; it must be bool"),
        ("action.kind == 1", 13, "found no matching overload for '_==_' applied to '(string, int)'"),
        ("action.kind.matches('(')", 20, "not an RE2 pattern:"),
        ("action.target == null", 15, "a field that is absent is an error here, not null; ask has(...) first"),
        ("timestamp('2026-01-01T00:00:00Z') == timestamp(0)", 10, "timestamp() is not supported; functions: contains,"),
        ("1u == 1u", 1, "unsigned integers are not supported"),
        ("b'x' == b'x'", 1, "bytes are not supported"),
        ("type(action.kind) == string", 5, "type() is not supported"),
        (
            "google.protobuf.Int64Value{value: 1} == 1",
            1,
            "a message of type google.protobuf.Int64Value cannot be built",
        ),
        ("{1: 'x'}[1] == 'x'", 1, "the keys of a map must be strings"),
        ("string(1.5) == '1.5'", 7, "string() of a double is not supported"),
        ("action.kind in ['x', ]", 20, "a trailing comma is not supported"),
        ("action.`kind` == 'x'", 8, "a field name in backticks is not supported"),
        ("action.kind == '\\X41'", 17, "the escape \\X is not supported"),
        ("action.kind == '''a\nb'''", 16, "a string over several lines is not supported"),
    ],
)
def test_what_lint_refuses(source: str, column: int, message: str) -> None:
    error = refusal(source)
    assert error.message.startswith(message)
    assert (error.line, error.column) == (1, column)


def test_outcome_is_known_during_and_after_only() -> None:
    source = "outcome.status == 'Failed' && outcome.actual.records > 10 && has(outcome.error)"
    typed.check(source, "During")
    typed.check(source, "After")
    error = refusal(source, "Before")
    assert error.message == "outcome is known in the phases During and After only; this rule's phase is Before"
    assert error.column == 1


def test_a_phase_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="phase: 'before' is not a phase; allowed: Before, During, After"):
        typed.check("true", "before")


@pytest.mark.parametrize(
    "source",
    [
        "action.estimate.records > 0 || 'customer' in action.dataClasses",
        "action.arguments.to.endsWith('@example.com') && size(action.arguments.body) < 1000",
        "action.arguments.rows.filter(r, r.amount > 10).size() == 0",
        "action.labels.exists(l, l == 'untrusted') && !(agent.role in ['Planner', 'Coordinator'])",
        "action.arguments.flag == true",
        "dyn(action.arguments.n) > 1 && int(action.arguments.n) > 1 && string(action.arguments.n) != ''",
        "agent.labels.exists_one(k, k.startsWith('team')) || agent.labels.all(k, k != 'x')",
        "action.kind.matches(r'^a\\d+$') // `x`, ]",
        "{'a': 1, 'b': 2}.a + 1 == 2 && [1, 2].map(x, x > 1, x * 2) == [4]",
        "has(action.target) && action.target == 'crm' ? true : false",
    ],
)
def test_what_lint_lets_pass(source: str) -> None:
    typed.check(source, "Before")


@settings(max_examples=200)
@given(
    st.text(
        st.sampled_from("action.kind=='x'&|!?:()[]{}1.0 \\n\n\"rb+-*/%<>intrue,`éuX") | st.characters(), max_size=60
    )
)
def test_any_text_passes_or_is_an_expression_error(source: str) -> None:
    found: ExpressionError | None = None
    try:
        typed.check(source, "After")
    except ExpressionError as error:
        found = error
    assert found is None or "^" in str(found)


def test_the_documentation_carries_the_table_of_fields() -> None:
    assert fields.markdown() in DOCS.read_text()


def test_the_documentations_examples_are_what_they_are_said_to_be() -> None:
    text = DOCS.read_text()
    passed = re.findall(r"```cel\n(.*?)```", text, re.DOTALL)
    refused = re.findall(r"```cel refused\n(.*?)```", text, re.DOTALL)
    assert passed
    assert refused
    for source in (line for block in passed for line in block.splitlines()):
        typed.check(source, "After")
    for source in (line for block in refused for line in block.splitlines()):
        refusal(source, "After")
