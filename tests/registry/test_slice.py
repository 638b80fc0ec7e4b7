"""Slices: what turns one into another, and that they travel."""

from typing import Any

import msgspec
import pytest
from decision.build import agent, catalog, policy, slice_of
from decision.strategies import AGENTS, SOME, worlds
from hypothesis import given
from hypothesis import strategies as st

from fleetward.registry.slice import Change, Items, Removed, Slice, apply, difference

ALLOW = policy({"decision": "Allow"})


@given(worlds(), worlds(), st.lists(st.sampled_from(AGENTS)))
@SOME
def test_applying_the_difference_gives_the_other_slice(one: Any, other: Any, keys: list[str]) -> None:
    old, new = one.registry.cut(AGENTS), other.registry.cut(keys)
    change = difference(old, new)
    decoded = msgspec.json.decode(msgspec.json.encode(change), type=Change)
    assert decoded == change
    assert apply(old, decoded) == new
    assert difference(new, apply(old, change)).empty
    # Nothing is sent that is there already, and nothing taken away that is not there or stays.
    for part in ("agents", "policies", "catalogs", "roles"):
        before, after = getattr(old.items, part), getattr(new.items, part)
        assert all(before.get(key) != item for key, item in getattr(change.changed, part).items())
        assert set(getattr(change.removed, part)) == set(before) - set(after)


@given(worlds())
@SOME
def test_a_slice_travels(world: Any) -> None:
    whole = world.registry.cut(AGENTS)
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Slice) == whole


def test_only_the_version_moves() -> None:
    change = difference(Slice("1"), Slice("2"))
    assert change == Change("2")
    assert change.empty
    assert apply(Slice("1"), change) == Slice("2")
    assert not Change("2", changed=Items(roles={"a/b": "Worker"})).empty
    assert not Change("2", removed=Removed(roles=("a/b",))).empty


def test_what_did_not_change_is_shared() -> None:
    old = slice_of(agent(), agent("b"), ALLOW, catalog({"names": ["a"]}))
    new = apply(old, difference(old, slice_of(agent(riskTier="High"), agent("b"), ALLOW, catalog({"names": ["a"]}))))
    assert new.items.agents["reports/b"] is old.items.agents["reports/b"]
    assert new.items.agents["reports/worker"].risk_tier == "High"
    assert new.items.policies is old.items.policies
    assert new.items.catalogs is old.items.catalogs


def test_an_old_slice_is_left_as_it_was() -> None:
    old = slice_of(agent(), ALLOW)
    copy = msgspec.json.decode(msgspec.json.encode(old), type=Slice)
    apply(old, difference(old, slice_of(agent("b"), policy({"decision": "Deny"}))))
    assert old == copy


@pytest.mark.parametrize(
    "body",
    [b'{"version":"1","itmes":{}}', b'{"items":{}}', b'{"version":"1","items":{"agents":{"a/b":{"name":"b"}}}}'],
)
def test_what_is_no_slice_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=Slice)
