"""Decisions whose outcome may still be reported.

There can be many of them, and most are asked for once at most, so each is kept as a few packed bytes under its
record's number.
"""

from collections.abc import Callable
from hashlib import blake2b
from time import monotonic
from typing import NamedTuple

import msgspec

from fleetward.decision.action import Action, OutcomeRequest, Spend
from fleetward.decision.evaluation import OpenDecision
from fleetward.decision.situation import ALONE, Situation
from fleetward.registry.slice import Decision, Obligation

MAX_DECISIONS = 10_000
MAX_BYTES = 4 * 2**20
"""Packed; where rules for outcomes read the arguments, those are kept, and this is what bounds them."""
MAX_AGE_SECONDS = 3600.0

_canonical = msgspec.json.Encoder(order="deterministic").encode


class Final(msgspec.Struct, frozen=True, array_like=True):
    """The final outcome that was reported, and what was answered: a repetition gets the same again."""

    fingerprint: bytes
    answer: bytes
    seq: int
    durable: bool


class Remembered(NamedTuple):
    """A decision given out. Neither `opened` nor `final`: it did not allow the action."""

    decision: Decision
    opened: OpenDecision | None
    final: Final | None


class _Opened(msgspec.Struct, frozen=True, array_like=True):
    agent: str
    action: Action
    obligations: tuple[Obligation, ...]
    expected_digest: str | None
    run: str | None
    situation: Situation = ALONE
    cleanses: tuple[str, ...] = ()
    reservation: int | None = None
    spends: tuple[Spend, ...] = ()


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    since: float
    decision: Decision
    opened: _Opened | None = None
    final: Final | None = None


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Entry).decode


class OpenDecisions:
    """The decisions of the last hour, up to a bound in number and size; beyond that the oldest are forgotten.

    An outcome for a forgotten decision is refused, never believed.
    """

    def __init__(
        self,
        *,
        max_decisions: int = MAX_DECISIONS,
        max_bytes: int = MAX_BYTES,
        max_age: float = MAX_AGE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._max_decisions = max_decisions
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._clock = clock
        self._packed: dict[int, bytes] = {}
        self._bytes = 0
        self._oldest = 0
        """No decision has a smaller number. (A dict emptied from its front finds its first item ever more slowly.)"""

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def bytes(self) -> int:
        """The size of all that is kept, packed."""
        return self._bytes

    def add(self, seq: int, decision: Decision, opened: OpenDecision | None) -> None:
        """Remember the decision recorded under number `seq`; numbers only grow."""
        if not self._packed:
            self._oldest = seq
        self._put(seq, _Entry(self._clock(), decision, None if opened is None else _compact(opened)))
        while len(self._packed) > self._max_decisions or self._bytes > self._max_bytes:
            self._forget_oldest()

    def find(self, seq: int, decision_id: str) -> Remembered | None:
        """Give the decision recorded under number `seq`, if it is still remembered."""
        packed = self._packed.get(seq)
        if packed is None:
            return None
        entry = _unpack(packed)
        if entry.since < self._clock() - self._max_age:
            return None
        return Remembered(
            entry.decision,
            None if entry.opened is None else _restore(entry.opened, decision_id, entry.since),
            entry.final,
        )

    def elapsed_ms(self, opened: OpenDecision) -> int:
        """Say how long ago a decision that `find` gave was given out, in milliseconds."""
        return max(0, round((self._clock() - opened.since) * 1000))

    def owes(self, seq: int, opened: OpenDecision) -> None:
        """Note the obligations that an outcome added."""
        entry = _unpack(self._packed[seq])
        self._put(seq, msgspec.structs.replace(entry, opened=_compact(opened)))

    def finish(self, seq: int, final: Final) -> None:
        """Note the final outcome, and let go of what was kept for judging it."""
        entry = _unpack(self._packed[seq])
        self._put(seq, msgspec.structs.replace(entry, opened=None, final=final))

    def _put(self, seq: int, entry: _Entry) -> None:
        packed = _pack(entry)
        self._bytes += len(packed) - len(self._packed.get(seq, b""))
        self._packed[seq] = packed

    def _forget_oldest(self) -> None:
        while (packed := self._packed.pop(self._oldest, None)) is None:
            self._oldest += 1
        self._bytes -= len(packed)


def _compact(opened: OpenDecision) -> _Opened:
    return _Opened(
        opened.agent,
        opened.action,
        opened.obligations,
        opened.expected_digest,
        opened.run,
        opened.situation,
        opened.cleanses,
        opened.reservation,
        opened.spends,
    )


def _restore(kept: _Opened, decision_id: str, since: float) -> OpenDecision:
    return OpenDecision(
        id=decision_id,
        agent=kept.agent,
        action=kept.action,
        obligations=kept.obligations,
        expected_digest=kept.expected_digest,
        run=kept.run,
        situation=kept.situation,
        cleanses=kept.cleanses,
        reservation=kept.reservation,
        spends=kept.spends,
        since=since,
    )


def fingerprint(outcome: OutcomeRequest) -> bytes:
    """Tell two outcomes apart, whatever the order of their keys."""
    return blake2b(_canonical(outcome), digest_size=16).digest()
