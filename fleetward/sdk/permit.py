"""A permit: an action that was allowed, what it owes, and the report of what came of it."""

import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from fleetward.decision.action import Answer, OutcomeRequest
from fleetward.decision.canonical import CanonicalError, digest
from fleetward.decision.obligations import apply_to_arguments, apply_to_result, concern
from fleetward.registry.slice import Obligation
from fleetward.sdk.asking import DECISIONS, NoAnswer, read_reply
from fleetward.sdk.errors import InvalidAction, OutcomeRefused, Unavailable
from fleetward.sdk.exchange import Exchange, Flow, Pause
from fleetward.sdk.plain import plain
from fleetward.sdk.usage import Used, actual_of

SENT_RESULT_BYTES: Final = 64 * 2**10
"""A larger result is sent only where an obligation concerns it."""

MAX_ERROR_CHARACTERS: Final = 4096
_ATTEMPTS: Final = 3

_encode = msgspec.json.Encoder().encode


class PermitState:
    """What both kinds of permit have. `arguments` are those the action must be run with, obligations carried out."""

    def __init__(self, answer: Answer, arguments: dict[str, Any] | None) -> None:
        self.answer = answer
        self.arguments = arguments
        self.ended = False
        """Whether success or failure was reported, or that was at least tried."""
        self._digest: str | None = None
        self._started = time.monotonic()
        if concern(answer.obligations, "arguments"):
            self.arguments = apply_to_arguments(arguments or {}, answer.obligations)
            self._digest = digest(self.arguments)

    @property
    def id(self) -> str:
        """The decision's id; give it as `parent` to what the action leads to."""
        return self.answer.id

    @property
    def obligations(self) -> tuple[Obligation, ...]:
        """What the action owes: it is done to the arguments in `arguments`, and to the result by `succeed`."""
        return self.answer.obligations

    def going_on(self, labels: Sequence[str], used: Used) -> Flow[None]:
        """Report progress. Raises OutcomeRefused when the action must stop."""
        answer = yield from self._report("Running", used, labels)
        if answer.decision != "Allow":
            raise OutcomeRefused(answer.reason, answer)

    def succeeding(self, result: Any, labels: Sequence[str], used: Used) -> Flow[Any]:
        """Report success; return the result as it may be used. Raises OutcomeRefused where it may not be."""
        self.ended = True
        owed = self.answer.obligations
        kept, why_not = _plain_result(result)
        for _ in range(2):  # the second time, to show that what the first answer asked for was done
            if concern(owed, "result") and why_not is None:
                result = kept = apply_to_result(kept, owed)
            sent = _sendable(kept, needed=concern(owed, "result"))
            answer = yield from self._report("Succeeded", used, labels, result=sent)
            if answer.decision != "Constrain":
                break
            owed = (*owed, *answer.obligations)
        if answer.decision == "Allow":
            return None if result is UNSET else result
        unsent = f" (it was not sent: {why_not})" if why_not is not None else ""
        raise OutcomeRefused(answer.reason + unsent, answer)

    def failing(self, error: str, used: Used) -> Flow[None]:
        """Report failure."""
        self.ended = True
        yield from self._report("Failed", used, (), error=error)

    def _report(
        self,
        status: Literal["Running", "Succeeded", "Failed"],
        used: Used,
        labels: Sequence[str],
        *,
        result: Any | UnsetType = UNSET,
        error: str | None = None,
    ) -> Flow[Answer]:
        outcome = OutcomeRequest(
            status=status,
            actual=actual_of(used, time.monotonic() - self._started),
            arguments_digest=self._digest,
            result=result,
            error=None if error is None else _presentable(error),
            labels=(labels,) if isinstance(labels, str) else tuple(labels),
        )
        exchange = Exchange(f"{DECISIONS}/{self.id}/outcome", _encode(outcome))
        attempts = _ATTEMPTS
        while isinstance(told := read_reply((yield exchange)), NoAnswer):
            attempts -= 1
            if told.status != 429 or not attempts:
                raise (OutcomeRefused if 400 <= told.status < 500 else Unavailable)(told.reason)
            yield Pause(told.retry_after or 1)
        return told


def describe_error(error: BaseException) -> str:
    """Put an exception in a line for the record."""
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _plain_result(result: Any) -> tuple[Any, str | None]:
    """Give the result as JSON data, or UNSET and why it is none."""
    if result is UNSET:
        return UNSET, None
    try:
        return plain(result, "result"), None
    except InvalidAction as error:
        return UNSET, error.reason


def _sendable(result: Any, *, needed: bool) -> Any:
    """Give the result if it is to be sent: where it is needed, or is small enough for the webhook to look at."""
    if result is UNSET or needed:
        return result
    if len(_encode(result)) > SENT_RESULT_BYTES:
        return UNSET
    try:
        digest(result, big_integers=True)
    except CanonicalError:
        return UNSET
    return result


def _presentable(text: str) -> str:
    return text[:MAX_ERROR_CHARACTERS].encode(errors="replace").decode()
