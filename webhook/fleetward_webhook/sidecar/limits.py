"""What bounds a request: how fast, how large, how slow, and from where."""

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from aiohttp import StreamReader, web

from fleetward_webhook.sidecar.problem import Kind, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of the API: sizes in bytes, times in seconds."""

    decision_bytes: int = 256 * 2**10
    plan_bytes: int = 2 * 2**20
    outcome_bytes: int = 2**20
    body_seconds: float = 10.0
    """How long a body may take to arrive once its headers are there."""
    idle_seconds: float = 75.0
    """How long a connection may stay without a complete request head."""
    rate: float = 10_000.0
    """Requests a second in the long run."""
    burst: int = 20_000
    connections: int = 512


class TokenBucket:
    """Lets `rate` requests a second through, and up to `burst` at once."""

    __slots__ = ("_at", "_burst", "_clock", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> bool:
        """Take one token; say whether there was one."""
        now = self._clock()
        tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if tokens < 1.0:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1.0
        return True

    @property
    def seconds_to_next(self) -> int:
        """In how many whole seconds there is a token again, at least 1."""
        return max(1, math.ceil((1.0 - self._tokens) / self._rate))


_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\]|unix)(:[0-9]{1,5})?", re.IGNORECASE)
_usual_hosts: set[str] = set()


def check_origin(request: web.BaseRequest) -> None:
    """Refuse what a web page makes a browser send: any Origin, and a Host that is not this machine (DNS rebinding).

    Raises Problem.
    """
    headers = request.headers
    host = headers.get("Host", "")
    if host not in _usual_hosts:
        if _LOCAL_HOST.fullmatch(host) is None:
            found = f"found {host[:100]!r}" if host else "it is missing"
            raise Problem(Kind.HOST_REFUSED, f"{found}; allowed: localhost, 127.0.0.1, [::1], unix", field="Host")
        if len(_usual_hosts) < 16:
            _usual_hosts.add(host)
    if "Origin" in headers:
        raise Problem(Kind.ORIGIN_REFUSED, "a request with an Origin header comes from a web page", field="Origin")


_JSON_TYPE = re.compile(r'application/json([ \t]*;[ \t]*charset="?utf-8"?)?[ \t]*', re.IGNORECASE)


async def read_body(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    """Read the body, of at most `limit` bytes, arriving within `seconds`. Raises Problem."""
    headers = request.headers
    given = headers.get("Content-Type")
    if given is not None and given != "application/json" and _JSON_TYPE.fullmatch(given) is None:
        raise Problem(Kind.CONTENT_TYPE, f"found {given[:100]!r}, allowed application/json", field="Content-Type")
    if "Content-Encoding" in headers:
        raise Problem(Kind.CONTENT_TYPE, "a compressed body is not accepted", field="Content-Encoding")
    content = request.content
    if content.is_eof():  # the usual case: head and body came together, so no timer is needed
        body = content.read_nowait()
    else:
        length = request.content_length
        if length is not None and length > limit:
            raise _too_large(limit)
        if "Expect" in headers:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # aiohttp takes any output for the start of the answer
        body = await _read_slowly(content, limit, seconds)
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _read_slowly(content: StreamReader, limit: int, seconds: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while len(body) <= limit and (chunk := await content.readany()):
                body += chunk
    except TimeoutError:
        raise Problem(Kind.SLOW_BODY, f"{len(body)} bytes came within {seconds:g} seconds") from None
    except web.RequestPayloadError as error:
        raise Problem(Kind.MALFORMED_HTTP, f"the body cannot be read: {error}") from None
    return bytes(body)


def _too_large(limit: int) -> Problem:
    return Problem(Kind.BODY_TOO_LARGE, f"at most {limit} bytes are allowed")
