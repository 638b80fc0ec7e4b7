"""What travels between the hub and a decision webhook: one WebSocket, one JSON text frame a message.

A sidecar opens the stream with Hello, then sends Renew and Records, Applied for each slice that came into force, and
Questions about runs and budgets. The hub answers with its slice, whole (Snapshot) or as a change (Update), with Renewed
or Withheld, with Acknowledged, with Keys, with Recall and with Replies; it ends the stream with Refused or Reconnect.
Frames of one direction arrive in order, and the design rests on it: Renewed and a Reply follow every change they build
on, and Applied answers change after change.
"""

from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta

from fleetward.budget import calls as budget_calls
from fleetward.registry.slice import Change, Items, Slice, Wire
from fleetward.run import calls

PROTOCOL = 4
"""The version of this protocol. Both sides must speak the same."""

PATH = "/v1/stream"

PARTS = Items.__struct_fields__
"""The parts of a slice: agents, policies and so on."""

MAX_FRAME_TO_HUB = 4 * 2**20
"""Bytes; a longer frame closes the stream (WebSocket code 1009)."""

MAX_FRAME_TO_SIDECAR = 64 * 2**20
"""Bytes; the hub refuses a sidecar whose slice would be longer, and says so."""

MAX_IN_FLIGHT_RECORDS = 512
"""How many records a sidecar may have sent that are not acknowledged yet."""

MAX_BATCH_RECORDS = 32
MAX_BATCH_BYTES = 64 * 2**10
"""How much goes into one Records message, save that it holds at least one record."""

Seq = Annotated[int, Meta(ge=0, le=2**53 - 1)]
WriterId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9]+\Z")]
Workload = Annotated[str, Meta(min_length=1, max_length=253)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


Request = calls.Request | budget_calls.Request
"""What is asked of the hub."""

AnyReply = calls.Reply | budget_calls.Reply
"""What it answers."""


class _Message(Wire, frozen=True, tag=True):
    """One frame; `type` names the message."""


class Held(Wire, frozen=True):
    """What a sidecar still holds: its slice's version, and the digest of each item by part and key."""

    version: str
    digests: dict[str, dict[str, Digest]]


class Hello(_Message, frozen=True):
    """The first message: who this sidecar is and what it still holds. The hub sends only what differs."""

    protocol: int
    workload: Workload
    """The group of agents that the sidecar serves."""
    writer: WriterId
    """The id under which the sidecar's records are numbered."""
    spooled: Seq
    """The number of the last record it wrote."""
    held: Held | None = None


class Renew(_Message, frozen=True):
    """A request for authority until `token` plus the lease's length."""

    token: float
    """The sidecar's own clock at sending, in seconds; the hub only echoes it."""
    spooled: Seq


class Applied(_Message, frozen=True):
    """The slice that the hub sent last is in force; each one is answered so, in the order they came."""

    version: Annotated[str, Meta(max_length=64)]


class Records(_Message, frozen=True):
    """Audit records in order, byte for byte as they were spooled."""

    records: Annotated[tuple[msgspec.Raw, ...], Meta(min_length=1, max_length=MAX_BATCH_RECORDS)]


class Question(_Message, frozen=True):
    """About a run or a budget. Answered by a Reply of the same number, in whatever order; number 0 asks for none."""

    number: Seq
    request: Request


class Reply(_Message, frozen=True):
    """The answer to the Question of that number. Whatever change it rests on came before it."""

    number: Seq
    reply: AnyReply


class Keys(_Message, frozen=True):
    """The public keys that grants may be signed with; they take the place of those sent before."""

    keys: dict[str, str]
    """By key id: an Ed25519 public key, 32 bytes as base64url."""


class Recall(_Message, frozen=True):
    """Another webhook needs what is left of these pots: whatever is not in use is to be given back at once."""

    pots: tuple[budget_calls.PotRef, ...]


class Snapshot(_Message, frozen=True):
    """The whole slice."""

    slice: Slice


class Update(_Message, frozen=True):
    """What turns the slice of version `base`, which the sidecar holds, into the next."""

    base: str
    change: Change


class Renewed(_Message, frozen=True):
    """Authority until `token` plus `ttl` seconds on the sidecar's clock, under the slice of `version`."""

    token: float
    ttl: Seconds
    version: str


class Withheld(_Message, frozen=True):
    """No authority: the hub itself does not know what holds now."""

    token: float
    reason: str


class Acknowledged(_Message, frozen=True):
    """The store has committed the records sent on this stream up to number `seq`."""

    seq: Seq


class Refused(_Message, frozen=True):
    """Why the hub closes the stream. The last message."""

    reason: str


class Reconnect(_Message, frozen=True):
    """The hub closes the stream and asks the sidecar to open another at once, with what it then has for a token.

    No refusal: the lease stays what it is. The last message.
    """

    reason: str


ToHub = Hello | Renew | Applied | Records | Question
ToSidecar = Snapshot | Update | Renewed | Withheld | Acknowledged | Keys | Recall | Reply | Refused | Reconnect

encode = msgspec.json.Encoder().encode
"""A message as the bytes of a text frame."""

decode_to_hub = msgspec.json.Decoder(ToHub).decode
"""A sidecar's message; raises msgspec.DecodeError for anything else (ValidationError where it is JSON)."""

decode_to_sidecar = msgspec.json.Decoder(ToSidecar).decode
"""The hub's message; raises msgspec.DecodeError for anything else."""

_canonical = msgspec.json.Encoder(order="deterministic").encode


def digest(item: object) -> str:
    """Digest one item of a slice (BLAKE2b, 128 bits, over its JSON with sorted keys)."""
    return blake2b(_canonical(item), digest_size=16).hexdigest()


def held(slice_: Slice) -> Held:
    """Say what a sidecar that has `slice_` holds."""
    digests = {}
    for part in PARTS:
        digests[part] = {key: digest(item) for key, item in getattr(slice_.items, part).items()}
    return Held(version=slice_.version, digests=digests)
