"""The keys that sign grants: when the next one is made, published, and signs."""

import pytest

from fleetward.delegation.keys import RETIRED_SECONDS, KeyRing, KeyRingError
from fleetward_operator.keeper.grantkeys import NEXT, PUBLISHED_SECONDS, RING, ROTATE_SECONDS, GrantKeys

NOW = 1_800_000_000


def fresh() -> GrantKeys:
    return GrantKeys(KeyRing.generate(NOW))


def test_nothing_is_due_for_a_day() -> None:
    keys = fresh()
    assert keys.advance(NOW) is keys
    assert keys.advance(NOW + ROTATE_SECONDS - 1) is keys
    assert set(keys.data()) == {RING}


def test_a_new_key_is_published_for_a_while_before_it_signs() -> None:
    keys = fresh()
    due = NOW + ROTATE_SECONDS
    published = keys.advance(due)
    assert published.successor is not None
    assert published.ring is keys.ring, "the old key goes on signing"
    assert set(published.public()) == {keys.ring.kid, published.successor.kid}
    assert published.advance(due + PUBLISHED_SECONDS - 1) is published
    signing = published.advance(due + PUBLISHED_SECONDS)
    assert (signing.ring, signing.successor) == (published.successor, None)
    assert signing.public() == published.public(), "no webhook has anything to learn when it begins to sign"
    assert signing.advance(due + PUBLISHED_SECONDS) is signing


def test_a_key_is_known_until_its_last_grant_has_expired() -> None:
    keys, now = fresh(), NOW
    first = keys.ring.kid
    while first in keys.public():
        assert now - NOW < 3 * RETIRED_SECONDS
        now += ROTATE_SECONDS
        keys = keys.advance(now).advance(now + PUBLISHED_SECONDS)
    assert now - NOW > RETIRED_SECONDS - 3600


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    published = fresh().advance(NOW + ROTATE_SECONDS)
    assert published.advance(NOW - 10).ring is published.successor
    assert GrantKeys(KeyRing.generate(NOW)).advance(NOW - 2 * ROTATE_SECONDS).successor is not None


def test_what_is_written_is_read() -> None:
    for keys in (fresh(), fresh().advance(NOW + ROTATE_SECONDS)):
        assert GrantKeys.read(keys.data()) == keys


def test_what_does_not_do() -> None:
    for data in ({}, {RING: b""}, {RING: b"{}"}, {NEXT: fresh().ring.dump()}):
        with pytest.raises(KeyRingError):
            GrantKeys.read(data)
    keys = fresh()
    for damaged in (b"?", fresh().ring.dump()):
        # One that is broken, and one that would make every grant so far worthless: both as if there were none.
        assert GrantKeys.read({**keys.data(), NEXT: damaged}) == keys


def test_no_key_is_shown() -> None:
    keys = fresh().advance(NOW + ROTATE_SECONDS)
    assert keys.successor is not None
    for ring in (keys.ring, keys.successor):
        assert repr(ring.private)[2:-1] not in repr(keys)
