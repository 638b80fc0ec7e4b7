"""How long a change of operating mode takes until the last sidecar it concerns decides by it."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from fleetward.registry.slice import Mode, OperatingMode, Wire


class ModeInForce(Wire, frozen=True):
    """A mode other than Running is in force at every sidecar that was connected and serves the agent."""

    agent: str
    mode: OperatingMode
    source: str
    """The resource that sets the mode, such as `AgentFleet reporting`."""
    version: str
    """The registry version that brought it."""
    links: int
    """How many sidecars said that it, or a later version, is in force there."""
    lost: int
    """How many were gone before they said so. They can allow something until their lease lapses, and no longer."""
    seconds: float
    """From when the change was seen until the last of them had said so or was gone."""


class Holder(Protocol):
    """A link, as far as this module is concerned."""

    @property
    def applied(self) -> int:
        """The number of the newest published view that is in force at the sidecar; 0 for none."""


class _Awaited:
    __slots__ = ("agent", "at", "left", "links", "lost", "mode", "version")

    def __init__(self, agent: str, mode: Mode, version: str, at: float, left: int) -> None:
        self.agent, self.mode, self.version, self.at = agent, mode, version, at
        self.left = left
        self.links = self.lost = 0


class ModesInForce:
    """Awaits each change of mode at the links it concerns, and tells `observe` once it is in force at all of them."""

    def __init__(self, observe: Callable[[ModeInForce], None]) -> None:
        self._observe = observe
        self._awaited: dict[Holder, deque[tuple[int, _Awaited]]] = {}
        """By link, the number of the view that brings the change, ascending."""

    def expect(
        self, number: int, version: str, at: float, changes: Mapping[str, tuple[Mode, Iterable[Holder]]]
    ) -> None:
        """Await, by agent, a mode of view `number` at these links. `at`: when it was seen (`time.monotonic`)."""
        for agent, (mode, holders) in changes.items():
            links = list(holders)
            awaited = _Awaited(agent, mode, version, at, len(links))
            for link in links:
                self._awaited.setdefault(link, deque()).append((number, awaited))

    def applied(self, link: Holder) -> None:
        """Take note of what is in force at a link now."""
        waiting = self._awaited.get(link)
        if waiting is None:
            return
        while waiting and waiting[0][0] <= link.applied:
            awaited = waiting.popleft()[1]
            awaited.links += 1
            self._one_less(awaited)
        if not waiting:
            del self._awaited[link]

    def gone(self, link: Holder) -> None:
        """Await nothing more of a link."""
        for _, awaited in self._awaited.pop(link, ()):
            awaited.lost += 1
            self._one_less(awaited)

    def _one_less(self, awaited: _Awaited) -> None:
        awaited.left -= 1
        if awaited.left == 0:
            self._observe(
                ModeInForce(
                    agent=awaited.agent,
                    mode=awaited.mode.operating_mode,
                    source=awaited.mode.source,
                    version=awaited.version,
                    links=awaited.links,
                    lost=awaited.lost,
                    seconds=max(0.0, time.monotonic() - awaited.at),
                )
            )
