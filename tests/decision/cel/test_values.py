"""Data that no runtime should see is found before one does."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetward.decision.cel.runtime import EvaluationError, Runtime
from fleetward.decision.cel.values import MAX_BYTES, MAX_DEPTH, flaw


def nested(depth: int) -> dict[str, Any]:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return {"action": {"a": inner}}


def cycle() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["a"] = inner
    inner["b"] = [inner]
    return {"action": inner}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"action": {"a": "safe\0evil"}}, "action.a: a NUL character at offset 4"),
        ({"action": {"a": [{"b": "\0"}]}}, "action.a[0].b: a NUL character at offset 0"),
        ({"action": {"a\0": 1}}, "action: a key: a NUL character at offset 1"),
        ({"action": {"a": "x\ud800"}}, "action.a: a lone surrogate at offset 1"),
        ({"action": {"\udfff": 1}}, "action: a key: a lone surrogate at offset 0"),
        (nested(MAX_DEPTH), f"nested more than {MAX_DEPTH} deep"),
        (nested(100_000), f"nested more than {MAX_DEPTH} deep"),
        (cycle(), f"nested more than {MAX_DEPTH} deep"),
        ({"action": {"a": "x" * MAX_BYTES}}, f"at most {MAX_BYTES} are allowed"),
        ({"action": {"a": object()}}, "not JSON data"),
    ],
)
def test_a_flaw_is_found_and_makes_every_expression_an_error(
    runtime: Runtime, variables: dict[str, Any], message: str
) -> None:
    assert message in (flaw(variables) or "")
    for source in ("true", "action.a == 'safe'", "!has(action.a)"):
        result = runtime.compile(source).evaluate(runtime.activation(variables))
        assert isinstance(result, EvaluationError)
        assert message in result.message


def test_what_looks_like_a_flaw_and_is_none() -> None:
    assert flaw({"action": {"a": "\\u0000", "b": "é😀", "c": [[] for _ in range(200)]}}) is None
    assert flaw(nested(MAX_DEPTH - 3)) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), inner)
    ),
    max_leaves=80,
)


@given(JSON)
def test_json_without_nul_has_no_flaw(value: Any) -> None:
    assert json.loads(json.dumps(value)) == value
    assert flaw({"action": {"a": value}}) is None
