"""Digests are SHA-256 over RFC 8785, whichever of the two encoders was used."""

import hashlib
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetward.decision.canonical import MAX_DEPTH, MAX_VALUES, CanonicalError, digest

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
NUMBERS = st.one_of(INTEGERS, st.floats(allow_nan=False, allow_infinity=False))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=300)
@example({"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7})
@example({"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27, -0.0, 1.0], "literals": [None, True, False]})
@example("".join(map(chr, range(0x20))) + '\x7f\u2028\u2029"\\/\U0001f600')
@example({"a": {"b": [1, "\x00"]}, "B": "\xe9", "": {}})
def test_a_digest_is_sha256_over_the_canonical_json(value: Any) -> None:
    assert digest(value) == "sha256:" + hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def test_the_rfcs_own_example() -> None:
    """RFC 8785, section 3.2.2 and 3.2.4."""
    text = (
        rb'{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        rb'"string": "\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/","literals": [null, true, false]}'
    )
    canonical = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert digest(msgspec.json.decode(text)) == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def test_order_of_keys_does_not_matter_and_order_of_items_does() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest(1.0) == digest(1)
    assert digest("1") != digest(1)
    assert digest((1, 2)) == digest([1, 2])


def nested(levels: int) -> Any:
    value: Any = {}
    for number in range(levels - 1):
        value = [value] if number % 2 else {"k": value}
    return value


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        (nested(MAX_DEPTH + 1), "$.k", "nested deeper than 32 levels"),
        ([1] * (MAX_VALUES + 1), "$", "holds more than 10000 values"),
        ({"a": [[0] * 5000], "b": [0] * 5000}, "$", "holds more than 10000 values"),
        (CYCLE, "$", "nested deeper than 32 levels"),
        ({"a": float("inf")}, "$.a", "found inf, allowed finite numbers"),
        ({"a": [float("nan")]}, "$.a", "found nan, allowed finite numbers"),
        (
            {"a": {"b": 2**53}},
            "$.a.b",
            "found 9007199254740992, allowed whole numbers up to 2^53 - 1; send it as a string",
        ),
        ([-(2**53)], "$", "found -9007199254740992, allowed whole numbers up to 2^53 - 1; send it as a string"),
        ({"a": b"x"}, "$.a", "found bytes, which is not JSON data"),
        ({"a": {1}}, "$.a", "found set, which is not JSON data"),
        ({1: "x"}, "$", "found a key of type int, allowed text"),
        ({"a": {None: 1.5}}, "$.a", "found a key of type NoneType, allowed text"),
        ({"a": "x\ud800"}, "$", "found text with a lone surrogate, allowed Unicode"),
        ({"x\udc00": 1}, "$", "found text with a lone surrogate, allowed Unicode"),
        ({"x\udc00": 1.5}, "$", "found text with a lone surrogate, allowed Unicode"),
        ({"a": 1.5, "b": "\ud800"}, "$", "found text with a lone surrogate, allowed Unicode"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value: Any, path: str, message: str) -> None:
    with pytest.raises(CanonicalError) as caught:
        digest(value)
    assert caught.value.message == message
    assert caught.value.path.startswith(path)


def test_as_deep_as_allowed_has_a_digest() -> None:
    assert digest(nested(MAX_DEPTH)).startswith("sha256:")
    assert digest([1.5, nested(MAX_DEPTH - 1)]).startswith("sha256:")


def test_the_path_is_where_the_caller_says_the_value_stands() -> None:
    with pytest.raises(CanonicalError, match=r"^action\.arguments\.a: found inf"):
        digest({"a": float("inf")}, "action.arguments")


def test_big_integers_are_taken_as_written_only_where_that_is_allowed() -> None:
    id_ = 1_234_567_890_123_456_789
    with pytest.raises(CanonicalError, match="send it as a string"):
        digest({"id": id_})
    written = hashlib.sha256(b'{"a":1.5,"id":1234567890123456789}').hexdigest()
    assert digest({"id": id_, "a": 1.5}, big_integers=True) == f"sha256:{written}"
    assert digest({"a": 1.5}, big_integers=True) == digest({"a": 1.5})
    with pytest.raises(CanonicalError, match="finite"):
        digest([id_, float("nan")], big_integers=True)
