"""Signing keys: ids, rotation, and their file."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.delegation.keys import (
    RETIRED_SECONDS,
    KeyRing,
    KeyRingError,
    decoded,
    encoded,
    key_id,
    open_key_file,
    write_key_file,
)
from fleetward.delegation.scope import MAX_GRANT_SECONDS

NOW = 1_795_000_000


def test_a_key_id_is_the_thumbprint_of_rfc_8037() -> None:
    """RFC 8037, appendix A.3."""
    assert key_id("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_public_key_is_that_of_rfc_8037() -> None:
    """RFC 8037, appendix A.1 and A.2."""
    ring = KeyRing(decoded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"), NOW)
    assert ring.public() == {ring.kid: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


def test_a_new_ring_has_a_key_of_its_own() -> None:
    one, other = KeyRing.generate(NOW), KeyRing.generate(NOW)
    assert one.kid != other.kid
    assert list(one.public()) == [one.kid]
    assert len(decoded(one.public()[one.kid])) == 32


def test_a_rotated_ring_signs_with_a_new_key_and_knows_the_old_ones() -> None:
    first = KeyRing.generate(NOW)
    second = first.rotated(NOW + 10)
    third = second.rotated(NOW + 20)
    assert list(third.public()) == [third.kid, first.kid, second.kid]
    assert third.public().items() >= first.public().items() | second.public().items()
    assert first.private not in third.dump()


def test_a_key_is_kept_until_no_grant_of_its_can_be_alive() -> None:
    assert RETIRED_SECONDS > MAX_GRANT_SECONDS
    first = KeyRing.generate(NOW)
    second = first.rotated(NOW)
    assert first.kid in second.rotated(NOW + RETIRED_SECONDS).public()
    assert first.kid not in second.rotated(NOW + RETIRED_SECONDS + 1).public()
    assert second.kid in second.rotated(NOW + RETIRED_SECONDS + 1).public()


def test_nothing_shows_the_private_key_but_the_dump() -> None:
    ring = KeyRing.generate(NOW)
    for shown in (repr(ring), str(ring), str(ring.public())):
        assert encoded(ring.private) not in shown
        assert repr(ring.private) not in shown


def test_a_dump_is_read_as_what_it_was() -> None:
    ring = KeyRing.generate(NOW).rotated(NOW + 1).rotated(NOW + 2)
    assert KeyRing.load(ring.dump()) == ring


def _changed(**changes: object) -> bytes:
    ring = KeyRing.generate(NOW).rotated(NOW + 1)
    data = json.loads(ring.dump())
    for path, value in changes.items():
        *way, last = path.split("__")
        at = data
        for step in way:
            at = at[int(step) if step.isdigit() else step]
        at[last] = value
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no keys for signing grants"),
        (b"\xff\xfe", "no keys for signing grants"),
        (b"[]", "no keys for signing grants"),
        (b"[" * 100_000, "no keys for signing grants"),
        (_changed(version=2), "no keys for signing grants"),
        (_changed(more=1), "unknown field `more`"),
        (_changed(signing__more=1), "unknown field `more`"),
        (_changed(signing__since="now"), "Expected `int`"),
        (_changed(signing__d="x"), "the private key is not 32 bytes of base64url"),
        (_changed(signing__d="\u00e9"), "the private key is not 32 bytes of base64url"),
        (_changed(signing__d="AAAA"), "the private key is not 32 bytes of base64url"),
        (_changed(signing__d="A" * 43), "does not belong to its key"),
        (_changed(signing__kid="x"), "the key id x does not belong to its key"),
        (_changed(retired__0__kid="x"), "the key id x does not belong to its key"),
        (_changed(retired__0__x="A" * 44), "is not 32 bytes of base64url"),
        (_changed(retired__0__retiredAt=-1), "no keys for signing grants"),
    ],
)
def test_anything_else_is_refused_and_says_why(data: bytes, message: str) -> None:
    with pytest.raises(KeyRingError, match=message):
        KeyRing.load(data)


def test_a_key_that_is_there_twice_is_refused() -> None:
    data = json.loads(KeyRing.generate(NOW).rotated(NOW).dump())
    data["retired"] *= 2
    with pytest.raises(KeyRingError, match="a key is there twice"):
        KeyRing.load(json.dumps(data).encode())


@given(st.binary(max_size=200) | st.builds(lambda t: t.encode(), st.text(max_size=100)))
def test_garbage_gives_no_other_error(data: bytes) -> None:
    with pytest.raises(KeyRingError):
        KeyRing.load(data)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_dump_gives_the_same_keys_or_a_clear_error(data: st.DataObject) -> None:
    ring = KeyRing(bytes(32), NOW).rotated(NOW + 1)
    dump = bytearray(ring.dump())
    dump[data.draw(st.integers(0, len(dump) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = KeyRing.load(bytes(dump))
    except KeyRingError:
        return
    assert read.public() == ring.public()


def test_a_key_file_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    umask = os.umask(0)
    try:
        ring = open_key_file(path, NOW)
    finally:
        os.umask(umask)
    assert ring.since == NOW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_key_file(path, NOW + 5) == ring
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


def test_of_many_makers_at_once_one_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda now: open_key_file(path, now), range(NOW, NOW + 40)))
    assert {ring.kid for ring in rings} == {open_key_file(path, NOW).kid}
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


def test_who_finds_the_file_made_meanwhile_takes_it_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    first, second = KeyRing.generate(NOW), KeyRing.generate(NOW)

    def generate(now: int) -> KeyRing:
        write_key_file(path, first)
        return second

    monkeypatch.setattr(KeyRing, "generate", generate)
    assert open_key_file(path, NOW) == first
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


def test_a_rotated_ring_takes_the_files_place(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring = open_key_file(path, NOW).rotated(NOW + 1)
    write_key_file(path, ring)
    assert open_key_file(path, NOW + 2) == ring
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    open_key_file(path, NOW)
    path.chmod(mode)
    with pytest.raises(KeyRingError, match=f"its mode is {mode:04o}, allowed is 0600"):
        open_key_file(path, NOW)


def test_a_file_that_is_none_of_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.touch(0o600)
    for content, message in ((b"", "no keys"), (b"{}", "no keys"), (b" " * 100_000, "larger than 65536 bytes")):
        path.write_bytes(content)
        with pytest.raises(KeyRingError, match=rf"keys\.json.*{message}"):
            open_key_file(path, NOW)
        assert path.read_bytes() == content


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyRingError, match="is not a file"):
        open_key_file(tmp_path / "pipe", NOW)
    (tmp_path / "folder").mkdir()
    with pytest.raises((KeyRingError, OSError)):
        open_key_file(tmp_path / "folder", NOW)
    with pytest.raises(FileNotFoundError):
        open_key_file(tmp_path / "missing" / "keys.json", NOW)
