"""Records of several stores as one answer: in the order of time, each once, and with a word on what is missing."""

import asyncio
import contextlib
import heapq
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import TypeAlias

from fleetward.audit.remote import Asked, End, Following, Line, Notice, RecordLine
from fleetward_operator.records.sources import (
    HEARTBEAT_SECONDS,
    PEER_SECONDS,
    Item,
    RecordSource,
    SourceError,
    notice,
)

LOOK_SECONDS = 2.0
"""How often somebody who follows is checked for replicas that came, or came back."""

REMEMBERED = 20_000
"""So many ids are kept to tell each record once, where records come without end."""

Sources: TypeAlias = Callable[[], Sequence[RecordSource]]


def key(line: RecordLine) -> tuple[str, str]:
    """Give what records are ordered by. Writers write their times alike, so that text order is time order."""
    return (line.time, line.id)


class Once:
    """Lets each record through once, as far as it remembers."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()

    def new(self, line: RecordLine) -> bool:
        """Say whether this record was not seen yet, and remember it."""
        if line.id in self._seen:
            return False
        self._seen[line.id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True


async def limited(sources: Sequence[RecordSource], asked: Asked) -> AsyncGenerator[Line | RecordLine, None]:
    """Give at most `limit` records in exact order, the notices, and End."""
    parts = await asyncio.gather(*(_collect(source.read(asked), source) for source in sources))
    lines = merged((line for part, _, _ in parts for line in part), newest_first=asked.order == "NewestFirst")
    for line in lines[: asked.limit]:
        yield line
    for _, _, problem in parts:
        if problem is not None:
            yield problem
    yield End(more=len(lines) > asked.limit or any(end is not None and end.more for _, end, _ in parts))


def merged(lines: Iterable[RecordLine], *, newest_first: bool = False) -> list[RecordLine]:
    """Put records in order, each once."""
    return sorted({line.id: line for line in lines}.values(), key=key, reverse=newest_first)


async def everything(sources: Sequence[RecordSource], asked: Asked) -> AsyncGenerator[Line | RecordLine, None]:
    """Give all records as the stores have them: a store's late arrivals come late. Then the notices, and End."""
    problems: list[Notice] = []
    once = Once()
    heads: list[tuple[tuple[str, str], int, RecordLine]] = []
    async with contextlib.AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(contextlib.aclosing(_records(source, asked, problems)))
            for source in sources
        ]
        for number, stream in enumerate(streams):
            await _push(heads, number, stream)
        while heads:
            _, number, line = heapq.heappop(heads)
            if once.new(line):
                yield line
            await _push(heads, number, streams[number])
    for problem in problems:
        yield problem
    yield End()


async def followed(sources: Sources, asked: Asked) -> AsyncGenerator[Item, None]:
    """Give the newest records in order, the notices, Following, and then each record as a store takes it in.

    Ends, with End, once there are other replicas than at the beginning: whoever follows asks again.
    """
    async with contextlib.AsyncExitStack() as stack:
        begun = list(sources())
        streams = [await stack.enter_async_context(contextlib.aclosing(source.read(asked))) for source in begun]
        parts = await asyncio.gather(*map(_collect, streams, begun))
        once = Once()
        lines = merged(line for part, _, _ in parts for line in part)
        for line in lines:
            once.new(line)
        for line in lines[-asked.limit :] if asked.limit else []:
            yield line
        problems = {source.url: problem for source, (_, _, problem) in zip(begun, parts, strict=True) if problem}
        for problem in problems.values():
            yield problem
        yield Following()
        queue: asyncio.Queue[Item] = asyncio.Queue(maxsize=1000)
        for source, stream in zip(begun, streams, strict=True):
            if source.url not in problems:
                await _start(stack, _pump(stream, source, queue, problems))
        await _start(stack, _watch(sources, {source.url for source in begun}, problems, queue))
        async for item in _drained(queue):
            if not isinstance(item, RecordLine) or once.new(item):
                yield item
            if isinstance(item, End):
                return


async def _drained(queue: asyncio.Queue[Item]) -> AsyncGenerator[Item, None]:
    while True:
        item: Item = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                item = await queue.get()
        yield item


async def _collect(
    stream: AsyncGenerator[Item, None], source: RecordSource
) -> tuple[list[RecordLine], End | None, Notice | None]:
    """Read up to End or Following."""
    lines: list[RecordLine] = []
    end: End | None = None
    try:
        async for item in stream:
            if isinstance(item, RecordLine):
                lines.append(item)
            elif isinstance(item, End):
                end = item
            elif isinstance(item, Following):
                break
    except SourceError as error:
        return [], None, notice(source, error)
    return lines, end, None


async def _records(source: RecordSource, asked: Asked, problems: list[Notice]) -> AsyncGenerator[RecordLine, None]:
    try:
        async for item in source.read(asked):
            if isinstance(item, RecordLine):
                yield item
    except SourceError as error:
        problems.append(notice(source, error))


async def _push(
    heads: list[tuple[tuple[str, str], int, RecordLine]], number: int, stream: AsyncGenerator[RecordLine, None]
) -> None:
    with contextlib.suppress(StopAsyncIteration):
        line = await anext(stream)
        heapq.heappush(heads, (key(line), number, line))


async def _pump(
    stream: AsyncGenerator[Item, None], source: RecordSource, queue: asyncio.Queue[Item], problems: dict[str, Notice]
) -> None:
    try:
        async for item in stream:
            if isinstance(item, RecordLine):
                await queue.put(item)
        error = SourceError("it ended its answer")
    except SourceError as caught:
        error = caught
    problems[source.url] = notice(source, error)
    await queue.put(problems[source.url])


async def _watch(sources: Sources, known: set[str], problems: dict[str, Notice], queue: asyncio.Queue[Item]) -> None:
    """End the answer once there is a replica that it does not follow and that answers."""
    probe = Asked(limit=1, local=True)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        for source in sources():
            if source.url in known and source.url not in problems:
                continue
            with contextlib.suppress(SourceError, TimeoutError):
                async with asyncio.timeout(PEER_SECONDS):
                    async for _ in source.read(probe):
                        pass
                await queue.put(End(more=True))
                return


async def _start(stack: contextlib.AsyncExitStack, work: "asyncio._CoroutineLike[None]") -> None:
    """Run a task that ends with the stack."""
    task = asyncio.create_task(work)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)
