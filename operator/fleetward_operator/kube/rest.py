"""One request to the API server, JSON both ways, and what can go wrong with it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"

REQUEST_SECONDS = 4.0
"""How long a request may take. Shorter than the time between a leader's renew deadline and the end of its Lease, so
that a write begun as leader has ended before somebody else can lead."""

NO_ANSWER = 0
"""The status of a request that was not answered."""

_UNLIMITED = aiohttp.ClientTimeout(total=None)


class RequestError(Exception):
    """A request that failed: what was tried, and what the API server said."""

    def __init__(self, doing: str, status: int, body: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        """The HTTP status; NO_ANSWER where none came."""
        self.message = str(body.get("message") or body.get("reason") or "no message")
        details = body.get("details") or {}
        self.causes = frozenset(cause.get("reason") for cause in details.get("causes") or ())
        self.patch_misfits = status == 422 and not details
        """Whether a JSON patch does not fit the object: a test in it failed. (What is invalid comes with details.)"""
        self.retry_after = retry_after
        """Seconds that the API server asks to wait, where it does."""
        said = f"{status}: {self.message}" if status else self.message
        super().__init__(f"cannot {doing}: {said}")


async def request(
    api: ApiClient,
    method: str,
    path: str,
    doing: str,
    *,
    query: Mapping[str, str] | None = None,
    body: Any = None,
    content: str = JSON,
    seconds: float = REQUEST_SECONDS,
) -> dict[str, Any]:
    """Make a request and give the answer. `doing` names it in errors, such as `get pods reports/a`.

    Raises RequestError.
    """
    try:
        async with asyncio.timeout(seconds):
            prepared = await api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": JSON, "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
            )
            # The client's own limit is left out: the one around it counts all of the request.
            response = await api.call_api(*prepared, _request_timeout=_UNLIMITED)
            data = await response.read()
    except TimeoutError:
        raise RequestError(doing, NO_ANSWER, {"message": f"no answer within {seconds:g} s"}) from None
    except (aiohttp.ClientError, OSError) as error:
        raise RequestError(doing, NO_ANSWER, {"message": str(error) or type(error).__name__}) from error
    answer = _read(data)
    if not 200 <= response.status < 300:
        raise RequestError(doing, response.status, answer, _seconds(response.headers.get("Retry-After")))
    return answer


def _read(data: bytes) -> dict[str, Any]:
    """Read an answer; what stands between us and the API server may send something else than JSON."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"message": data[:200].decode("utf-8", "replace")}


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:  # a date, which the API server does not send
        return None
