"""The route by which other replicas ask about runs that this one keeps. Nobody else may: see `run_routes`."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from fleetward.registry.registry import Registry
from fleetward.run import calls
from fleetward_operator.hub.view import View
from fleetward_operator.records.access import Access, AccessRefused
from fleetward_operator.relay import wire
from fleetward_operator.relay.desk import RunDesk

BODY_SECONDS = 2.0
"""For a request to come in."""

MAX_REQUESTS = 64
"""Requests under way at once. Each other replica makes one at a time."""


class HubView(Protocol):
    """What is needed of `hub.hub.Hub`."""

    @property
    def view(self) -> View | None:
        """The registry in force."""

    def withheld(self) -> str:
        """Say why no authority is given; empty where it is."""


class _BadRequestError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def run_routes(desk: RunDesk, hub: HubView, access: Access, user: str) -> list[web.RouteDef]:
    """Give the routes. `user` is whom the API server takes replicas for; every other caller is refused."""
    return [web.post(wire.PATH, _Api(desk, hub, access, user).answer)]


class _Api:
    def __init__(self, desk: RunDesk, hub: HubView, access: Access, user: str) -> None:
        self._desk = desk
        self._hub = hub
        self._access = access
        self._user = user
        self._under_way = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer questions, in their order."""
        if self._under_way >= MAX_REQUESTS:
            return web.Response(status=503, text=f"{MAX_REQUESTS} requests are under way already")
        self._under_way += 1
        try:
            await self._let_in(request)
            questions = await _read(request)
            async with asyncio.timeout(wire.ANSWER_SECONDS):
                replies = await self._ask(questions)
        except AccessRefused as error:
            return web.Response(status=error.status, text=str(error))
        except _BadRequestError as error:
            return web.Response(status=error.status, text=str(error), headers={"Connection": "close"})
        except TimeoutError:
            return web.Response(status=503, text="this took too long; what was asked may have been counted")
        finally:
            self._under_way -= 1
        return web.Response(body=wire.encode(wire.Answers(tuple(replies))), content_type="application/json")

    async def _let_in(self, request: web.Request) -> None:
        """Let another replica in, and nobody else. Raises AccessRefused."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = await self._access.authenticate(token.strip() if scheme.lower() == "bearer" else None)
        if user.username != self._user:
            raise AccessRefused(403, f"{user.username} may not ask about runs here; only {self._user} may")

    async def _ask(self, questions: wire.Questions) -> Sequence[calls.Reply]:
        view, withheld = self._hub.view, self._hub.withheld()
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[calls.Reply]] = []
        for asked in questions.asked:
            futures.append(future := loop.create_future())
            answer = _into(future)
            if not self._desk.keeps(asked.request, questions.tag):
                answer(calls.Failed(reason="the replica that was asked does not keep this run"))
            elif withheld and isinstance(asked.request, calls.Propose | calls.CheckPlan):
                # These alone rest on what governs, and not only on what the run has done.
                answer(calls.Failed(reason=withheld))
            else:
                self._desk.ask_here(
                    asked.request,
                    webhook=asked.webhook,
                    agents=() if asked.agent is None else (asked.agent,),
                    registry=Registry() if view is None else view.registry,
                    answer=answer,
                )
        return await asyncio.gather(*futures)


def _into(future: "asyncio.Future[calls.Reply]") -> Callable[[calls.Reply], None]:
    def answer(reply: calls.Reply) -> None:
        if not future.done():  # who asked may be gone
            future.set_result(reply)

    return answer


async def _read(request: web.Request) -> wire.Questions:
    """Read the questions, of which a request holds a bounded number of bytes. Raises _BadRequestError."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.content.iter_chunked(2**16):
                data += part
                if len(data) > wire.MAX_BODY:
                    raise _BadRequestError(413, f"found more than {wire.MAX_BODY} bytes, allowed at most these")
    except TimeoutError:
        raise _BadRequestError(408, f"the request did not come in within {BODY_SECONDS:g} s") from None
    try:
        return wire.decode_questions(bytes(data))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _BadRequestError(400, f"these are no questions about runs: {error}") from None
