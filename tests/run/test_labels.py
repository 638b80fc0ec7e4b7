"""Provenance labels: where they travel, and that they only accumulate."""

import itertools

from run.world import NOW, World, key

from fleetward.delegation.scope import Amounts
from fleetward.run.bounds import Bounds
from fleetward.run.calls import Learn, NotAllowed, Proposed


def chain(*names: str) -> World:
    world = World()
    for name, to in itertools.pairwise(names):
        world.delegate(name, to)
    return world


def labels(world: World, name: str) -> set[str]:
    return set(world.deny(name).labels)


def test_what_is_declared_stays_with_the_agent_even_when_denied() -> None:
    world = chain("a", "b")
    assert world.deny("a", labels=("web",)).labels == ("web",)
    assert labels(world, "a") == {"web"}
    assert labels(world, "b") == set()  # its grant was given before


def test_results_carry_labels() -> None:
    world = World()
    seq = world.take("a").seq
    world.settle(seq, allowed=True)
    world.learn("a", seq, labels=("untrusted",))
    assert labels(world, "a") == {"untrusted"}


def test_a_grant_carries_what_its_giver_has_and_declares() -> None:
    world = World()
    world.act("a", labels=("web",))
    grant = world.delegate("a", "b", labels=("raw",))
    assert grant.labels == ("raw", "web")
    assert labels(world, "b") == {"web", "raw"}
    assert labels(world, "a") == {"web", "raw"}


def test_an_unused_grant_carries_its_labels_on() -> None:
    world = World()
    world.act("a", labels=("web",))
    world.delegate("a", "b")
    assert world.delegate("b", "c").labels == ("web",)  # the delegation is b's first use of it
    assert labels(world, "c") == {"web"}


def test_a_grant_of_a_clean_time_is_clean() -> None:
    world = chain("a", "b")
    world.act("a", labels=("web",))
    assert labels(world, "b") == set()


def test_a_message_carries_labels_when_it_is_sent() -> None:
    world = chain("a", "b")
    world.act("a", labels=("web",))
    world.deny("a", "mail", kind="Message", target=key("b"), turns_to=key("b"))
    assert labels(world, "b") == set()
    world.send("a", "b")
    assert labels(world, "b") == {"web"}


def test_a_message_that_may_be_on_its_way_counts() -> None:
    """The receiver may act before the hub hears that the message was allowed."""
    world = chain("a", "b")
    world.act("a", labels=("web",))
    message = world.take("a", "mail", kind="Message", target=key("b"), turns_to=key("b"))
    assert labels(world, "b") == {"web"}
    proposed = world.propose("b", "c")
    assert isinstance(proposed, Proposed)
    assert proposed.grant.labels == ("web",)
    world.settle(message.seq, allowed=False)
    assert labels(world, "b") == set()


def test_many_messages_nobody_settles_stay() -> None:
    world = chain("a", "b")
    world.act("a", labels=("web",))
    taken = [world.take("a", "mail", kind="Message", target=key("b"), turns_to=key("b")).seq for _ in range(200)]
    for seq in taken:
        world.settle(seq, allowed=False)
    assert labels(world, "b") == {"web"}


def test_a_message_to_nobody_of_the_run_goes_nowhere() -> None:
    world = World()
    world.act("a", labels=("web",))
    world.send("a", "stranger")
    assert key("stranger") not in world.book.ledger.runs[world.run].members


def test_results_go_back_up_the_whole_chain() -> None:
    world = chain("a", "b", "c")
    world.delegate("a", "d")
    world.act("c", labels=("untrusted",))
    assert labels(world, "b") == {"untrusted"}
    assert labels(world, "a") == {"untrusted"}
    assert labels(world, "d") == set()


def test_a_result_goes_back_up_as_soon_as_it_is_known() -> None:
    world = chain("a", "b", "c")
    seq = world.take("c").seq
    world.learn("c", seq, labels=("untrusted",))
    assert labels(world, "a") == {"untrusted"}


def test_what_a_message_brings_goes_up_too() -> None:
    world = chain("a", "b", "c")
    world.delegate("a", "x")
    world.act("x", labels=("web",))
    world.send("x", "c")
    assert labels(world, "b") == {"web"}


def test_cleansing_is_for_the_one_agent_that_did_it() -> None:
    world = chain("a", "b")
    world.act("b", labels=("untrusted", "web"))
    earlier = world.delegate("a", "c")
    seq = world.take("a", "cleanse").seq
    world.learn("a", seq, cleansed=("untrusted",), labels=("reviewed",))
    assert labels(world, "a") == {"web", "reviewed"}
    assert world.delegate("a", "d").labels == ("reviewed", "web")
    assert "untrusted" in earlier.labels
    assert labels(world, "c") == {"untrusted", "web"}
    # c has it, and may have handed it to a again.
    assert "untrusted" in labels(world, "a")


def test_cleansing_said_again_takes_nothing_away_that_came_later() -> None:
    world = World()
    world.act("a", labels=("web",))
    seq = world.take("a", "cleanse").seq
    learn = Learn(world.run, key("a"), seq, cleansed=("web",))
    world.book.learn(learn, NOW)
    assert labels(world, "a") == set()
    world.act("a", labels=("web",))
    world.book.learn(learn, NOW)
    assert labels(world, "a") == {"web"}


def test_labels_said_again_do_not_undo_a_cleansing() -> None:
    world = World()
    seq = world.take("a").seq
    world.learn("a", seq, labels=("web",))
    cleanse = world.take("a", "cleanse").seq
    world.learn("a", cleanse, cleansed=("web",))
    world.learn("a", seq, labels=("web",))
    assert labels(world, "a") == set()
    world.learn("a", seq, labels=("web", "raw"))
    assert labels(world, "a") == {"raw"}


def test_what_a_cleansing_itself_brings_stays() -> None:
    world = World()
    world.act("a", labels=("web",))
    seq = world.take("a", "cleanse").seq
    world.learn("a", seq, cleansed=("web",), labels=("web",))
    assert labels(world, "a") == {"web"}


def test_what_was_denied_cleanses_nothing() -> None:
    world = World()
    world.act("a", labels=("web",))
    taken = world.take("a", "cleanse")
    world.settle(taken.seq, allowed=False)
    assert isinstance(world.book.learn(Learn(world.run, key("a"), taken.seq, cleansed=("web",)), NOW), NotAllowed)
    assert labels(world, "a") == {"web"}


def test_more_labels_than_can_be_followed_end_the_run() -> None:
    world = World(bounds=Bounds(labels=3))
    world.act("a", labels=("one", "two", "three"))
    world.act("a", labels=("four",))
    assert "more different labels than are kept" in world.refused("a").reason


def test_labels_stay_within_their_run() -> None:
    world = World()
    world.act("a", labels=("web",))
    world.run = world.open("a")
    assert labels(world, "a") == set()


def test_labels_learned_long_after_still_count() -> None:
    world = World(bounds=Bounds(reservations=2))
    seq = world.take("a").seq
    for _ in range(5):
        world.act("a")
    world.learn("a", seq, labels=("web",), cleansed=("web",))
    assert labels(world, "a") == {"web"}
    events = len(world.book.unsaved)
    world.learn("a", seq, labels=("web",))
    assert len(world.book.unsaved) == events
    late = world.book.learn(Learn(world.run, key("a"), seq, actual=Amounts()), NOW)
    assert late == NotAllowed(f"action {seq} of run {world.run} is too long ago: what it reserved stands")


def test_what_a_catalog_says_of_a_result_is_carried_once_the_action_goes_ahead() -> None:
    world = chain("a", "b")
    taken = world.take("b", brings=("web",))
    assert taken.view.labels == ()  # the action itself does not have it yet
    world.settle(taken.seq, allowed=True)
    assert labels(world, "b") == {"web"}
    assert labels(world, "a") == {"web"}  # results go back up


def test_while_nobody_has_said_whether_it_goes_ahead_it_is_carried() -> None:
    world = World()
    taken = world.take("a", brings=("web",))
    assert labels(world, "a") == {"web"}
    world.settle(taken.seq, allowed=False)
    assert labels(world, "a") == set()
