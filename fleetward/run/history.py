"""History: what was done before, as far as rules can ask for it. All of it is bounded, and the oldest goes first."""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def fingerprint(*parts: str | None) -> int:
    """Give 64 bits that stand for the parts; the same in every process."""
    text = "\0".join(part or "" for part in parts)
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


class Latest(Generic[K, V]):
    """A dictionary that holds at least the `room` keys used last, and at most twice as many."""

    __slots__ = ("_old", "_room", "_young")

    def __init__(self, room: int) -> None:
        self._room = room
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Give what is kept under `key`, if it still is."""
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def put(self, key: K, value: V) -> None:
        """Keep `value`, as the latest."""
        self._young[key] = value
        if len(self._young) >= self._room:
            self._old, self._young = self._young, {}

    def items(self) -> dict[K, V]:
        """Give all that is kept."""
        return self._old | self._young


class Actions:
    """Which actions a run has seen, how often each agent asked for one, and for how long nothing was new."""

    __slots__ = ("_asked", "_seen", "idle")

    def __init__(self, room: int) -> None:
        self._seen: Latest[int, bool] = Latest(room)
        self._asked: Latest[int, int] = Latest(room)
        self.idle = 0
        """How many of the last actions in a row were nothing new."""

    def repeats(self, agent: int, action: int) -> int:
        """Say how often the agent asked for the action before. Both are fingerprints."""
        return self._asked.get(agent ^ action) or 0

    def idle_with(self, action: int) -> int:
        """Say what `idle` becomes with the action."""
        return self.idle + 1 if self._seen.get(action) else 0

    def add(self, agent: int, action: int) -> None:
        """Count the action."""
        self.idle = self.idle_with(action)
        self._seen.put(action, True)
        self._asked.put(agent ^ action, self.repeats(agent, action) + 1)

    def state(self) -> object:
        """Give all of it, to compare."""
        return self.idle, self._seen.items(), self._asked.items()


class Turns:
    """Which agents turn to each other, back and forth, with neither turning to anybody else between.

    What other agents do meanwhile does not matter, so a busy run hides nothing. Turning to the same agent several
    times without an answer counts once.
    """

    __slots__ = ("_back_and_forth", "_partner")

    def __init__(self) -> None:
        self._partner: dict[str, str] = {}
        self._back_and_forth: dict[tuple[str, str], tuple[str, int]] = {}
        """For a pair: who turned to the other last, and how many turns there were."""

    def exchanges(self, agent: str, other: str) -> int:
        """Say how many turns there were between the two before `agent` turns to `other` now."""
        last, count = self._back_and_forth.get(_pair(agent, other), ("", 0))
        return count - 1 if last == agent else count

    def add(self, agent: str, other: str) -> None:
        """Count the turn."""
        before = self._partner.get(agent)
        if before is not None and before != other:
            self._back_and_forth.pop(_pair(agent, before), None)
        self._partner[agent] = other
        self._back_and_forth[_pair(agent, other)] = (agent, self.exchanges(agent, other) + 1)

    def state(self) -> object:
        """Give all of it, to compare."""
        return self._partner, self._back_and_forth


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


class Mark:
    """That an agent did something on a target, or is about to."""

    __slots__ = ("at", "count", "pending", "taken_at")

    def __init__(self, at: float) -> None:
        self.at = at
        """When last; what did not go ahead never counted."""
        self.taken_at = at
        self.count = 0
        """How often, with the pending ones."""
        self.pending = 0


_Key = tuple[str, str, str]


class Marks:
    """Who did what on which target: at most `room` entries, and `room_of_target` for one target.

    An action that was taken up is entered at once, so that of two agents at the same instant the second sees the
    first; it is taken out again when it does not go ahead.
    """

    __slots__ = ("_all", "_room", "_room_of_target", "_shown", "_targets")

    def __init__(self, room: int, room_of_target: int) -> None:
        self._room = room
        self._room_of_target = room_of_target
        self._all: OrderedDict[_Key, Mark] = OrderedDict()
        self._targets: dict[str, dict[_Key, Mark]] = {}
        self._shown: dict[str, dict[str, tuple[str, ...]]] = {}

    def take(self, key: _Key, at: float) -> Mark:
        """Enter target, action name and agent; give what `confirm` or `undo` will need."""
        mark = self._all.get(key)
        if mark is None:
            mark = self._enter(key, Mark(at))
        mark.count += 1
        mark.pending += 1
        mark.taken_at = at
        return mark

    def confirm(self, key: _Key, mark: Mark, at: float) -> None:
        """Note that the action goes ahead: it is the latest now."""
        mark.at = at
        mark.pending -= 1
        there = self._all.get(key)
        if there is None:
            self._enter(key, mark)
            return
        if there is not mark:  # the oldest had to go meanwhile, and somebody entered it anew
            there.count += 1
        there.at = at
        self._all.move_to_end(key)
        of_target = self._targets[key[0]]
        of_target[key] = of_target.pop(key)

    def undo(self, key: _Key, mark: Mark) -> None:
        """Note that the action does not go ahead."""
        mark.count -= 1
        mark.pending -= 1
        if not mark.count and self._all.get(key) is mark:
            self._remove(key)

    def forget_before(self, at: float) -> None:
        """Take out what was last done before."""
        while self._all:
            key, mark = next(iter(self._all.items()))
            if mark.at >= at:
                return
            if mark.pending and mark.taken_at >= at:  # somebody may be doing it again
                mark.at = mark.taken_at
                self._all.move_to_end(key)
            else:
                self._remove(key)

    def on(self, target: str | None) -> dict[str, tuple[str, ...]]:
        """Say who did what on a target: agents by action name. Not to be changed."""
        if target is None or target not in self._targets:
            return {}
        shown = self._shown.get(target)
        if shown is None:
            names: dict[str, list[str]] = {}
            for _, name, agent in self._targets[target]:
                names.setdefault(name, []).append(agent)
            shown = self._shown[target] = {name: tuple(sorted(names[name])) for name in sorted(names)}
        return shown

    def targets(self) -> Iterable[str]:
        """Give the targets there is something to say of."""
        return self._targets

    def _enter(self, key: _Key, mark: Mark) -> Mark:
        of_target = self._targets.setdefault(key[0], {})
        if len(of_target) >= self._room_of_target:
            self._remove(next(iter(of_target)))
            of_target = self._targets.setdefault(key[0], {})
        elif len(self._all) >= self._room:
            self._remove(next(iter(self._all)))
            of_target = self._targets.setdefault(key[0], {})
        self._all[key] = of_target[key] = mark
        self._shown.pop(key[0], None)
        return mark

    def _remove(self, key: _Key) -> None:
        target = key[0]
        del self._all[key]
        del self._targets[target][key]
        self._shown.pop(target, None)
        if not self._targets[target]:
            del self._targets[target]
