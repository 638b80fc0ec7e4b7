"""The engine: decides for the agents of one slice, alone and in memory."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from fleetward.decision.action import Action, DecisionRequest, OutcomeRequest
from fleetward.decision.agent import AgentEngine, arguments_digest_of, recorded_facts
from fleetward.decision.cel.runtime import Runtime, load_runtime
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.facts import CatalogIndex, FactSets, declared_estimate, larger, with_declared
from fleetward.decision.judgement import Judgement
from fleetward.decision.obligations import concern
from fleetward.decision.outcome import constrain
from fleetward.decision.request import RequestError
from fleetward.decision.situation import ALONE, Situation
from fleetward.registry.slice import Agent, Estimate, Items, Mode, Slice

MAX_CHAINS = 1024
"""Chains an engine keeps ready; beyond that it starts over, which costs time but never changes a decision."""


class Engine:
    """Decides for every agent of a slice; a new slice rebuilds only what it changes."""

    def __init__(self, slice_: Slice, runtime: Runtime | None = None) -> None:
        self._runtime = load_runtime() if runtime is None else runtime
        self._engines: dict[str, AgentEngine] = {}
        self._chains: dict[tuple[str, tuple[str, ...]], AgentEngine] = {}
        """For agents with work that was handed down: by agent and path."""
        self._catalogs = CatalogIndex(())
        self.slice = Slice(version="")
        self.derived: dict[str, Any] = {}
        """What others have worked out from the slice, by whatever name they keep it under; gone with the slice."""
        self.apply(slice_)

    def apply(self, slice_: Slice) -> None:
        """Decide by `slice_` from now on."""
        old, new = self.slice.items, slice_.items
        same_facts = old.catalogs == new.catalogs and old.roles == new.roles
        if old.catalogs != new.catalogs:
            self._catalogs = CatalogIndex(new.catalogs.values())

        def decides_alike(engine: AgentEngine) -> bool:
            return same_facts and all(
                _alike(bound, _known(new, bound.key))
                and all(old.policies.get(p) == new.policies.get(p) for p in bound.policies)
                for bound in (engine.agent, *engine.principals)
            )

        self._engines = {
            key: known
            if (known := self._engines.get(key)) is not None and decides_alike(known)
            else AgentEngine(agent, new.policies, self._catalogs, new.roles, self._runtime)
            for key, agent in new.agents.items()
        }
        self._chains = {key: engine for key, engine in self._chains.items() if decides_alike(engine)}
        self.slice = slice_
        self.derived = {}

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

    def footprint(self, agent: str, action: Action) -> FactSets:
        """Give what an action touches at most: what is known of it, and what its agent declares.

        Of the target only what is known: to declare one that is allowed must not allow what has none.
        """
        known = self._catalogs.classify(action.name).facts
        facts = with_declared(known, action)
        return replace(
            facts,
            target=facts.target if self.believes(agent) else known.target,
            estimate=larger(facts.estimate, declared_estimate(action)),
        )

    def expected(self, name: str) -> Estimate | None:
        """Give what catalogs expect of the actions called `name`."""
        return self._catalogs.classify(name).facts.estimate

    def believes(self, agent: str) -> bool:
        """Say whether what an agent declares and reports counts as it says (declaredFacts Trusted)."""
        item = _known(self.slice.items, agent)
        return item is not None and item.declared_facts == "Trusted"

    def least(self, agent: str, name: str) -> Estimate | None:
        """Give what an action counts as at least, whatever its agent reports; None where nothing says so."""
        return None if self.believes(agent) else self.expected(name)

    def decide(self, request: DecisionRequest, situation: Situation = ALONE) -> Evaluation:
        """Judge a request; the restrictions of whoever handed the work down count, too. Raises RequestError."""
        key = request.agent or self.agent_of(request)
        if (why := self.standstill(key)) is not None:
            return self.deny(request, key, *why)
        if not situation.path:
            return self._engines[key].decide(request, self.slice.version, situation)
        if (stopped := self._stopped_above(key, situation.path)) is not None:
            return self.deny(request, key, *stopped)
        return self._decide_handed_down(key, request, situation)

    def _stopped_above(self, key: str, path: tuple[str, ...]) -> tuple[str, Mode | None] | None:
        """Say why work that came down along `path` stands still, where it does: whoever handed it down must run."""
        for principal in path:
            above = _known(self.slice.items, principal)
            if above is None:
                return f"{principal}, who handed the work down to {key}, is not governed any more", None
            if above.mode.operating_mode != "Running":
                return f"{mode_reason(principal, above.mode)}; it handed the work down to {key}", above.mode
        return None

    def standstill(self, key: str) -> tuple[str, Mode | None] | None:
        """Say why an agent may do nothing at all here, where that is so, and the mode that says so."""
        agent = self.slice.items.agents.get(key)
        if agent is None:
            known = ", ".join(sorted(self._engines)) or "none"
            return f"agent {key} is not governed here; the agents known here are {known}", None
        if agent.mode.operating_mode != "Running":
            return mode_reason(key, agent.mode), agent.mode
        return None

    def _decide_handed_down(self, key: str, request: DecisionRequest, situation: Situation) -> Evaluation:
        chain = self._chain(key, situation.path)
        evaluation = chain.decide(request, self.slice.version, situation)
        if any(bound.delegation == "Intersection" for bound in (chain.agent, *chain.principals)):
            for number, principal in enumerate(situation.path):
                before = msgspec.structs.replace(situation, path=situation.path[:number])
                own = self._chain(principal, before.path).decide(request, self.slice.version, before)
                evaluation.judgement = evaluation.judgement.joined(own.judgement, principal)
            if evaluation.allowed and concern(evaluation.judgement.obligations, "arguments"):
                constrain(evaluation)
        return evaluation

    def _chain(self, key: str, path: tuple[str, ...]) -> AgentEngine:
        """Give the engine for an agent with work that came down along `path`, all of which is known here."""
        if not path and key in self._engines:
            return self._engines[key]
        engine = self._chains.get((key, path))
        if engine is None:
            if len(self._chains) >= MAX_CHAINS:
                self._chains.clear()
            items = self.slice.items
            agent, *principals = [a for k in (key, *path) if (a := _known(items, k)) is not None]
            engine = AgentEngine(agent, items.policies, self._catalogs, items.roles, self._runtime, *principals)
            self._chains[key, path] = engine
        return engine

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
        path = opened.situation.path
        if (stopped := self._stopped_above(opened.agent, path)) is not None:
            return Judgement("Deny", stopped[0])
        return self._chain(opened.agent, path).review(opened, outcome)


def mode_reason(key: str, mode: Mode) -> str:
    """Say that an agent's operating mode denies everything: which, where it is set, by whom and why."""
    by = f" by {mode.set_by}" if mode.set_by else ""
    why = f": {mode.reason}" if mode.reason else ""
    return f"{key} is {mode.operating_mode}, set on {mode.source}{by}{why}"


def _known(items: Items, key: str) -> Agent | None:
    """Give an agent decided for here, or one that handed work down to one."""
    return items.agents.get(key) or items.principals.get(key)


def _alike(old: Agent, new: Agent | None) -> bool:
    """Say whether two versions of an agent differ in their operating mode at most."""
    return old is new or (new is not None and msgspec.structs.replace(old, mode=new.mode) == new)
