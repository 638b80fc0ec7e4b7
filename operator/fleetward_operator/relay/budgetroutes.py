"""The route by which other replicas ask about budgets, where this one keeps the ledger. Nobody else may."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from fleetward.budget import calls
from fleetward.budget.ledger import Entry
from fleetward.budget.store import LedgerError
from fleetward_operator.hub.asks import AsksBudgets
from fleetward_operator.records.access import Access
from fleetward_operator.relay import budgetwire as wire
from fleetward_operator.relay.serving import Serving, into


class LedgerDesk(AsksBudgets, Protocol):
    """What is needed of `hub.budgets.Budgets`."""

    async def fold(self, entries: Sequence[Entry]) -> None:
        """Settle by records. Raises LedgerError."""

    async def folded(self, writer: str) -> int:
        """Give the number of the last record of a writer that was settled. Raises LedgerError."""


def budget_routes(desk: LedgerDesk, access: Access, user: str) -> list[web.RouteDef]:
    """Give the routes. `user` is whom the API server takes replicas for; every other caller is refused."""
    return [web.post(wire.PATH, _Api(desk, access, user).answer)]


class _Api:
    def __init__(self, desk: LedgerDesk, access: Access, user: str) -> None:
        self._desk = desk
        self._serving = Serving(access, user, "budgets")

    async def answer(self, request: web.Request) -> web.Response:
        """Settle, then answer questions in their order."""
        return await self._serving.answer(request, wire.decode_questions, wire.MAX_BODY, self._answers)

    async def _answers(self, questions: wire.Questions) -> bytes:
        problem, folded = "", 0
        try:
            if questions.entries:
                await self._desk.fold(questions.entries)
            if questions.folded:
                folded = await self._desk.folded(questions.folded)
        except LedgerError as error:
            problem = str(error)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[calls.Reply]] = []
        for asked in questions.asked:
            futures.append(future := loop.create_future())
            self._desk.ask(asked.request, webhook=asked.webhook, agents=asked.agents, answer=into(future))
        return wire.encode(wire.Answers(replies=tuple(await asyncio.gather(*futures)), folded=folded, problem=problem))
