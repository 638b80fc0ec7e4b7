"""Asking for a decision: what is sent, and what an answer means."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final, TypedDict, TypeVar

import msgspec

from fleetward.decision.action import Answer, DecisionRequest
from fleetward.decision.request import RequestError, read
from fleetward.registry.slice import ActionKind, Wire
from fleetward.sdk.context import STANDING, current, joined
from fleetward.sdk.errors import ApprovalRequired, Denied, InvalidAction, Refused, Throttled, Unavailable
from fleetward.sdk.exchange import Exchange, Flow, Pause, Reply
from fleetward.sdk.plain import plain

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

MAX_WAITS: Final = 3
"""How often `wait=True` waits and asks again."""

DECISIONS: Final = "/v1/decisions"


class Estimate(TypedDict, total=False):
    """What an action is expected to use, or used: tokens, millionths of a US dollar, calls, data records."""

    input_tokens: int
    output_tokens: int
    cost_micro_usd: int
    calls: int
    records: int


class Facts(TypedDict, total=False):
    """What may be said of an action beside its kind and name. What is declared here can only tighten a decision."""

    arguments: Mapping[str, Any] | None
    risk_tags: Sequence[str]
    data_classes: Sequence[str]
    target: str | None
    estimate: Estimate | None
    labels: Sequence[str]
    agent: str | None
    run: str | None
    grant: str | None
    """The grant that the agent acts under, as it was handed to it."""
    parent: str | None
    """The id of the decision that led to this one."""
    traceparent: str | None
    model: str | None
    """Of a model call whose arguments do not say it: the model."""
    wait: bool
    """Where the answer is Throttle: wait as long as it says and ask again, up to MAX_WAITS times."""
    max_wait: float
    """The same, as often as it takes, for so many seconds in all; Throttled is raised where that would not do."""


class _Problem(Wire, frozen=True, forbid_unknown_fields=False):
    detail: str = ""
    reason: str = ""
    field: str = ""


_OF_ACTION: Final = ("risk_tags", "data_classes", "target", "estimate", "labels", "model")
_encode = msgspec.json.Encoder().encode
_read_answer = msgspec.json.Decoder(Answer).decode
_read_problem = msgspec.json.Decoder(_Problem).decode


def ask(kind: ActionKind, name: str, facts: Facts, agent: str | None) -> Flow[tuple[Answer, dict[str, Any] | None]]:
    """Ask whether the action may be run; if so, return the answer and the arguments as JSON data. Raises Refused."""
    request = make_request(kind, name, facts, agent)
    answer = yield from decided(DECISIONS, request, Patience.of(facts))
    return answer, request.action.arguments


class Patience:
    """How often, and for how long in all, somebody waits who is told to ask again later."""

    def __init__(self, waits: float, seconds: float) -> None:
        self._waits, self._seconds = waits, seconds

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Patience":
        """Give what `wait` and `max_wait` say."""
        most: float | None = facts.get("max_wait")
        if most is None:
            return cls(MAX_WAITS if facts.get("wait") else 0, inf)
        return cls(inf if facts.get("wait", True) else 0, most)

    def suffices(self, seconds: float) -> bool:
        """Say whether to wait once more, for so many seconds; if so, that is counted."""
        if self._waits < 1 or self._seconds < seconds:
            return False
        self._waits -= 1
        self._seconds -= seconds
        return True


def decided(path: str, request: msgspec.Struct, patience: Patience) -> Flow[Answer]:
    """Ask for a decision, and return the answer where it allows. Raises Refused."""
    body = _encode(request)
    while True:
        answer = read_decision((yield Exchange(path, body)))
        if answer.decision in ("Allow", "Constrain"):
            return answer
        pause = answer.retry_after_seconds or 1
        if answer.decision != "Throttle" or not patience.suffices(pause):
            raise _refusal(answer)
        yield Pause(pause)


def make_request(kind: ActionKind, name: str, facts: Facts, agent: str | None) -> DecisionRequest:
    """Give what is asked. Raises InvalidAction, and TypeError for a fact there is not."""
    check_known(facts, Facts)
    return shaped({"action": make_action(kind, name, facts), **standing(facts, agent)}, DecisionRequest)


def make_action(kind: ActionKind, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give an action as JSON data. Raises InvalidAction."""
    action: dict[str, Any] = {"kind": kind, "name": name}
    if facts.get("arguments") is not None:
        action["arguments"] = plain(facts["arguments"], "arguments")
    for key in _OF_ACTION:
        if facts.get(key):
            action[camel(key)] = declared(key, facts[key])
    return action


def standing(facts: Mapping[str, Any], agent: str | None) -> dict[str, Any]:
    """Give who asks, and in which run, under which grant and parent, as JSON data. Raises InvalidAction."""
    who = facts.get("agent") or agent
    where = joined(current(), {key: facts.get(key) for key in STANDING})
    return where if who is None else {"agent": who, **where}


def check_known(facts: Mapping[str, Any], known: type) -> None:
    """Raise TypeError for a fact that `known`, a TypedDict, has not."""
    names = known.__annotations__
    if unknown := facts.keys() - names.keys():
        raise TypeError(f"unknown facts: {', '.join(sorted(unknown))}; known are {', '.join(names)}")


def shaped(data: dict[str, Any], shape: type[S]) -> S:
    """Give the request. Raises InvalidAction, which names the field, what was found and what is allowed."""
    try:
        return read(data, shape)
    except RequestError as error:
        raise InvalidAction(error.message, error.field) from None


def read_decision(reply: Reply | None) -> Answer:
    """Give the answer in a reply to a decision request. Raises Refused where there is none."""
    told = read_reply(reply)
    if isinstance(told, NoAnswer):
        raise told.refusal()
    return told


class NoAnswer(msgspec.Struct, frozen=True):
    """Why a reply holds no answer."""

    status: int
    reason: str
    field: str = ""
    retry_after: int = 0

    def refusal(self) -> Refused:
        """Give what is raised for it."""
        if self.status == 429:
            return Throttled(self.reason, retry_after_seconds=self.retry_after or 1)
        if self.status == 409:  # it was understood, and is refused: a run that another agent opened, say
            return Denied(self.reason)
        if 400 <= self.status < 500:
            return InvalidAction(self.reason, self.field)
        return Unavailable(self.reason)


def read_reply(reply: Reply | None) -> Answer | NoAnswer:
    """Give the answer in a reply, or why there is none."""
    return read_as(reply, _read_answer)


def read_as(reply: Reply | None, decode: Callable[[bytes], T]) -> T | NoAnswer:
    """Give what a reply says, or why it says nothing."""
    if reply is None:
        return NoAnswer(0, "the decision webhook was not asked")
    if reply.status == 200:
        try:
            return decode(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # Not understood is not allowed. With no status of HTTP's, nothing takes it for one that was meant.
            return NoAnswer(0, f"the decision webhook gave an answer this client does not understand: {error}")
    try:
        problem = _read_problem(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem()
    reason = problem.reason or problem.detail or f"the decision webhook answered with status {reply.status}"
    return NoAnswer(reply.status, reason, problem.field, reply.retry_after)


def _refusal(answer: Answer) -> Denied | ApprovalRequired | Throttled:
    if answer.decision == "RequireApproval":
        return ApprovalRequired(answer.reason, answer)
    if answer.decision == "Throttle":
        return Throttled(answer.reason, answer)
    return Denied(answer.reason, answer)


def declared(key: str, value: Any) -> Any:
    """Give a fact as JSON data; one text stands for a list of it alone. Raises InvalidAction."""
    if key == "estimate":
        return {camel(name): amount for name, amount in plain(value, key).items()}
    if key in ("target", "model"):
        return value
    return [value] if isinstance(value, str) else plain(tuple(value), key)


def camel(name: str) -> str:
    """Give a name as it travels."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
