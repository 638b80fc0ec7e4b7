"""The journal: what was answered is never forgotten, and what is in the file is all there is to know."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest
from run.world import NOW, World, counted_ids, key, mandate

from fleetward.run.bounds import FORGET_SECONDS
from fleetward.run.calls import CloseRun, NotAllowed, Taken
from fleetward.run.journal import JournalError, RunStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "runs.db"


def reopened(path: Path) -> RunStore:
    return RunStore.open(path, ids=counted_ids())


def test_what_was_reserved_is_there_after_opening_again(path: Path) -> None:
    with reopened(path) as store:
        with store.batch() as book:
            world = World(mandate(steps=4, records=100), book=book)
            world.delegate("a", "b")
            seq = world.take("b", records=60, labels=("web",)).seq
            world.act("a", target="crm")
        before = store.book.ledger.state(NOW)
    with reopened(path) as store, store.batch() as book:
        assert book.ledger.state(NOW) == before
        world.book = book
        assert world.refused("b", records=60).violations[0].total == "records"
        world.settle(seq, allowed=False)
        assert world.act("b", records=60).labels == ("web",)


def test_the_file_is_private(path: Path) -> None:
    with reopened(path) as store, store.batch() as book:
        World(book=book)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_is_kept_of_what_is_refused(path: Path) -> None:
    with reopened(path) as store:
        with store.batch() as book:
            world = World(mandate(steps=0), book=book)
        with store.batch():
            world.refused("a")
        assert count(path, store) == 2  # the opening, and that it is on record


def count(path: Path, store: RunStore) -> int:
    found: int = store._connection.execute("SELECT count(*) FROM events").fetchone()[0]
    return found


def test_a_batch_is_committed_also_when_its_caller_fails(path: Path) -> None:
    with reopened(path) as store:
        with pytest.raises(ZeroDivisionError), store.batch() as book:
            raise ZeroDivisionError(World(book=book))
        assert store.book.unsaved == []
    with reopened(path) as store:
        assert len(store.book.ledger.runs) == 1


def test_forgotten_runs_leave_the_file_with_later_commits(path: Path) -> None:
    with reopened(path) as store:
        with store.batch() as book:
            world = World(book=book)
            for number in range(1200):
                world.act("a", f"x{number}")
        with store.batch():
            book.close(CloseRun(world.run, key("a")), NOW)
            world.run = world.open("b")
        with store.batch():
            book.sweep(NOW + FORGET_SECONDS)
        assert count(path, store) > 2400
        for _ in range(3):
            with store.batch():
                world.act("b")
        state = store.book.ledger.state(NOW)
    with reopened(path) as store:  # in the middle of deleting
        assert store.book.ledger.state(NOW) == state
        world.book = store.book
        for _ in range(4):
            with store.batch():
                world.act("b")
        assert count(path, store) < 20
        assert store._connection.execute("SELECT count(*) FROM forgotten").fetchone()[0] == 0
    with reopened(path) as store:
        assert list(store.book.ledger.runs) == [world.run]


def test_a_commit_that_fails_is_made_up_for(path: Path) -> None:
    """A full disk: the replies must not be given, and what was counted stays counted."""
    with reopened(path) as store:
        with store.batch() as book:
            world = World(mandate(steps=3), book=book)
            world.act("a")
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(JournalError, match="full"), store.batch():
            taken = world.take("a", "x" * 20_000)
        with pytest.raises(JournalError, match="full"), store.batch():
            pytest.fail("no batch begins while an earlier one waits")
        store._connection.execute("PRAGMA max_page_count = 1000000")
        with store.batch():
            world.settle(taken.seq, allowed=True)
        state = store.book.ledger.state(NOW)
    with reopened(path) as store:
        assert store.book.ledger.state(NOW) == state
        world.book = store.book
        assert isinstance(world.ask("a"), Taken)
        assert isinstance(world.ask("a"), NotAllowed)


def test_only_one_hub_at_a_time(path: Path) -> None:
    with reopened(path), pytest.raises(JournalError, match="in use: another hub keeps its runs there"):
        reopened(path)
    reopened(path).close()


def test_foreign_and_damaged_files(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(JournalError, match="not a database"):
        reopened(path)
    path.unlink()
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE other(x)")
    foreign.close()
    with pytest.raises(JournalError, match="not a journal of runs of Fleetward"):
        reopened(path)
    path.unlink()
    with reopened(path) as store, store.batch() as book:
        World(book=book)
    changed = sqlite3.connect(path)
    changed.execute("UPDATE events SET body = x'00'")
    changed.commit()
    changed.execute("PRAGMA user_version = 1")
    changed.close()
    with pytest.raises(JournalError, match=r"damaged at event 1 .*move it aside"):
        reopened(path)
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(JournalError, match="schema version 9"):
        reopened(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    with pytest.raises(JournalError, match="cannot open the journal"):
        reopened(path)


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot open the journal"):
        reopened(tmp_path / "file" / "runs.db")
