"""Objects whose status waits to be looked at: each once, the urgent ones first."""

import asyncio

from fleetward_operator.status.tracker import Key


class Waiting:
    """A queue in which an object stands once, and which hands none out again before it is done with."""

    def __init__(self) -> None:
        self._soon: dict[Key, None] = {}
        self._later: dict[Key, None] = {}
        self._busy: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._soon) + len(self._later) + len(self._busy)

    def put(self, key: Key, *, soon: bool = False) -> None:
        """Have an object looked at."""
        if soon:
            self._later.pop(key, None)
            self._soon[key] = None
        elif key not in self._soon:
            self._later[key] = None
        self._some.set()

    def put_in(self, key: Key, seconds: float) -> None:
        """Have an object looked at in a while; what was said so before is kept."""
        if key not in self._timers:
            self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._put_due, key)

    async def get(self) -> Key:
        """Wait for the most urgent object that nobody else looks at; say `done` about it afterwards."""
        while True:
            for line in (self._soon, self._later):
                key = next((key for key in line if key not in self._busy), None)
                if key is not None:
                    del line[key]
                    self._busy.add(key)
                    return key
            self._some.clear()
            await self._some.wait()

    def done(self, key: Key) -> None:
        """Say that nobody looks at an object any more."""
        self._busy.discard(key)
        if key in self._soon or key in self._later:
            self._some.set()

    def clear(self) -> None:
        """Forget all that waits."""
        self._soon.clear()
        self._later.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _put_due(self, key: Key) -> None:
        del self._timers[key]
        self.put(key)
