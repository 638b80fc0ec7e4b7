"""What is supposed of an action beside its request: who handed the work down, and what its run has done so far.

Deployed, the hub vouches for this; offline, a policy test or a request file says it. Only the rules are then judged:
no mandate, grant or signature is checked.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fleetward.decision.action import DecisionRequest, DeclaredEstimate
from fleetward.decision.agent import agent_variables
from fleetward.decision.facts import CatalogIndex
from fleetward.decision.request import RequestError
from fleetward.decision.situation import ALONE, Situation
from fleetward.delegation.scope import MAX_DEPTH, Depth
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Agent, Wire
from fleetward.registry.text import ActionName, AgentKey, Count, Reference, Tags, Target
from fleetward.resources.finding import did_you_mean
from fleetward.run.calls import recipient

OFFLINE = "offline"
"""A run's id, requester and purpose where nothing is said of them."""

Agents = Annotated[tuple[AgentKey, ...], Meta(max_length=1024)]
ByAction = dict[ActionName, Agents]


class SupposedRun(Wire, frozen=True, kw_only=True):
    """What rules read as `run`; see `docs/expressions.md`. What is left out is as in a run that just began."""

    id: Reference | None = None
    requester: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    purpose: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    opened_by: AgentKey | None = None
    steps: Count | None = None
    used: DeclaredEstimate | None = None
    agents: Agents | None = None
    depth: Depth | None = None
    age_seconds: Count | None = None
    repeats: Count | None = None
    idle_steps: Count | None = None
    exchanges: Count | None = None
    on_target: ByAction | None = None
    recent_on_target: ByAction | None = None


class SupposedPlan(Wire, frozen=True, kw_only=True):
    """What rules read as `plan`; what is left out is nothing."""

    steps: Count | None = None
    agents: Agents | None = None
    fan_out: Count | None = None
    depth: Count | None = None
    data_classes: Tags | None = None
    targets: Annotated[tuple[Target, ...], Meta(max_length=1024)] | None = None
    used: DeclaredEstimate | None = None


class Supposed(Wire, frozen=True, kw_only=True):
    """What is supposed of an action."""

    path: Annotated[tuple[AgentKey, ...], Meta(max_length=MAX_DEPTH)] = ()
    """Who handed the work down to the agent, the agent that opened the run first."""
    labels: Tags = ()
    """Provenance labels that the hub knows of."""
    run: SupposedRun | None = None
    to: AgentKey | None = None
    """Of a delegation: the agent it goes to. A message goes to its target."""
    data_classes: Tags = ()
    """Of a delegation: those of its scope."""
    plan: SupposedPlan | None = None
    """Of a plan: what its steps come to."""


NOTHING = Supposed()
FIELDS = tuple(field.encode_name for field in msgspec.structs.fields(Supposed))
"""The fields, as they are written."""


class Question(Supposed, frozen=True, kw_only=True):
    """A request with what is supposed of it."""

    request: DecisionRequest

    @property
    def supposed(self) -> Supposed:
        """What is supposed."""
        return Supposed(**{name: getattr(self, name) for name in Supposed.__struct_fields__})


def situate(supposed: Supposed, request: DecisionRequest, registry: Registry) -> Situation:
    """Give where the action stands. Raises RequestError for what cannot be; its field is one of a Question."""
    if supposed == NOTHING and request.run is None and request.grant is None:
        return ALONE
    agent = request.agent or (next(iter(registry.agents)) if len(registry.agents) == 1 else "")
    _check_path(supposed.path, agent, registry)
    _check_kind(supposed, request)
    if supposed.to is None:
        to = _recipient(request, agent, registry)
    else:
        to = _known(supposed.to, "to", registry)
        _check_delegation(supposed, supposed.to, request, agent)
    plan = None if supposed.plan is None else _written(supposed.plan)
    return Situation(
        path=supposed.path,
        labels=supposed.labels,
        target=supposed.to,
        data_classes=(supposed.data_classes if plan is None else tuple(plan.get("dataClasses", ()))),
        run=_run(supposed, request, agent),
        to={} if to is None else agent_variables(to),
        plan=plan or {},
    )


def _recipient(request: DecisionRequest, agent: str, registry: Registry) -> Agent | None:
    """Give the agent that a message goes to, as the hub finds it."""
    action = request.action
    if action.kind != "Message":
        return None
    target = CatalogIndex(registry.catalogs.values()).classify(action.name).facts.target or action.target
    to = recipient(action.kind, agent, target)
    return None if to is None else registry.agents.get(to)


def _run(supposed: Supposed, request: DecisionRequest, agent: str) -> dict[str, Any]:
    """Give what rules read as `run`: beside what is said, what follows from the path, which is what came before."""
    path = supposed.path
    said = SupposedRun() if supposed.run is None else supposed.run
    opener = path[0] if path else agent
    if said.opened_by not in (None, opener):
        why = "the first of path opened the run" if path else "without a path the agent itself opened the run"
        raise RequestError("run.openedBy", f"found {said.opened_by}, allowed {opener}: {why}")
    if said.depth is not None and said.depth < len(path):
        raise RequestError("run.depth", f"found {said.depth}, allowed {len(path)} or more, which is as long as path")
    if said.id is not None and request.run not in (None, said.id):
        raise RequestError("run.id", f"found {said.id}, allowed {request.run}, the run that the request names")
    follows = {
        "id": request.run or OFFLINE,
        "requester": OFFLINE,
        "purpose": OFFLINE,
        "openedBy": opener,
        "steps": len(path),
        "agents": list(path),
        "depth": len(path),
    }
    return follows | _written(said)


def _written(value: SupposedRun | SupposedPlan) -> dict[str, Any]:
    """Give what is said as expressions read it: what is left out is not there, and lists are lists."""
    written: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return written


def _check_path(path: tuple[str, ...], agent: str, registry: Registry) -> None:
    for number, key in enumerate(path):
        _known(key, f"path[{number}]", registry)
        if key == agent or key in path[:number]:
            who = "the agent that acts" if key == agent else "named before"
            raise RequestError(f"path[{number}]", f"found {key}, {who}; work never comes back to who handed it down")


def _check_kind(supposed: Supposed, request: DecisionRequest) -> None:
    kind = request.action.kind
    for field, given, wanted in (
        ("to", supposed.to is not None, "Delegation"),
        ("dataClasses", bool(supposed.data_classes), "Delegation"),
        ("plan", supposed.plan is not None, "Plan"),
    ):
        if given and kind != wanted:
            raise RequestError(field, f"goes with an action of kind {wanted}, found {kind}")
    if supposed.data_classes and supposed.to is None:
        raise RequestError("to", "is missing; dataClasses are those of the scope that is handed to an agent")
    if supposed.plan is not None and request.action.name != "plan":
        _misnamed(request.action.name, "plan")


def _check_delegation(supposed: Supposed, to: str, request: DecisionRequest, agent: str) -> None:
    name = f"delegate.{to.replace('/', '.')}"
    if request.action.name != name:
        _misnamed(request.action.name, name)
    if request.action.target not in (None, to):
        raise RequestError("request.action.target", f"found {request.action.target}, allowed {to}, or none")
    if to == agent or to in supposed.path:
        raise RequestError("to", f"found {to}, which is in the chain already; no grant goes in a circle")


def _misnamed(found: str, allowed: str) -> None:
    raise RequestError("request.action.name", f"found {found}, allowed {allowed}, as a decision webhook names it")


def _known(key: str, field: str, registry: Registry) -> Agent:
    agent = registry.agents.get(key)
    if agent is None:
        known = ", ".join(sorted(registry.agents)[:8]) or "none"
        raise RequestError(
            field, f"found {key}, which is no Agent here; there are: {known}{did_you_mean(key, registry.agents)}"
        )
    return agent
