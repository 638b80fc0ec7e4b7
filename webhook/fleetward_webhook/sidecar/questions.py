"""Questions about runs and budgets, asked of the hub over the stream, and the answers as they come."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import overload

from fleetward.budget import calls as budget_calls
from fleetward.decision.replies import Failed
from fleetward.run import calls
from fleetward.stream import messages

ANSWER_SECONDS = 3.0
"""How long an answer is waited for. An agent would rather be told no than wait longer."""

MAX_WAITING = 1024
"""Questions under way at once."""


class Questions:
    """What is asked on one link. Belongs to the link's loop."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        """The public keys that grants may be signed with, as the hub said last."""
        self.recalled: Callable[[Sequence[budget_calls.PotRef]], None] = _nothing
        """Called with the pots of which the hub wants back what is not in use."""
        self._number = 0
        self._waiting: dict[int, asyncio.Future[messages.AnyReply]] = {}
        self._unsent: list[messages.Question] = []
        self._wake = asyncio.Event()
        self._open = False

    @overload
    async def ask(self, request: calls.Request) -> calls.Reply: ...

    @overload
    async def ask(self, request: budget_calls.Request) -> budget_calls.Reply: ...

    async def ask(self, request: messages.Request) -> messages.AnyReply:
        """Ask, and give the answer; `Failed` where none came."""
        if not self._open:
            return Failed(reason="there is no connection to the hub, which keeps runs and budgets")
        if len(self._waiting) >= MAX_WAITING:
            return Failed(reason=f"{MAX_WAITING} questions to the hub are under way")
        future: asyncio.Future[messages.AnyReply] = asyncio.get_running_loop().create_future()
        self._number += 1
        number = self._number
        self._waiting[number] = future
        self._put(number, request)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await future
        except TimeoutError:
            return Failed(reason=f"the hub, which keeps runs and budgets, did not answer within {ANSWER_SECONDS:.0f} s")
        finally:
            self._waiting.pop(number, None)

    def tell(self, request: messages.Request) -> None:
        """Say something whose answer is of no interest. Without a connection nothing is said."""
        if self._open:
            self._put(0, request)

    def _put(self, number: int, request: messages.Request) -> None:
        self._unsent.append(messages.Question(number=number, request=request))
        self._wake.set()

    async def frames(self) -> AsyncGenerator[messages.Question, None]:
        """Give, over a new connection, what is asked, in order, for ever."""
        self._open = True
        while True:
            self._wake.clear()
            unsent, self._unsent = self._unsent, []
            for question in unsent:
                yield question
            if not self._unsent:
                await self._wake.wait()

    def take(self, message: messages.Reply | messages.Keys | messages.Recall) -> None:
        """Take an answer, the keys or a recall. An answer that nobody waits for any more is let go."""
        if isinstance(message, messages.Recall):
            self.recalled(message.pots)
            return
        if isinstance(message, messages.Keys):
            self.keys = message.keys
            return
        future = self._waiting.get(message.number)
        if future is not None and not future.done():
            future.set_result(message.reply)

    def unanswered(self, why: str) -> None:
        """Take note that no answer will come."""
        self._open = False
        self._unsent.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Failed(reason=f"{why} before the hub, which keeps runs and budgets, had answered"))


def _nothing(_: object) -> None:
    pass
