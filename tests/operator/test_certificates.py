import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetward_operator.keeper.certificates import (
    AUTHORITY_LIFE,
    LEAF_LIFE,
    MAX_RETIRED,
    PUBLISHED,
    Authority,
    CertificateError,
    Pair,
    due,
    issue,
    read_certificates,
)

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
NAMES = ("fleetward-hub.fleetward-system.svc", "fleetward-hub", "127.0.0.1")


def verifies(leaf: Pair, bundle: bytes, now: dt.datetime, name: str = NAMES[0]) -> bool:
    """Ask another implementation (that of `cryptography`, after RFC 5280 and the rules for the web)."""
    store = verification.Store(read_certificates(bundle))
    verifier = verification.PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(leaf.x509, [])
    except verification.VerificationError:
        return False
    return True


def test_a_leaf_is_valid_for_its_names_and_time_only() -> None:
    authority = Authority.new(NOW)
    leaf = issue(authority, NAMES, NOW)
    assert verifies(leaf, authority.bundle, NOW)
    assert verifies(leaf, authority.bundle, NOW - dt.timedelta(minutes=59)), "a clock that runs behind"
    assert not verifies(leaf, authority.bundle, NOW - dt.timedelta(minutes=61))
    assert not verifies(leaf, authority.bundle, NOW + LEAF_LIFE + DAY)
    assert not verifies(leaf, authority.bundle, NOW, name="elsewhere.svc")
    assert not verifies(leaf, Authority.new(NOW).bundle, NOW)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_python_accepts_them_by_its_strictest_rules(tmp_path: Path, name: str) -> None:
    now = dt.datetime.now(dt.UTC)
    authority = Authority.new(now)
    with tls_server(tmp_path, issue(authority, ("localhost", "127.0.0.1"), now)) as port:
        client = ssl.create_default_context(cadata=authority.bundle.decode())
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        with socket.create_connection(("127.0.0.1", port)) as plain:
            client.wrap_socket(plain, server_hostname=name).close()
        other = ssl.create_default_context(cadata=Authority.new(now).bundle.decode())
        with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
            other.wrap_socket(plain, server_hostname=name)


def test_a_leaf_is_renewed_at_two_thirds_of_its_life() -> None:
    authority = Authority.new(NOW - 30 * DAY)
    leaf = issue(authority, NAMES, NOW)
    assert due(leaf, authority, NAMES, NOW) == ""
    assert due(leaf, authority, NAMES, NOW + 59 * DAY) == ""
    assert "ends on" in due(leaf, authority, NAMES, NOW + 61 * DAY)


@pytest.mark.parametrize(
    ("names", "at", "authority_at", "why"),
    [
        ((*NAMES, "more.example"), NOW, NOW, "more.example"),
        (NAMES[:1], NOW, NOW, "127.0.0.1"),
        (NAMES, NOW - DAY, NOW, "valid from"),
    ],
)
def test_a_leaf_that_does_not_fit_is_replaced(
    names: tuple[str, ...], at: dt.datetime, authority_at: dt.datetime, why: str
) -> None:
    authority = Authority.new(authority_at)
    assert why in due(issue(authority, NAMES, NOW), authority, names, at)


def test_a_leaf_of_another_ca_is_replaced() -> None:
    assert "no trusted CA" in due(issue(Authority.new(NOW), NAMES, NOW), Authority.new(NOW), NAMES, NOW)


def test_damage_is_told_in_words() -> None:
    one, other = issue(Authority.new(NOW), NAMES, NOW), issue(Authority.new(NOW), NAMES, NOW)
    with pytest.raises(CertificateError, match="the key is not the certificate's"):
        Pair(one.certificate, other.key)
    with pytest.raises(CertificateError, match="no private key"):
        Pair(one.certificate, b"garbage")
    with pytest.raises(CertificateError, match="no certificate"):
        Pair(b"", one.key)


def test_nothing_due_changes_nothing() -> None:
    authority = Authority.new(NOW)
    assert authority.advance(NOW + 2000 * DAY) == authority
    assert authority.bundle == authority.signer.certificate


def test_a_successor_is_published_before_it_signs_and_the_old_one_stays() -> None:
    first = Authority.new(NOW)
    published = first.advance(NOW + 0.8 * AUTHORITY_LIFE)
    assert published.signer == first.signer
    assert published.successor is not None
    assert published.successor.certificate in published.bundle
    assert published.advance(NOW + 0.8 * AUTHORITY_LIFE + PUBLISHED - DAY) == published
    signing = published.advance(NOW + 0.8 * AUTHORITY_LIFE + PUBLISHED)
    assert signing.signer == published.successor
    assert signing.successor is None
    assert first.signer.certificate in signing.bundle
    assert first.signer.certificate not in signing.advance(NOW + AUTHORITY_LIFE + DAY).bundle


def test_a_ca_that_ran_out_or_is_of_the_future_is_replaced_at_once() -> None:
    old = Authority.new(NOW)
    for now in (NOW + AUTHORITY_LIFE + DAY, NOW - DAY):
        fresh = old.advance(now)
        assert fresh.signer != old.signer
        assert verifies(issue(fresh, NAMES, now), fresh.bundle, now)


def test_a_ca_whose_key_was_lost_stays_trusted_and_the_new_one_waits() -> None:
    lost = Authority.new(NOW - 59 * DAY)
    leaf = issue(lost, NAMES, NOW - 59 * DAY)
    fresh = Authority.new(NOW, trusted=[lost.bundle, b"garbage", leaf.certificate])
    assert fresh.retired == (lost.signer.certificate,)
    assert due(leaf, fresh, NAMES, NOW) == ""
    assert due(leaf, fresh, NAMES, NOW + 2 * DAY) == "", "its time has come, but the new CA is not known everywhere"
    assert due(leaf, fresh, NAMES, NOW + PUBLISHED) != ""


def test_a_bundle_stays_small_whatever_is_lost() -> None:
    authority = Authority.new(NOW)
    for _ in range(MAX_RETIRED + 5):
        authority = Authority.new(NOW, trusted=[authority.bundle])
    assert len(read_certificates(authority.bundle)) == 1 + MAX_RETIRED
    assert authority.advance(NOW) == authority


@given(
    steps=st.lists(st.floats(min_value=0.05, max_value=6), min_size=5, max_size=40),
    first=st.sampled_from((0, 2915, 3560)),
)
@example(steps=[0.5] * 10, first=2915)
@settings(max_examples=30)
def test_through_the_years_every_leaf_verifies_by_a_bundle_a_day_old(steps: list[float], first: int) -> None:
    """The keeper comes by every few days, now and then only after weeks; names may ask for a new leaf at any visit."""
    now, authority = NOW, Authority.new(NOW)
    leaf = issue(authority, NAMES, now)
    bundles = [(now, authority.bundle)]
    for step in [20.0] * (first // 20) + steps * 10:
        now += step * DAY
        authority = authority.advance(now)
        bundles = [(now, authority.bundle), *bundles][:200]
        day_old = next((bundle for at, bundle in bundles if at <= now - DAY), bundles[-1][1])
        if now < leaf.x509.not_valid_after_utc:
            assert verifies(leaf, authority.bundle, now), f"what is in use on {now}, by the newest bundle"
        assert verifies(issue(authority, NAMES, now), day_old, now), f"what is asked for on {now}"
        if due(leaf, authority, NAMES, now):
            leaf = issue(authority, NAMES, now)
        assert verifies(leaf, day_old, now), f"what is in use on {now}"


@contextlib.contextmanager
def tls_server(directory: Path, pair: Pair) -> Iterator[int]:
    (directory / "tls.pem").write_bytes(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(2):
                connection, _address = listening.accept()
                with contextlib.suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as tls:
                    tls.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            thread.join(timeout=10)
