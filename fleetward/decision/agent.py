"""Deciding for one agent, or for one agent with work that others handed down: its rules indexed, its plans kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetward.decision.action import Action, DecisionRequest, Facts, OutcomeRequest
from fleetward.decision.canonical import CanonicalError, digest
from fleetward.decision.cel.runtime import Runtime
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.facts import (
    CatalogIndex,
    FactSets,
    with_declared,
    with_situation,
)
from fleetward.decision.glob import GlobIndex
from fleetward.decision.judgement import Default, Judgement
from fleetward.decision.obligations import concern
from fleetward.decision.outcome import constrain, outcome_variables, settle
from fleetward.decision.plan import Circumstances, Plan
from fleetward.decision.request import RequestError
from fleetward.decision.rules import ReadyRule, make_ready
from fleetward.decision.situation import ALONE, Situation
from fleetward.registry.slice import Agent, Phase, Policy, Role

MAX_PLANS = 4096
"""Plans an agent keeps; beyond that it starts over, which costs time but never changes a decision."""

_NOTHING_LEFT = Default("Allow", "no rule for outcomes speaks against it")


@dataclass(frozen=True, slots=True)
class _Phases:
    """How an action is judged: before it, and later."""

    before: Plan
    facts: Facts
    refusal: str | None
    """Why Fleetward itself refuses, whatever the rules say."""
    later: Mapping[Phase, Plan]
    keep_arguments: bool
    result_labels: frozenset[str]


class AgentEngine:
    """Decides for one agent. Its operating mode is not looked at here: see `Engine`.

    `principals` handed the work down to it, whoever began it first: what their policies restrict counts, too.
    """

    def __init__(
        self,
        agent: Agent,
        policies: Mapping[str, Policy],
        catalogs: CatalogIndex,
        roles: Mapping[str, Role],
        runtime: Runtime,
        *principals: Agent,
    ) -> None:
        self.agent = agent
        self.principals = principals
        self._catalogs = catalogs
        self._roles = roles
        self._runtime = runtime
        self._plans: dict[tuple[object, ...], _Phases] = {}
        self._variables = agent_variables(agent)
        path = tuple(principal.key for principal in principals)
        self.rules: list[ReadyRule] = []
        self._torn: str | None = None
        heard: set[str] = set()
        for bound in (agent, *principals):
            if missing := ", ".join(key for key in bound.policies if key not in policies):
                self._torn = f"policies that concern {bound.key} did not arrive here: {missing}"
                continue
            inherited = None if bound is agent else bound.key
            for key in bound.policies:  # one that binds several of the chain counts once
                if key not in heard and (inherited is None or policies[key].inheritance == "Chain"):
                    heard.add(key)
                    self.rules += make_ready(policies[key], agent, runtime, path, inherited)
        self._index: GlobIndex[ReadyRule] = GlobIndex()
        for rule in self.rules:
            for glob in rule.names:
                self._index.add(glob, rule)

    def decide(self, request: DecisionRequest, registry_version: str, situation: Situation = ALONE) -> Evaluation:
        """Judge a request. Raises RequestError for arguments that have no digest."""
        action = request.action
        phases = self._phases(action, situation)
        arguments_digest = arguments_digest_of(action)
        judgement = phases.before.settled
        if judgement is None:
            judgement = phases.before.judge(
                self._runtime, action, self._circumstances(action, arguments_digest, situation)
            )
        if phases.refusal is not None:
            judgement = judgement.refused(phases.refusal)
        evaluation = Evaluation(
            agent=self.agent.key,
            request=request,
            judgement=judgement,
            registry_version=registry_version,
            trusted=phases.facts,
            arguments_digest=arguments_digest,
            keep_arguments=phases.keep_arguments,
            situation=situation,
        )
        if judgement.obligations and concern(judgement.obligations, "arguments"):
            constrain(evaluation)
        return evaluation

    def review(self, opened: OpenDecision, outcome: OutcomeRequest) -> Judgement:
        """Judge the outcome of an action that was allowed."""
        if self._torn is not None:
            return Judgement("Deny", self._torn)
        phase: Phase = "During" if outcome.status == "Running" else "After"
        phases = self._phases(opened.action, opened.situation)
        judgement = phases.later[phase].judge(
            self._runtime,
            opened.action,
            self._circumstances(
                opened.action,
                outcome.arguments_digest,
                opened.situation,
                outcome_variables(outcome, phases.result_labels),
            ),
        )
        if outcome.status == "Succeeded":
            return settle(opened, outcome, judgement)
        return judgement

    def _circumstances(
        self,
        action: Action,
        arguments_digest: str | None,
        situation: Situation,
        outcome: Mapping[str, Any] | None = None,
    ) -> Circumstances:
        return Circumstances(
            self._variables,
            _arguments(action, arguments_digest),
            situation,
            outcome,
        )

    def _phases(self, action: Action, situation: Situation) -> _Phases:
        key: tuple[object, ...] = (
            action.kind,
            action.name,
            action.risk_tags,
            action.data_classes,
            action.target,
            action.labels,
        )
        if situation is not ALONE:
            key += (situation.labels, situation.target, situation.data_classes, situation.to.get("role"))
        phases = self._plans.get(key)
        if phases is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            phases = self._plans[key] = self._make_phases(action, situation)
        return phases

    def _make_phases(self, action: Action, situation: Situation) -> _Phases:
        agent = self.agent
        classified = self._catalogs.classify(action.name)
        trusted = with_situation(classified.facts, situation)
        declared = with_declared(trusted, action)
        believe = agent.declared_facts == "Trusted"
        met = {id(r): r for r in self._index.find(action.name) if r.kinds is None or action.kind in r.kinds}
        remedy = (
            f"State it in an ActionCatalog entry for {action.name}"
            + (", save for labels" if declared.labels != trusted.labels else "")  # a catalog has none
            + (f", or set declaredFacts: Trusted on AgentFleet {' and '.join(agent.fleets)}." if agent.fleets else ".")
        )

        def plan(phase: Phase, default: Default) -> Plan:
            rules = [rule for rule in met.values() if rule.phase == phase]
            return Plan(
                action,
                rules,
                trusted=trusted,
                declared=declared,
                believe=believe,
                default=default,
                remedy=remedy,
            )

        before = plan("Before", self._default(action))
        later: dict[Phase, Plan] = {phase: plan(phase, _NOTHING_LEFT) for phase in ("During", "After")}
        held = declared if believe else trusted
        return _Phases(
            before=before,
            facts=recorded_facts(held),
            refusal=self._torn or classified.conflict or self._refusal(action, trusted, declared, held, situation),
            later=later,
            keep_arguments=any(p.reads_arguments for p in later.values()),
            result_labels=classified.facts.result_labels,
        )

    def _default(self, action: Action) -> Default:
        agent = self.agent
        source = f"AgentFleet {agent.default_source}" if agent.default_source else "an agent in no fleet"
        return Default(
            agent.default_decision,
            f"no rule matches {action.kind} {action.name} by {agent.key}; "
            f"the default decision of {source} is {agent.default_decision}",
        )

    def _refusal(
        self, action: Action, trusted: FactSets, declared: FactSets, held: FactSets, situation: Situation
    ) -> str | None:
        """Say why what the agent is, or contradicts, denies the action whatever the rules say."""
        agent = self.agent
        if trusted.target is not None and action.target not in (None, trusted.target):
            return (
                f"the declared target {action.target} contradicts the catalog, "
                f"which says that {action.name} goes to {trusted.target}"
            )
        for bound in (agent, *self.principals):
            beyond = declared.data_classes - set(declared.data_classes if (may := bound.data_classes) is None else may)
            if beyond:
                return (
                    f"{action.name} touches the data classes {', '.join(sorted(beyond))}, "
                    f"and {bound.key}{'' if bound is agent else ', who handed the work down,'} "
                    f"may touch {', '.join(may or ()) or 'none'} (spec.dataClasses)"
                )
        if action.kind == "Delegation" and agent.may_delegate_to is not None:
            return self._delegation_refusal(action, held.target, situation.to.get("role"))
        return None

    def _delegation_refusal(self, action: Action, target: str | None, role: Role | None) -> str | None:
        may = self.agent.may_delegate_to
        if may is None:
            return None
        if target is None:
            return (
                f"{self.agent.key} may delegate to some agents only (spec.mayDelegateTo), and nothing trusted says "
                f"whom {action.name} goes to; give it a target in an ActionCatalog entry"
            )
        key = target if "/" in target else f"{self.agent.namespace}/{target}"
        neighbour = key.startswith(f"{self.agent.namespace}/")  # the slice may hold the roles of other namespaces, too
        if key in may.agents or (neighbour and (role or self._roles.get(key)) in may.roles):
            return None
        allowed = ", ".join([*(f"role {role}" for role in may.roles), *may.agents]) or "nobody"
        return f"{self.agent.key} may not delegate to {key}; spec.mayDelegateTo allows {allowed}"


def arguments_digest_of(action: Action) -> str | None:
    """Give the digest of the arguments. Raises RequestError where they contradict what the agent says beside them."""
    if action.arguments is None:
        return action.arguments_digest
    try:
        actual = digest(action.arguments, "action.arguments")
    except CanonicalError as error:
        raise RequestError(error.path, error.message) from None
    if action.arguments_digest not in (None, actual):
        raise RequestError("action.argumentsDigest", f"does not fit the arguments, whose digest is {actual}")
    if action.model is not None and action.arguments.get("model", action.model) != action.model:
        raise RequestError("action.model", "contradicts arguments.model; leave one of them")
    return actual


def _arguments(action: Action, arguments_digest: str | None) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if action.arguments is not None:
        known["arguments"] = action.arguments
    if arguments_digest is not None:
        known["argumentsDigest"] = arguments_digest
    return known


def agent_variables(agent: Agent) -> dict[str, Any]:
    """Give an agent as expressions read it."""
    return {
        "key": agent.key,
        "name": agent.name,
        "namespace": agent.namespace,
        "role": agent.role,
        "owner": agent.owner,
        "riskTier": agent.risk_tier,
        "dataClasses": list(agent.data_classes or ()),
        "labels": agent.labels,
        "fleets": list(agent.fleets),
    }


def recorded_facts(facts: FactSets) -> Facts:
    """Give facts in the form and order they are recorded."""
    return Facts(
        risk_tags=tuple(sorted(facts.risk_tags)),
        data_classes=tuple(sorted(facts.data_classes)),
        target=facts.target,
        reversibility=facts.reversibility,
        estimate=facts.estimate,
        labels=tuple(sorted(facts.labels)),
    )
