"""The stores that an answer is made from: this replica's own, and those of the others over HTTP."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import aiohttp
import msgspec
from msgspec.structs import replace

from fleetward.audit import remote
from fleetward.audit.remote import Asked, End, Following, GapReport, Line, Notice, RecordLine
from fleetward.audit.store import Store, StoredRecord, StoreError

PEER_SECONDS = 3.0
"""How long another replica may be silent before it counts as one that does not answer."""

POLL_SECONDS = 0.2
"""How often the own store is looked at for somebody who follows it."""

HEARTBEAT_SECONDS = 1.0
"""How often an answer that has nothing to tell says that it is still there."""

PAGE = 1000
MAX_LINE = 2 * 1024 * 1024
MAX_REPORT = 64 * 1024 * 1024

Item: TypeAlias = Line | RecordLine | None
"""What a source gives; None: nothing for now."""


class SourceError(Exception):
    """Why a store cannot be read, in words."""


class RecordSource(Protocol):
    """One replica's store."""

    url: str
    """The replica's base URL; empty for this one."""

    def read(self, asked: Asked) -> AsyncGenerator[Item, None]:
        """Give what is asked for, then End; with `follow` the newest, then Following, and so on. Raises SourceError."""

    async def gaps(self, writers: Sequence[str] = ()) -> GapReport:
        """Give the gaps of the store; with `writers`, of those, and the highest number stored of each."""


class OwnStore:
    """This replica's store."""

    url = ""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, asked: Asked) -> AsyncGenerator[Item, None]:
        """Give what is asked for. Raises SourceError."""
        try:
            if asked.follow:
                async for item in self._follow(asked):
                    yield item
                return
            position = await asyncio.to_thread(self._store.last_position)
            if asked.limit:
                query = replace(asked.query, limit=asked.limit + 1)
                found = await asyncio.to_thread(self._store.read, query, asked.after)
                more = len(found) > asked.limit
                for stored in found[: asked.limit]:
                    yield _line(stored)
                if more and asked.order == "OldestFirst":
                    position = found[-2].position
                yield End(more=more, position=position)
                return
            async for page in self._pages(asked, asked.after):
                for stored in page:
                    yield _line(stored)
            yield End(position=position)
        except StoreError as error:
            raise SourceError(str(error)) from error

    async def gaps(self, writers: Sequence[str] = ()) -> GapReport:
        """Give the gaps of the store. Raises SourceError."""

        def look() -> GapReport:
            gaps = self._store.gaps()
            if not writers:
                return GapReport(gaps=tuple(gaps))
            wanted = set(writers)
            return GapReport(
                gaps=tuple(gap for gap in gaps if gap.writer in wanted),
                last={writer: self._store.last_seq(writer) for writer in writers},
            )

        try:
            return await asyncio.to_thread(look)
        except StoreError as error:
            raise SourceError(str(error)) from error

    async def _pages(self, asked: Asked, position: int) -> AsyncGenerator[list[StoredRecord], None]:
        query = replace(asked.query, limit=PAGE, order="OldestFirst")
        while page := await asyncio.to_thread(self._store.read, query, position):
            yield page
            position = page[-1].position

    async def _follow(self, asked: Asked) -> AsyncGenerator[Item, None]:
        version = await asyncio.to_thread(self._store.data_version)
        position = asked.after
        if not position:
            position = await asyncio.to_thread(self._store.last_position)
            newest = await asyncio.to_thread(self._store.read, replace(asked.query, order="NewestFirst"))
            for stored in reversed(newest):
                yield _line(stored)
                position = max(position, stored.position)
        yield Following()
        known, quiet_since = -1, time.monotonic()
        while True:
            # The version is read before the records, so a change in between is seen again rather than never.
            if version != known:
                known = version
                async for page in self._pages(asked, position):
                    for stored in page:
                        yield _line(stored)
                    position = page[-1].position
                    quiet_since = time.monotonic()
            if time.monotonic() - quiet_since >= HEARTBEAT_SECONDS:
                yield None
                quiet_since = time.monotonic()
            await asyncio.sleep(POLL_SECONDS)
            version = await asyncio.to_thread(self._store.data_version)


@dataclass(frozen=True)
class Others:
    """How the other replicas are reached."""

    urls: Callable[[], Sequence[str]]
    """Their base URLs, now."""
    token: Callable[[], str]
    """This replica's own token for the audience `fleetward`; it needs the verb `list` on `auditrecords`."""
    tls: Callable[[], ssl.SSLContext | None]
    """What to trust them by; None: what the system trusts."""
    server_name: str
    """The name in their certificate."""


class OtherStore:
    """The store of another replica. Raises SourceError where it does not answer as it should."""

    def __init__(self, session: aiohttp.ClientSession, others: Others, url: str) -> None:
        self.url = url
        self._session = session
        self._others = others

    async def read(self, asked: Asked) -> AsyncGenerator[Item, None]:
        """Give what is asked for. Raises SourceError."""
        query = replace(asked.query, order="OldestFirst") if asked.follow else asked.query
        parameters = remote.parameters(query, limit=asked.limit, follow=asked.follow, local=True, after=asked.after)
        whole = False
        try:
            async with self._get(remote.RECORDS_PATH, parameters) as response:
                await _check(response)
                async for line in response.content:
                    if not line.endswith(b"\n"):
                        break
                    item = remote.read_line(line.rstrip(b"\n")) if line.strip() else None
                    whole = isinstance(item, End)
                    yield item
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            raise SourceError(_words(error)) from error
        if not whole:
            raise SourceError("its answer broke off")

    async def gaps(self, writers: Sequence[str] = ()) -> GapReport:
        """Give the gaps of the store. Raises SourceError."""
        parameters = [("local", "true"), *(("writer", writer) for writer in writers)]
        try:
            async with self._get(remote.GAPS_PATH, parameters) as response:
                await _check(response)
                return msgspec.json.decode(await response.read(), type=GapReport)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            raise SourceError(_words(error)) from error

    def _get(self, path: str, parameters: Sequence[tuple[str, str]]) -> "aiohttp.client._RequestContextManager":
        return self._session.get(
            self.url + path,
            params=parameters,
            headers={"Authorization": f"Bearer {self._others.token()}"},
            ssl=self._others.tls() or True,
            server_hostname=self._others.server_name if self.url.startswith("https") else None,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=PEER_SECONDS, sock_read=PEER_SECONDS),
            read_bufsize=MAX_LINE,
        )


def notice(source: RecordSource, error: SourceError) -> Notice:
    """Tell a reader that a store's records are missing."""
    return Notice(message=f"its records are missing here: {error}", peer=source.url)


def _line(stored: StoredRecord) -> RecordLine:
    line = remote.read_line(stored.body)
    assert isinstance(line, RecordLine)  # noqa: S101 - the store takes nothing else
    return line


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    data = await response.content.read(MAX_LINE)
    try:
        detail = msgspec.json.decode(data).get("detail")
    except (msgspec.DecodeError, AttributeError):
        detail = None
    raise ValueError(f"it answered {response.status}: {detail or data[:200].decode(errors='replace')}")


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PEER_SECONDS:g} s"
    return str(error) or type(error).__name__
