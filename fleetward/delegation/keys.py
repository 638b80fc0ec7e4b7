"""The keys that grants are signed with: Ed25519, one signing at a time, the ones before it kept as long as needed.

All times are seconds since the epoch. Whoever reads a file of keys can make grants.
"""

import base64
import contextlib
import hashlib
import json
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetward.delegation.scope import MAX_GRANT_SECONDS

RETIRED_SECONDS = MAX_GRANT_SECONDS + 3600
"""How long a key verifies after it signed last: as long as a grant may live, and an hour for clocks and hand-overs."""

_MAX_FILE = 65_536


class KeyRingError(ValueError):
    """What should be a key ring is none, or is not kept as a secret; the message says why."""


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A public key that signs no more."""

    kid: str
    public: str
    """The raw key, base64url."""
    retired_at: int


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The key that signs, and the retired ones whose grants may still be alive."""

    private: bytes = field(repr=False)
    """The raw private key that signs."""
    since: int
    """When it began to sign."""
    retired: tuple[RetiredKey, ...] = ()
    kid: str = field(init=False)
    """The signing key's id."""
    _public: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        public = self.signer().public_key().public_bytes_raw()
        object.__setattr__(self, "_public", encoded(public))
        object.__setattr__(self, "kid", key_id(self._public))

    @classmethod
    def generate(cls, now: int) -> "KeyRing":
        """Make a ring with one new key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw(), now)

    def rotated(self, now: int) -> "KeyRing":
        """Give a ring with a new signing key. Keys go once no grant that they signed can be alive.

        To have verifiers know the new key before its first grant, publish the new ring's `public` (it has the present
        key, too) and go on signing with this one for a moment.
        """
        retired = RetiredKey(self.kid, self._public, now)
        kept = tuple(one for one in (*self.retired, retired) if now - one.retired_at <= RETIRED_SECONDS)
        return KeyRing(Ed25519PrivateKey.generate().private_bytes_raw(), now, kept)

    def signer(self) -> Ed25519PrivateKey:
        """Give the key that signs."""
        return Ed25519PrivateKey.from_private_bytes(self.private)

    def public(self) -> dict[str, str]:
        """Give the public keys that verify: raw, base64url, by key id; the signing one first."""
        return {self.kid: self._public} | {one.kid: one.public for one in self.retired}

    def dump(self) -> bytes:
        """Write the ring as JSON, private key included; see `load`."""
        signing = _Signing(self.kid, encoded(self.private), self.since)
        retired = tuple(_Retired(one.kid, one.public, one.retired_at) for one in self.retired)
        return msgspec.json.encode(_Stored(1, signing, retired))

    @classmethod
    def load(cls, data: bytes) -> "KeyRing":
        """Read what `dump` wrote; raises KeyRingError for anything else."""
        try:
            stored = msgspec.json.decode(data, type=_Stored)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            message = f"these are no keys for signing grants: {error}"
            raise KeyRingError(message) from None
        if len({stored.signing.kid, *(one.kid for one in stored.retired)}) != 1 + len(stored.retired):
            raise KeyRingError("these are no keys for signing grants: a key is there twice")
        ring = cls(
            _raw(stored.signing.d, "the private key"),
            stored.signing.since,
            tuple(RetiredKey(one.kid, one.x, one.retired_at) for one in stored.retired),
        )
        _check_id(stored.signing.kid, ring.kid)
        for one in stored.retired:
            _raw(one.x, f"the key {one.kid}")
            _check_id(one.kid, key_id(one.x))
        return ring


Seconds = Annotated[int, msgspec.Meta(ge=0)]


class _Signing(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    kid: str
    d: str
    since: Seconds


class _Retired(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    kid: str
    x: str
    retired_at: Seconds


class _Stored(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    signing: _Signing
    retired: tuple[_Retired, ...]


def encoded(raw: bytes) -> str:
    """Write bytes as base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Read what `encoded` wrote; raises ValueError for anything else, also for another way to write the same bytes."""
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if encoded(raw) != text:
        raise ValueError("this is not base64url")
    return raw


def key_id(public: str) -> str:
    """Give a public key's id: its JWK thumbprint (RFC 7638, RFC 8037), from the raw key in base64url."""
    jwk = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": public}, separators=(",", ":"))
    return encoded(hashlib.sha256(jwk.encode()).digest())


def _raw(text: str, what: str) -> bytes:
    with contextlib.suppress(ValueError):
        raw = decoded(text)
        if len(raw) == 32:
            return raw
    message = f"{what} is not 32 bytes of base64url"
    raise KeyRingError(message)


def _check_id(found: str, right: str) -> None:
    if found != right:
        message = f"the key id {found} does not belong to its key, whose id is {right}"
        raise KeyRingError(message)


def open_key_file(path: Path, now: int) -> KeyRing:
    """Read the ring that `path` holds, made with a new key where there is none; of two makers at once, one makes it.

    Raises KeyRingError where the file is none of ours or others may read it, OSError where it cannot be read or made.
    """
    with contextlib.suppress(FileNotFoundError):
        return _read(path)
    draft = _draft(path, KeyRing.generate(now))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    _sync_directory(path.parent)
    return _read(path)


def write_key_file(path: Path, ring: KeyRing) -> None:
    """Put `ring` in place of what `path` holds, in one step; it is on the disk when this returns."""
    draft = _draft(path, ring)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise
    _sync_directory(path.parent)


def _read(path: Path) -> KeyRing:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123  an open descriptor, not a path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            message = f"{path} is not a file"
            raise KeyRingError(message)
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            message = f"{path} may be read or written by others: its mode is {mode:04o}, allowed is 0600"
            raise KeyRingError(message)
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        message = f"{path} is larger than {_MAX_FILE} bytes"
        raise KeyRingError(message)
    try:
        return KeyRing.load(data)
    except KeyRingError as error:
        message = f"{path}: {error}"
        raise KeyRingError(message) from None


def _draft(path: Path, ring: KeyRing) -> Path:
    """Write the ring beside `path`, to the disk; mkstemp gives a file that only we can read."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  an open descriptor, not a path
            file.write(ring.dump())
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
