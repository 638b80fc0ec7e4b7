"""What a run, a grant and every grant above it let an agent use: reserved before, settled after."""

from collections.abc import Callable

import pytest
from run.world import NOW, World, key, mandate

from fleetward.decision.replies import Done
from fleetward.delegation.scope import Amounts, AskedScope, Violation
from fleetward.registry.text import MAX_COUNT
from fleetward.run.calls import CloseRun, Learn, NotAllowed, Settle


def test_steps() -> None:
    world = World(mandate(steps=2))
    world.act("a")
    world.take("a")
    refused = world.refused("a")
    assert refused.violations == (Violation(total="steps", found="3", allowed="2", by="mandate"),)
    assert refused.reason == ("the action goes beyond what was authorised: steps: found 3, allowed by mandate 2")
    assert refused.view is not None
    assert refused.view.used.steps == 2


@pytest.mark.parametrize(
    ("field", "wire"),
    [
        ("calls", "calls"),
        ("records", "records"),
        ("input_tokens", "inputTokens"),
        ("output_tokens", "outputTokens"),
        ("cost_micro_usd", "costMicroUsd"),
    ],
)
def test_every_amount(field: str, wire: str) -> None:
    world = World(mandate(**{field: 10}))
    world.delegate("a", "b", AskedScope(limits=Amounts(**{field: 5})))
    world.act("a", amounts=Amounts(**{field: 6}))
    (violation,) = world.refused("a", amounts=Amounts(**{field: 5})).violations
    assert violation == Violation(total=wire, found="11", allowed="10", by="mandate")
    world.act("b", amounts=Amounts(**{field: 4}))
    assert world.refused("b", amounts=Amounts(**{field: 2})).violations == (
        Violation(total=wire, found="12", allowed="10", by="mandate"),
        Violation(total=wire, found="6", allowed="5", by=f"grant {world.grants['b'].id}"),
    )


def test_what_is_denied_costs_nothing() -> None:
    world = World(mandate(steps=1, records=10))
    for _ in range(5):
        world.deny("a", records=10)
    assert world.act("a", records=10).used == Amounts(0, 0, 0, 0, 0, 0)


def test_what_is_denied_costs_the_grants_above_nothing_either() -> None:
    world = World()
    world.delegate("a", "b", AskedScope(limits=Amounts(records=10)))
    world.delegate("b", "c", AskedScope(limits=Amounts(records=9)))
    for _ in range(5):
        world.deny("c", records=9)
    world.act("c", records=9)
    world.act("b", records=1)
    world.refused("b", records=1)


def test_settling_is_final() -> None:
    world = World(mandate(steps=2))
    seq = world.take("a").seq
    world.settle(seq, allowed=False)
    world.settle(seq, allowed=False)  # said again: nothing is given back twice
    again = world.book.settle(Settle(world.run, seq, allowed=True), NOW)
    assert isinstance(again, NotAllowed)
    assert again.reason == f"action {seq} of run {world.run} was settled before, as not allowed"
    world.act("a")
    world.act("a")
    world.refused("a")
    assert isinstance(world.book.settle(Settle(world.run, 99, allowed=False), NOW), NotAllowed)


def test_an_action_whose_webhook_died_stays_counted() -> None:
    world = World(mandate(steps=1))
    world.take("a")
    world.now += 3600
    assert world.refused("a").violations[0].total == "steps"


def test_what_was_really_used_replaces_what_was_reserved() -> None:
    world = World(mandate(records=100))
    taken = world.take("a", records=90, amounts=Amounts(records=90, calls=1))
    world.settle(taken.seq, allowed=True)
    world.learn("a", taken.seq, actual=Amounts(records=10))
    assert world.used() == Amounts(1, 1, 10, 0, 0, 0)
    world.learn("a", taken.seq, actual=Amounts(records=0))  # said again: the first stands
    assert world.used().records == 10


def test_using_more_than_was_reserved_counts() -> None:
    world = World(mandate(records=100))
    taken = world.take("a", records=10)
    world.settle(taken.seq, allowed=True)
    world.learn("a", taken.seq, actual=Amounts(records=120))
    assert world.refused("a").violations == (Violation(total="records", found="120", allowed="100", by="mandate"),)


def test_only_what_went_ahead_can_have_used_something() -> None:
    world = World()
    world.delegate("a", "b")
    taken = world.take("a")
    reply = world.book.learn(Learn(world.run, key("b"), taken.seq, actual=Amounts(records=0)), NOW)
    assert isinstance(reply, NotAllowed)
    assert "is one of reports/a, not of reports/b" in reply.reason
    world.settle(taken.seq, allowed=False)
    reply = world.book.learn(Learn(world.run, key("a"), taken.seq), NOW)
    assert isinstance(reply, NotAllowed)
    assert "did not go ahead" in reply.reason


def test_learning_settles() -> None:
    """Who says what came of an action says that it went ahead, should the settling have been lost."""
    world = World(mandate(steps=1))
    taken = world.take("a")
    world.learn("a", taken.seq, actual=Amounts())
    assert isinstance(world.book.settle(Settle(world.run, taken.seq, allowed=False), NOW), NotAllowed)


def test_whoever_speaks_late_of_a_closed_run_does_no_harm() -> None:
    world = World()
    seq = world.take("a").seq
    world.book.close(CloseRun(world.run, key("a")), NOW)
    world.settle(seq, allowed=False)
    world.learn("a", seq, actual=Amounts(records=1))


def test_a_limit_holds_for_all_below_it() -> None:
    world = World()
    first = world.delegate("a", "b", AskedScope(limits=Amounts(steps=4)))
    world.delegate("b", "c")
    world.delegate("b", "d", AskedScope(limits=Amounts(steps=1)))
    world.act("d")
    assert [v.by for v in world.refused("d").violations] == [f"grant {world.grants['d'].id}"]
    world.act("c")  # b's two delegations, d's action, this one
    for name in ("b", "c"):
        assert [v.by for v in world.refused(name).violations] == [f"grant {first.id}"]
    assert f"grant {first.id}" in world.refused("d").reason
    world.act("a")


def test_a_new_grant_does_not_refill_the_one_above() -> None:
    world = World()
    world.delegate("a", "b", AskedScope(limits=Amounts(records=10)))
    for name in ("c", "d"):
        world.delegate("b", name, AskedScope(limits=Amounts(records=10)))
    world.act("c", records=6)
    assert world.refused("d", records=5).violations[0].by == f"grant {world.grants['b'].id}"


def test_agents() -> None:
    world = World(mandate(agents=2))
    world.delegate("a", "b")
    reply = world.propose("a", "c")
    assert isinstance(reply, NotAllowed)
    assert reply.violations == (Violation(total="agents", found="3", allowed="2", by="mandate"),)
    world.delegate("a", "b")  # the same one again is no other
    world.act("b")


def test_the_footprint() -> None:
    world = World(mandate(data_classes=("customer",), targets=("crm",)))
    world.act("a", target="crm", data_classes=("customer",))
    refused = world.refused("a", target="erp", data_classes=("customer", "salary"))
    assert [(v.total, v.found, v.allowed, v.by) for v in refused.violations] == [
        ("dataClasses", "salary", "customer", "mandate"),
        ("targets", "erp", "crm", "mandate"),
    ]
    grant = world.delegate("a", "b", AskedScope(actions=("crm.read",), data_classes=()))
    refused = world.refused("b", "crm.write", target="crm", data_classes=("customer",))
    assert [(v.total, v.found, v.allowed, v.by) for v in refused.violations] == [
        ("actions", "crm.write", "crm.read", f"grant {grant.id}"),
        ("dataClasses", "customer", "none", f"grant {grant.id}"),
    ]


def test_wider_scopes() -> None:
    world = World(mandate(targets=("crm",), steps=100))
    wider: list[tuple[str, AskedScope, str]] = [
        ("a", AskedScope(targets=("erp",)), "mandate"),
        ("a", AskedScope(limits=Amounts(steps=101)), "mandate"),
    ]
    grant = world.delegate("a", "b", AskedScope(actions=("crm.*",), limits=Amounts(steps=10)))
    wider += [
        ("b", AskedScope(actions=("**",)), f"grant {grant.id}"),
        ("b", AskedScope(limits=Amounts(steps=11)), f"grant {grant.id}"),
    ]
    for name, scope, by in wider:
        reply = world.propose(name, "c", scope)
        assert isinstance(reply, NotAllowed)
        assert reply.reason.startswith("the scope of the delegation goes beyond what was authorised")
        assert [violation.by for violation in reply.violations] == [by]


def test_huge_amounts_stay_readable() -> None:
    world = World()
    for _ in range(3):
        world.act("a", amounts=Amounts(*[MAX_COUNT] * 6))
    assert world.used() == Amounts(*[MAX_COUNT] * 6)


def test_a_refused_request_changes_nothing() -> None:
    world = World(mandate(records=1))
    world.act("a", labels=("web",))
    before = repr(world.book.ledger.state(NOW))
    events = len(world.book.unsaved)
    world.refused("a", records=5, labels=("untrusted",), target="crm")
    world.refused("b")
    asked: list[Callable[[], object]] = [
        lambda: world.propose("a", "a"),
        lambda: world.propose("a", "b", AskedScope(limits=Amounts(records=2))),
    ]
    for ask in asked:
        assert isinstance(ask(), NotAllowed)
    assert repr(world.book.ledger.state(NOW)) == before
    assert len(world.book.unsaved) == events


def test_forty_agents_at_the_very_same_instant() -> None:
    """Forty steps, each in scope, under forty grants: the mandate's thirty go ahead, and none more."""
    world = World(mandate(records=600))
    for number in range(40):
        world.delegate("a", f"w{number}")
    taken = [world.ask(f"w{number}", records=20) for number in range(40)]
    refused = [reply for reply in taken if isinstance(reply, NotAllowed)]
    assert len(refused) == 10
    assert all(reply.violations[0].found == "620" for reply in refused)
    assert (
        world.book.settle(Settle(world.run, world.book.ledger.runs[world.run].last_seq, allowed=False), NOW) == Done()
    )
    world.act("w39", records=20)
    world.refused("w39", records=20)
