"""The spool keeps every record that `append` returned for, and never gives out a number twice."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetward.audit.spool import NUMBERS_RESERVED, Spool, SpoolError


def line(spool: Spool, pad: int = 0) -> bytes:
    return json.dumps({"writer": spool.writer, "seq": spool.next_seq, "pad": "x" * pad}).encode()


def fill(spool: Spool, count: int, pad: int = 0) -> list[bytes]:
    lines = []
    for _ in range(count):
        lines.append(line(spool, pad))
        spool.append(lines[-1])
    return lines


def drain(spool: Spool) -> list[bytes]:
    return [text for batch in iter(spool.unacknowledged, []) for text in batch]


def numbers(lines: list[bytes]) -> list[int]:
    return [json.loads(text)["seq"] for text in lines]


def segments(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.jsonl"))


def die(spool: Spool) -> None:
    """Let go of the directory as a killed process does: no sync, no note of a clean end."""
    spool._release()


def edit_state(directory: Path, **changes: object) -> None:
    path = directory / "writer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_numbers_go_on_after_reopening(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "spool") as spool:
        writer = spool.writer
        assert len(writer) == 10
        assert spool.next_seq == 1
        written = fill(spool, 3)
        assert spool.next_seq == 4
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700

    with Spool.open(tmp_path / "spool") as spool:
        assert (spool.writer, spool.next_seq, spool.synced_seq) == (writer, 4, 3)
        assert drain(spool) == written
        assert spool.append(line(spool)) == 4


def test_loads_nothing_heavy() -> None:
    script = "import sys, fleetward.audit.spool, fleetward.audit.record; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded).isdisjoint({"pydantic", "yaml", "click", "rich", "sqlite3", "aiohttp", "fleetward.resources"})


def test_two_writers_have_different_ids(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "a") as a, Spool.open(tmp_path / "b") as b:
        assert a.writer != b.writer


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Spool.open(tmp_path), pytest.raises(SpoolError, match=rf"in use by process {os.getpid()} \(.+\)"):
        Spool.open(tmp_path)
    with Spool.open(tmp_path) as spool:
        assert spool.append(line(spool)) == 1


def test_closed(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.close()
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        spool.append(b"{}")
    with pytest.raises(SpoolError, match="closed"):
        spool.sync()


def test_reads_in_batches_and_rewinds(tmp_path: Path) -> None:
    with Spool.open(tmp_path, segment_bytes=1000) as spool:
        written = fill(spool, 20, pad=100)
        assert len(segments(tmp_path)) > 2
        assert spool.unacknowledged(limit_records=2) == written[:2]
        assert spool.unacknowledged(limit_bytes=1) == written[2:3]
        assert spool.unacknowledged(limit_bytes=len(written[3]) + len(written[4]) + 2) == written[3:5]
        assert drain(spool) == written[5:]
        assert spool.unacknowledged() == []
        more = fill(spool, 1)
        assert drain(spool) == more
        spool.acknowledge(7)
        spool.rewind()
        assert drain(spool) == written[7:] + more


def test_acknowledging_deletes_whole_segments_but_the_current(tmp_path: Path) -> None:
    with Spool.open(tmp_path, segment_bytes=1000) as spool:
        written = fill(spool, 20, pad=100)
        names = segments(tmp_path)
        second, third = int(names[1][:20]), int(names[2][:20])

        spool.acknowledge(second - 2)
        assert segments(tmp_path) == names
        spool.acknowledge(second - 1)
        assert segments(tmp_path) == names[1:]
        spool.acknowledge(1)
        assert spool.acknowledged_seq == second - 1
        assert spool.pending == (20 - second + 1, sum(len(text) + 1 for text in written[second - 1 :]))

        spool.acknowledge(third)
        spool.acknowledge(20)
        assert segments(tmp_path) == names[-1:]
        assert spool.pending == (0, 0)
        assert spool.unacknowledged() == []
        with pytest.raises(SpoolError, match="the last one is 20"):
            spool.acknowledge(21)
    with Spool.open(tmp_path) as spool:
        assert spool.next_seq == 21
        assert spool.pending == (0, 0)


def test_a_record_larger_than_a_segment_gets_its_own(tmp_path: Path) -> None:
    with Spool.open(tmp_path, segment_bytes=100) as spool:
        written = fill(spool, 3, pad=500)
        assert len(segments(tmp_path)) == 3
        assert drain(spool) == written


def test_refuses_more_than_may_wait(tmp_path: Path) -> None:
    with Spool.open(tmp_path, segment_bytes=500, max_bytes=1000) as spool:
        with pytest.raises(SpoolError, match=r"is full: \d+ records \(\d+ bytes\) wait for the hub"):
            fill(spool, 100, pad=100)
        stuck = spool.next_seq
        with pytest.raises(SpoolError):
            spool.append(line(spool, 100))
        spool.acknowledge(2)
        assert spool.append(line(spool, 100)) == stuck
    with Spool.open(tmp_path, segment_bytes=500, max_bytes=1000) as spool, pytest.raises(SpoolError):
        fill(spool, 100, pad=100)


def test_synced_seq_follows_sync_and_acknowledgement(tmp_path: Path) -> None:
    with Spool.open(tmp_path, segment_bytes=300) as spool:
        fill(spool, 10, pad=50)
        assert spool.synced_seq == 0
        assert spool.sync() == spool.synced_seq == 10
        fill(spool, 5)
        assert spool.synced_seq == 10
        spool.acknowledge(12)
        assert spool.synced_seq == 12
        assert spool.sync() == 15


def test_sync_beside_appends(tmp_path: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []
    with Spool.open(tmp_path, segment_bytes=2000) as spool:

        def sync() -> None:
            try:
                while not stop.is_set():
                    spool.sync()
            except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the test
                failures.append(error)

        thread = threading.Thread(target=sync)
        thread.start()
        try:
            written = fill(spool, 5000, pad=20)
        finally:
            stop.set()
            thread.join()
        assert not failures
        assert spool.sync() == 5000
        assert not spool._rotated
        assert drain(spool) == written


@pytest.mark.parametrize("torn", [b"{", b'{"writer":"x","seq":4,"pa', b'{"whole":true}'])
def test_a_torn_last_line_is_cut_off_and_its_number_used_again(tmp_path: Path, torn: bytes) -> None:
    spool = Spool.open(tmp_path)
    written = fill(spool, 3)
    die(spool)
    with (tmp_path / segments(tmp_path)[-1]).open("ab") as file:
        file.write(torn)
    with Spool.open(tmp_path) as spool:
        assert drain(spool) == written
        assert spool.append(line(spool)) == 4
        assert numbers(drain(spool)) == [4]
    assert not list(tmp_path.glob("*.damaged"))


def test_damage_is_set_aside_and_no_number_is_used_again(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    written = fill(spool, 5)
    die(spool)
    path = tmp_path / segments(tmp_path)[-1]
    keep = sum(len(text) + 1 for text in written[:2])
    content = path.read_bytes()
    path.write_bytes(content[:keep] + b"\0" * (len(content) - keep))
    with Spool.open(tmp_path) as spool:
        assert drain(spool) == written[:2]
        assert spool.next_seq == NUMBERS_RESERVED + 1
        fill(spool, 1)
        assert numbers(drain(spool)) == [NUMBERS_RESERVED + 1]
    assert path.with_suffix(".damaged").read_bytes() == b"\0" * (len(content) - keep)


def test_a_foreign_or_misplaced_record_counts_as_damage(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    written = fill(spool, 2)
    die(spool)
    path = tmp_path / segments(tmp_path)[-1]
    with path.open("ab") as file:
        file.write(written[0] + b"\n")
    with Spool.open(tmp_path) as spool:
        assert drain(spool) == written
        assert spool.next_seq > 3


@pytest.mark.parametrize("which", ["all", "last", "first"])
def test_lost_segments_never_turn_numbers_back(tmp_path: Path, which: str) -> None:
    spool = Spool.open(tmp_path, segment_bytes=300)
    fill(spool, 10, pad=100)
    die(spool)
    names = segments(tmp_path)
    gone = {"all": names, "last": names[-1:], "first": names[:1]}[which]
    left = sum(len((tmp_path / name).read_bytes().splitlines()) for name in names if name not in gone)
    for name in gone:
        (tmp_path / name).unlink()
    with Spool.open(tmp_path, segment_bytes=300) as spool:
        assert spool.next_seq >= 11
        if which == "first":
            assert spool.next_seq == 11
        assert len(drain(spool)) == left
        after = spool.next_seq
        fill(spool, 3)
        assert numbers(drain(spool)) == [after, after + 1, after + 2]


def test_segments_lost_after_a_clean_end(tmp_path: Path) -> None:
    with Spool.open(tmp_path) as spool:
        fill(spool, 5)
    for name in segments(tmp_path):
        (tmp_path / name).unlink()
    with Spool.open(tmp_path) as spool:
        assert spool.next_seq == 6


def test_after_the_node_died_numbers_that_may_be_in_use_are_passed_over(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    fill(spool, 3)
    die(spool)
    edit_state(tmp_path, boot="another boot")
    with Spool.open(tmp_path) as spool:
        assert spool.next_seq == NUMBERS_RESERVED + 1
        assert len(drain(spool)) == 3
    # That end was clean and so complete: a reboot after it passes nothing over.
    edit_state(tmp_path, boot="yet another boot")
    with Spool.open(tmp_path) as spool:
        assert spool.next_seq == NUMBERS_RESERVED + 1


def test_a_loss_is_known_until_it_is_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Spool.open(tmp_path) as spool:
        fill(spool, 3)
        assert not spool.lost
        died = (tmp_path / "writer.json").read_bytes()  # as it is while the spool is open
    with Spool.open(tmp_path) as spool:
        assert not spool.lost
    (tmp_path / "writer.json").write_bytes(died)
    with Spool.open(tmp_path) as spool:  # the process died, and the machine did not
        assert not spool.lost
    (tmp_path / "writer.json").write_bytes(died)
    monkeypatch.setattr("fleetward.audit.spool.boot_id", lambda: "another-boot")
    with Spool.open(tmp_path) as spool:
        assert spool.lost
    with Spool.open(tmp_path) as spool:  # it ended well, and said nothing of the loss
        told = [spool.lost]
        spool.accounted()
        assert [*told, spool.lost] == [True, False]
    with Spool.open(tmp_path) as spool:
        assert not spool.lost


def test_the_mark_stays_ahead_of_the_numbers(tmp_path: Path) -> None:
    with Spool.open(tmp_path) as spool:
        for _ in range(5):
            fill(spool, NUMBERS_RESERVED // 2 + 1)
            assert json.loads((tmp_path / "writer.json").read_text())["reserved"] >= spool.next_seq - 1


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    Spool.open(tmp_path).close()
    (tmp_path / "writer.json").write_text('{"writer": 1}')
    with pytest.raises(SpoolError, match=r"writer\.json is damaged .* move the directory aside"):
        Spool.open(tmp_path)


def test_segments_without_their_writer_are_refused(tmp_path: Path) -> None:
    Spool.open(tmp_path).close()
    (tmp_path / "writer.json").unlink()
    with pytest.raises(SpoolError, match="put it back"):
        Spool.open(tmp_path)


def test_a_place_that_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot open the spool"):
        Spool.open(tmp_path / "file" / "spool")


def test_a_failed_write_that_cannot_be_taken_back_is_mended_first(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    written = fill(spool, 2)
    # The kernel refuses both the write and the truncation on a descriptor that is open for reading only.
    writable = os.dup(spool._fd)
    readable = os.open(tmp_path / segments(tmp_path)[-1], os.O_RDONLY)
    os.dup2(readable, spool._fd)
    os.close(readable)
    with pytest.raises(SpoolError):
        spool.append(line(spool))
    os.write(writable, b'{"half of a rec')
    with pytest.raises(SpoolError):
        spool.append(line(spool))
    os.dup2(writable, spool._fd)
    os.close(writable)
    written += fill(spool, 1)
    assert drain(spool) == written
    die(spool)
    with Spool.open(tmp_path) as spool:
        assert spool.next_seq == 4


def test_a_failed_sync_counts_until_the_hub_has_the_records(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    fill(spool, 2)
    spool.sync()
    fill(spool, 2)
    # A pipe cannot be synced, so the kernel refuses.
    kept = os.dup(spool._fd)
    reader, writer = os.pipe()
    os.dup2(writer, spool._fd)
    with pytest.raises(SpoolError, match="cannot sync"):
        spool.sync()
    os.dup2(kept, spool._fd)
    for fd in (kept, reader, writer):
        os.close(fd)
    with pytest.raises(SpoolError, match="may not have the records up to number 4"):
        spool.sync()
    assert spool.synced_seq == 2
    spool.acknowledge(4)
    fill(spool, 1)
    assert spool.sync() == 5
    spool.close()


def test_earlier_segments_are_synced_too(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, segment_bytes=200)
    fill(spool, 3, pad=100)
    assert spool._rotated
    reader, writer = os.pipe()
    os.dup2(writer, spool._rotated[0])
    with pytest.raises(SpoolError, match="cannot sync"):
        spool.sync()
    os.close(reader)
    os.close(writer)
    assert spool.synced_seq == 0
    die(spool)


# A process that appends: on command, or as fast as it can, telling each number once `append` has returned it.
CHILD = """
import json, os, sys
from fleetward.audit.spool import Spool, SpoolError

spool = Spool.open(sys.argv[1], segment_bytes=int(sys.argv[2]))

def append(pad):
    record = {"writer": spool.writer, "seq": spool.next_seq, "pad": "x" * pad}
    return spool.append(json.dumps(record).encode())

if sys.argv[3] == "load":
    while True:
        os.write(1, b"%d\\n" % append(200))
for command in sys.stdin:
    word, value = command.split()
    try:
        if word == "append":
            answer = append(int(value))
        elif word == "acknowledge":
            answer = spool.acknowledge(int(value))
        else:
            answer = [json.loads(line)["seq"] for batch in iter(spool.unacknowledged, []) for line in batch]
    except SpoolError as error:
        answer = str(error)
    print(json.dumps(answer), flush=True)
"""


class Child:
    def __init__(self, directory: Path, segment_bytes: int = 2**20) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(directory), str(segment_bytes), "commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, word: str, value: int = 0) -> object:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word} {value}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    started = Child(tmp_path)
    yield started
    started.stop()


def test_kill_9_under_load_loses_no_returned_record(tmp_path: Path) -> None:
    told = 0
    for generation in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), "20000", "load"], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            lines = list(itertools.islice(process.stdout, 50 + 377 * generation))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        told = max(int(number) for number in lines if number.endswith(b"\n"))
        with Spool.open(tmp_path, segment_bytes=20000) as spool:
            # The one record that `append` may have written without getting to tell so.
            assert spool.next_seq - 1 - told in {0, 1}
            assert numbers(drain(spool)) == list(range(1, spool.next_seq))
            told = spool.next_seq - 1
    assert told > 1000


def test_a_limit_on_file_sizes_denies_and_then_recovers(tmp_path: Path, child: Child) -> None:
    assert child("append", 100) == 1
    before, hard = resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (1000, hard))
    answers = [child("append", 300) for _ in range(6)]
    assert answers[:2] == [2, 3]
    assert all("fitted" in str(answer) or "File too large" in str(answer) for answer in answers[2:])
    assert child("read") == [1, 2, 3]
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (before, hard))
    assert child("append", 300) == 4
    child.stop()
    with Spool.open(tmp_path) as spool:
        assert numbers(drain(spool)) == [1, 2, 3, 4]


def test_a_full_disk_denies_and_then_recovers(small_disk: Path) -> None:
    with Spool.open(small_disk / "spool", segment_bytes=16384) as spool:
        with pytest.raises(SpoolError, match=r"No space left on device|the disk is full"):
            fill(spool, 1000, pad=1000)
        full = spool.next_seq
        with pytest.raises(SpoolError):
            fill(spool, 1000, pad=10000)
        # What was not refused is there, whole and in order.
        assert numbers(drain(spool)) == list(range(1, spool.next_seq))
        spool.acknowledge(full // 2)
        before = spool.next_seq
        assert spool.append(line(spool, 1000)) == before
        spool.sync()
    with Spool.open(small_disk / "spool") as spool:
        assert spool.next_seq == before + 1
