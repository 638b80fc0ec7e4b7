"""Along every chain of scopes, whatever a descendant may do, each of its ancestors may do."""

import random
from typing import Any

import msgspec
import pytest
from delegation.strategies import ACTIONS, ASKED, asking, chains
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.delegation.narrowing import DepthError, WiderError, beyond, expiry, narrow, outside
from fleetward.delegation.scope import AMOUNTS, Amounts, AskedScope, Scope, Violation
from fleetward.run.mandate import Mandate

MANY = settings(max_examples=120, deadline=None)


def at_most(child: Scope, parent: Scope) -> None:
    """Check the numbers of `child`: none is larger, none is gone."""
    for name in AMOUNTS:
        ours, theirs = getattr(child.limits, name), getattr(parent.limits, name)
        assert theirs is None or (ours is not None and ours <= theirs), name
    if parent.depth is not None:
        assert child.depth is not None
        assert child.depth < parent.depth


@given(chains(), st.lists(ACTIONS, min_size=1, max_size=12))
@MANY
def test_no_descendant_does_what_an_ancestor_may_not(scopes: list[Scope], actions: list[Any]) -> None:
    for action in actions:
        forbidden = False
        for scope in scopes:
            allowed = not beyond(scope, *action)
            assert not (forbidden and allowed), (action, scopes)
            forbidden = forbidden or not allowed


@given(chains())
@MANY
def test_limits_and_depth_never_grow(scopes: list[Scope]) -> None:
    for number, scope in enumerate(scopes):
        for ancestor in scopes[:number]:
            at_most(scope, ancestor)


@given(chains(), st.data())
@MANY
def test_asking_again_for_what_an_ancestor_had_gives_no_more_than_the_parent_has(
    scopes: list[Scope], data: st.DataObject
) -> None:
    parent, wanted = scopes[-1], data.draw(st.sampled_from(scopes))
    try:
        child = narrow(parent, asking(wanted))
    except WiderError:
        return
    at_most(child, parent)
    for action in data.draw(st.lists(ACTIONS, min_size=1, max_size=8)):
        assert beyond(parent, *action) == () or beyond(child, *action) != ()


@given(chains(), ASKED)
@MANY
def test_narrowing_twice_is_narrowing_once(scopes: list[Scope], asked: AskedScope) -> None:
    try:
        once = narrow(scopes[-1], asked)
    except WiderError:
        return
    assert narrow(scopes[-1], asking(once)) == once


@given(chains(), ASKED, st.randoms(), st.lists(ACTIONS, min_size=1, max_size=6))
@MANY
def test_the_order_of_lists_says_nothing(
    scopes: list[Scope], asked: AskedScope, chance: random.Random, actions: list[Any]
) -> None:
    def mixed(scope: Any) -> Any:
        lists = {name: getattr(scope, name) for name in ("actions", "data_classes", "targets")}
        changed = {
            name: tuple(chance.sample([*value, *value[:1]], len(value) + len(value[:1])))
            for name, value in lists.items()
            if value is not None
        }
        return msgspec.structs.replace(scope, **changed)

    def narrowed(parent: Scope, wanted: AskedScope) -> list[bool] | list[str | None]:
        try:
            child = narrow(parent, wanted)
        except WiderError as error:
            return [one.total for one in error.violations]
        return [not beyond(child, *action) for action in actions]

    assert narrowed(scopes[-1], asked) == narrowed(mixed(scopes[-1]), mixed(asked))


@given(chains(), st.lists(ASKED, min_size=2, max_size=2), st.lists(ACTIONS, min_size=1, max_size=8))
@MANY
def test_in_whichever_order_two_scopes_are_asked_for_nothing_goes_beyond_the_root(
    scopes: list[Scope], asked: list[AskedScope], actions: list[Any]
) -> None:
    for order in (asked, asked[::-1]):
        scope = scopes[-1]
        for one in order:
            try:
                scope = narrow(scope, one)
            except WiderError:
                continue
            at_most(scope, scopes[-1])
        for action in actions:
            assert beyond(scopes[-1], *action) == () or beyond(scope, *action) != ()


@given(chains())
@MANY
def test_asking_for_nothing_changes_nothing_but_the_depth(scopes: list[Scope]) -> None:
    parent = scopes[-1]
    if parent.depth == 0:
        with pytest.raises(DepthError):
            narrow(parent, AskedScope())
        return
    expected = None if parent.depth is None else parent.depth - 1
    assert narrow(parent, AskedScope()) == msgspec.structs.replace(parent, depth=expected)


PARENT = Scope(
    actions=("crm.**", "mail.draft"),
    data_classes=("customer", "public"),
    targets=("crm",),
    depth=2,
    limits=Amounts(records=100, steps=10),
)


@pytest.mark.parametrize(
    ("asked", "total", "found", "allowed"),
    [
        (AskedScope(actions=("crm.*", "mail.*")), "actions", "mail.*", "crm.**, mail.draft"),
        (AskedScope(data_classes=("secret", "public")), "dataClasses", "secret", "customer, public"),
        (AskedScope(targets=("crm", "mail", "hr")), "targets", "mail, hr", "crm"),
        (AskedScope(depth=2), "depth", "2", "at most 1"),
        (AskedScope(limits=Amounts(records=101)), "records", "101", "at most 100"),
        (AskedScope(limits=Amounts(steps=11)), "steps", "11", "at most 10"),
    ],
)
def test_what_is_wider_is_named(asked: AskedScope, total: str, found: str, allowed: str) -> None:
    with pytest.raises(WiderError) as error:
        narrow(PARENT, asked, by="grant g-1")
    assert error.value.violations == (Violation(total=total, found=found, allowed=allowed, by="grant g-1"),)
    assert not isinstance(error.value, DepthError)
    assert str(error.value) == (
        f"the scope is wider than the one it comes from: {total}: found {found}, allowed {allowed}"
    )


def test_every_field_that_is_wider_is_named() -> None:
    narrowest = Scope((), (), (), 1, Amounts(*(0 for _ in AMOUNTS)))
    asked = AskedScope(("a",), ("b",), ("c",), 1, Amounts(*(1 for _ in AMOUNTS)))
    with pytest.raises(WiderError) as error:
        narrow(narrowest, asked)
    assert [one.total for one in error.value.violations] == [
        *("actions", "dataClasses", "targets", "depth"),
        *("steps", "calls", "records", "inputTokens", "outputTokens", "costMicroUsd"),
    ]
    assert [one.allowed for one in error.value.violations] == ["none"] * 3 + ["at most 0"] * 7


def test_depth_0_may_not_hand_on_whatever_is_asked() -> None:
    for asked in (AskedScope(), AskedScope(depth=0), AskedScope(actions=())):
        with pytest.raises(DepthError, match="allowed not at all: the scope has depth 0"):
            narrow(Scope(depth=0), asked)


def test_what_is_left_out_is_the_parents_and_an_empty_list_allows_none() -> None:
    child = narrow(PARENT, AskedScope(data_classes=(), limits=Amounts(records=5, calls=3)))
    assert child == Scope(PARENT.actions, (), PARENT.targets, 1, Amounts(records=5, calls=3, steps=10))
    assert type(child) is Scope


def test_who_opened_the_run_may_ask_for_anything() -> None:
    asked = AskedScope(("**",), ("x",), ("y",), 32, Amounts(steps=1), 60)
    assert narrow(None, asked) == Scope(("**",), ("x",), ("y",), 32, Amounts(steps=1))
    assert narrow(None, AskedScope()) == Scope()


def test_a_delegation_ends_no_later_than_the_one_it_comes_from() -> None:
    assert expiry(AskedScope(), 1000) == 4600
    assert expiry(AskedScope(expires_in_seconds=60), 1000) == 1060
    assert expiry(AskedScope(expires_in_seconds=60), 1000, parent_expires_at=1030) == 1030
    assert expiry(AskedScope(), 1000, parent_expires_at=9000) == 4600


@pytest.mark.parametrize(
    ("kind", "name", "target", "data_classes", "totals"),
    [
        ("ToolCall", "crm.read", "crm", ["customer"], []),
        ("ToolCall", "crm.read", "crm", [], []),
        ("ToolCall", "mail.send", "crm", [], ["actions"]),
        ("ModelCall", "mail.send", "crm", [], ["actions"]),
        ("Message", "mail.send", "crm", [], ["actions"]),
        ("Delegation", "mail.send", "reports/other", ["customer"], []),
        ("Plan", "mail.send", None, ["customer"], []),
        ("ToolCall", "crm.read", "crm", ["customer", "secret"], ["dataClasses"]),
        ("Delegation", "crm.read", None, ["secret"], ["dataClasses"]),
        ("Plan", "crm.read", None, ["secret"], ["dataClasses"]),
        ("ToolCall", "crm.read", "hr", [], ["targets"]),
        ("ToolCall", "crm.read", None, [], ["targets"]),
        ("Message", "crm.read", None, [], ["targets"]),
        ("ModelCall", "crm.read", None, [], []),
        ("ModelCall", "crm.read", "hr", [], ["targets"]),
        ("Plan", "crm.read", "hr", [], ["targets"]),
        ("ToolCall", "mail.send", "hr", ["secret"], ["actions", "dataClasses", "targets"]),
    ],
)
def test_what_goes_beyond(kind: Any, name: str, target: str | None, data_classes: list[str], totals: list[str]) -> None:
    found = beyond(PARENT, kind, name, target, data_classes, by="grant g-1")
    assert [one.total for one in found] == totals
    assert {one.by for one in found} <= {"grant g-1"}
    assert beyond(Scope(), kind, name, target, data_classes) == ()


def test_what_goes_beyond_is_said_in_words() -> None:
    (violation,) = beyond(PARENT, "ToolCall", "crm.read", None, [])
    assert violation.found == "no known target: give the action a target in an ActionCatalog"
    assert violation.allowed == "crm"
    (violation,) = beyond(Scope(actions=()), "ToolCall", "crm.read", None, [])
    assert (violation.found, violation.allowed) == ("crm.read", "none")
    (violation,) = beyond(Scope(targets=tuple(f"t{n}" for n in range(12))), "ToolCall", "a", "x", [])
    assert violation.allowed == "t0, t1, t2, t3, t4, t5, t6, t7, t8, t9 and 2 more"


def test_a_mandate_bounds_data_classes_and_targets_alike() -> None:
    mandate = Mandate(requester="ada", purpose="report", data_classes=("customer",), targets=("crm",))
    found = outside(mandate, "ToolCall", "hr", ["customer", "secret"], by="mandate")
    assert found == (
        Violation(total="dataClasses", found="secret", allowed="customer", by="mandate"),
        Violation(total="targets", found="hr", allowed="crm", by="mandate"),
    )
    assert outside(Mandate(requester="ada", purpose="report"), "ToolCall", None, ["secret"], by="mandate") == ()
