"""Runs, plans and delegations: what is sent, and what comes back. Both clients run these flows."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypedDict, Unpack

import msgspec
from msgspec import UNSET

from fleetward.decision.action import Answer
from fleetward.registry.slice import ActionKind
from fleetward.run.api import CloseRequest, DelegationRequest, PlanRequest, RunAnswer, RunRequest
from fleetward.sdk.asking import (
    Estimate,
    NoAnswer,
    Patience,
    camel,
    check_known,
    decided,
    declared,
    make_action,
    read_as,
    shaped,
    standing,
)
from fleetward.sdk.context import context
from fleetward.sdk.errors import Denied, InvalidAction
from fleetward.sdk.exchange import Exchange, Flow
from fleetward.sdk.plain import plain

RUNS: Final = "/v1/runs"
PLANS: Final = "/v1/plans"
DELEGATIONS: Final = "/v1/delegations"


class Limits(TypedDict, total=False):
    """What may be used in all: actions, calls, data records, tokens, millionths of a US dollar.

    `agents` and `depth` (how often work may be handed on) are for a run; a delegation has a depth of its own.
    """

    steps: int
    calls: int
    records: int
    input_tokens: int
    output_tokens: int
    cost_micro_usd: int
    agents: int
    depth: int


class Mandate(TypedDict, total=False):
    """What a run may do beside what rules allow. What is left out narrows nothing; an empty list allows none."""

    data_classes: Sequence[str]
    targets: Sequence[str]
    limits: Limits
    expires_in_seconds: int
    agent: str | None
    parent: str | None
    traceparent: str | None


class Handing(TypedDict, total=False):
    """The scope of a delegation. What is left out is as wide as what it comes from; an empty list allows none."""

    actions: Sequence[str]
    """Globs over the names of actions."""
    data_classes: Sequence[str]
    targets: Sequence[str]
    depth: int
    """How often the work may be handed on from there; 0: not at all."""
    limits: Limits
    expires_in_seconds: int
    labels: Sequence[str]
    """Provenance labels of what is handed over."""
    agent: str | None
    run: str | None
    grant: str | None
    parent: str | None
    traceparent: str | None
    wait: bool
    """See `Facts.wait`."""
    max_wait: float
    """See `Facts.max_wait`."""


class Planning(TypedDict, total=False):
    """What may be said of a plan beside its steps."""

    labels: Sequence[str]
    agent: str | None
    run: str | None
    grant: str | None
    parent: str | None
    traceparent: str | None
    wait: bool
    max_wait: float


class StepFacts(TypedDict, total=False):
    """What may be said of a step's action beside its kind and name."""

    arguments: Mapping[str, Any] | None
    risk_tags: Sequence[str]
    data_classes: Sequence[str]
    target: str | None
    estimate: Estimate | None
    labels: Sequence[str]
    model: str | None


class Step:
    """One step of a plan: which agent is to do what, after which other steps (by their ids)."""

    def __init__(
        self,
        id: str,  # noqa: A002 - what it is called everywhere
        agent: str,
        kind: ActionKind,
        name: str,
        *,
        depends_on: Iterable[str] = (),
        **facts: Unpack[StepFacts],
    ) -> None:
        check_known(facts, StepFacts)
        after = [depends_on] if isinstance(depends_on, str) else list(depends_on)
        self.data = {"id": id, "agent": agent, "action": make_action(kind, name, facts), "dependsOn": after}
        """As `POST /v1/plans` takes it."""


_encode = msgspec.json.Encoder().encode
_read_run = msgspec.json.Decoder(RunAnswer).decode


class RunState:
    """What both kinds of run have: the request that opens it, its id, and the context that holds inside."""

    def __init__(self, requester: str, purpose: str, mandate: Mandate, agent: str | None) -> None:
        check_known(mandate, Mandate)
        said: dict[str, Any] = {
            "requester": requester,
            "purpose": purpose,
            **_lists(mandate, "data_classes", "targets"),
        }
        said |= _limits(mandate)
        if mandate.get("expires_in_seconds") is not None:
            said["expiresInSeconds"] = mandate["expires_in_seconds"]
        where = standing(mandate, agent)
        known = {key: where[key] for key in ("agent", "parent", "traceparent") if key in where}
        self._request = shaped({"mandate": said} | known, RunRequest)
        self._id: str | None = None
        self._inside: AbstractContextManager[None] | None = None

    @property
    def id(self) -> str:
        """The run's id: what other agents of the run are told, and what `fleetward trace` shows it under."""
        if self._id is None:
            raise RuntimeError("the run is not open; it is inside its with block")
        return self._id

    @property
    def agent(self) -> str | None:
        """The agent that opens the run; None: the only one of its decision webhook."""
        return self._request.agent

    def opening(self) -> Flow[None]:
        """Open the run, and have everything asked for from now on belong to it."""
        if self._id is not None:
            raise RuntimeError(f"this is run {self._id}, which was opened already; each run is one of its own")
        self._id = yield from _told(RUNS, self._request)
        self._inside = context(run=self._id)
        self._inside.__enter__()

    def closing(self) -> Flow[None]:
        """Close the run, and its grants with it. Raises Refused where that is not taken."""
        if self._inside is not None:
            self._inside.__exit__(None, None, None)
            self._inside = None
        yield from _told(f"{RUNS}/{self.id}/close", CloseRequest(agent=self.agent))

    def own(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Give facts of what the agent that opened the run does in it, whatever run and grant hold outside."""
        return {"run": self.id, "grant": UNSET, "agent": self.agent, **facts}


def hand_over(to: str, handing: Handing, agent: str | None) -> Flow[str]:
    """Ask to hand work to another agent; return the grant. Raises Refused, and TypeError for a fact there is not."""
    check_known(handing, Handing)
    scope: dict[str, Any] = {**_lists(handing, "actions", "data_classes", "targets"), **_limits(handing)}
    for key in ("depth", "expires_in_seconds"):
        if handing.get(key) is not None:
            scope[camel(key)] = handing[key]
    data = {"to": to, "scope": scope, **_lists(handing, "labels"), **_in_a_run(standing(handing, agent))}
    answer = yield from decided(DELEGATIONS, shaped(data, DelegationRequest), Patience.of(handing))
    if answer.grant is None:
        raise Denied("it was allowed with obligations only, which nobody can carry out on a delegation", answer)
    return answer.grant


def propose(steps: Iterable[Step | Mapping[str, Any]], planning: Planning, agent: str | None) -> Flow[Answer]:
    """Ask whether a plan may be followed. Raises Refused, and TypeError for a fact there is not."""
    check_known(planning, Planning)
    told = [each.data if isinstance(each, Step) else plain(each, f"steps[{n}]") for n, each in enumerate(steps)]
    data = {"steps": told, **_lists(planning, "labels"), **_in_a_run(standing(planning, agent))}
    return (yield from decided(PLANS, shaped(data, PlanRequest), Patience.of(planning)))


def _told(path: str, request: msgspec.Struct) -> Flow[str]:
    """Ask for what is no decision, and return the run's id. Raises Refused."""
    told = read_as((yield Exchange(path, _encode(request))), _read_run)
    if isinstance(told, NoAnswer):
        raise told.refusal()
    return told.run


def _in_a_run(where: dict[str, Any]) -> dict[str, Any]:
    if "run" not in where:
        raise InvalidAction("is missing; open a run (client.run), or act under a grant (context(grant=...))", "run")
    return where


def _lists(facts: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {camel(key): declared(key, facts[key]) for key in keys if facts.get(key) is not None}


def _limits(facts: Mapping[str, Any]) -> dict[str, Any]:
    limits = facts.get("limits")
    return {} if limits is None else {"limits": {camel(key): value for key, value in plain(limits, "limits").items()}}
