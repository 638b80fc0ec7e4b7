"""A stream to the hub on which a test says what no sidecar would."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from support.streams import World

from fleetward.stream import messages


class Raw:
    """The sidecar's end of one stream."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def hello(self, workload: str = "alpha", writer: str = "raw", **fields: Any) -> None:
        await self.send(
            messages.Hello(protocol=messages.PROTOCOL, workload=workload, writer=writer, spooled=0, **fields)
        )

    async def send(self, message: messages.ToHub) -> None:
        await self.ws.send_str(messages.encode(message).decode())

    async def records(self, *lines: bytes) -> None:
        await self.ws.send_str((b'{"type":"Records","records":[' + b",".join(lines) + b"]}").decode())

    async def until(self, kind: type[Any]) -> Any:
        while True:
            frame = await self.ws.receive(timeout=20)
            assert frame.type is aiohttp.WSMsgType.TEXT, frame
            if isinstance(message := messages.decode_to_sidecar(frame.data), kind):
                return message
            assert not isinstance(message, messages.Refused), message.reason

    async def refusal(self) -> str:
        reason: str = (await self.until(messages.Refused)).reason
        return reason


@contextlib.asynccontextmanager
async def stream(world: World, token: str | None = None) -> AsyncIterator[Raw]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = None
    url = world.address
    if url.startswith("unix"):
        connector, url = aiohttp.UnixConnector(f"{world.directory}/hub.sock"), "http://hub"
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(f"{url}/v1/stream", headers=headers) as ws,
    ):
        yield Raw(ws)
