"""What a sidecar sends, read; and why a stream ends, as errors."""

import msgspec
from aiohttp import WSMessage, WSMsgType, web

from fleetward.stream import messages


class RefusedError(Exception):
    """Why the hub ends a stream: a clause in words, sent to the sidecar.

    With `access`, it asked for what is not its to ask, and that is recorded.
    """

    def __init__(self, reason: str, *, access: bool = False) -> None:
        super().__init__(reason)
        self.access = access


class ReconnectError(Exception):
    """Why the hub ends a stream that it wants opened again."""


async def receive_hello(ws: web.WebSocketResponse) -> messages.Hello:
    """Receive the first message. Raises RefusedError for any that is not Hello, or not in this protocol."""
    frame = await ws.receive()
    if frame.type is not WSMsgType.TEXT:
        raise RefusedError(end_in_words(frame))
    message = decode(frame)
    if not isinstance(message, messages.Hello):
        raise RefusedError(f"the first message must be Hello, and was {type(message).__name__}")
    if message.protocol != messages.PROTOCOL:
        raise RefusedError(
            f"the sidecar speaks protocol {message.protocol} and the hub {messages.PROTOCOL}: run the same"
            " version of Fleetward on both sides"
        )
    return message


def decode(frame: WSMessage) -> messages.ToHub:
    """Read a sidecar's message. Raises RefusedError."""
    try:
        message: messages.ToHub = messages.decode_to_hub(frame.data)
    except msgspec.DecodeError as error:
        raise RefusedError(f"a message the hub (protocol {messages.PROTOCOL}) does not understand: {error}") from None
    return message


def end_in_words(frame: WSMessage) -> str:
    """Say what came instead of a message."""
    if frame.type is WSMsgType.BINARY:
        return "a binary frame came, and the stream has text frames only"
    if frame.type is WSMsgType.ERROR and frame.data is not None:
        return f"the WebSocket failed: {frame.data}"
    return "the stream ended before Hello"


def words(error: Exception) -> str:
    """Give an error's message; a LookupError would quote it."""
    said = error.args[0] if len(error.args) == 1 else str(error)
    return str(said) or type(error).__name__
