"""Sets of globs match what the engine's globs match, and cover exactly what they cover."""

import itertools
import random
import string
from collections.abc import Iterable, Iterator

import pytest
from decision.strategies import dotted
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.decision.glob import glob_index
from fleetward.delegation.globset import MAX_STEPS, _compiled, _Search, contains, matches, uncovered

NAMES = dotted(("a", "b", "ab", "aab", "ba", "x-1"))
GLOBS = dotted(("a", "b", "ab", "*", "**", "a*", "*b", "a*b", "*a*", "**b", "***", "x-*", "a**b*", "*a*b*"))
SEGMENTS = tuple("".join(one) for n in (1, 2, 3) for one in itertools.product("abz", repeat=n))
SMALL = dotted(("a", "b", "*", "**", "a*", "*b", "a*b", "*a*"))
SHORT_NAMES = tuple(
    ".".join(segments)
    for n in (1, 2, 3)
    for segments in itertools.product(SEGMENTS if n < 3 else ("a", "b", "z", "ab", "zb", "az"), repeat=n)
)
"""All names up to some length over two letters of the globs and one that no glob has."""


@given(st.lists(GLOBS, max_size=6), st.lists(NAMES, min_size=1, max_size=6))
@settings(max_examples=400)
def test_matches_what_the_engine_matches(globs: list[str], names: list[str]) -> None:
    index = glob_index(globs)
    for name in names:
        assert matches(globs, name) == bool(index.find(name)), (globs, name)


@given(st.lists(SMALL, min_size=1, max_size=4), SMALL)
@settings(max_examples=300, deadline=None)
def test_covers_exactly_the_globs_whose_every_name_is_matched(outer: list[str], inner: str) -> None:
    ours, theirs = glob_index([inner]), glob_index(outer)
    if contains(outer, inner):
        names: Iterable[str] = itertools.chain(SHORT_NAMES, itertools.islice(_instances(inner), 2000))
        assert [name for name in names if ours.find(name) and not theirs.find(name)] == []
    else:
        assert any(ours.find(name) and not theirs.find(name) for name in _instances(inner))


def _instances(glob: str) -> Iterator[str]:
    """Give names that `glob` matches, longer ones than all the short ones: its stars replaced by this and that."""
    runs = ("z", "", "z.z", "z.z.z", "z.z.z.z", "a", "b", "ab", "ba", "a.b", "b.a")
    parts = ("z", "", "a", "b", "ab", "ba")
    choices = [
        runs if segment == "**" else [segment.replace("*", "{}").format(*fill) for fill in _fills(segment, parts)]
        for segment in glob.split(".")
    ]
    for segments in itertools.product(*choices):
        name = ".".join(segment for segment in segments if segment)
        if name and all(text or whole == "**" for text, whole in zip(segments, glob.split("."), strict=True)):
            yield name


def _fills(segment: str, parts: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    return itertools.product(parts, repeat=segment.count("*"))


@given(st.lists(GLOBS, max_size=5), st.lists(GLOBS, min_size=1, max_size=5), st.lists(GLOBS, min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_covering_is_an_order(small: list[str], middle: list[str], large: list[str]) -> None:
    assert not uncovered(middle, middle)
    assert not uncovered([*middle, *large], middle)
    if not uncovered(middle, small) and not uncovered(large, middle):
        assert not uncovered(large, small)


@given(st.lists(GLOBS, min_size=1, max_size=5), st.lists(GLOBS, min_size=1, max_size=4), st.randoms())
@settings(max_examples=150, deadline=None)
def test_order_and_repetition_say_nothing(outer: list[str], inner: list[str], chance: random.Random) -> None:
    mixed, asked = [*outer, *outer[:2]], [*inner, *inner[:2]]
    chance.shuffle(mixed)
    chance.shuffle(asked)
    assert set(uncovered(mixed, asked)) == set(uncovered(outer, inner))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (["crm.**"], "crm"),
        (["crm.**"], "crm.*.read"),
        (["a.*", "a.*.*.**"], "a.*.**"),
        (["*", "*.**.*"], "**"),
        (["a", "a.*.**"], "a.**"),
        (["read*"], "read_all*"),
        (["*e*"], "re*d*"),
        (["a.**.b"], "a.**.c.**.b"),
        (["**"], "***"),
        (["**.a.**"], "*.a"),
        (["*.*"], "**b.a**"),
        (["**.**"], "**"),
    ],
)
def test_covered(outer: list[str], inner: str) -> None:
    assert contains(outer, inner)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ([], "a"),
        (["crm.*"], "crm.**"),
        (["crm.*", "crm.*.*"], "crm.**"),
        (["*"], "**"),
        (["read*"], "re*"),
        (["*ab"], "*b"),
        (["a.**.b", "a"], "a.**"),
        (["a*", "b*", "c*"], "*"),
        (["**.a"], "**"),
        (["*.**.*"], "**"),
    ],
)
def test_not_covered(outer: list[str], inner: str) -> None:
    assert not contains(outer, inner)


def test_every_character_that_a_name_may_have_is_thought_of() -> None:
    """Globs that name all 68 leave no other one; with one left out, names with it are not covered."""
    alphabet = string.ascii_letters + string.digits + "_:/@+-"
    assert contains([f"{c}*" for c in alphabet], "*")
    for missing in "aZ0-/":
        assert not contains([f"{c}*" for c in alphabet if c != missing], "*")


def test_globs_covered_only_together_are_found_out_together() -> None:
    pairs = [f"**.{a}.{b}.**" for a in ("x*", "y") for b in ("x*", "y")]
    assert contains(pairs, "a.y.xx.b.**")
    assert uncovered(pairs, ["a.y.xx.**", "a.y.**", "q"]) == ("a.y.**", "q")


def _hard(number: int) -> tuple[list[str], str]:
    """Ask something that is true, and whose states are all subsets of the last `number` segments."""
    return [f"**.*a*{'.*' * number}"], f"**.a*{'.*' * number}"


def _nasty() -> Iterable[tuple[list[str], str]]:
    letters = string.ascii_letters
    yield _hard(20)
    yield _hard(100)
    yield [f"**.*a{n}*{'.*' * 110}" for n in range(64)], f"**.a*{'.*' * 110}"
    yield (
        ["**." + "".join(f"*{c}" for c in (letters[n:] + letters[:n]) * 2) for n in range(50)] + ["**.*Z"],
        "**." + "".join(f"{c}*" for c in letters * 2) + "Z",
    )
    yield [f"{'**.*a*.' * 30}**.{n}" for n in range(64)] + ["**.*b"], f"{'**.*.' * 40}*ab"


@pytest.mark.parametrize("case", range(len(list(_nasty()))))
def test_a_hard_question_ends_after_so_many_steps_and_counts_as_not_covered(case: int) -> None:
    outer, inner = list(_nasty())[case]
    assert max(map(len, (*outer, inner))) <= 256
    search = _Search(_compiled(tuple(outer)), inner, MAX_STEPS)
    assert not search.covers()
    assert sum(len(seen) for seen in search._seen.values()) <= MAX_STEPS


def test_a_question_that_is_too_hard_is_answered_no_though_the_truth_is_yes() -> None:
    every = ["*", "*.*", "*.*.*", "*.*.*.**"]
    assert contains(every, "**.a*", steps=1000)
    assert not contains(every, "**.a*", steps=2)
    outer, inner = _hard(3)
    assert contains(outer, inner)
    outer, inner = _hard(40)
    assert not contains(outer, inner)


def test_steps_are_shared_so_one_hard_glob_does_not_starve_the_others() -> None:
    outer, hard = _hard(40)
    assert uncovered([*outer, "crm.**"], [hard, "crm.a", "crm.b.*"]) == (hard,)


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_answered(glob: str, other: str) -> None:
    assert contains([glob], glob)
    assert isinstance(contains([glob], other), bool)
    assert isinstance(matches([glob], other), bool)
