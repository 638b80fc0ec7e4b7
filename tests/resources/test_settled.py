"""Files in the middle of being written, by real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetward.resources import settled
from fleetward.resources.folder import FolderReader
from fleetward.resources.settled import read_file

AGENT = "apiVersion: fleetward.dev/v1alpha1\nkind: Agent\nmetadata: {name: %s}\nspec: {role: Worker}\n"
WRITER = """
import sys
with open(sys.argv[1], "w") as file:
    file.write(sys.argv[2])
    file.flush()
    print("half", flush=True)
    sys.stdin.readline()
    file.write(sys.argv[3])
print("done", flush=True)
sys.stdin.readline()
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Writer:
    """A process that writes the first half, waits, writes the rest and closes the file."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._read() == "half"

    def finish(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._read() == "done"

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@contextmanager
def writing(path: Path, first: str, rest: str = "") -> Iterator[Writer]:
    command = [sys.executable, "-c", WRITER, str(path), first, rest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Writer(process)
        finally:
            process.kill()


needs_leases = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="leases are Linux's")


@needs_leases
def test_a_file_held_half_written_is_not_settled_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with writing(path, "a: 1\n", "b: 2\n") as writer:
        assert read_file(path, 1000) == (b"a: 1\n", False)
        writer.finish()
        assert read_file(path, 1000) == (b"a: 1\nb: 2\n", True)


@needs_leases
def test_a_half_written_file_is_pending_and_then_read_whole(tmp_path: Path) -> None:
    path, reader = tmp_path / "a.yaml", FolderReader(tmp_path)
    path.write_text(AGENT % "old")
    assert [loaded.resource.key for loaded in reader.read().resources] == ["default/old"]
    with writing(path, AGENT % "a", "---\n" + AGENT % "b") as writer:
        content = reader.read()
        assert content.pending == (str(path),)
        assert content.resources == ()
        assert content.files[0].unread
        assert content.findings == ()
        writer.finish()
        content = reader.read()
    assert content.pending == ()
    assert [loaded.resource.key for loaded in content.resources] == ["default/a", "default/b"]


@needs_leases
def test_a_file_held_open_for_long_is_read_as_it_is(tmp_path: Path) -> None:
    clock = Clock()
    path, reader = tmp_path / "a.yaml", FolderReader(tmp_path, held_open_seconds=5, clock=clock)
    with writing(path, AGENT % "a") as writer:
        assert reader.read().pending
        clock.now = 4.9
        assert reader.read().pending
        clock.now = 5.0
        assert [loaded.resource.key for loaded in reader.read().resources] == ["default/a"]
        writer.finish()
        assert not reader.read().pending
    with writing(path, AGENT % "b"):
        assert reader.read().pending, "a new writer gets its own time"


@needs_leases
def test_a_writer_that_comes_while_we_look_does_not_end_this_process(tmp_path: Path) -> None:
    # The kernel signals the holder of a lease when somebody opens the file for writing: by default with SIGIO, which
    # ends a process. The child opens and closes the file as fast as it can while this process asks for leases.
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\n")
    hammer = "import os, sys\nwhile True: os.close(os.open(sys.argv[1], os.O_WRONLY))"
    assert signal.getsignal(signal.SIGIO) is signal.SIG_DFL
    with subprocess.Popen([sys.executable, "-c", hammer, str(path)]) as process:
        try:
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                assert read_file(path, 1000).data == b"a: 1\n"
        finally:
            process.kill()


def test_where_there_are_no_leases_a_change_during_the_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\n")
    monkeypatch.setattr(settled, "fcntl", None)
    assert read_file(path, 1000).settled
    real = settled._read

    def slow(descriptor: int, limit: int) -> bytes:
        data = real(descriptor, limit)
        with path.open("a") as file:
            file.write("b: 2\n")
        return data

    monkeypatch.setattr(settled, "_read", slow)
    assert not read_file(path, 1000).settled


def test_a_file_that_has_just_gone_is_pending_before_it_counts_as_removed(tmp_path: Path) -> None:
    clock = Clock()
    path, reader = tmp_path / "a.yaml", FolderReader(tmp_path, missing_seconds=0.5, clock=clock)
    path.write_text(AGENT % "a")
    reader.read()
    path.rename(tmp_path / "a.yaml~")
    assert reader.read().pending == (str(path),)
    clock.now = 0.5
    assert reader.read().files == ()
    path.write_text(AGENT % "a")
    assert not reader.read().pending
    path.unlink()
    assert reader.read().pending == (str(path),)


def test_what_did_not_change_is_not_parsed_again(tmp_path: Path) -> None:
    reader = FolderReader(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(AGENT % name)
    before = reader.read()
    (tmp_path / "b.yaml").write_text((AGENT % "b").replace("Worker", "Planner"))
    after = reader.read()
    assert after.files[0] is before.files[0]
    assert after.files[1] is not before.files[1]


def test_only_so_many_bytes_are_read_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        os.ftruncate(file.fileno(), 10 * 2**30)
    assert len(read_file(path, 1000).data) == 1000
