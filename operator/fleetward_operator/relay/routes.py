"""The route by which other replicas ask about runs that this one keeps. Nobody else may: see `run_routes`."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from fleetward.decision.replies import Failed
from fleetward.registry.registry import Registry
from fleetward.run import calls
from fleetward_operator.hub.view import View
from fleetward_operator.records.access import Access
from fleetward_operator.relay import wire
from fleetward_operator.relay.desk import RunDesk
from fleetward_operator.relay.serving import Serving, into


class HubView(Protocol):
    """What is needed of `hub.hub.Hub`."""

    @property
    def view(self) -> View | None:
        """The registry in force."""

    def withheld(self) -> str:
        """Say why no authority is given; empty where it is."""


def run_routes(desk: RunDesk, hub: HubView, access: Access, user: str) -> list[web.RouteDef]:
    """Give the routes. `user` is whom the API server takes replicas for; every other caller is refused."""
    return [web.post(wire.PATH, _Api(desk, hub, access, user).answer)]


class _Api:
    def __init__(self, desk: RunDesk, hub: HubView, access: Access, user: str) -> None:
        self._desk = desk
        self._hub = hub
        self._serving = Serving(access, user, "runs")

    async def answer(self, request: web.Request) -> web.Response:
        """Answer questions, in their order."""
        return await self._serving.answer(request, wire.decode_questions, wire.MAX_BODY, self._answers)

    async def _answers(self, questions: wire.Questions) -> bytes:
        return wire.encode(wire.Answers(tuple(await self._ask(questions))))

    async def _ask(self, questions: wire.Questions) -> Sequence[calls.Reply]:
        view, withheld = self._hub.view, self._hub.withheld()
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[calls.Reply]] = []
        for asked in questions.asked:
            futures.append(future := loop.create_future())
            answer = into(future)
            if not self._desk.keeps(asked.request, questions.tag):
                answer(Failed(reason="the replica that was asked does not keep this run"))
            elif withheld and isinstance(asked.request, calls.Propose | calls.CheckPlan):
                # These alone rest on what governs, and not only on what the run has done.
                answer(Failed(reason=withheld))
            else:
                self._desk.ask_here(
                    asked.request,
                    webhook=asked.webhook,
                    agents=() if asked.agent is None else (asked.agent,),
                    registry=Registry() if view is None else view.registry,
                    answer=answer,
                )
        return await asyncio.gather(*futures)
