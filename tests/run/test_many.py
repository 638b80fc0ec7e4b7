"""Many agents at once, long runs, deep chains, many runs."""

import itertools
import random
import threading
from pathlib import Path

import pytest
from run.world import NOW, World, counted_ids, key, mandate

from fleetward.delegation.scope import Amounts, AskedScope
from fleetward.run.book import Book
from fleetward.run.calls import NotAllowed, Settle, Step, Taken
from fleetward.run.journal import RunStore


def test_forty_threads_at_the_exact_limit(tmp_path: Path) -> None:
    """Each thread asks, and lets go ahead or not, until it is refused; the journal's batches are the only order."""
    limit = 500
    lock = threading.Lock()
    allowed: list[int] = []
    with RunStore.open(tmp_path / "runs.db", ids=counted_ids()) as store:
        world = World(mandate(steps=limit + 40, records=10 * limit), book=store.book)
        for number in range(40):
            world.delegate("a", f"w{number}")

        def work(number: int) -> None:
            chance = random.Random(number)  # noqa: S311 - it need not be hard to guess
            name, grant = key(f"w{number}"), world.grants[f"w{number}"].id
            for _ in range(2 * limit):
                with lock, store.batch() as book:
                    reply = book.step(Step(world.run, name, "ToolCall", "x", grant, amounts=Amounts(records=10)), NOW)
                if isinstance(reply, NotAllowed):
                    continue
                assert isinstance(reply, Taken)
                going = chance.random() < 0.8
                with lock, store.batch() as book:
                    book.settle(Settle(world.run, reply.seq, going), NOW)
                    if going:
                        allowed.append(reply.seq)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(allowed) == len(set(allowed)) == limit
        assert store.book.ledger.runs[world.run].account.used[:3] == [limit + 40, 0, 10 * limit]
        state = store.book.ledger.state(NOW)
    with RunStore.open(tmp_path / "runs.db") as store:
        assert store.book.ledger.state(NOW) == state


@pytest.mark.slow
def test_ten_thousand_actions_at_depth_twenty() -> None:
    actions = 10_000
    world = World(mandate(steps=actions + 20, records=actions * 5))
    names = ["a", *(f"a{number}" for number in range(1, 21))]
    for depth, (name, to) in enumerate(itertools.pairwise(names)):
        # Each grant is tighter than the one above by just what was used before it was given.
        world.delegate(name, to, AskedScope(limits=Amounts(steps=actions + 19 - depth, records=5 * actions - depth)))
    last = names[-1]
    for number in range(actions):
        taken = world.take(last, f"x{number % 3000}", target=f"t{number % 3}", records=9)
        world.settle(taken.seq, allowed=True)
        world.learn(last, taken.seq, actual=Amounts(records=4))
    assert (taken.view.depth, len(taken.view.path), taken.view.repeats) == (20, 20, 3)
    assert taken.view.used == Amounts(20 + actions - 1, 0, 4 * (actions - 1), 0, 0, 0)
    refused = world.refused(last)
    assert [violation.total for violation in refused.violations] == ["steps"] * 21
    replayed = Book()
    for event in world.book.unsaved:
        replayed.ledger.apply(*event)
    assert replayed.ledger.state(NOW) == world.book.ledger.state(NOW)


@pytest.mark.slow
def test_a_thousand_runs_at_once() -> None:
    book = Book(ids=counted_ids())
    worlds = [World(mandate(steps=12), book=book) for _ in range(1000)]
    for world in worlds:
        world.delegate("a", "b")
    chance = random.Random(5)  # noqa: S311 - it need not be hard to guess
    order = [(world, name) for world in worlds for name in "ab" * 10]
    chance.shuffle(order)
    allowed = [isinstance(world.ask(name, target="crm"), Taken) for world, name in order]
    assert sum(allowed) == 11 * 1000
    assert {tuple(run.account.used) for run in book.ledger.runs.values()} == {(12, 0, 0, 0, 0, 0)}
