"""Grants as they travel: signed by the hub as a compact JWS (RFC 7515) with Ed25519 (EdDSA, RFC 8037).

Only what `sign` writes is believed: one algorithm, one type, these claims and no others. Import this module once a
grant is there: it brings the cryptography along.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Annotated, Any, Literal

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from fleetward.delegation.grant import Grant
from fleetward.delegation.keys import KeyRing, decoded
from fleetward.delegation.scope import MAX_DEPTH, MAX_GRANT_SECONDS, Scope
from fleetward.registry.text import AgentKey, Count, Reference, Tag

TYPE = "fleetward-grant+jwt"
ALGORITHM = "EdDSA"
MAX_TOKEN = 32_768
"""The longest grant there is, in characters; see `registry.text.GrantToken`."""

LEEWAY_SECONDS = 90
"""How far the clocks of a verifier and of the hub may be apart."""

Reason = Literal[
    "Malformed",
    "TooLarge",
    "WrongAlgorithm",
    "WrongType",
    "UnknownKey",
    "BadSignature",
    "WrongAgent",
    "NotYetValid",
    "Expired",
]

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADER = frozenset({"alg", "kid", "typ"})
_JWS = jwt.PyJWS(algorithms=[ALGORITHM])


class GrantError(Exception):
    """A grant is not believed, or cannot be signed; `reason` says why in one word, the message in plain words."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class _Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is signed. The first seven are those of RFC 7519, section 4.1."""

    iss: Literal["fleetward"]
    sub: AgentKey
    aud: AgentKey
    jti: Reference
    iat: Count
    nbf: Count
    exp: Count
    run: Reference
    path: Annotated[tuple[AgentKey, ...], Meta(min_length=1, max_length=MAX_DEPTH)]
    scope: Scope
    labels: tuple[Tag, ...] = ()
    parent: Reference | None = None
    cause: Annotated[str, Meta(max_length=128)] = ""

    @classmethod
    def of(cls, grant: Grant) -> "_Claims":
        return cls(
            iss="fleetward",
            sub=grant.path[0] if grant.path else "",
            aud=grant.to,
            jti=grant.id,
            iat=grant.issued_at,
            nbf=grant.issued_at,
            exp=grant.expires_at,
            run=grant.run,
            path=grant.path,
            scope=grant.scope,
            labels=grant.labels,
            parent=grant.parent,
            cause=grant.cause,
        )

    def grant(self) -> Grant:
        return Grant(
            id=self.jti,
            run=self.run,
            path=self.path,
            to=self.aud,
            scope=self.scope,
            labels=self.labels,
            parent=self.parent,
            cause=self.cause,
            issued_at=self.iat,
            expires_at=self.exp,
        )


def sign(grant: Grant, ring: KeyRing) -> str:
    """Give the signed grant. Raises GrantError where it is not one that `verify` would take: Malformed or TooLarge."""
    try:
        payload = msgspec.json.encode(_Claims.of(grant))
    except (ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise GrantError("Malformed", f"the grant cannot be written: {error}") from None
    _read_claims(payload)
    token = _JWS.encode(payload, ring.signer(), algorithm=ALGORITHM, headers={"typ": TYPE, "kid": ring.kid})
    if len(token) > MAX_TOKEN:
        raise _too_large(len(token))
    return token


def verify(token: str, keys: Mapping[str, str], agent: str, now: int, *, leeway: int = LEEWAY_SECONDS) -> Grant:
    """Give the grant that `agent` presents at `now` (seconds since the epoch), or raise GrantError.

    `keys` has the hub's public keys by id (see `KeyRing.public`), `leeway` is in seconds. A grant that was verified
    before is not verified again as long as its key is the same; agent and time are checked always.
    """
    known = _VERIFIED.get(token, keys)
    if known is None:
        kid = _checked_header(token)
        grant = _read_claims(_signed_payload(token, kid, keys)).grant()
        _VERIFIED.put(token, kid, keys[kid], grant)
    else:
        grant = known
    if grant.to != agent:
        raise GrantError("WrongAgent", f"the grant {grant.id} was given to {grant.to}, not to {agent}")
    if now < grant.issued_at - leeway:
        ahead = grant.issued_at - now
        raise GrantError("NotYetValid", f"the grant {grant.id} is valid in {ahead} s only: check the clocks")
    if now >= grant.expires_at + leeway:
        raise GrantError("Expired", f"the grant {grant.id} expired {now - grant.expires_at} s ago")
    return grant


def _checked_header(token: str) -> str:
    """Give the id of the key that the token says it is signed with, once its form and header are as `sign` makes it."""
    if len(token) > MAX_TOKEN:
        raise _too_large(len(token))
    if not _COMPACT.fullmatch(token):
        raise GrantError("Malformed", "the grant is not three parts of base64url, joined by dots")
    try:
        header = _strict_json(decoded(token.split(".", 1)[0]))
    except (ValueError, RecursionError) as error:
        raise GrantError("Malformed", f"the grant's header cannot be read: {error}") from None
    if not isinstance(header, dict):
        raise GrantError("Malformed", "the grant's header is not a JSON object")
    if header.get("alg") != ALGORITHM:
        raise GrantError("WrongAlgorithm", f"the grant is not signed with {ALGORITHM}, the only algorithm allowed")
    if header.get("typ") != TYPE:
        raise GrantError("WrongType", f"this is no grant: its type is not {TYPE}")
    kid = header.get("kid")
    if not isinstance(kid, str) or header.keys() != _HEADER:
        raise GrantError("Malformed", "the grant's header is not made of alg, kid and typ")
    return kid


def _signed_payload(token: str, kid: str, keys: Mapping[str, str]) -> bytes:
    """Give what was signed, once the signature is right."""
    public = keys.get(kid)
    if public is None:
        raise GrantError("UnknownKey", "the grant is signed with a key that is not, or no longer, one of the hub's")
    try:
        key = Ed25519PublicKey.from_public_bytes(decoded(public))
    except ValueError:
        raise GrantError("UnknownKey", "the hub's key that the grant names cannot be used") from None
    try:
        payload = _JWS.decode(token, key, algorithms=[ALGORITHM])
    except jwt.InvalidSignatureError:
        raise GrantError("BadSignature", "the grant's signature is wrong: it was changed or forged") from None
    except jwt.PyJWTError as error:
        raise GrantError("Malformed", f"the grant cannot be read: {error}") from None
    return bytes(payload)


def _read_claims(payload: bytes) -> _Claims:
    try:
        claims = msgspec.convert(_strict_json(payload), _Claims)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise GrantError("Malformed", f"the grant's claims are wrong: {error}") from None
    if claims.sub != claims.path[0] or claims.nbf != claims.iat:
        raise GrantError("Malformed", "the grant's claims contradict each other: sub and path, or nbf and iat")
    if not claims.iat < claims.exp <= claims.iat + MAX_GRANT_SECONDS:
        raise GrantError("Malformed", f"the grant's claims are wrong: it must last from 1 to {MAX_GRANT_SECONDS} s")
    return claims


def _strict_json(data: bytes) -> Any:
    """Read JSON in which no name is there twice. Raises ValueError, or RecursionError."""
    return json.loads(data.decode(), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a name is there twice")
    return data


def _too_large(length: int) -> GrantError:
    return GrantError("TooLarge", f"the grant is {length} characters long, allowed are {MAX_TOKEN}: name less in it")


class _Verified:
    """Grants whose signature was right, the ones used last; each with the key that it was right for."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._grants: OrderedDict[str, tuple[str, str, Grant]] = OrderedDict()
        self._lock = Lock()

    def get(self, token: str, keys: Mapping[str, str]) -> Grant | None:
        """Give the grant, if it is known and its key is still one of `keys`."""
        with self._lock:
            known = self._grants.get(token)
            if known is None or keys.get(known[0]) != known[1]:
                return None
            self._grants.move_to_end(token)
            return known[2]

    def put(self, token: str, kid: str, public: str, grant: Grant) -> None:
        """Keep the grant, in the place of the one that was not used for longest."""
        with self._lock:
            self._grants[token] = (kid, public, grant)
            self._grants.move_to_end(token)
            if len(self._grants) > self._size:
                self._grants.popitem(last=False)

    def __len__(self) -> int:
        return len(self._grants)


_VERIFIED = _Verified(1024)
