"""Signed grants: what was signed comes back whole, and whatever else is presented is refused with its own reason."""

import hashlib
import hmac
import json
import subprocess
import sys
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from delegation.strategies import ASKED
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.delegation import token as module
from fleetward.delegation.grant import Grant
from fleetward.delegation.keys import KeyRing, decoded, encoded
from fleetward.delegation.narrowing import narrow
from fleetward.delegation.scope import MAX_DEPTH, MAX_GRANT_SECONDS, Amounts, Scope
from fleetward.delegation.token import MAX_TOKEN, TYPE, GrantError, sign, verify

NOW = 1_795_000_000
RING = KeyRing(bytes(range(32)), NOW)
KEYS = RING.public()
AGENT = "reports/data-worker"
GRANT = Grant(
    id="g-1",
    run="run-1",
    path=("reports/coordinator", "reports/planner"),
    to=AGENT,
    scope=Scope(("crm.**",), ("customer",), ("crm",), 2, Amounts(records=100)),
    labels=("untrusted", "web"),
    parent="g-0",
    cause="d-1",
    issued_at=NOW,
    expires_at=NOW + 3600,
)
TOKEN = sign(GRANT, RING)


def reason(token: str, keys: dict[str, str] = KEYS, agent: str = AGENT, now: int = NOW, **more: int) -> str:
    with pytest.raises(GrantError) as error:
        verify(token, keys, agent, now, **more)
    assert str(error.value)
    assert "\n" not in str(error.value)
    return error.value.reason


def claims(**changes: Any) -> dict[str, Any]:
    data = json.loads(decoded(TOKEN.split(".")[1])) | changes
    return {name: value for name, value in data.items() if value is not ...}


def signed(payload: Any, ring: KeyRing = RING, **header: Any) -> str:
    """Sign anything at all, as somebody would who has the hub's key."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = {"alg": "EdDSA", "kid": ring.kid, "typ": TYPE} | header
    text = json.dumps({name: value for name, value in head.items() if value is not ...}).encode()
    return sealed(text, data, ring)


def sealed(header: bytes, payload: bytes, ring: KeyRing = RING) -> str:
    start = f"{encoded(header)}.{encoded(payload)}"
    return f"{start}.{encoded(ring.signer().sign(start.encode()))}"


agents = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?/[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
references = st.from_regex(r"[A-Za-z0-9._:/-]{1,20}", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._:/-]{0,8}[A-Za-z0-9])?", fullmatch=True)


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    issued_at = draw(st.integers(0, 2**40))
    return Grant(
        id=draw(references),
        run=draw(references),
        path=tuple(draw(st.lists(agents, min_size=1, max_size=MAX_DEPTH))),
        to=draw(agents),
        scope=narrow(None, draw(ASKED)),
        labels=tuple(draw(st.lists(tags, max_size=5))),
        parent=draw(st.none() | references),
        cause=draw(st.just("") | references),
        issued_at=issued_at,
        expires_at=issued_at + draw(st.integers(1, MAX_GRANT_SECONDS)),
    )


@given(grants())
@settings(max_examples=150, deadline=None)
def test_all_of_a_grant_survives(grant: Grant) -> None:
    token = sign(grant, RING)
    for _ in ("fresh", "cached"):
        assert verify(token, KEYS, grant.to, grant.issued_at) == grant


def test_the_claims_are_those_of_rfc_7519() -> None:
    header, payload, _ = TOKEN.split(".")
    assert json.loads(decoded(header)) == {"alg": "EdDSA", "kid": RING.kid, "typ": "fleetward-grant+jwt"}
    assert json.loads(decoded(payload)) == {
        "iss": "fleetward",
        "sub": "reports/coordinator",
        "aud": AGENT,
        "jti": "g-1",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 3600,
        "run": "run-1",
        "path": ["reports/coordinator", "reports/planner"],
        "scope": {
            "actions": ["crm.**"],
            "dataClasses": ["customer"],
            "targets": ["crm"],
            "depth": 2,
            "limits": {"records": 100},
        },
        "labels": ["untrusted", "web"],
        "parent": "g-0",
        "cause": "d-1",
    }


def test_another_library_call_verifies_it() -> None:
    """Nothing of ours is needed to read a grant: any JOSE library does."""
    key = Ed25519PrivateKey.from_private_bytes(RING.private).public_key()
    read = jwt.decode(
        TOKEN, key, algorithms=["EdDSA"], audience=AGENT, issuer="fleetward", options={"verify_exp": False}
    )
    assert read["jti"] == "g-1"


def test_rotation_breaks_no_live_grant() -> None:
    ring = RING.rotated(NOW + 1)
    assert verify(TOKEN, ring.public(), AGENT, NOW + 2) == GRANT
    new = sign(GRANT, ring)
    assert verify(new, ring.public(), AGENT, NOW + 2) == GRANT
    assert reason(new) == "UnknownKey"


def test_a_key_that_is_taken_away_ends_its_grants_at_once() -> None:
    assert verify(TOKEN, KEYS, AGENT, NOW) == GRANT
    other = KeyRing.generate(NOW).public()
    assert reason(TOKEN, {}) == "UnknownKey"
    assert reason(TOKEN, other) == "UnknownKey"
    assert reason(TOKEN, {RING.kid: next(iter(other.values()))}) == "BadSignature"
    for unusable in ("", "AAAA", "\u00e9", "A" * 44):
        assert reason(TOKEN, {RING.kid: unusable}) == "UnknownKey"
    assert verify(TOKEN, KEYS, AGENT, NOW) == GRANT


@pytest.mark.parametrize("times", [1, 2])
def test_agent_and_time_are_checked_each_time(times: int) -> None:
    for _ in range(times):
        assert reason(TOKEN, agent="reports/other") == "WrongAgent"
        assert reason(TOKEN, now=NOW - 91) == "NotYetValid"
        assert verify(TOKEN, KEYS, AGENT, NOW - 90) == GRANT
        assert verify(TOKEN, KEYS, AGENT, NOW + 3689) == GRANT
        assert reason(TOKEN, now=NOW + 3690) == "Expired"
        assert reason(TOKEN, now=NOW + 3600, leeway=0) == "Expired"
        assert reason(TOKEN, now=NOW - 1, leeway=0) == "NotYetValid"


def test_the_messages_are_in_plain_words() -> None:
    with pytest.raises(GrantError, match=r"^the grant g-1 expired 4000 s ago$"):
        verify(TOKEN, KEYS, AGENT, NOW + 7600)
    with pytest.raises(GrantError, match=r"^the grant g-1 was given to reports/data-worker, not to reports/other$"):
        verify(TOKEN, KEYS, "reports/other", NOW)
    with pytest.raises(GrantError, match=r"^the grant g-1 is valid in 100 s only: check the clocks$"):
        verify(TOKEN, KEYS, AGENT, NOW - 100)


def _hs256() -> str:
    start = f"{encoded(json.dumps({'alg': 'HS256', 'kid': RING.kid, 'typ': TYPE}).encode())}.{TOKEN.split('.')[1]}"
    return f"{start}.{encoded(hmac.digest(decoded(KEYS[RING.kid]), start.encode(), hashlib.sha256))}"


def _ed448() -> str:
    start = TOKEN.rsplit(".", 1)[0]
    return f"{start}.{encoded(Ed448PrivateKey.generate().sign(start.encode()))}"


MINE = KeyRing.generate(NOW)

FORGERIES = {
    "no algorithm": (signed(claims(), alg="none"), "WrongAlgorithm"),
    "no signature": (TOKEN.rsplit(".", 1)[0] + ".", "Malformed"),
    "None": (signed(claims(), alg="None"), "WrongAlgorithm"),
    "algorithm missing": (signed(claims(), alg=...), "WrongAlgorithm"),
    "algorithm a list": (signed(claims(), alg=["EdDSA"]), "WrongAlgorithm"),
    "the public key as a secret": (_hs256(), "WrongAlgorithm"),
    "the newer name of the algorithm": (signed(claims(), alg="Ed25519"), "WrongAlgorithm"),
    "another curve": (_ed448(), "BadSignature"),
    "another type": (signed(claims(), typ="JWT"), "WrongType"),
    "no type": (signed(claims(), typ=...), "WrongType"),
    "no key id": (signed(claims(), kid=...), "Malformed"),
    "a key id that is none": (signed(claims(), kid=7), "Malformed"),
    "another key": (signed(claims(), MINE), "UnknownKey"),
    "another key under our id": (signed(claims(), MINE, kid=RING.kid), "BadSignature"),
    "a key of its own in the header": (signed(claims(), MINE, kid=RING.kid, jwk={"kty": "OKP"}), "Malformed"),
    "crit": (signed(claims(), crit=["x"], x=1), "Malformed"),
    "b64": (signed(claims(), b64=False, crit=["b64"]), "Malformed"),
    "header with a name twice": (
        sealed(b'{"alg":"none","alg":"EdDSA","kid":"%s","typ":"%s"}' % (RING.kid.encode(), TYPE.encode()), b"{}"),
        "Malformed",
    ),
    "header no object": (sealed(b"[]", b"{}"), "Malformed"),
    "header too deep": (sealed(b"[" * 15_000, b"{}"), "Malformed"),
    "header in UTF-16": (sealed('{"alg":"EdDSA"}'.encode("utf-16"), b"{}"), "Malformed"),
    "two parts": (TOKEN.rsplit(".", 1)[0], "Malformed"),
    "four parts": (TOKEN + ".AAAA", "Malformed"),
    "nothing": ("", "Malformed"),
    "padded": (TOKEN + "=", "Malformed"),
    "with a line end": (TOKEN + "\n", "Malformed"),
    "a space before": (" " + TOKEN, "Malformed"),
    "not ASCII": (TOKEN[:-1] + "\u0661", "Malformed"),
    "half a character": ("\ud800." + TOKEN.split(".", 1)[1], "Malformed"),
    "too large": ("A" * MAX_TOKEN + TOKEN, "TooLarge"),
    "another payload": (".".join((TOKEN.split(".")[0], encoded(b"{}"), TOKEN.split(".")[2])), "BadSignature"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused_with_its_reason(name: str) -> None:
    token, expected = FORGERIES[name]
    assert reason(token) == expected


WRONG = {
    "another issuer": claims(iss="other"),
    "several audiences": claims(aud=[AGENT]),
    "more claims": claims(more=1),
    "a scope with more": claims(scope={"more": 1}),
    "a scope of something else": claims(scope=[]),
    "a limit below zero": claims(scope={"limits": {"records": -1}}),
    "a depth beyond all": claims(scope={"depth": MAX_DEPTH + 1}),
    "a name with spaces": claims(scope={"actions": ["a b"]}),
    "a path of nobody": claims(path=[]),
    "a path too long": claims(path=["a/b"] * (MAX_DEPTH + 1), sub="a/b"),
    "a path that begins elsewhere": claims(sub="reports/planner"),
    "time as text": claims(exp=str(NOW + 10)),
    "time with a fraction": claims(exp=NOW + 10.5),
    "time as a whole fraction": json.dumps(claims(exp=7)).replace('"exp": 7', f'"exp": {NOW + 10}.0').encode(),
    "time as truth": claims(iat=True, nbf=True, exp=2),
    "time that is not a number": json.dumps(claims()).replace(str(NOW + 3600), "NaN").encode(),
    "time beyond all": claims(iat=2**53, nbf=2**53, exp=2**53 + 1),
    "a number of 5000 digits": json.dumps(claims()).replace(str(NOW + 3600), "9" * 5000).encode(),
    "ending before it begins": claims(exp=NOW),
    "living too long": claims(exp=NOW + MAX_GRANT_SECONDS + 1),
    "valid before it is issued": claims(nbf=NOW - 1),
    "a claim twice": json.dumps(claims()).replace('{"iss"', '{"aud": "a/b", "iss"', 1).encode(),
    "a list": [],
    "no JSON": b"{",
    "no UTF-8": b"\xff",
    "half a character": json.dumps(claims(jti="\ud800")).encode(),
    "too deep": b"[" * 15_000,
} | {
    f"without {name}": claims(**{name: ...})
    for name in ("iss", "sub", "aud", "jti", "iat", "nbf", "exp", "run", "path", "scope")
}


@pytest.mark.parametrize("name", WRONG)
def test_claims_that_the_hub_never_writes_are_refused_though_it_signed_them(name: str) -> None:
    assert reason(signed(WRONG[name])) == "Malformed"


def test_what_this_file_signs_is_taken_where_nothing_is_wrong() -> None:
    assert verify(signed(claims()), KEYS, AGENT, NOW) == GRANT
    assert verify(signed(claims(parent=..., cause=..., labels=...)), KEYS, AGENT, NOW) == msgspec.structs.replace(
        GRANT, parent=None, cause="", labels=()
    )


def test_every_changed_bit_is_noticed() -> None:
    data = TOKEN.encode()
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            assert reason(changed.decode("latin-1")) in {
                *("Malformed", "WrongAlgorithm", "WrongType", "UnknownKey", "BadSignature"),
            }


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,90}"))
def test_any_text_is_refused_as_a_grant_error(text: str) -> None:
    reason(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*claims(), "more"]), json_values, max_size=3), st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_payload_signed_with_the_hubs_key_gives_a_grant_or_a_grant_error(
    changes: dict[str, Any], raw: bytes
) -> None:
    for payload in (claims(**changes), raw):
        try:
            verify(signed(payload), KEYS, AGENT, NOW)
        except GrantError:
            continue


@given(st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "x5u"]), json_values, max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_header_but_ours_is_refused(header: dict[str, Any]) -> None:
    ours = {"alg": "EdDSA", "kid": RING.kid, "typ": TYPE}
    if ours | header != ours:
        reason(signed(claims(), **header))


@pytest.mark.parametrize(
    "changes",
    [
        {"path": ()},
        {"to": "nobody"},
        {"expires_at": NOW},
        {"expires_at": 2**70},
        {"id": "\ud800"},
        {"labels": ("a b",)},
        {"scope": Scope(depth=99)},
    ],
)
def test_what_no_verifier_takes_is_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(GrantError) as error:
        sign(msgspec.structs.replace(GRANT, **changes), RING)
    assert error.value.reason == "Malformed"


def test_a_grant_that_is_too_large_is_not_signed() -> None:
    globs = tuple(f"{'a' * 250}{n}" for n in range(64))
    large = msgspec.structs.replace(GRANT, scope=Scope(actions=globs, targets=tuple(one[:250] for one in globs)))
    with pytest.raises(GrantError, match="characters long, allowed are 32768: name less in it") as error:
        sign(large, RING)
    assert error.value.reason == "TooLarge"


def test_only_so_many_verified_grants_are_kept_the_ones_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = module._Verified(3)
    monkeypatch.setattr(module, "_VERIFIED", kept)
    tokens = [sign(msgspec.structs.replace(GRANT, id=f"g-{n}"), RING) for n in range(5)]
    for token in tokens[:3]:
        verify(token, KEYS, AGENT, NOW)
    verify(tokens[0], KEYS, AGENT, NOW)
    for token in tokens[3:]:
        verify(token, KEYS, AGENT, NOW)
    assert len(kept) == 3
    assert [kept.get(token, KEYS) is not None for token in tokens] == [True, False, False, True, True]
    reason(TOKEN + "A")
    assert len(kept) == 3


def test_what_decides_without_grants_loads_no_cryptography() -> None:
    program = (
        "import sys, fleetward.decision.engine, fleetward.delegation.narrowing, fleetward.run.calls;"
        "sys.exit(bool({'jwt', 'cryptography'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
