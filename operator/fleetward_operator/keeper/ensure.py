"""Objects that are to look just so: made where missing, put right where they differ."""

import logging
from typing import Any

from fleetward_operator.keeper.settings import MANAGED
from fleetward_operator.kube.objects import Body, Kind, Objects
from fleetward_operator.kube.rest import RequestError

TRIES = 3
"""How often a write is tried that others were faster than; the next round tries again."""

_log = logging.getLogger(__name__)


class Ensure:
    """Makes objects look as wanted, and remembers what the API server made of them.

    What it adds by itself (defaults of a newer version) is then no difference.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._made: dict[tuple[str, str], tuple[Body, Body]] = {}

    async def __call__(self, kind: Kind, name: str, want: Body, owner: Body | None) -> None:
        """Make the fields of `want` just so; others' metadata stays. Raises RequestError, NotLeadingError."""
        for left in reversed(range(TRIES)):
            have = await self._objects.get(kind, name)
            try:
                await self._write(kind, name, want, owner, have)
            except RequestError as error:
                if error.status != 409 or not left:
                    raise
            else:
                return

    async def _write(self, kind: Kind, name: str, want: Body, owner: Body | None, have: Body | None) -> None:
        if have is None:
            metadata = own({"name": name}, owner)
            made = await self._objects.create(kind, {"metadata": metadata, **want})
            _log.info("%s %s: created", kind.name, name)
        else:
            metadata = own(have["metadata"], owner)
            fields = {key: have.get(key) for key in want}
            wrong = sorted(key for key in want if fields[key] != want[key])
            if metadata == have["metadata"] and (not wrong or self._made.get((kind.name, name)) == (want, fields)):
                return
            made = await self._objects.replace(kind, {"metadata": metadata, **want})
            _log.info("%s %s: put right (%s)", kind.name, name, ", ".join(wrong) or "metadata")
        self._made[kind.name, name] = (want, {key: made.get(key) for key in want})


def own(metadata: Body, owner: Body | None) -> Body:
    """Give metadata with our labels and owner; everything else in it stays."""
    owners: list[Any] = metadata.get("ownerReferences") or []
    if owner is not None and owner not in owners:
        # The same object made anew has another uid; the reference to the old one would only confuse.
        others = [each for each in owners if (each["kind"], each["name"]) != (owner["kind"], owner["name"])]
        owners = [*others, owner]
    labels = {**(metadata.get("labels") or {}), **MANAGED}
    return {**metadata, "labels": labels, **({"ownerReferences": owners} if owners else {})}


def is_ours(body: Body) -> bool:
    """Say whether the keeper made an object: then it has our label."""
    key = "app.kubernetes.io/managed-by"
    return bool((body["metadata"].get("labels") or {}).get(key) == MANAGED[key])


async def owner_reference(objects: Objects, kind: Kind, name: str) -> Body | None:
    """Refer to a cluster-scoped object as an owner; None where it does not exist. Raises RequestError."""
    found = await objects.get(kind, name)
    if found is None or "deletionTimestamp" in found["metadata"]:
        return None
    return {"apiVersion": kind.api_version, "kind": kind.name, "name": name, "uid": found["metadata"]["uid"]}
