"""What an agent can say, a policy can name: requests and resources allow the same texts."""

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fleetward.registry import slice as sl
from fleetward.registry import text as texts
from fleetward.resources import actioncatalog, base, rule

TEXT = st.text("aZ9._:/@+-* \n\u00e9", max_size=8)


def _taken(kind: Any, text: str) -> bool:
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return False
    return True


def _written(kind: Any, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("asked", "written"), [(texts.Tag, base.Tag), (texts.Target, base.Target)])
@given(text=TEXT)
@settings(max_examples=150)
@example(text="a" * 63)
@example(text="a" * 64)
@example(text="a" * 253)
@example(text="a" * 254)
@example(text="a\n")
def test_tags_and_targets_are_the_same_on_both_sides(asked: Any, written: Any, text: str) -> None:
    assert _taken(asked, text) == _written(written, text)


@given(TEXT)
@settings(max_examples=200)
@example("a" * 256)
@example("a" * 257)
@example("a.b\n")
def test_a_name_is_a_glob_without_stars(text: str) -> None:
    assert _taken(texts.ActionName, text) == (_written(base.ActionGlob, text) and "*" not in text)


@given(TEXT)
@settings(max_examples=100)
@example("a/b")
@example("reports/data-worker")
def test_an_agent_that_can_be_asked_for_can_be_named(text: str) -> None:
    if _taken(texts.AgentKey, text):
        assert _written(base.AgentName, text)


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        (sl.ActionKind, rule.ActionKind),
        (sl.Decision, base.Decision),
        (sl.Phase, rule.Phase),
        (sl.Role, base.Role),
        (sl.OperatingMode, base.OperatingMode),
        (sl.Reversibility, actioncatalog.Reversibility),
    ],
)
def test_the_same_words_travel_as_are_written(asked: Any, written: Any) -> None:
    assert get_args(asked) == get_args(written)


def test_modes_from_the_weakest_to_the_strongest() -> None:
    assert sl.MODES == get_args(sl.OperatingMode) == ("Running", "Paused", "Stopped", "Quarantined")
