"""Asking for a decision: what is sent, and what an answer means."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

import msgspec

from fleetward.decision.action import Answer, DecisionRequest
from fleetward.decision.request import RequestError, read
from fleetward.registry.slice import ActionKind, Wire
from fleetward.sdk.context import current
from fleetward.sdk.errors import ApprovalRequired, Denied, InvalidAction, Throttled, Unavailable
from fleetward.sdk.exchange import Exchange, Flow, Pause, Reply
from fleetward.sdk.plain import plain

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
    parent: str | None
    traceparent: str | None
    wait: bool
    """Where the answer is Throttle: wait as long as it says and ask again, up to MAX_WAITS times."""


class _Problem(Wire, frozen=True, forbid_unknown_fields=False):
    detail: str = ""
    reason: str = ""
    field: str = ""


_OF_ACTION: Final = ("risk_tags", "data_classes", "target", "estimate", "labels")
_OF_REQUEST: Final = ("agent", "run", "parent", "traceparent")
_encode = msgspec.json.Encoder().encode
_read_answer = msgspec.json.Decoder(Answer).decode
_read_problem = msgspec.json.Decoder(_Problem).decode


def ask(kind: ActionKind, name: str, facts: Facts, agent: str | None) -> Flow[tuple[Answer, dict[str, Any] | None]]:
    """Ask whether the action may be run; if so, return the answer and the arguments as JSON data. Raises Refused."""
    request = make_request(kind, name, facts, agent)
    body = _encode(request)
    waits = MAX_WAITS if facts.get("wait") else 0
    while True:
        answer = read_decision((yield Exchange(DECISIONS, body)))
        if answer.decision in ("Allow", "Constrain"):
            return answer, request.action.arguments
        if answer.decision != "Throttle" or not waits:
            raise _refusal(answer)
        waits -= 1
        yield Pause(answer.retry_after_seconds or 1)


def make_request(kind: ActionKind, name: str, facts: Facts, agent: str | None) -> DecisionRequest:
    """Give what is asked. Raises InvalidAction, and TypeError for a fact there is not."""
    if unknown := facts.keys() - Facts.__annotations__.keys():
        raise TypeError(f"unknown facts: {', '.join(sorted(unknown))}; known are {', '.join(Facts.__annotations__)}")
    given: dict[str, Any] = {"agent": agent, **current(), **facts}
    action: dict[str, Any] = {"kind": kind, "name": name}
    if given.get("arguments") is not None:
        action["arguments"] = plain(given["arguments"], "arguments")
    for key in _OF_ACTION:
        if given.get(key):
            action[_camel(key)] = _declared(key, given[key])
    data = {"action": action} | {key: given[key] for key in _OF_REQUEST if given.get(key) is not None}
    try:
        return read(data, DecisionRequest)
    except RequestError as error:
        raise InvalidAction(error.message, error.field) from None


def read_decision(reply: Reply | None) -> Answer:
    """Give the answer in a reply to a decision request. Raises Refused where there is none."""
    told = read_reply(reply)
    if isinstance(told, Answer):
        return told
    if told.status == 429:
        raise Throttled(told.reason, retry_after_seconds=told.retry_after or 1)
    if 400 <= told.status < 500:
        raise InvalidAction(told.reason, told.field)
    raise Unavailable(told.reason)


class NoAnswer(msgspec.Struct, frozen=True):
    """Why a reply holds no answer."""

    status: int
    reason: str
    field: str = ""
    retry_after: int = 0


def read_reply(reply: Reply | None) -> Answer | NoAnswer:
    """Give the answer in a reply, or why there is none."""
    if reply is None:
        return NoAnswer(0, "the decision webhook was not asked")
    if reply.status == 200:
        try:
            return _read_answer(reply.body)
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


def _declared(key: str, value: Any) -> Any:
    if key == "estimate":
        return {_camel(name): amount for name, amount in plain(value, key).items()}
    if key == "target":
        return value
    return [value] if isinstance(value, str) else plain(tuple(value), key)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
