"""Amounts in a run: what is limited, what is used, and where one goes beyond the other.

Inside a run's bookkeeping amounts are six whole numbers, in the order of `AMOUNTS`; steps come first.
"""

from collections.abc import Iterable

from fleetward.delegation.scope import AMOUNTS, Amounts, Violation
from fleetward.registry.text import MAX_COUNT

Six = tuple[int, int, int, int, int, int]

NOTHING: Six = (0, 0, 0, 0, 0, 0)
ONE_STEP: Six = (1, 0, 0, 0, 0, 0)

WIRE_NAMES = tuple(first + "".join(map(str.title, rest)) for first, *rest in (name.split("_") for name in AMOUNTS))
"""The names of the amounts as they are written in JSON."""


def six(amounts: Amounts) -> Six:
    """Give the amounts as numbers; what is not said is 0."""
    return (
        amounts.steps or 0,
        amounts.calls or 0,
        amounts.records or 0,
        amounts.input_tokens or 0,
        amounts.output_tokens or 0,
        amounts.cost_micro_usd or 0,
    )


def with_step(amounts: Amounts) -> Six:
    """Give what an action uses: its amounts, and itself, which is a step."""
    steps, *rest = six(amounts)
    return (steps + 1, *rest)  # type: ignore[return-value]  # mypy loses the length


def really_used(reserved: Six, actual: Amounts) -> Six:
    """Give what an action used: where nothing is said, what was reserved stands."""
    steps = reserved[0] if actual.steps is None else actual.steps + 1
    said = (
        actual.calls,
        actual.records,
        actual.input_tokens,
        actual.output_tokens,
        actual.cost_micro_usd,
    )
    return (steps, *(old if new is None else new for old, new in zip(reserved[1:], said, strict=True)))  # type: ignore[return-value]


def as_amounts(numbers: list[int] | Six) -> Amounts:
    """Give numbers as they travel, none of them left out."""
    if max(numbers) > MAX_COUNT:  # more than JSON keeps exact, and than any limit may say
        numbers = [min(number, MAX_COUNT) for number in numbers]
    return Amounts(*numbers)


class Account:
    """What may be used in all by a run, or by a grant and all below it, and what of that was used or is reserved."""

    __slots__ = ("by", "limits", "used")

    def __init__(self, by: str, limits: Iterable[tuple[int, int]]) -> None:
        self.by = by
        """As in `Violation.by`."""
        self.limits = tuple(limits)
        """Each limit, after its place among the amounts."""
        self.used = [0] * len(AMOUNTS)

    def beyond(self, more: Six) -> list[Violation]:
        """Say which limits would be gone beyond with `more`; also those that are already."""
        used = self.used
        return [
            Violation(total=WIRE_NAMES[index], found=str(used[index] + more[index]), allowed=str(limit), by=self.by)
            for index, limit in self.limits
            if used[index] + more[index] > limit
        ]

    def charge(self, more: Six) -> None:
        """Count what an action reserves."""
        used = self.used
        for index, amount in enumerate(more):
            if amount:
                used[index] += amount

    def replace(self, old: Six, new: Six) -> None:
        """Count `new` where `old` was counted."""
        used = self.used
        for index, before in enumerate(old):
            used[index] += new[index] - before


def limits_of(amounts: Amounts) -> list[tuple[int, int]]:
    """Give the limits that are set, each after its place among the amounts."""
    given = (getattr(amounts, name) for name in AMOUNTS)
    return [(index, limit) for index, limit in enumerate(given) if limit is not None]


def tighter(amounts: Amounts, above: Iterable[Account]) -> list[tuple[int, int]]:
    """Give the limits that say more than those above do.

    Whatever is charged here is charged above as well, so a limit that is no smaller than one above is never the first
    to be reached, and a long chain that hands the same limits down costs no more than a short one.
    """
    least: dict[int, int] = {}
    for account in above:
        for index, limit in account.limits:
            least[index] = min(limit, least.get(index, limit))
    return [(index, limit) for index, limit in limits_of(amounts) if index not in least or limit < least[index]]
