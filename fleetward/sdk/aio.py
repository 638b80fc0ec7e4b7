"""The asynchronous client: the same flows as the synchronous one, awaited."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack, cast

import aiohttp
from msgspec import UNSET

from fleetward.decision.action import Answer
from fleetward.registry.slice import ActionKind
from fleetward.sdk.asking import Facts, ask
from fleetward.sdk.context import context
from fleetward.sdk.errors import Refused
from fleetward.sdk.exchange import HEADERS, MAX_REPLY_BYTES, Exchange, Flow, Reply, retry_after, unreachable
from fleetward.sdk.permit import PermitState, describe_error
from fleetward.sdk.runs import Handing, Mandate, Planning, RunState, Step, hand_over, propose
from fleetward.sdk.settings import DEFAULT_TIMEOUT, Settings, settings
from fleetward.sdk.tool import Expect, Measure, Tool
from fleetward.sdk.usage import Used

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncClient:
    """What `Client` is, for asyncio: use it on one event loop, and close it there (`async with` does).

    `timeout` is in seconds, for a whole exchange.
    """

    def __init__(self, url: str | None = None, *, agent: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._settings = settings(url, agent, timeout)
        self._transport = AsyncTransport(self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def decide(self, kind: ActionKind, name: str, **facts: Unpack[Facts]) -> "AsyncPermit":
        """Ask whether the action may be run. Raises Refused where it may not."""
        answer, arguments = await self._run(ask(kind, name, facts, self._settings.agent))
        return AsyncPermit(self._run, answer, arguments)

    def action(self, kind: ActionKind, name: str, **facts: Unpack[Facts]) -> "AsyncAttempt":
        """Run an action in an `async with` block; see `Client.action`."""
        return AsyncAttempt(functools.partial(self.decide, kind, name, **facts))

    def tool(
        self,
        name: str,
        *,
        kind: ActionKind = "ToolCall",
        ignore: Collection[str] = (),
        expect: Expect | None = None,
        measure: Measure | None = None,
        **facts: Unpack[Facts],
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """Have each call of the decorated coroutine function governed; see `Client.tool`."""

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            if not inspect.iscoroutinefunction(function):
                raise TypeError(f"{function!r} is no coroutine function: decorate it with a Client's tool")
            tool = Tool(function, name, kind, facts, ignore=ignore, expect=expect, measure=measure)

            @functools.wraps(function)
            async def governed(*args: P.args, **kwargs: P.kwargs) -> R:
                call = tool.bind(args, kwargs)
                async with self.action(tool.kind, tool.name, **tool.facts(call)) as permit:
                    held_args, held_kwargs = call.under(permit)
                    with context(parent=permit.id):
                        result: R = await function(*held_args, **held_kwargs)
                    used: R = await permit.succeed(result, **tool.used(result))
                    return used

            return governed

        return decorate

    def run(self, *, requester: str, purpose: str, **mandate: Unpack[Mandate]) -> "AsyncRun":
        """Open a run in an `async with` block; see `Client.run`."""
        return AsyncRun(self, requester, purpose, mandate)

    async def delegate(self, to: str, **handing: Unpack[Handing]) -> str:
        """See `Client.delegate`."""
        return await self._run(hand_over(to, handing, self._settings.agent))

    async def plan(self, steps: Iterable[Step | Mapping[str, Any]], **planning: Unpack[Planning]) -> Answer:
        """See `Client.plan`."""
        return await self._run(propose(steps, planning, self._settings.agent))

    async def _run(self, flow: Flow[T]) -> T:
        reply: Reply | None = None
        try:
            while True:
                step = flow.send(reply)
                reply = None
                if isinstance(step, Exchange):
                    reply = await self._transport.exchange(step)
                else:
                    await asyncio.sleep(step.seconds)
        except StopIteration as end:
            value: T = end.value
            return value


class AsyncPermit(PermitState):
    """An action that is allowed; see `Permit`."""

    def __init__(
        self, run: Callable[[Flow[Any]], Awaitable[Any]], answer: Answer, arguments: dict[str, Any] | None
    ) -> None:
        super().__init__(answer, arguments)
        self._run = run

    async def progress(self, *, labels: Sequence[str] = (), **used: Unpack[Used]) -> None:
        """See `Permit.progress`."""
        await self._run(self.going_on(labels, used))

    async def succeed(self, result: Any = UNSET, *, labels: Sequence[str] = (), **used: Unpack[Used]) -> Any:
        """See `Permit.succeed`."""
        return await self._run(self.succeeding(result, labels, used))

    async def fail(self, error: BaseException | str, **used: Unpack[Used]) -> None:
        """See `Permit.fail`."""
        await self._run(self.failing(error if isinstance(error, str) else describe_error(error), used))


class AsyncRun(RunState):
    """The context manager that `AsyncClient.run` gives."""

    def __init__(self, client: AsyncClient, requester: str, purpose: str, mandate: Mandate) -> None:
        super().__init__(requester, purpose, mandate, client._settings.agent)  # noqa: SLF001 - they are one
        self._client = client

    async def __aenter__(self) -> Self:
        await self._client._run(self.opening())  # noqa: SLF001
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._client._run(self.closing())  # noqa: SLF001
        except Refused as trouble:
            if error is None:
                raise
            error.add_note(f"run {self.id} could not be closed: {trouble}")

    async def delegate(self, to: str, **handing: Unpack[Handing]) -> str:
        """See `Run.delegate`."""
        return await self._client.delegate(to, **cast("Handing", self.own(handing)))

    async def plan(self, steps: Iterable[Step | Mapping[str, Any]], **planning: Unpack[Planning]) -> Answer:
        """See `Run.plan`."""
        return await self._client.plan(steps, **cast("Planning", self.own(planning)))


class AsyncAttempt:
    """The context manager that `AsyncClient.action` gives."""

    def __init__(self, decide: Callable[[], Awaitable[AsyncPermit]]) -> None:
        self._decide = decide
        self._permit: AsyncPermit | None = None

    async def __aenter__(self) -> AsyncPermit:
        self._permit = await self._decide()
        return self._permit

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._permit is None or self._permit.ended:
            return
        if error is None:
            await self._permit.succeed()
            return
        try:
            await self._permit.fail(error)
        except Refused as trouble:
            error.add_note(f"Fleetward could not be told of this: {trouble}")


class AsyncTransport:
    """Carries exchanges out over aiohttp's client."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, exchange: Exchange) -> Reply:
        """Send a request and read its reply. Raises Unavailable."""
        kept: list[bool] = []
        try:
            async with asyncio.timeout(self._settings.timeout):
                try:
                    return await self._once(exchange, kept)
                except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
                    if not kept:
                        raise
                    return await self._once(exchange, kept)
        except TimeoutError:
            late = TimeoutError(f"no answer within {self._settings.timeout:g} s")
            raise unreachable(self._settings.address, late) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unreachable(self._settings.address, error) from error

    async def close(self) -> None:
        """Close the connections; the next exchange opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _once(self, exchange: Exchange, kept: list[bool]) -> Reply:
        session = self._session or self._open()
        url = f"{self._settings.address.base_url}{exchange.path}"
        async with session.post(url, data=exchange.body, allow_redirects=False, trace_request_ctx=kept) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise aiohttp.ClientPayloadError(f"its answer has more than {MAX_REPLY_BYTES} bytes")
            return Reply(response.status, bytes(body), retry_after(response.headers.get("Retry-After")))

    def _open(self) -> aiohttp.ClientSession:
        path = self._settings.address.path
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_kept)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector() if path is None else aiohttp.UnixConnector(path),
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            trace_configs=[trace],
        )
        return self._session


async def _note_kept(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionReuseconnParams) -> None:
    """Note, in the list that the request brought, that its connection was used before."""
    context.trace_request_ctx.append(True)
