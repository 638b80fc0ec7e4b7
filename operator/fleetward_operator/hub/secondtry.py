"""A question asked once more, after leases of others were recalled, for what had no room at first."""

import time
from collections.abc import Callable

import msgspec

from fleetward.budget import calls
from fleetward.budget.amounts import add

FORGET_SECONDS = 600.0
"""After this time the last question of a webhook is forgotten: one that waited so long is not asked again."""


class NewestQuestions:
    """The last question of each webhook that asked lately."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest: dict[str, tuple[tuple[str, int], float]] = {}
        """By webhook, with the time; the longest ago comes first."""

    def __len__(self) -> int:
        return len(self._newest)

    def note(self, webhook: str, request: calls.Reserve) -> None:
        """Take note of a question."""
        now = self._clock()
        self._newest.pop(webhook, None)
        self._newest[webhook] = (_number(request), now)
        while now - self._newest[oldest := next(iter(self._newest))][1] > FORGET_SECONDS:
            del self._newest[oldest]

    def is_newest(self, webhook: str, request: calls.Request) -> bool:
        """Say whether a webhook has asked nothing since, so that it still waits for the answer."""
        known = self._newest.get(webhook)
        return known is not None and known[0] == _number(request)


def short_of(reply: calls.Reserved) -> list[calls.PotRef]:
    """Give the pots that had no room."""
    return [
        calls.PotRef(budget=answer.shortfall.budget, scope=answer.shortfall.scope)
        for answer in reply.answers
        if isinstance(answer, calls.Short)
    ]


def second_try(
    request: calls.Reserve, reply: calls.Reserved
) -> tuple[calls.Reserve, Callable[[calls.Reply], calls.Reply]]:
    """Give the question for what had no room, and what joins its answer with the first one.

    The holder does not know yet what it was granted at the first try, so its holdings are brought up to date for it.
    """
    short = [index for index, answer in enumerate(reply.answers) if isinstance(answer, calls.Short)]
    got = {(h.budget, h.scope, h.window): h for h in request.holdings}
    for answer in reply.answers:
        for grant in answer.grants if isinstance(answer, calls.Lease) else ():
            key = (grant.budget, grant.scope, grant.window)
            held = got.get(key) or calls.Holding(budget=grant.budget, scope=grant.scope, window=grant.window, got={})
            total = dict(held.got)
            add(total, grant.amounts)
            got[key] = msgspec.structs.replace(held, got=total)
    second = msgspec.structs.replace(
        request, wishes=tuple(request.wishes[index] for index in short), holdings=tuple(got.values())
    )

    def merge(more: calls.Reply) -> calls.Reply:
        if not isinstance(more, calls.Reserved):
            return more  # whether it was granted is not known; the webhook asks what it has
        answers = dict(zip(short, more.answers, strict=True))
        return calls.Reserved(answers=tuple(answers.get(i, answer) for i, answer in enumerate(reply.answers)))

    return second, merge


def _number(request: calls.Request) -> tuple[str, int]:
    """Tell questions of one webhook apart."""
    return request.born, request.number if isinstance(request, calls.Reserve) else 0
