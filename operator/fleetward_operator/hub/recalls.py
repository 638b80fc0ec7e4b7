"""Leases called back: webhooks that hold unspent parts of a pot are asked for them where another has none."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from fleetward.budget.calls import PotRef

RECALL_SECONDS = 0.3
"""How long leases are waited for. A webhook gives back at once what it does not need."""

Send = Callable[[str, Sequence[PotRef]], bool]
"""Asks a webhook, by its writer, to give back pots; says whether it is connected here."""


class _Recall:
    __slots__ = ("again", "awaited", "timer")

    def __init__(self, again: Callable[[], None], awaited: set[str]) -> None:
        self.again, self.awaited = again, awaited
        self.timer: asyncio.TimerHandle | None = None


class Recalls:
    """What is called back at the moment. Lives on the hub's loop."""

    def __init__(self) -> None:
        self.send: Send = lambda _writer, _pots: False
        self._open: list[_Recall] = []

    def recall(self, holders: Mapping[str, Sequence[PotRef]], again: Callable[[], None]) -> bool:
        """Call leases back, and call `again` once all have answered or the time is over.

        Give False, and call nothing, where none of the holders is connected here.
        """
        awaited = {writer for writer, pots in holders.items() if self.send(writer, pots)}
        if not awaited:
            return False
        loop = asyncio.get_running_loop()
        recall = _Recall(again, awaited)
        recall.timer = loop.call_later(RECALL_SECONDS, self._over, recall)
        self._open.append(recall)
        return True

    def released(self, writer: str) -> None:
        """Take note that a webhook gave back what it does not need."""
        for recall in tuple(self._open):
            recall.awaited.discard(writer)
            if not recall.awaited:
                self._over(recall)

    def close(self) -> None:
        """Wait for nothing more; what waits is asked again, and answered by whoever closes."""
        for recall in tuple(self._open):
            self._over(recall)

    def _over(self, recall: _Recall) -> None:
        if recall.timer is not None:
            recall.timer.cancel()
        if recall in self._open:
            self._open.remove(recall)
            recall.again()
