"""How old the operator's view of the cluster may be at most.

A watch over which nothing comes may be a quiet one or a dead one; nobody can tell. So watches are short: the API server
ends each after a few seconds, and the end itself is the proof that until then nothing was missed. A connection that
fell silent brings no end, and the proof grows old.
"""

import time
from collections.abc import Callable, Iterable

import aiohttp
from yarl import URL


class Liveness:
    """When the view of each kind was last proven whole, on the monotonic clock. Safe to use from several threads."""

    def __init__(self, kinds: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._proven = dict.fromkeys(kinds, float("-inf"))
        self._clock = clock

    def prove(self, kind: str, at: float) -> None:
        """Note that everything of a kind until `at` was seen. A kind that is not followed is passed over."""
        if kind in self._proven:
            self._proven[kind] = max(self._proven[kind], at)

    def age_seconds(self) -> float:
        """Say for how long, at most, something may have gone unseen; infinite before everything was seen once."""
        return self._clock() - min(self._proven.values(), default=self._clock())

    def stalest(self) -> str:
        """Name the kind that was not seen for the longest."""
        return min(self._proven, key=self._proven.__getitem__, default="")


class Observer:
    """An aiohttp middleware in kopf's session: sees watches end, and lists being read.

    `listed(kind)` is called, on the session's loop, when kopf has read a list: at the start, and whenever a watch
    could not go on where it was (410 Gone). What was deleted in between kopf does not tell.
    """

    def __init__(self, liveness: Liveness, listed: Callable[[str], None]) -> None:
        self._liveness = liveness
        self._listed = listed

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Pass a request on, and look at how its answer ends."""
        began = time.monotonic()
        response = await handler(request)
        kind = request.url.name
        if request.method == "GET" and response.status == 200:
            if "watch" in request.url.query:
                response.content.on_eof(lambda: self._ended(kind, request.url, began))
            else:
                response.content.on_eof(lambda: self._listed(kind))
        return response

    def _ended(self, kind: str, url: URL, began: float) -> None:
        """Take a clean end for what it proves.

        The server ends a watch when its time is over, so it was there until then. One that ended early, as when the
        server shuts down, proves no more than its beginning.
        """
        until = began + float(url.query.get("timeoutSeconds", "inf"))
        self._liveness.prove(kind, until if time.monotonic() >= until else began)
