"""How one replica asks another one over HTTP."""

import io
import ssl
from typing import Protocol

import aiohttp

ANSWER_SECONDS = 2.0
"""How long an answer is waited for: less than a decision webhook waits."""

MAX_ANSWER = 32 * 2**20
"""Bytes of an answer; a longer one counts as none."""


class RelayError(Exception):
    """Why a replica did not answer, in words."""


class Trust(Protocol):
    """How replicas know each other; see `cluster.peers.Peers`."""

    server_name: str
    """The name in their certificate."""

    def token(self) -> str:
        """Give this replica's own token for the audience `fleetward`. Raises OSError."""

    def tls(self) -> ssl.SSLContext | None:
        """Say what to trust them by; None: what the system trusts."""


class Client:
    """Asks replicas. Every method raises RelayError."""

    def __init__(self, session: aiohttp.ClientSession, trust: Trust) -> None:
        self._session = session
        self._trust = trust

    async def post(self, url: str, path: str, body: bytes) -> bytes:
        """Send a body of JSON, and give what it is answered with."""
        return await self._ask("POST", url, path, io.BytesIO(body))

    async def get(self, url: str, path: str) -> bytes:
        """Give what is at a path."""
        return await self._ask("GET", url, path, None)

    async def _ask(self, method: str, url: str, path: str, body: io.BytesIO | None) -> bytes:
        try:
            status, data = await self._request(method, url, path, body)
        except TimeoutError:
            raise RelayError(f"{url} gave no answer within {ANSWER_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RelayError(f"{url} cannot be asked: {str(error) or type(error).__name__}") from None
        if status != 200:
            raise RelayError(f"{url} answered {status}: {data[:300].decode(errors='replace')}")
        return data

    async def _request(self, method: str, url: str, path: str, body: io.BytesIO | None) -> tuple[int, bytes]:
        trust = self._trust
        async with self._session.request(
            method,
            url + path,
            data=body,
            headers={"Authorization": f"Bearer {trust.token()}", "Content-Type": "application/json"},
            ssl=trust.tls() or True,
            server_hostname=trust.server_name if url.startswith("https") else None,
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            allow_redirects=False,
        ) as response:
            data = bytearray()
            async for part in response.content.iter_chunked(2**16):
                data += part
                if len(data) > MAX_ANSWER:
                    message = f"its answer is longer than {MAX_ANSWER} bytes"
                    raise ValueError(message)
            return response.status, bytes(data)
