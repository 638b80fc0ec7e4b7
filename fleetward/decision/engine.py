"""The engine: decides for the agents of one slice, alone and in memory."""

from collections.abc import Mapping

import msgspec

from fleetward.decision.action import DecisionRequest, OutcomeRequest
from fleetward.decision.agent import AgentEngine, arguments_digest_of, recorded_facts
from fleetward.decision.cel.runtime import Runtime, load_runtime
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.facts import CatalogIndex
from fleetward.decision.judgement import Judgement
from fleetward.decision.request import RequestError
from fleetward.registry.slice import Agent, Mode, Slice


class Engine:
    """Decides for every agent of a slice; a new slice rebuilds only what it changes."""

    def __init__(self, slice_: Slice, runtime: Runtime | None = None) -> None:
        self._runtime = load_runtime() if runtime is None else runtime
        self._engines: dict[str, AgentEngine] = {}
        self._catalogs = CatalogIndex(())
        self.slice = Slice(version="")
        self.apply(slice_)

    def apply(self, slice_: Slice) -> None:
        """Decide by `slice_` from now on."""
        old, new = self.slice.items, slice_.items
        same_facts = old.catalogs == new.catalogs and old.roles == new.roles
        if old.catalogs != new.catalogs:
            self._catalogs = CatalogIndex(new.catalogs.values())
        self._engines = {
            key: known
            if (known := self._engines.get(key)) is not None
            and same_facts
            and _decides_alike(old.agents[key], agent)
            and all(old.policies.get(p) == new.policies.get(p) for p in agent.policies)
            else AgentEngine(
                agent,
                new.policies,
                self._catalogs,
                new.roles,
                self._runtime,
            )
            for key, agent in new.agents.items()
        }
        self.slice = slice_

    @property
    def agents(self) -> Mapping[str, AgentEngine]:
        """The agents decided for."""
        return self._engines

    def agent_of(self, request: DecisionRequest) -> str:
        """Give the agent a request is about. Raises RequestError where it names none and there are several."""
        if request.agent is not None:
            return request.agent
        if len(self._engines) == 1:
            return next(iter(self._engines))
        raise RequestError("agent", f"is missing; name one of {', '.join(sorted(self._engines)) or 'no agents'}")

    def decide(self, request: DecisionRequest) -> Evaluation:
        """Judge a request. Raises RequestError."""
        key = request.agent or self.agent_of(request)
        agent = self.slice.items.agents.get(key)
        if agent is None:
            known = ", ".join(sorted(self._engines)) or "none"
            reason = f"agent {key} is not governed here; the agents known here are {known}"
            return self.deny(request, key, reason)
        if agent.mode.operating_mode != "Running":
            return self.deny(request, key, mode_reason(key, agent.mode), mode=agent.mode)
        return self._engines[key].decide(request, self.slice.version)

    def deny(self, request: DecisionRequest, agent: str, reason: str, mode: Mode | None = None) -> Evaluation:
        """Deny a request for a reason that lies outside the rules. Raises RequestError."""
        return Evaluation(
            agent=agent,
            request=request,
            judgement=Judgement("Deny", reason),
            registry_version=self.slice.version,
            mode=mode,
            trusted=recorded_facts(self._catalogs.classify(request.action.name).facts),
            arguments_digest=arguments_digest_of(request.action),
        )

    def review(self, opened: OpenDecision, outcome: OutcomeRequest) -> Judgement:
        """Judge the progress or the end of an action that was allowed; an agent stopped meanwhile is told so."""
        agent = self.slice.items.agents.get(opened.agent)
        if agent is None:
            return Judgement("Deny", f"agent {opened.agent} is not governed here any more")
        if agent.mode.operating_mode != "Running":
            return Judgement("Deny", mode_reason(opened.agent, agent.mode))
        return self._engines[opened.agent].review(opened, outcome)


def mode_reason(key: str, mode: Mode) -> str:
    """Say that an agent's operating mode denies everything: which, where it is set, by whom and why."""
    by = f" by {mode.set_by}" if mode.set_by else ""
    why = f": {mode.reason}" if mode.reason else ""
    return f"{key} is {mode.operating_mode}, set on {mode.source}{by}{why}"


def _decides_alike(old: Agent, new: Agent) -> bool:
    """Say whether two versions of an agent differ in their operating mode at most."""
    return old is new or msgspec.structs.replace(old, mode=new.mode) == new
