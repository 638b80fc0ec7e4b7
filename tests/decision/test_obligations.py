"""Obligations carried out on arguments and results, and seen to be carried out."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.decision.obligations import (
    REDACTED,
    ObligationError,
    apply_to_arguments,
    apply_to_result,
    concern,
    unmet,
)
from fleetward.registry.slice import Obligation


def clamp(path: str, maximum: int) -> Obligation:
    return Obligation("Clamp", f"arguments.{path}", maximum)


def redact(path: str, root: str = "result") -> Obligation:
    return Obligation("Redact", f"{root}.{path}")


@pytest.mark.parametrize(
    ("arguments", "path", "expected"),
    [
        ({"limit": 9}, "limit", {"limit": 5}),
        ({"limit": 3}, "limit", {"limit": 3}),
        ({"limit": 5.5}, "limit", {"limit": 5}),
        ({"limit": 4.5}, "limit", {"limit": 4.5}),
        ({"limit": -1}, "limit", {"limit": -1}),
        ({"limit": None}, "limit", {"limit": 5}),
        ({}, "limit", {"limit": 5}),
        ({"other": 9}, "limit", {"other": 9, "limit": 5}),
        ({}, "page.size", {"page": {"size": 5}}),
        ({"page": {}}, "page.size", {"page": {"size": 5}}),
        ({"page": {"size": 9, "at": 1}}, "page.size", {"page": {"size": 5, "at": 1}}),
        ({"queries": [{"n": 9}, {"n": 1}, {}]}, "queries.n", {"queries": [{"n": 5}, {"n": 1}, {"n": 5}]}),
        ({"queries": [{"n": 9}]}, "queries.*.n", {"queries": [{"n": 5}]}),
        ({"queries": []}, "queries.n", {"queries": []}),
        ({"by": {"a": 9, "b": 1}}, "by.*", {"by": {"a": 5, "b": 1}}),
        ({"n": [9, 1]}, "n.*", {"n": [5, 1]}),
        # Where there are no elements, there is nothing to clamp, and no element called `*` to make up.
        ({}, "queries.*.n", {}),
        ({"queries": {}}, "queries.*.n", {"queries": {}}),
        ({}, "a.b.*", {}),
    ],
)
def test_clamp(arguments: Any, path: str, expected: Any) -> None:
    before = copy.deepcopy(arguments)
    held = apply_to_arguments(arguments, [clamp(path, 5)])
    assert held == expected
    assert arguments == before
    assert apply_to_arguments(held, [clamp(path, 5)]) == held


@pytest.mark.parametrize(
    ("arguments", "path", "message"),
    [
        ({"limit": "9"}, "limit", "arguments.limit: must be a number to be clamped, found '9'"),
        ({"limit": True}, "limit", "arguments.limit: must be a number to be clamped, found True"),
        ({"limit": [9]}, "limit", "arguments.limit: must be a number to be clamped, found [9]"),
        ({"page": 3}, "page.size", "arguments.page.size: cannot be reached through 3; send an object"),
        ({"page": None}, "page.size", "arguments.page.size: cannot be reached through None; send an object"),
        ({"q": ["x"]}, "q.n", "arguments.q.n: cannot be reached through 'x'; send an object"),
        ({"limit": "x" * 99}, "limit", "arguments.limit: must be a number to be clamped, found 'xxxxx"),
    ],
)
def test_what_cannot_be_clamped(arguments: Any, path: str, message: str) -> None:
    with pytest.raises(ObligationError) as caught:
        apply_to_arguments(arguments, [clamp(path, 5)])
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 120
    assert caught.value.field == f"arguments.{path}"


@pytest.mark.parametrize(
    ("result", "path", "expected"),
    [
        ({"email": "a@b", "name": "n"}, "email", {"email": REDACTED, "name": "n"}),
        ({"email": None}, "email", {"email": REDACTED}),
        ({"email": {"deep": 1}}, "email", {"email": REDACTED}),
        ({"name": "n"}, "email", {"name": "n"}),
        ({"rows": [{"email": "a"}, {"name": "n"}]}, "rows.email", {"rows": [{"email": REDACTED}, {"name": "n"}]}),
        ([{"email": "a"}], "email", [{"email": REDACTED}]),
        ([[{"email": "a"}]], "email", [[{"email": REDACTED}]]),
        ({"by": {"x": {"email": "a"}}}, "by.*.email", {"by": {"x": {"email": REDACTED}}}),
        ({"by": {"x": 1, "y": 2}}, "by.*", {"by": {"x": REDACTED, "y": REDACTED}}),
        (["a", 1], "*", [REDACTED, REDACTED]),
        # A text on the way may well hold what is looked for, as JSON or prose; a number cannot.
        ("the mail is a@b", "email", REDACTED),
        ({"user": "a@b"}, "user.email", {"user": REDACTED}),
        (["a@b", 3, None], "email", [REDACTED, 3, None]),
        (3, "email", 3),
        (None, "email", None),
    ],
)
def test_redact(result: Any, path: str, expected: Any) -> None:
    before = copy.deepcopy(result)
    assert apply_to_result(result, [redact(path)]) == expected
    assert result == before
    assert unmet(expected, [redact(path)]) == []
    assert unmet(result, [redact(path)]) == ([] if result == expected else [f"result.{path}"])


def test_arguments_can_be_redacted_too() -> None:
    assert apply_to_arguments({"a": 1, "b": 2}, [redact("a", "arguments")]) == {"a": REDACTED, "b": 2}
    assert apply_to_arguments({}, [redact("a", "arguments")]) == {}


def test_each_root_is_left_alone_by_the_others_obligations() -> None:
    both = [clamp("a", 1), redact("a")]
    assert apply_to_arguments({"a": 9}, both) == {"a": 1}
    assert apply_to_result({"a": 9}, both) == {"a": REDACTED}
    assert concern(both, "arguments")
    assert not concern([redact("arguments.a")], "arguments")


def test_a_field_set_by_one_clamp_is_held_by_the_others_too() -> None:
    """The wide clamp finds nothing at first; what the narrow one then sets must not exceed it."""
    wide, narrow = clamp("*", 5), clamp("limit", 10)
    assert apply_to_arguments({}, [wide, narrow]) == apply_to_arguments({}, [narrow, wide]) == {"limit": 5}


def test_a_redacted_argument_owes_no_clamp() -> None:
    obligations = [redact("*", "arguments"), clamp("limit", 10)]
    assert apply_to_arguments({"limit": 99}, obligations) == {"limit": REDACTED}
    assert apply_to_arguments({"limit": 99}, obligations[::-1]) == {"limit": REDACTED}
    assert apply_to_arguments({"page": {"size": 99}}, [redact("page", "arguments"), clamp("page.size", 5)]) == {
        "page": REDACTED
    }


KEYS = ("a", "b", "c")
PATHS = st.lists(st.sampled_from((*KEYS, "*")), min_size=1, max_size=3).map(".".join)
A_TEXT = "mail a@b"


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)),
        max_leaves=8,
    )


def walk(value: Any, path: list[str]) -> list[Any]:
    """Give what stands at a path, plainly: lists are gone through, `*` is every element or key."""
    if isinstance(value, list):
        if path and path[0] == "*":
            return [found for item in value for found in walk(item, path[1:])]
        return [found for item in value for found in walk(item, path)] if path else [value]
    if not path:
        return [value]
    if not isinstance(value, dict):
        return [value] if isinstance(value, str) else []
    steps = value if path[0] == "*" else [path[0]] if path[0] in value else []
    return [found for step in steps for found in walk(value[step], path[1:])]


@given(trees(st.sampled_from((A_TEXT, 1, None, True))), st.lists(PATHS.map(redact), max_size=3))
@settings(max_examples=300)
def test_nothing_of_a_redacted_field_is_left(result: Any, obligations: list[Obligation]) -> None:
    before = copy.deepcopy(result)
    held = apply_to_result(result, obligations)
    assert result == before
    for obligation in obligations:
        assert {str(found) for found in walk(held, obligation.field.split(".")[1:])} <= {REDACTED}
    assert unmet(held, obligations) == []
    assert apply_to_result(held, obligations) == held
    assert (held == result) == (unmet(result, obligations) == [])
    assert apply_to_result(result, obligations[::-1]) == held


ARGUMENTS = st.dictionaries(
    st.sampled_from(KEYS), trees(st.one_of(st.integers(-9, 9), st.none(), st.just(A_TEXT))), max_size=3
)
OWED = st.lists(
    st.one_of(st.builds(clamp, PATHS, st.integers(0, 5)), PATHS.map(lambda path: redact(path, "arguments"))), max_size=3
)


@given(ARGUMENTS, OWED, st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_arguments_once_held_stay_so_in_any_order(arguments: Any, obligations: list[Obligation], random: Any) -> None:
    before = copy.deepcopy(arguments)
    shuffled = random.sample(obligations, len(obligations))
    try:
        held = apply_to_arguments(arguments, obligations)
    except ObligationError:
        with pytest.raises(ObligationError):
            apply_to_arguments(arguments, shuffled)
        return
    assert arguments == before
    assert apply_to_arguments(arguments, shuffled) == held
    for kind in ("Clamp", "Redact"):
        alone = [one for one in obligations if one.type == kind]
        once = apply_to_arguments(arguments, alone)
        assert apply_to_arguments(once, alone) == once
    for obligation in obligations:
        for found in walk(held, obligation.field.split(".")[1:]):
            if obligation.type == "Redact":
                assert found == REDACTED
            else:
                assert found == REDACTED or found <= (obligation.maximum or 0)


@given(ARGUMENTS, st.integers(0, 5))
@settings(max_examples=100)
def test_what_is_not_on_the_path_is_untouched(arguments: Any, maximum: int) -> None:
    rest = {key: value for key, value in arguments.items() if key != "a"}
    for obligation in (redact("a", "arguments"), clamp("a", maximum)):
        try:
            held = apply_to_arguments(arguments, [obligation])
        except ObligationError:
            continue
        assert {key: value for key, value in held.items() if key != "a"} == rest
        assert all(held[key] is value for key, value in rest.items())
