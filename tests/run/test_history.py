"""What rules read of what was done before."""

from run.world import World, key

from fleetward.run.bounds import RECENT_SECONDS, Bounds
from fleetward.run.history import Latest
from fleetward.run.situation import situation_of


def test_repeats() -> None:
    world = World()
    world.delegate("a", "b")
    digest = "sha256:" + "0" * 64
    assert [world.act("a", digest=digest).repeats for _ in range(3)] == [0, 1, 2]
    assert world.deny("a", digest=digest).repeats == 3
    assert world.act("a", digest=digest).repeats == 4  # the denied one counts: a loop of denied asks is a loop
    assert world.act("b", digest=digest).repeats == 0
    assert world.act("a", digest="sha256:" + "1" * 64).repeats == 0
    assert world.act("a", target="crm", digest=digest).repeats == 0


def test_idle_steps() -> None:
    world = World()
    world.delegate("a", "b")
    assert world.act("a", "one").idle_steps == 0
    assert world.act("b", "one").idle_steps == 1
    assert world.deny("a", "one").idle_steps == 2
    assert world.act("b", "two").idle_steps == 0
    assert world.act("a", "one").idle_steps == 1


def test_a_plan_or_delegation_asked_again_is_a_repeat() -> None:
    world = World()
    world.delegate("a", "b")
    again = world.propose("a", "b")
    assert again.view is not None
    assert (again.view.repeats, again.view.idle_steps) == (1, 1)


def test_exchanges() -> None:
    world = World()
    for name in "bc":
        world.delegate("a", name)
    world.send("a", "c")  # whatever went before, with c
    assert world.send("a", "b").exchanges == 0
    assert world.send("b", "a").exchanges == 1
    assert world.send("a", "b").exchanges == 2
    assert world.send("a", "b").exchanges == 2  # without an answer: no more turns
    world.act("c")
    assert world.send("b", "a").exchanges == 3  # what others do meanwhile hides nothing
    world.send("b", "c")
    assert world.send("b", "a").exchanges == 0  # b turned to somebody else between
    assert world.send("a", "b").exchanges == 1


def test_delegations_are_turns() -> None:
    world = World()
    world.delegate("a", "b")
    assert world.send("b", "a").exchanges == 1
    proposed = world.propose("a", "b")
    assert proposed.view is not None
    assert proposed.view.exchanges == 2


def test_on_target() -> None:
    world = World()
    for name in "bc":
        world.delegate("a", name)
    assert world.act("b", "payment.propose", target="bank").on_target == {}
    world.deny("c", "payment.execute", target="bank")
    assert world.act("b", "payment.execute", target="bank").on_target == {"payment.propose": ("reports/b",)}
    world.act("c", "payment.propose", target="bank")
    view = world.act("c", "payment.execute", target="bank")
    assert view.on_target == {
        "payment.propose": ("reports/b", "reports/c"),
        "payment.execute": ("reports/b",),
    }
    assert world.act("a", target="crm").on_target == {}
    assert world.act("a").on_target == {}


def test_of_two_at_the_same_instant_the_second_sees_the_first() -> None:
    world = World()
    world.delegate("a", "b")
    first = world.take("a", "row.write", target="db")
    second = world.take("b", "row.write", target="db")
    assert (first.view.on_target, second.view.on_target) == ({}, {"row.write": ("reports/a",)})
    world.settle(first.seq, allowed=False)
    assert world.act("b", "row.write", target="db").on_target == {"row.write": ("reports/b",)}


def test_recent_on_target_across_runs() -> None:
    world = World()
    world.act("a", "row.write", target="db")
    world.now += 10
    first, world.run = world.run, world.open("b")
    view = world.act("b", "row.read", target="db")
    assert view.on_target == {}
    assert view.recent_on_target == {"row.write": ("reports/a",)}
    world.run = first
    world.now += RECENT_SECONDS - 10
    assert world.act("a", "x", target="db").recent_on_target == {
        "row.write": ("reports/a",),
        "row.read": ("reports/b",),
    }
    world.now += 1
    view = world.act("a", "x", target="db")
    assert view.recent_on_target == {"row.read": ("reports/b",), "x": ("reports/a",)}
    assert view.on_target == {"row.write": ("reports/a",), "x": ("reports/a",)}  # of the run: however long ago


def test_what_was_denied_does_not_keep_what_is_long_ago() -> None:
    world = World()
    world.act("a", "row.write", target="db")
    world.now += RECENT_SECONDS - 1
    world.deny("a", "row.write", target="db")
    world.now += 2
    assert world.act("a", "x", target="db").recent_on_target == {}


def test_what_is_taken_up_again_is_not_long_ago() -> None:
    world = World()
    world.act("a", "row.write", target="db")
    world.now += RECENT_SECONDS - 1
    world.take("a", "row.write", target="db")
    world.now += 2
    assert world.act("a", "x", target="db").recent_on_target == {"row.write": ("reports/a",)}


def test_history_is_bounded_and_the_oldest_goes_first() -> None:
    world = World(bounds=Bounds(marks=5, recent_marks=3, marks_of_target=2))
    for number in range(4):
        world.act("a", f"x{number}", target="db")
    assert list(world.act("a", "y", target="db").on_target) == ["x2", "x3"]
    for number in range(4):
        world.act("a", "z", target=f"db{number}")
    view = world.act("a", "z", target="db1")
    assert (list(view.on_target), list(view.recent_on_target)) == (["z"], ["z"])
    assert world.act("a", "z", target="db0").recent_on_target == {}


def test_the_latest_are_kept() -> None:
    latest: Latest[int, int] = Latest(100)
    for number in range(10_000):
        latest.put(number, number)
        latest.put(7, number)
    assert latest.get(7) == 9_999
    assert all(latest.get(number) == number for number in range(9_901, 10_000))
    assert len(latest.items()) <= 200


def test_settled_marks_of_late_replies_are_not_lost() -> None:
    """The entry was pushed out while its action was under way: it comes back when the action goes ahead."""
    world = World(bounds=Bounds(marks_of_target=1))
    first = world.take("a", "x", target="db")
    second = world.take("a", "y", target="db")
    third = world.take("a", "x", target="db")
    world.settle(third.seq, allowed=True)
    world.settle(second.seq, allowed=False)
    world.settle(first.seq, allowed=False)
    assert list(world.act("a", "z", target="db").on_target) == ["x"]


def test_who_has_acted() -> None:
    world = World()
    world.delegate("a", "b")
    assert world.act("b").agents == ("reports/a",)
    assert world.act("a").agents == ("reports/a", "reports/b")
    view = world.act("b")
    assert (view.run, view.requester, view.opened_by, view.path) == (world.run, "alice", key("a"), (key("a"),))
    world.now += 90
    assert world.act("a").age_seconds == 90


def test_by_which_grants_work_came_down() -> None:
    world = World()
    first = world.delegate("a", "b")
    second = world.delegate("b", "c")
    beside = world.delegate("a", "d")
    assert world.act("a").grants == ()
    assert world.act("b").grants == (first.id,)
    view = world.act("c")
    assert view.grants == (first.id, second.id)
    assert len(view.grants) == len(view.path)
    assert world.act("d").grants == (beside.id,)
    assert situation_of(view).grants == (first.id, second.id)
