"""Globs find what a plain recursive matcher finds, in time that does not explode."""

import pytest
from decision.reference import glob_matches
from decision.strategies import dotted
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.decision.glob import GlobIndex, glob_index

NAMES = dotted(("a", "b", "ab", "aab", "x-1"))
GLOBS = dotted(("a", "b", "ab", "*", "**", "a*", "*b", "a*b", "*a*", "**b", "***", "x-*", "a**b*"))


@given(st.lists(GLOBS, min_size=1, max_size=6), st.lists(NAMES, min_size=1, max_size=4))
@settings(max_examples=300)
def test_finds_what_the_plain_matcher_finds(globs: list[str], names: list[str]) -> None:
    index: GlobIndex[int] = GlobIndex()
    for number, glob in enumerate(globs):
        index.add(glob, number)
    for name in names:
        expected = {n for n, glob in enumerate(globs) if glob_matches(_plain(glob), name.split("."))}
        assert set(index.find(name)) == expected
        assert bool(glob_index(globs).find(name)) == bool(expected)


def _plain(glob: str) -> list[str]:
    """Give the glob's segments; only a whole `**` is more than stars in a row."""
    return glob.split(".")


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("crm.read", ["crm.read"], ["crm", "crm.read.all", "crmxread", "Crm.read"]),
        ("crm.*", ["crm.read"], ["crm", "crm.read.all"]),
        ("*", ["crm"], ["crm.read"]),
        ("**", ["crm", "crm.read", "a.b.c.d"], []),
        ("**.**", ["crm", "crm.read"], []),
        ("crm.**", ["crm", "crm.read", "crm.customers.read"], ["crmx", "xcrm.read"]),
        ("**.export", ["export", "crm.export", "a.b.export"], ["export.all", "reexport"]),
        ("**.send.*", ["send.mail", "a.b.send.mail"], ["send", "send.mail.now"]),
        ("crm.**.export", ["crm.export", "crm.a.b.export"], ["export", "crm.export.all"]),
        ("**.a.**.a", ["a.a", "x.a.y.a", "a.b.a.b.a"], ["a", "a.b"]),
        ("get*", ["get", "get_customer"], ["forget", "get.customer"]),
        ("*_all", ["download_all", "_all"], ["download_all_now"]),
        ("a*b*c", ["abc", "aXbYc", "abcbc"], ["acb", "ab"]),
        ("a+b", ["a+b"], ["aab", "ab"]),
    ],
)
def test_what_a_glob_means(glob: str, matching: list[str], other: list[str]) -> None:
    index = glob_index([glob])
    assert [name for name in (*matching, *other) if index.find(name)] == matching


def test_a_value_is_found_once_for_each_glob_that_matches() -> None:
    index: GlobIndex[str] = GlobIndex()
    for glob in ("a.*", "a.*", "**", "a.b", "c"):
        index.add(glob, "v")
    assert index.find("a.b") == ["v"] * 4
    assert index.find("nothing.at.all") == ["v"]


@pytest.mark.timeout(20)
def test_no_glob_and_name_take_forever() -> None:
    """With ordinary backtracking this would run for years: an agent chooses the name it asks about."""
    stars = "*a" * 40 + "*b"
    assert not glob_index([stars]).find("a" * 256)
    assert glob_index([stars]).find("a" * 255 + "b")
    assert not glob_index([".".join(["**", "a"] * 40 + ["b"])]).find(".".join("a" * 128))
