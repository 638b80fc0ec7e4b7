"""The HTTP API that the audit trail is read from, on the hub's TLS server.

`GET /v1/records`, `GET /v1/gaps`, `GET /v1/status` and `GET /v1/budgets`, for a bearer token with the right to read;
see `fleetward.audit.remote` for parameters and lines. The replica that is asked asks the others, unless `local=true`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import web

from fleetward.audit import remote
from fleetward.audit.remote import Asked, End, Following, GapReport, Notice, RecordLine
from fleetward.audit.store import Gap, Store
from fleetward.budget.report import BudgetsReport
from fleetward.registry.slice import Wire
from fleetward_operator.hub.hub import Status
from fleetward_operator.records.access import READ_RECORDS, READ_STATUS, Access, AccessRefused, Right, User
from fleetward_operator.records.gapmerge import merge_gaps
from fleetward_operator.records.gathering import Sources, everything, followed, limited
from fleetward_operator.records.sources import (
    Item,
    Others,
    OtherStore,
    OwnStore,
    RecordSource,
    SourceError,
    notice,
)

CHECK_SECONDS = 60.0
"""How often somebody who follows is asked about again: so long a right that was taken away may still read."""

MAX_FOLLOWERS = 100
"""How many may follow at once, other replicas included."""

WRITERS_A_REQUEST = 100
BATCH_BYTES = 65_536

_URN = "urn:fleetward:problem:"
_TITLES = {
    400: ("invalid-request", "The query cannot be accepted"),
    401: ("unauthenticated", "It is not known who asks"),
    403: ("forbidden", "Whoever asks may not read this"),
    500: ("internal", "The hub failed"),
    503: ("unavailable", "The hub cannot answer this now"),
}

_log = logging.getLogger(__name__)


class Problem(Wire, frozen=True, kw_only=True):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class StatusOfHub(Protocol):
    """What is needed of `fleetward_operator.hub.hub.Hub`."""

    def status(self) -> Status:
        """Say how the hub is doing."""


def routes(
    store: Store,
    hub: StatusOfHub,
    access: Access,
    others: Others | None = None,
    budgets: Callable[[], BudgetsReport] = lambda: BudgetsReport(at=0.0),
) -> list[web.RouteDef]:
    """Give the routes for a server of `hub`; without `others`, this replica is the only one.

    `budgets` says how the pots of budgets are.
    """
    api = _Api(store, hub, access, others, budgets)
    return [
        web.get(remote.RECORDS_PATH, _explained(api.records)),
        web.get(remote.GAPS_PATH, _explained(api.gaps)),
        web.get(remote.STATUS_PATH, _explained(api.status)),
        web.get(remote.BUDGETS_PATH, _explained(api.budgets)),
    ]


class _RefusedError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _Api:
    def __init__(
        self,
        store: Store,
        hub: StatusOfHub,
        access: Access,
        others: Others | None,
        budgets: Callable[[], BudgetsReport],
    ) -> None:
        self._own = OwnStore(store)
        self._hub = hub
        self._access = access
        self._others = others
        self._budgets = budgets
        self._followers = 0

    async def records(self, request: web.Request) -> web.StreamResponse:
        user = await self._let_in(request, READ_RECORDS)
        try:
            asked = remote.read_parameters(request.query.items())
        except ValueError as error:
            raise _RefusedError(400, str(error)) from None
        async with self._sources(asked.local) as sources:
            items = _answer(sources, asked)
            async with contextlib.aclosing(items):
                if not asked.follow:
                    return await _send(request, items)
                if self._followers >= MAX_FOLLOWERS:
                    raise _RefusedError(
                        503, f"{MAX_FOLLOWERS} are following already, and no more are allowed; try again"
                    )
                self._followers += 1
                try:
                    return await _send(request, self._while_allowed(user, items))
                finally:
                    self._followers -= 1

    async def gaps(self, request: web.Request) -> web.StreamResponse:
        await self._let_in(request, READ_RECORDS)
        unknown = request.query.keys() - {"local", "writer"}
        if unknown:
            raise _RefusedError(400, f"found {min(unknown)}, allowed local, writer")
        if request.query.get("local") == "true":
            return _json(await self._own.gaps(request.query.getall("writer", [])))
        async with self._sources(local=False) as sources:
            return _json(await _gaps(sources()))

    async def status(self, request: web.Request) -> web.StreamResponse:
        await self._let_in(request, READ_STATUS)
        return _json(self._hub.status())

    async def budgets(self, request: web.Request) -> web.StreamResponse:
        await self._let_in(request, READ_STATUS)
        return _json(self._budgets())

    async def _let_in(self, request: web.Request, right: Right) -> User:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = await self._access.authenticate(token.strip() if scheme.lower() == "bearer" else None)
        await self._access.authorize(user, right)
        return user

    @contextlib.asynccontextmanager
    async def _sources(self, local: bool) -> AsyncGenerator[Sources, None]:  # noqa: FBT001 - of two callers, both in here
        others = self._others
        if local or others is None:
            yield lambda: [self._own]
            return
        async with aiohttp.ClientSession() as session:
            yield lambda: [self._own, *(OtherStore(session, others, url) for url in others.urls())]

    async def _while_allowed(self, user: User, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """Pass on what comes until the user's right is gone."""
        checked = time.monotonic()
        async for item in items:
            if time.monotonic() - checked >= CHECK_SECONDS:
                checked = time.monotonic()
                try:
                    await self._access.authorize(user, READ_RECORDS)
                except AccessRefused as refused:
                    yield Notice(message=f"this ends here: {refused}")
                    yield End(more=True)
                    return
            yield item


def _answer(sources: Sources, asked: Asked) -> AsyncGenerator[Item, None]:
    if asked.local:
        return sources()[0].read(asked)
    if asked.follow:
        return followed(sources, asked)
    return limited(sources(), asked) if asked.limit else everything(sources(), asked)


async def _gaps(sources: Sequence[RecordSource]) -> GapReport:
    """Ask all for their gaps, then all about the writers that have any."""
    notices: dict[str, Notice] = {}

    async def ask(source: RecordSource, writers: Sequence[str] = ()) -> GapReport:
        try:
            return await source.gaps(writers)
        except SourceError as error:
            notices[source.url] = notice(source, error)
            return GapReport()

    first = await asyncio.gather(*map(ask, sources))
    writers = sorted({gap.writer for report in first for gap in report.gaps})
    parts = [writers[i : i + WRITERS_A_REQUEST] for i in range(0, len(writers), WRITERS_A_REQUEST)]
    gaps: list[Gap] = []
    for part in parts:
        answering = [source for source in sources if source.url not in notices]
        gaps += merge_gaps(await asyncio.gather(*(ask(source, part) for source in answering)))
    return GapReport(gaps=tuple(gaps), notices=tuple(notices.values()))


async def _send(request: web.Request, items: AsyncGenerator[Item, None]) -> web.StreamResponse:
    """Write lines as they come, many at once where many are there. A reader that goes away ends it."""
    response = web.StreamResponse(headers={"Content-Type": remote.MEDIA_TYPE, "Cache-Control": "no-store"})
    waiting, at_once = bytearray(), False
    try:
        async for item in items:
            if not response.prepared:
                await response.prepare(request)
            waiting += _bytes(item) + b"\n"
            at_once = at_once or isinstance(item, Following)
            if at_once or len(waiting) >= BATCH_BYTES:
                await response.write(bytes(waiting))
                waiting.clear()
        await response.write_eof(bytes(waiting))
    except SourceError as error:
        if not response.prepared:
            raise _RefusedError(503, str(error)) from None
        # Too late for a status; without End the reader knows that this is not all.
        await response.write(bytes(waiting) + remote.encode(Notice(message=str(error))) + b"\n")
        await response.write_eof()
    except ConnectionError:
        pass
    return response


def _bytes(item: Item) -> bytes:
    if item is None:
        return b""
    return item.body if isinstance(item, RecordLine) else remote.encode(item)


def _json(value: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _explained(handler: Handler) -> Handler:
    """Answer with problem details where the handler raises."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except AccessRefused as error:
            return _problem(error.status, str(error))
        except _RefusedError as error:
            return _problem(error.status, str(error))
        except SourceError as error:
            return _problem(503, str(error))

    return handle


def _problem(status: int, detail: str) -> web.Response:
    slug, title = _TITLES[status]
    body = msgspec.json.encode(Problem(type=_URN + slug, title=title, status=status, detail=detail))
    headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(status=status, body=body, headers=headers)
