"""Topics against a plain reference: regular expressions for matching, enumeration for what two have in common."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetward.cli.policy.topics import (
    TooManyStatesError,
    common_name,
    disjoint_at_a_glance,
    globs,
    matches,
    mistake,
)
from fleetward.decision.glob import glob_index

topics = st.text(alphabet="ab*.", min_size=1, max_size=8).filter(lambda topic: mistake(topic) is None)
names = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=4).map(".".join)

SEGMENTS = ["".join(letters) for size in (1, 2) for letters in itertools.product("ab", repeat=size)]
ALL_NAMES = [".".join(parts) for size in (1, 2, 3) for parts in itertools.product(SEGMENTS, repeat=size)]


def reference(topic: str, name: str) -> bool:
    return re.fullmatch("".join(".*" if c == "*" else re.escape(c) for c in topic), name) is not None


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("job.*", ["job.*.**"]),
        ("job.*.export", ["job.*.**.export"]),
        ("*.send", ["*.**.send"]),
        ("job.ex*", ["job.ex*.**"]),
        ("*port", ["**.*port"]),
        ("a*b", ["a*b", "a*.**.*b"]),
        ("*", ["**"]),
        ("**", ["**"]),
        ("mail.send", ["mail.send"]),
    ],
)
def test_globs_read_well(topic: str, expected: list[str]) -> None:
    assert globs(topic) == expected


@given(topics, names)
@example("job.ex*", "job.ex")
@example("job.ex*", "job.ex.a")
@example("a*b", "ab")
@example("*.a", "a")
def test_globs_match_what_the_topic_matches(topic: str, name: str) -> None:
    assert matches(topic, name) == reference(topic, name)
    assert bool(glob_index(globs(topic)).find(name)) == reference(topic, name)


@given(topics, topics, topics)
def test_a_common_name_is_found_exactly_when_there_is_one(one: str, other: str, without: str) -> None:
    found = common_name([one, other])
    if found is None:
        assert not any(reference(one, name) and reference(other, name) for name in ALL_NAMES)
    else:
        assert all(found.split("."))
        assert reference(one, found)
        assert reference(other, found)
        assert not disjoint_at_a_glance(one, other)
    apart = common_name([one, other], [without])
    if apart is None:
        wanted = (name for name in ALL_NAMES if reference(one, name) and reference(other, name))
        assert all(reference(without, name) for name in wanted)
    else:
        assert reference(one, apart)
        assert reference(other, apart)
        assert not reference(without, apart)


def test_a_common_name_has_no_empty_segment() -> None:
    assert common_name(["a.*.b", "a*b"]) == "a.x.b"
    assert common_name(["a.*", "a*"]) == "a.x"


def test_the_search_has_a_bound() -> None:
    with pytest.raises(TooManyStatesError):
        common_name(["*abc*", "*bca*"], ["*aab*", "*bba*", "*cca*"], max_states=10)


@pytest.mark.parametrize("topic", ["", "a..b", ".a", "a.", "a b", "a?b", "a[b]", "a*a*a*a*a*a*a*a", "x" * 257])
def test_what_cannot_be_a_topic(topic: str) -> None:
    assert mistake(topic)
