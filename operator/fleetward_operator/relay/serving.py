"""Answering what another replica asks, and nobody else."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from fleetward_operator.records.access import Access, AccessRefused
from fleetward_operator.relay.client import ANSWER_SECONDS

BODY_SECONDS = 2.0
"""For a request to come in."""

MAX_REQUESTS = 64
"""Requests under way at once. Each other replica makes one at a time."""

Asked = TypeVar("Asked")
Reply = TypeVar("Reply")


class _BadRequestError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Serving:
    """Lets replicas in, reads what they ask, and answers within bounds. `what` is what it is about, in words."""

    def __init__(self, access: Access, user: str, what: str) -> None:
        self._access = access
        self._user = user
        self._what = what
        self._under_way = 0

    async def answer(
        self,
        request: web.Request,
        decode: Callable[[bytes], Asked],
        max_body: int,
        work: Callable[[Asked], Awaitable[bytes]],
    ) -> web.Response:
        """Answer one request with the JSON that `work` gives."""
        if self._under_way >= MAX_REQUESTS:
            return web.Response(status=503, text=f"{MAX_REQUESTS} requests are under way already")
        self._under_way += 1
        try:
            await self._let_in(request)
            asked = await self._read(request, decode, max_body)
            async with asyncio.timeout(ANSWER_SECONDS):
                body = await work(asked)
        except AccessRefused as error:
            return web.Response(status=error.status, text=str(error))
        except _BadRequestError as error:
            return web.Response(status=error.status, text=str(error), headers={"Connection": "close"})
        except TimeoutError:
            return web.Response(status=503, text="this took too long; what was asked may have been counted")
        finally:
            self._under_way -= 1
        return web.Response(body=body, content_type="application/json")

    async def _let_in(self, request: web.Request) -> None:
        """Let another replica in, and nobody else. Raises AccessRefused."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = await self._access.authenticate(token.strip() if scheme.lower() == "bearer" else None)
        if user.username != self._user:
            raise AccessRefused(403, f"{user.username} may not ask about {self._what} here; only {self._user} may")

    async def _read(self, request: web.Request, decode: Callable[[bytes], Asked], max_body: int) -> Asked:
        """Read the questions, of which a request holds a bounded number of bytes. Raises _BadRequestError."""
        data = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.content.iter_chunked(2**16):
                    data += part
                    if len(data) > max_body:
                        raise _BadRequestError(413, f"found more than {max_body} bytes, allowed at most these")
        except TimeoutError:
            raise _BadRequestError(408, f"the request did not come in within {BODY_SECONDS:g} s") from None
        try:
            return decode(bytes(data))
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _BadRequestError(400, f"these are no questions about {self._what}: {error}") from None


def into(future: "asyncio.Future[Reply]") -> Callable[[Reply], None]:
    """Give what puts an answer into a future that may be given up already."""

    def answer(reply: Reply) -> None:
        if not future.done():  # who asked may be gone
            future.set_result(reply)

    return answer
