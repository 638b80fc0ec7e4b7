"""Who may act in a run, and every reason why not."""

import pytest
from run.world import NOW, World, agent, key, mandate

from fleetward.decision.replies import Done
from fleetward.delegation.scope import MAX_DEPTH, AskedScope
from fleetward.run.bounds import FORGET_SECONDS, Bounds
from fleetward.run.calls import CloseRun, Issue, NotAllowed, OpenRun, Propose, Proposed, Recorded, Settle


def close(world: World, name: str = "a") -> object:
    return world.book.close(CloseRun(world.run, key(name)), world.now)


def test_unknown_run() -> None:
    assert World().refused("a", run="run-none").reason == (
        "run run-none is unknown: it was never opened here, or ended long ago"
    )


def test_closed_run_and_its_grants() -> None:
    world = World()
    world.delegate("a", "b")
    assert close(world) == Done()
    assert close(world) == Done()  # again
    assert world.refused("a").reason == (
        f"run {world.run} is closed: reports/a, which opened it, closed it; its grants ended with it"
    )
    assert "is closed" in world.refused("b").reason


def test_only_the_opener_closes() -> None:
    world = World()
    world.delegate("a", "b")
    reply = close(world, "b")
    assert isinstance(reply, NotAllowed)
    assert "only be closed by reports/a" in reply.reason
    world.act("a")


def test_expired_run() -> None:
    world = World(mandate(expires_in_seconds=60))
    world.now = NOW + 59.9
    world.act("a")
    world.now = NOW + 60
    assert "expired: its mandate gave it 60 s (expiresInSeconds)" in world.refused("a").reason
    ended = world.book.sweep(world.now)
    assert [(run.id, run.expired) for run in ended] == [(world.run, True)]
    assert world.book.sweep(world.now) == ()
    assert "expired" in world.refused("a").reason


def test_an_ended_run_is_forgotten() -> None:
    world = World()
    close(world)
    world.now += FORGET_SECONDS - 1
    world.book.sweep(world.now)
    assert "is closed" in world.refused("a").reason
    world.now += 1
    world.book.sweep(world.now)
    assert "is unknown" in world.refused("a").reason


def test_neither_opener_nor_holder() -> None:
    assert World().refused("b").reason == (
        "agent reports/b neither opened run run-1 nor holds a grant of it; reports/a opened it"
    )


def test_a_holder_has_to_say_its_grant() -> None:
    world = World()
    grant = world.delegate("a", "b")
    assert world.refused("b", grant=None).reason.endswith(f"says no grant; it holds {grant.id}")


def test_grants_that_do_not_count() -> None:
    world = World()
    grant = world.delegate("a", "b", AskedScope(expires_in_seconds=60))
    assert "grant g-none is unknown in run" in world.refused("b", grant="g-none").reason
    assert world.refused("c", grant=grant.id).reason == f"grant {grant.id} is for agent reports/b, not for reports/c"
    other = world.open("a")
    assert world.refused("b", run=other).reason == f"grant {grant.id} is of another run, not of run {other}"
    proposed = world.propose("a", "c")
    assert isinstance(proposed, Proposed)
    assert "was proposed, and not given" in world.refused("c", grant=proposed.grant.id).reason
    world.now = grant.expires_at - 0.001
    world.act("b")
    world.now = grant.expires_at
    assert world.refused("b").reason == f"grant {grant.id} expired 0 s ago, by the clock of the hub"


def test_a_grant_ends_with_the_one_above_and_with_the_run() -> None:
    world = World(mandate(expires_in_seconds=100))
    first = world.delegate("a", "b", AskedScope(expires_in_seconds=50))
    assert first.expires_at == int(NOW) + 50
    assert world.delegate("b", "c", AskedScope(expires_in_seconds=70)).expires_at == first.expires_at
    assert world.delegate("a", "d").expires_at == int(NOW + 100)


def test_no_circles() -> None:
    world = World()
    world.delegate("a", "b")
    world.delegate("b", "c")
    for name, to, chain in (
        ("a", "a", "reports/a → reports/a"),
        ("b", "a", "reports/a → reports/b → reports/a"),
        ("c", "b", "reports/a → reports/b → reports/c → reports/b"),
        ("c", "c", "reports/a → reports/b → reports/c → reports/c"),
    ):
        reply = world.propose(name, to)
        assert isinstance(reply, NotAllowed)
        assert reply.reason == f"the delegation would go round in a circle: {chain}"


@pytest.mark.parametrize(("given", "scope"), [(mandate(depth=2), None), (mandate(), AskedScope(depth=1))])
def test_depth(given: object, scope: AskedScope | None) -> None:
    world = World(given)  # type: ignore[arg-type]
    world.delegate("a", "b", scope)
    world.delegate("b", "c")
    reply = world.propose("c", "d")
    assert isinstance(reply, NotAllowed)
    assert reply.violations[0].total == "depth"
    assert world.act("c").depth == 2


def test_no_chain_is_longer_than_any_may_be() -> None:
    world = World()
    for depth in range(MAX_DEPTH):
        world.delegate("a" if not depth else f"a{depth}", f"a{depth + 1}")
    reply = world.propose(f"a{MAX_DEPTH}", "last")
    assert isinstance(reply, NotAllowed)
    assert [(v.total, v.found, v.allowed, v.by) for v in reply.violations] == [("depth", "33", "32", "any run")]


def test_an_agent_nobody_governs() -> None:
    world = World()
    reply = world.book.propose(Propose(world.run, key("a"), key("ghost")), None, NOW)
    assert reply == NotAllowed("agent reports/ghost is not governed: no Agent of that name is known")


def test_issuing() -> None:
    world = World()
    proposed = world.propose("a", "b")
    assert isinstance(proposed, Proposed)
    issue = Issue(world.run, proposed.grant.id, "decision-1")
    grant = world.book.issue(issue, NOW)
    assert grant == world.book.issue(issue, NOW)
    assert not isinstance(grant, NotAllowed)
    assert (grant.cause, grant.path, grant.parent) == ("decision-1", ("reports/a",), None)
    other = world.book.issue(Issue(world.run, proposed.grant.id, "decision-2"), NOW)
    assert isinstance(other, NotAllowed)
    assert "given before, by decision decision-1" in other.reason
    world.grants["b"] = grant
    assert world.act("b").cause == "decision-1"
    assert world.act("a").cause == "opening-1"


def test_the_record_of_the_opening_is_said_once_and_by_the_opener() -> None:
    world = World()
    for name, cause in (("b", "forged"), ("a", "another")):
        world.book.recorded(Recorded(world.run, key(name), cause), NOW)
        assert world.act("a").cause == "opening-1"
    assert isinstance(world.book.recorded(Recorded("run-none", key("a"), "x"), NOW), NotAllowed)


def test_a_denied_delegation_gives_nothing() -> None:
    world = World(mandate(agents=2))
    for _ in range(3):
        proposed = world.propose("a", "b")
        assert isinstance(proposed, Proposed)
        world.settle(proposed.seq, allowed=False)
        reply = world.book.issue(Issue(world.run, proposed.grant.id, "decision-1"), NOW)
        assert isinstance(reply, NotAllowed)
        assert "or its delegation was denied" in reply.reason
    world.delegate("a", "c")  # the denied ones took no place


def test_a_proposal_that_expires_or_whose_run_closes() -> None:
    world = World()
    proposed = world.propose("a", "b", AskedScope(expires_in_seconds=5))
    assert isinstance(proposed, Proposed)
    issue = Issue(world.run, proposed.grant.id, "decision-1")
    late = world.book.issue(issue, NOW + 6)
    assert isinstance(late, NotAllowed)
    assert "expired before it was given" in late.reason
    close(world)
    closed = world.book.issue(issue, NOW)
    assert isinstance(closed, NotAllowed)
    assert "is closed" in closed.reason


def test_only_the_webhook_that_asked_may_settle_or_issue() -> None:
    world = World()
    taken = world.take("a")
    reply = world.book.settle(Settle(world.run, taken.seq, allowed=False), NOW, webhook="another")
    assert isinstance(reply, NotAllowed)
    assert "another decision webhook" in reply.reason
    proposed = world.book.propose(Propose(world.run, key("a"), key("b")), agent("b"), NOW, webhook="one")
    assert isinstance(proposed, Proposed)
    reply = world.book.issue(Issue(world.run, proposed.grant.id, "x"), NOW, webhook="another")  # type: ignore[assignment]
    assert isinstance(reply, NotAllowed)


def test_bounds_on_runs() -> None:
    world = World(bounds=Bounds(open_runs=3, open_runs_of_agent=2, remembered_runs=4))
    world.open("a")
    refused = world.book.open(OpenRun(key("a"), mandate()), NOW)
    assert isinstance(refused, NotAllowed)
    assert "2 runs of reports/a are open, and 2 may be at once" in refused.reason
    world.open("b")
    refused = world.book.open(OpenRun(key("c"), mandate()), NOW)
    assert isinstance(refused, NotAllowed)
    assert "3 runs are open, and 3 may be at once" in refused.reason
    close(world)
    world.open("c", mandate(expires_in_seconds=1))
    world.book.close(CloseRun("run-2", key("a")), NOW)
    refused = world.book.open(OpenRun(key("c"), mandate()), NOW)
    assert isinstance(refused, NotAllowed)
    assert "within the last hour" in refused.reason
    world.now += FORGET_SECONDS
    world.book.sweep(world.now)
    world.open("d")


def test_an_expired_run_makes_room_and_is_still_told() -> None:
    world = World(mandate(expires_in_seconds=1), bounds=Bounds(open_runs=1))
    world.now += 2
    world.open("b")
    assert [run.id for run in world.book.sweep(world.now)] == [world.run]


def test_bounds_on_one_run() -> None:
    world = World(bounds=Bounds(asks=5, grants=2, agents=3))
    world.delegate("a", "b")
    world.delegate("a", "c")
    too_many = world.propose("a", "b")
    assert isinstance(too_many, NotAllowed)
    assert "has given 2 grants" in too_many.reason
    for _ in range(3):
        world.deny("a")
    assert "has asked 5 times" in world.refused("a").reason
