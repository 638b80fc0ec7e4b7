"""A 200 with JSON, written in one go: what nearly every request gets.

aiohttp's own response builds a header map and several buffers for each answer, a quarter of the time an exchange takes.
This is the part of its interface that its low-level server asks for, and nothing else.
"""

import time
from email.utils import formatdate

from aiohttp import HttpVersion11, web


class QuickAnswer:
    """The answer `body`, once; for requests that `fits`."""

    __slots__ = ("_body",)

    keep_alive = True

    def __init__(self, body: bytes) -> None:
        self._body = body

    @staticmethod
    def fits(request: web.BaseRequest) -> bool:
        """Say whether the connection goes on without having to say so."""
        return request.keep_alive and request.version == HttpVersion11

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write head and body. Raises ConnectionError when nobody is there any more."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        body = self._body
        transport.write(b"%b%d\r\n\r\n%b" % (_head(), len(body), body))
        if transport.get_write_buffer_size():
            await request.writer.drain()

    async def write_eof(self) -> None:
        """Do nothing: all is written."""


_second = 0
_known_head = b""


def _head() -> bytes:
    """Give the head up to the length's value; made anew once a second, for the date."""
    global _second, _known_head  # noqa: PLW0603 - a cache of one
    now = int(time.time())
    if now != _second:
        date = formatdate(now, usegmt=True).encode()
        _known_head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: %b\r\nContent-Length: " % date
        _second = now
    return _known_head
