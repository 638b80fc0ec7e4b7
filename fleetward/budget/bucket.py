"""Token buckets: so many actions in so many seconds, and so many at once."""

import math

import msgspec

from fleetward.registry.slice import Rate

_GRAIN = 1e-6
"""What floating-point arithmetic may lack of a whole token, so that whoever waits as told is let in."""


class Bucket(msgspec.Struct):
    """What a bucket held at some moment. It begins full."""

    tokens: float
    at: float

    def filled(self, rate: Rate, now: float) -> float:
        """Say how many tokens are in it now. A clock that goes back adds nothing."""
        gained = max(0.0, now - self.at) * rate.count / rate.per_seconds if rate.per_seconds > 0 else 0.0
        return min(float(rate.burst), self.tokens + gained)

    def take(self, count: int, rate: Rate, now: float) -> None:
        """Take tokens out; the caller has looked whether they are there."""
        self.tokens = self.filled(rate, now) - count
        self.at = max(self.at, now)


def enough(tokens: float, count: int) -> bool:
    """Say whether there are `count` tokens."""
    return tokens + _GRAIN >= count


def seconds_until(tokens: float, count: int, rate: Rate) -> int:
    """Say after how many seconds there will be `count` tokens, 1 at least; an hour where they never will be."""
    if rate.count <= 0 or rate.per_seconds <= 0 or count > rate.burst:
        return 3600
    return max(1, math.ceil((count - tokens - _GRAIN) * rate.per_seconds / rate.count))
