"""One request to the webhook and its reply, as data; how they travel is the transports' business."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from fleetward.sdk.errors import Unavailable
from fleetward.stream.address import Address

T = TypeVar("T")

MAX_REPLY_BYTES = 2**20
"""A longer reply is none that makes sense."""

HEADERS = {"Content-Type": "application/json", "Host": "localhost"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A POST of JSON.

    To ask twice does no harm: nothing may happen before a decision is answered, and a repeated outcome changes nothing.
    What a run counts it then counts twice, and of two runs opened the one nobody knows ends by itself.
    So a transport tries once more where a kept connection broke before the answer came, and never otherwise.
    """

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `retry_after` is in seconds, 0 where the reply says none."""

    status: int
    body: bytes
    retry_after: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds to wait before going on."""

    seconds: float


Step: TypeAlias = Exchange | Pause
Flow: TypeAlias = Generator[Step, Reply | None, T]
"""Yields what to do, is sent the Reply (None after a Pause), and returns what comes of it.

Both clients run the same flows, so they differ in nothing but how they wait.
"""


def retry_after(value: str | None) -> int:
    """Read a Retry-After header in seconds; 0 for none, or for one in another form."""
    return int(value) if value is not None and value.isascii() and value.isdecimal() else 0


def unreachable(address: Address, why: BaseException) -> Unavailable:
    """Say that there is no webhook to ask, which denies the action."""
    return Unavailable(f"the decision webhook at {address} cannot be asked: {str(why) or type(why).__name__}")
