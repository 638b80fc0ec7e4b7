"""The JSON-lines sink: every line whole, whatever happens to the file or the disk."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from fleetward.audit.record import Record, encode
from fleetward.audit.sinks.base import SinkError
from fleetward.audit.sinks.jsonlines import JsonLines
from fleetward.audit.store import StoredRecord

Make = Callable[..., Record]


def stored(make: Make, first: int, last: int, **changes: object) -> list[StoredRecord]:
    records = [make("aaa", seq, **changes) for seq in range(first, last + 1)]
    return [StoredRecord(record.seq, record.id, "Decision", encode(record)) for record in records]


def numbers(path: Path) -> list[int]:
    content = path.read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line)["seq"] for line in content.splitlines()]


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[JsonLines]:
    opened = JsonLines(tmp_path / "folder" / "audit.jsonl")
    yield opened
    await opened.close()


async def test_appends_lines_as_they_are(sink: JsonLines, tmp_path: Path, make: Make) -> None:
    records = stored(make, 1, 3)
    await sink.deliver(records[:2])
    await sink.deliver(records[2:])
    path = tmp_path / "folder" / "audit.jsonl"
    assert path.read_bytes() == b"".join(record.body + b"\n" for record in records)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("torn", [b'{"seq":3,"ha', b'{"seq":3}', b"\0" * 100, b'{"pad":"' + b"x" * 200_000])
async def test_a_torn_line_is_cut_off(sink: JsonLines, tmp_path: Path, make: Make, torn: bytes) -> None:
    path = tmp_path / "folder" / "audit.jsonl"
    await sink.deliver(stored(make, 1, 2))
    await sink.close()
    with path.open("ab") as file:
        file.write(torn)
    await sink.deliver(stored(make, 3, 4))
    assert numbers(path) == [1, 2, 3, 4]


async def test_nothing_but_a_torn_line(sink: JsonLines, tmp_path: Path, make: Make) -> None:
    path = tmp_path / "folder" / "audit.jsonl"
    path.parent.mkdir()
    path.write_text('{"seq":1,')
    await sink.deliver(stored(make, 1, 1))
    assert numbers(path) == [1]


async def test_a_rotated_file_is_started_anew(sink: JsonLines, tmp_path: Path, make: Make) -> None:
    path = tmp_path / "folder" / "audit.jsonl"
    await sink.deliver(stored(make, 1, 2))
    path.rename(path.with_suffix(".1"))
    await sink.deliver(stored(make, 3, 3))
    path.unlink()
    await sink.deliver(stored(make, 4, 4))
    assert numbers(path.with_suffix(".1")) == [1, 2]
    assert numbers(path) == [4]


async def test_a_full_disk_leaves_whole_lines_and_recovers(small_disk: Path, make: Make) -> None:
    path = small_disk / "audit.jsonl"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 400_000)
    sink = JsonLines(path)
    await sink.deliver(stored(make, 1, 2))
    with pytest.raises(SinkError, match="No space left on device") as caught:
        await sink.deliver(stored(make, 3, 200, reason="x" * 2000))
    assert caught.value.delivered == 0
    assert numbers(path) == [1, 2]
    filler.unlink()
    await sink.deliver(stored(make, 3, 5))
    assert numbers(path) == [1, 2, 3, 4, 5]
    await sink.close()


async def test_a_file_in_use_by_another(sink: JsonLines, tmp_path: Path, make: Make) -> None:
    await sink.deliver(stored(make, 1, 1))
    other = JsonLines(tmp_path / "folder" / "audit.jsonl")
    with pytest.raises(SinkError, match="is being written by another sink: give each its own path"):
        await other.deliver(stored(make, 2, 2))
    await sink.close()
    await other.deliver(stored(make, 2, 2))
    await other.close()


async def test_a_place_that_cannot_be_written(tmp_path: Path, make: Make) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(SinkError, match="cannot write"):
        await JsonLines(tmp_path / "folder" / "audit.jsonl").deliver(stored(make, 1, 1))


async def test_closing_leaves_no_descriptor_open(tmp_path: Path, make: Make) -> None:
    before = psutil.Process().num_fds()
    for name in ("a", "b", "c"):
        sink = JsonLines(tmp_path / name)
        await sink.deliver(stored(make, 1, 1))
        await sink.close()
        await sink.close()
    assert psutil.Process().num_fds() == before
