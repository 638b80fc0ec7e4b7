"""One registry as the links see it: slices and frames are made once for all links that share them."""

from collections import OrderedDict
from collections.abc import Iterable

from fleetward.registry.registry import Registry
from fleetward.registry.slice import Change, Items, Removed, Slice, difference
from fleetward.stream import messages

FRAMES_KEPT_BYTES = 8 * 2**20
"""How much is kept of encoded frames: links that share a slice send the same ones, within moments of each other."""


class View:
    """A published registry. Unlike it, not thread-safe: it fills as links ask."""

    def __init__(self, registry: Registry, number: int = 0) -> None:
        self.registry = registry
        self.number = number
        """Counts what the hub published; a version may come back, a number does not."""
        self._slices: dict[tuple[frozenset[str], frozenset[str]], Slice] = {}
        self._digests: dict[tuple[str, str], str] = {}
        self._frames: OrderedDict[tuple[int, int], tuple[Slice | None, Slice, bytes]] = OrderedDict()
        """By the identities of the old and the new slice, which are kept alive beside the frame."""
        self._frames_bytes = 0

    def slice(self, agents: Iterable[str], principals: Iterable[str] = ()) -> Slice:
        """Give the slice for these agents, and those that handed work down to them; the same object for the same."""
        key = (frozenset(agents), frozenset(principals))
        if key not in self._slices:
            self._slices[key] = self.registry.cut(*key)
        return self._slices[key]

    def frame(self, old: Slice | None, new: Slice) -> bytes | None:
        """Give the frame that turns `old` into `new`: a snapshot where there is no old one, None where nothing changed.

        Raises ValueError when it would be longer than a sidecar takes.
        """
        if (kept := self._frames.get((id(old), id(new)))) is not None:
            return kept[2] or None
        frame = _encode(old, new)
        self._frames[id(old), id(new)] = (old, new, frame)
        self._frames_bytes += len(frame)
        while self._frames_bytes > FRAMES_KEPT_BYTES:
            self._frames_bytes -= len(self._frames.popitem(last=False)[1][2])
        return frame or None

    def resume(self, held: messages.Held, new: Slice) -> bytes | None:
        """Give the frame for a sidecar that holds `held`; None where that is `new`.

        Raises ValueError as `frame` does.
        """
        changed: dict[str, dict[str, object]] = {}
        removed: dict[str, tuple[str, ...]] = {}
        for part in messages.PARTS:
            items, known = getattr(new.items, part), held.digests.get(part, {})
            changed[part] = {
                key: item for key, item in items.items() if known.get(key) != self._digest(part, key, item)
            }
            removed[part] = tuple(key for key in known if key not in items)
        change = Change(version=new.version, changed=Items(**changed), removed=Removed(**removed))  # type: ignore[arg-type]
        if change.empty and held.version == new.version:
            return None
        return _checked(messages.encode(messages.Update(base=held.version, change=change)))

    def _digest(self, part: str, key: str, item: object) -> str:
        # Within one registry, a key of one part always means the same item.
        if (part, key) not in self._digests:
            self._digests[part, key] = messages.digest(item)
        return self._digests[part, key]


def _encode(old: Slice | None, new: Slice) -> bytes:
    if old is None:
        return _checked(messages.encode(messages.Snapshot(slice=new)))
    change = difference(old, new)
    if change.empty and old.version == new.version:
        return b""
    return _checked(messages.encode(messages.Update(base=old.version, change=change)))


def _checked(frame: bytes) -> bytes:
    if len(frame) > messages.MAX_FRAME_TO_SIDECAR:
        raise ValueError(
            f"its policies come to {len(frame)} bytes, and a sidecar takes {messages.MAX_FRAME_TO_SIDECAR}: give the"
            " workload fewer agents, or narrow the policies' subjects"
        )
    return frame
