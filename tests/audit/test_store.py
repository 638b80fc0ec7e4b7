"""The store takes a batch in whole or not at all, keeps every record for ever as it came, and shows what is missing."""

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import ModeChangeRecord, Record, encode
from fleetward.audit.store import ConflictError, Gap, Store, StoreError, StoreWriter

Make = Callable[..., Record]


def batch(make: Make, writer: str, first: int, last: int) -> list[bytes]:
    return [encode(make(writer, seq)) for seq in range(first, last + 1)]


def ids(store: Store, **query: object) -> list[str]:
    return [stored.id for stored in store.read(RecordQuery(**query))]  # type: ignore[arg-type]  # fields by name


def test_records_come_back_as_they_were_written(store: Store, make: Make) -> None:
    records = [make("aaa", 1), make("aaa", 2, "Outcome"), make("bbb", 1, "ModeChange")]
    lines = [encode(record) for record in records]
    store.append(lines)
    stored = store.read()
    assert [item.body for item in stored] == lines
    assert [item.record for item in stored] == records
    assert [item.type for item in stored] == ["Decision", "Outcome", "ModeChange"]
    assert [item.position for item in stored] == [1, 2, 3]
    assert store.read(after_position=2) == stored[2:]
    assert store.last_position() == 3
    assert store.last_seq("aaa") == 2
    assert store.last_seq("nobody") == 0


def test_what_is_there_already_is_skipped(store: Store, make: Make) -> None:
    store.append(batch(make, "aaa", 1, 3))
    store.append(batch(make, "aaa", 2, 5))
    store.append(batch(make, "aaa", 5, 5) * 2)
    assert ids(store) == [f"aaa-{seq}" for seq in range(1, 6)]


def test_another_body_under_the_same_id_is_refused_with_its_batch(store: Store, make: Make) -> None:
    store.append(batch(make, "aaa", 1, 2))
    with pytest.raises(ConflictError, match="record aaa-2 is in the store with another body"):
        store.append([encode(make("aaa", 3)), encode(make("aaa", 2, reason="another"))])
    assert ids(store) == ["aaa-1", "aaa-2"]
    with pytest.raises(ConflictError):
        store.append([encode(make("aaa", 3)), encode(make("aaa", 3, reason="another"))])
    assert ids(store) == ["aaa-1", "aaa-2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{}", "not an audit record"),
        (b"{", "not an audit record"),
        (b"\xff", "not an audit record"),
        (b'{"type":"Decision"}', "missing required field"),
    ],
)
def test_a_line_that_is_no_record_is_refused_with_its_batch(
    store: Store, make: Make, line: bytes, message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        store.append([encode(make()), line])
    assert store.read() == []


def test_an_id_must_be_its_writer_and_number(store: Store, make: Make) -> None:
    for wrong in (make("aaa", 1, id="aaa-2"), make("aaa", 0), make("aaa", 1, time="yesterday")):
        with pytest.raises(StoreError, match="not an audit record"):
            store.append([encode(wrong)])


FORBIDDEN = [
    "UPDATE records SET body = '{}'",
    "UPDATE records SET position = position + 100",
    "UPDATE OR REPLACE records SET id = 'aaa-2' WHERE id = 'aaa-1'",
    "DELETE FROM records",
    "DELETE FROM records WHERE position = 1",
    "INSERT OR REPLACE INTO records SELECT * FROM records",
    "REPLACE INTO records(id, writer, seq, time, type, body) VALUES ('aaa-1', 'x', 9, '', '', '')",
    "REPLACE INTO records(id, writer, seq, time, type, body) VALUES ('x-9', 'aaa', 1, '', '', '')",
    "REPLACE INTO records(position, id, writer, seq, time, type, body) VALUES (1, 'x-9', 'x', 9, '', '', '')",
    "INSERT INTO records SELECT * FROM records WHERE true ON CONFLICT DO UPDATE SET body = '{}'",
]


@pytest.mark.parametrize("recursive_triggers", ["ON", "OFF"])
@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_schema_refuses_to_change_or_remove(
    store: Store, make: Make, statement: str, recursive_triggers: str
) -> None:
    store.append(batch(make, "aaa", 1, 2))
    before = store.read()
    # A connection that knows nothing of Fleetward.
    raw = sqlite3.connect(store.path)
    try:
        raw.execute(f"PRAGMA recursive_triggers = {recursive_triggers}")
        with pytest.raises(sqlite3.IntegrityError, match="the audit store is append-only"):
            raw.execute(statement)
        raw.commit()
    finally:
        raw.close()
    assert store.read() == before


def test_positions_stay_above_nought(store: Store) -> None:
    raw = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        raw.execute(
            "INSERT INTO records(position, id, writer, seq, time, type, body) VALUES (-1, 'x-9', 'x', 9, '', '', '')"
        )
    raw.close()


@pytest.mark.parametrize(
    "tamper",
    [
        "DROP TRIGGER records_never_go",
        "CREATE TRIGGER swallow BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END",
    ],
)
def test_an_altered_guard_is_noticed(tmp_path: Path, tamper: str) -> None:
    path = tmp_path / "audit.db"
    Store.open(path).close()
    raw = sqlite3.connect(path)
    raw.execute(tamper)
    raw.commit()
    raw.close()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"append-only were altered: .* move it aside"):
            Store.open(path, read_only=read_only)


def test_queries(store: Store, make: Make) -> None:
    store.append(
        [
            encode(make("aaa", 1, run="r1")),
            encode(make("aaa", 2, "Outcome", run="r1")),
            encode(make("aaa", 3, agent="reports/planner", decision="Deny")),
            encode(make("aaa", 4, agent="other/data-worker", run="r2")),
            encode(make("aaa", 5, "ModeChange", agent="reports/planner")),
        ]
    )

    def found(**query: object) -> list[int]:
        return [int(id_.removeprefix("aaa-")) for id_ in ids(store, **query)]

    assert found() == [1, 2, 3, 4, 5]
    assert found(agent="reports/data-worker") == [1, 2]
    assert found(agent="data-worker") == [1, 2, 4]
    assert found(agent="planner") == [3, 5]
    assert found(agent="%") == []
    assert found(run="r1") == [1, 2]
    assert found(decision="Deny") == [3]
    assert found(decision_id="aaa-1") == [1, 2]
    assert found(id="aaa-4") == [4]
    assert found(types=("Outcome", "ModeChange")) == [2, 5]
    second = datetime(2026, 3, 1, 10, 0, 2, tzinfo=UTC)
    assert found(since=second) == [2, 3, 4, 5]
    assert found(until=second) == [1]
    assert found(limit=2) == [1, 2]
    assert found(limit=2, order="NewestFirst") == [5, 4]
    assert found(agent="data-worker", run="r2", decision="Allow", since=second, types=("Decision",)) == [4]


def test_times_are_compared_as_times(store: Store, make: Make) -> None:
    store.append(
        [
            encode(make("aaa", 1, time="2026-03-01T12:00:00+02:00")),
            encode(make("aaa", 2, time="2026-03-01T10:00:00.5Z")),
        ]
    )
    assert ids(store, since=datetime(2026, 3, 1, 10, 0, 0, 200_000, UTC)) == ["aaa-2"]
    assert ids(store, until=datetime(2026, 3, 1, 10, 0, 0, 200_000, UTC)) == ["aaa-1"]


def test_gaps(store: Store, make: Make) -> None:
    assert store.gaps() == []
    store.append(batch(make, "aaa", 1, 3) + batch(make, "bbb", 4, 5))
    store.report("aaa", "reports/pod-a", 3)
    assert store.gaps() == [Gap("bbb", "", 1, 3, "Missing")]
    store.append(batch(make, "aaa", 6, 6) + batch(make, "aaa", 9, 9))
    store.report("aaa", "reports/pod-a", 12)
    store.report("ccc", "reports/pod-c", 2)
    store.report("ddd", "reports/pod-d", 0)
    assert store.gaps() == [
        Gap("aaa", "reports/pod-a", 4, 5, "Missing"),
        Gap("aaa", "reports/pod-a", 7, 8, "Missing"),
        Gap("aaa", "reports/pod-a", 10, 12, "Awaited"),
        Gap("bbb", "", 1, 3, "Missing"),
        Gap("ccc", "reports/pod-c", 1, 2, "Awaited"),
    ]
    assert [gap.count for gap in store.gaps()] == [2, 2, 3, 3, 2]
    store.report("aaa", "reports/pod-a", 1)
    assert [gap.last for gap in store.gaps() if gap.writer == "aaa"] == [5, 8, 12]
    store.append(batch(make, "aaa", 10, 12) + batch(make, "bbb", 1, 3))
    assert [(gap.first, gap.last) for gap in store.gaps() if gap.writer != "ccc"] == [(4, 5), (7, 8)]


def test_own_records_are_numbered_on(tmp_path: Path, make: Make) -> None:
    def build(id_: str, writer: str, seq: int) -> Record:
        return msgspec.structs.replace(make("aaa", 1, "ModeChange"), id=id_, writer=writer, seq=seq)

    with Store.open(tmp_path / "audit.db") as store:
        first = StoreWriter(store).append_own(build)
        assert isinstance(first, ModeChangeRecord)
        assert first.id == f"{first.writer}-1"

        def fail(*_: object) -> Record:
            raise ValueError("no record")

        with pytest.raises(ValueError, match="no record"):
            StoreWriter(store).append_own(fail)
    with Store.open(tmp_path / "audit.db") as store:
        second = StoreWriter(store).append_own(build)
        assert (second.writer, second.seq) == (first.writer, 2)
        assert [stored.record for stored in store.read()] == [first, second]
        assert store.gaps() == []


def test_sink_positions_are_kept(tmp_path: Path) -> None:
    with Store.open(tmp_path / "audit.db") as store:
        assert store.sink_position("siem") == 0
        store.set_sink_position("siem", 7)
        store.set_sink_position("siem", 9)
        store.set_sink_position("file", 1)
    with Store.open(tmp_path / "audit.db") as store:
        assert (store.sink_position("siem"), store.sink_position("file")) == (9, 1)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    Store.open(path).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"schema version 99, and this Fleetward knows version 1: use"):
            Store.open(path, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_files_that_are_no_store(tmp_path: Path, *, read_only: bool) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is not a database, and long enough to be looked at" * 20)
    with pytest.raises(StoreError, match=r"text\.db: file is not a database"):
        Store.open(text, read_only=read_only)
    foreign = tmp_path / "foreign.db"
    raw = sqlite3.connect(foreign)
    raw.execute("CREATE TABLE t(x)")
    raw.close()
    with pytest.raises(StoreError, match="not an audit store of Fleetward"):
        Store.open(foreign, read_only=read_only)
    assert foreign.read_bytes()[18] == 1, "somebody else's file was left as it was, not switched to WAL"


def test_a_damaged_store_says_so(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "audit.db"
    with Store.open(path) as store:
        for first in range(1, 2000, 200):
            store.append(batch(make, "aaa", first, first + 199))
    content = bytearray(path.read_bytes())
    content[8 * 4096 : -4096] = os.urandom(len(content) - 9 * 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"audit\.db: (database disk image is malformed|file is not a database)"):
        Store.open(path, read_only=True).read(RecordQuery(limit=10_000))


def test_places_where_no_store_can_be(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no audit store at .*; `fleetward serve` writes one"):
        Store.open(tmp_path / "audit.db", read_only=True)
    assert not (tmp_path / "audit.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="no hub has written to it yet"):
        Store.open(tmp_path / "empty.db", read_only=True)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot open the audit store"):
        Store.open(tmp_path / "file" / "audit.db")


def test_commits_reach_the_disk(store: Store) -> None:
    assert store._writer is not None
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: synced at each commit"


def test_the_file_is_its_owners_alone(store: Store) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_a_reader_beside_the_writer(store: Store, make: Make) -> None:
    store.append(batch(make, "aaa", 1, 1))
    with Store.open(store.path, read_only=True) as reader:
        version = reader.data_version()
        assert reader.data_version() == version
        store.append(batch(make, "aaa", 2, 2))
        assert reader.data_version() != version
        assert ids(reader) == ["aaa-1", "aaa-2"]
        with pytest.raises(StoreError, match="open for reading only"):
            reader.append(batch(make, "aaa", 3, 3))


def test_readers_see_whole_batches_while_threads_write(store: Store, make: Make) -> None:
    size, rounds = 20, 15
    writers = ["aaa", "bbb", "ccc"]

    def write(writer: str) -> None:
        for number in range(rounds):
            store.append(batch(make, writer, number * size + 1, (number + 1) * size))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    seen: list[str] = []
    position = 0
    while len(seen) < size * rounds * len(writers):
        for stored in store.read(RecordQuery(limit=30), position):
            seen.append(stored.id)
            position = stored.position
        done = not any(thread.is_alive() for thread in threads)
        found = ids(store, limit=10_000)
        for writer in writers:
            assert sum(id_.startswith(writer) for id_ in found) % size == 0
        if done:
            assert len(found) == size * rounds * len(writers)
    for thread in threads:
        thread.join()
    assert len(set(seen)) == len(seen)
    for writer in writers:
        mine = [id_ for id_ in seen if id_.startswith(writer)]
        assert mine == [f"{writer}-{seq}" for seq in range(1, size * rounds + 1)]


def test_reading_where_nothing_may_be_written(small_disk: Path, make: Make) -> None:
    with Store.open(small_disk / "audit.db") as store:
        store.append(batch(make, "aaa", 1, 2))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with Store.open(small_disk / "audit.db", read_only=True) as reader:
        assert ids(reader) == ["aaa-1", "aaa-2"]
    with pytest.raises(StoreError, match="Read-only file system"):
        Store.open(small_disk / "audit.db")


def test_a_full_disk_refuses_the_batch_and_then_recovers(small_disk: Path, make: Make) -> None:
    with Store.open(small_disk / "audit.db") as store:
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (128 * 1024))
        taken = 0
        try:
            while taken < 10_000:
                store.append(batch(make, "aaa", taken + 1, taken + 20))
                taken += 20
        except StoreError as error:
            assert "disk is full" in str(error) or "disk I/O error" in str(error)  # noqa: PT017 - `taken` is needed
        assert len(ids(store, limit=10_000)) == taken
        filler.unlink()
        store.append(batch(make, "aaa", taken + 1, taken + 20))
        assert len(ids(store, limit=10_000)) == taken + 20


# A process that appends batches of 7, sending each a second time, and tells each first number once `append` returned.
CHILD = """
import json, os, sys
from fleetward.audit.store import Store

with Store.open(sys.argv[1]) as store:
    start = store.last_seq("kkk") + 1
    while True:
        lines = [json.dumps({
            "type": "ModeChange", "id": f"kkk-{seq}", "writer": "kkk", "seq": seq,
            "time": "2026-03-01T10:00:00Z", "subject": "AgentFleet reporting",
            "before": "Running", "after": "Paused", "registryVersion": "v1",
        }).encode() for seq in range(start, start + 7)]
        store.append(lines)
        os.write(1, b"%d\\n" % (start + 6))
        store.append(lines)
        start += 7
"""


def test_kill_9_loses_and_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    told = 0
    for generation in range(8):
        with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = list(itertools.islice(process.stdout, 3 + 11 * generation))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        told = max(int(number) for number in lines if number.endswith(b"\n"))
        with Store.open(path, read_only=generation % 2 == 0) as store:
            numbers = [json.loads(stored.body)["seq"] for stored in store.read(RecordQuery(limit=100_000))]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) % 7 == 0
        assert len(numbers) >= told
        told = len(numbers)
    assert told > 300


def test_whose_a_writer_is_and_what_it_has_recorded(store: Store, make: Make) -> None:
    assert store.workload_of("aaa") is None
    store.report("aaa", "reports/pod-a", 3)
    assert store.workload_of("aaa") == "reports/pod-a"
    store.append([encode(make("aaa", 1)), encode(make("aaa", 2, agent="reports/planner"))])
    store.append([encode(make("bbb", 1, agent="reports/writer"))])
    assert store.has_recorded("aaa", "reports/planner")
    assert store.has_recorded("aaa", "reports/data-worker")
    assert not store.has_recorded("aaa", "reports/writer")
    assert not store.has_recorded("ccc", "reports/planner")
    own = store.append_own(lambda _, writer, seq: make(writer, seq, "AccessRefused")).writer
    assert store.is_own(own)
    assert not store.is_own("aaa")
