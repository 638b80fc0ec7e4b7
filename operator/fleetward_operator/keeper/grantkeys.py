"""The Secret with the keys that sign grants: made and rotated by whoever leads, read by every replica.

A new key is published first, as `next`, and signs PUBLISHED_SECONDS later: by then the decision webhooks of all
replicas know it. What a key signed is believed until it expires, whatever key signs meanwhile.
"""

import base64
import logging
from dataclasses import dataclass

from fleetward.delegation.keys import KeyRing, KeyRingError
from fleetward.resources.names import GRANT_KEYS_SECRET
from fleetward_operator.keeper.ensure import TRIES
from fleetward_operator.keeper.settings import MANAGED
from fleetward_operator.keeper.tls import Data, decode
from fleetward_operator.kube.objects import SECRET, Body, Objects
from fleetward_operator.kube.rest import RequestError

RING, NEXT = "keys.json", "next.json"

ROTATE_SECONDS = 86_400
"""How long one key signs."""

PUBLISHED_SECONDS = 60
"""How long a new key is published before it signs."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrantKeys:
    """What the Secret holds."""

    ring: KeyRing
    """The key that signs, and the ones before it."""
    successor: KeyRing | None = None
    """The ring that takes its place; the key that signs now is one of its retired ones."""

    @classmethod
    def read(cls, data: Data) -> "GrantKeys":
        """Read a Secret's data. Raises KeyRingError."""
        if RING not in data:
            raise KeyRingError(f"there is no {RING} in it")
        ring = KeyRing.load(data[RING])
        if NEXT not in data:
            return cls(ring)
        try:
            successor = KeyRing.load(data[NEXT])
        except KeyRingError as error:
            _log.warning(
                "the key that was to sign grants next does not do (%s); another is made when it is time", error
            )
            return cls(ring)
        return cls(ring, successor if ring.kid in successor.public() else None)

    def data(self) -> Data:
        """Give what `read` reads."""
        return {RING: self.ring.dump()} | ({} if self.successor is None else {NEXT: self.successor.dump()})

    def public(self) -> dict[str, str]:
        """Give the public keys by which grants are verified, also the one that will sign next."""
        return (self.successor or self.ring).public()

    def advance(self, now: int) -> "GrantKeys":
        """Do what is due: make the next key, or have it sign. Gives itself where nothing is."""
        if self.successor is not None:
            # A clock that was set back must not make it wait for ever.
            published = abs(now - self.successor.since) >= PUBLISHED_SECONDS
            return GrantKeys(self.successor) if published else self
        if abs(now - self.ring.since) < ROTATE_SECONDS:
            return self
        return GrantKeys(self.ring, self.ring.rotated(now))


async def read_grant_keys(objects: Objects, namespace: str) -> tuple[Body | None, GrantKeys | None, str]:
    """Give the Secret, what it holds, and why that is nothing. Raises RequestError."""
    stored = await objects.get(SECRET, GRANT_KEYS_SECRET, namespace)
    if stored is None:
        return None, None, "it is not there"
    try:
        return stored, GrantKeys.read(decode(stored)), ""
    except KeyRingError as error:
        return stored, None, str(error)


async def keep_grant_keys(objects: Objects, namespace: str, now: int) -> tuple[GrantKeys, str]:
    """Make and rotate what is due; give the keys, and why they are all new, where they are.

    Raises RequestError, NotLeadingError.
    """
    for left in reversed(range(TRIES)):
        stored, before, why = await read_grant_keys(objects, namespace)
        keys = GrantKeys(KeyRing.generate(now)) if before is None else before.advance(now)
        if keys is before:
            break
        try:
            await _write(objects, namespace, stored, keys)
        except RequestError as error:
            if error.status != 409 or not left:
                raise
        else:
            said = f"a new key, as {why}" if before is None else _difference(keys)
            _log.log(
                logging.INFO if before else logging.WARNING, "Secret %s/%s: %s", namespace, GRANT_KEYS_SECRET, said
            )
            break
    return keys, why


async def _write(objects: Objects, namespace: str, stored: Body | None, keys: GrantKeys) -> None:
    """Write the keys onto the very version that was read."""
    data = {key: base64.b64encode(value).decode() for key, value in keys.data().items()}
    if stored is not None and stored.get("immutable"):
        await objects.delete(SECRET, stored)
        stored = None
    if stored is None:
        metadata = {"name": GRANT_KEYS_SECRET, "namespace": namespace, "labels": MANAGED}
        await objects.create(SECRET, {"metadata": metadata, "type": "Opaque", "data": data})
    else:
        await objects.replace(SECRET, {**stored, "data": data})


def _difference(keys: GrantKeys) -> str:
    if keys.successor is not None:
        return f"the key {keys.successor.kid} is published, and signs grants in {PUBLISHED_SECONDS} s"
    return f"the key {keys.ring.kid} signs grants from now on; those signed before stay good"
