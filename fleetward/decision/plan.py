"""Plans: everything about an action that can be settled before it is asked again.

Which rules an action meets depends on its kind, name and declared facts alone, so that is worked out once and kept;
what is left for each request are the rules with a CEL expression.

An action is judged on up to three views of its facts: the trusted ones decide; the trusted ones with the declared ones
added can only make the decision stricter; what would count if the declared ones were believed gives advice, no more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from fleetward.decision.action import Action
from fleetward.decision.cel.runtime import EvaluationError, Runtime
from fleetward.decision.facts import FactSets, declared_estimate, describe_declared, larger, overridden
from fleetward.decision.judgement import Default, Judgement, combine, left_out
from fleetward.decision.rules import SEVERITY, Erred, Hit, ReadyRule, erred
from fleetward.decision.situation import VARIABLES, Situation, named_in

_SKIP: Final = object()
"""In place of an activation: this view adds nothing to the trusted one."""

_MAX_KNOWN: Final = 64
"""Combinations of rules a plan remembers the judgement of."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the expressions of one request can read beyond the facts of its action."""

    agent: Mapping[str, Any]
    arguments: Mapping[str, Any]
    """`arguments` and `argumentsDigest` of the action, each where it is known."""
    situation: Situation
    outcome: Mapping[str, Any] | None = None


class Plan:
    """How actions of one kind and name, declared with the same facts, are judged in one phase.

    `trusted` and `declared` are the facts without and with what the agent declares, save for its estimate; `believe`
    says that declared facts are trusted; `remedy` tells, for advice, where a fact is better put.
    """

    def __init__(
        self,
        action: Action,
        rules: list[ReadyRule],
        *,
        trusted: FactSets,
        declared: FactSets,
        believe: bool,
        default: Default,
        remedy: str,
    ) -> None:
        self._kind, self._name = action.kind, action.name
        self._trusted = declared if believe else trusted
        self._declared = declared
        self._believe = believe
        self._default = default
        self._remedy = remedy
        self._adds = self._declared != self._trusted
        restricting = [rule for rule in rules if rule.severity > SEVERITY["Allow"]]
        self._on_trusted = self._meeting(rules, facts=self._trusted, exclude_on=self._trusted)
        self._on_declared = self._meeting(restricting, facts=declared, exclude_on=self._trusted)
        self._if_believed = self._meeting(rules, facts=declared, exclude_on=declared)
        self._trusted_variables = _variables(action, self._trusted)
        self._declared_variables = _variables(action, declared)
        met = [*self._on_trusted, *self._on_declared, *self._if_believed]
        self.reads_arguments = any(r.program is not None and "arguments" in r.program.source for r in met)
        self._reads = named_in(r.program.source for r in met if r.program is not None)
        self._known: dict[object, Judgement] = {}
        view = None if self._adds else _SKIP
        untold = msgspec.structs.replace(action, estimate=None)  # it is not part of what the plan is kept under
        self.settled = None if any(r.conditional for r in met) else self._judge(untold, None, view, view)
        """The judgement, where no expression has to be asked."""

    def _meeting(self, rules: list[ReadyRule], *, facts: FactSets, exclude_on: FactSets) -> list[ReadyRule]:
        return [
            rule for rule in rules if rule.match.holds(facts) and not rule.excluded(self._kind, self._name, exclude_on)
        ]

    def judge(self, runtime: Runtime, action: Action, circumstances: Circumstances) -> Judgement:
        """Judge one request."""
        if self.settled is not None:
            return self.settled
        known, told = self._trusted.estimate, declared_estimate(action)
        trusted = largest = believed = known
        if told is not None and told != known:
            believed = overridden(known, told)
            trusted, largest = (believed, believed) if self._believe else (known, larger(known, told))

        situated = {name: VARIABLES[name](circumstances.situation) for name in self._reads} if self._reads else {}

        def activation(variables: Mapping[str, Any], estimate: msgspec.Struct | None) -> object:
            amounts = {} if estimate is None else msgspec.to_builtins(estimate)
            action_variable = {**variables, **circumstances.arguments, "estimate": amounts}
            all_variables = {"action": action_variable, "agent": circumstances.agent, **situated}
            if circumstances.outcome is not None:
                all_variables["outcome"] = circumstances.outcome
            return runtime.activation(all_variables)

        return self._judge(
            action,
            activation(self._trusted_variables, trusted),
            activation(self._declared_variables, largest) if self._adds or largest != trusted else _SKIP,
            activation(self._declared_variables, believed) if self._adds or believed != trusted else _SKIP,
        )

    def _judge(self, action: Action, on_trusted: object, on_declared: object, if_believed: object) -> Judgement:
        trusted = _ask(self._on_trusted, on_trusted)
        declared = () if on_declared is _SKIP else _ask(self._on_declared, on_declared)
        believed = None if if_believed is _SKIP else _ask(self._if_believed, if_believed)
        told = action.estimate is not None
        key = (trusted, declared, believed, told)
        judgement = self._known.get(key)
        if judgement is None:
            advice = sorted(left_out(hit.rule, hit.error) for hit in trusted if isinstance(hit, Erred))
            counted = [[hit for hit in hits if isinstance(hit, Hit)] for hits in (trusted, declared, believed or ())]
            if believed is not None:
                advice.extend(self._advice(action, [*counted[0], *counted[1]], counted[2]))
            judgement = combine(self._default, counted[0], counted[1], advice)
            if len(self._known) < _MAX_KNOWN:
                self._known[key] = judgement
        return judgement

    def _advice(self, action: Action, counted: list[Hit], believed: list[Hit]) -> Iterable[str]:
        """Say where believing the agent would have changed which rules count."""
        now = {(hit.ref.policy, hit.ref.rule) for hit in counted}
        then = {(hit.ref.policy, hit.ref.rule) for hit in believed}
        changes = [
            f"{verb} {', '.join(f'rule {rule} of {policy}' for policy, rule in sorted(names))}"
            for verb, names in (("counting", then - now), ("leaving out", now - then))
            if names
        ]
        if changes:
            told = replace(self._declared, estimate=declared_estimate(action))
            facts = describe_declared(replace(self._trusted, estimate=None), told)
            yield (
                f"what the agent declares ({facts}) can only tighten; believed, it would have meant "
                f"{' and '.join(changes)}. {self._remedy}"
            )


def _ask(rules: Iterable[ReadyRule], activation: object) -> tuple[Hit | Erred, ...]:
    """Give the rules that count, those without an expression and those whose expression holds or errs."""
    hits: list[Hit | Erred] = []
    for rule in rules:
        verdict: bool | EvaluationError = True
        if rule.program is not None:
            verdict = rule.program.evaluate(activation)
        elif rule.broken is not None:
            verdict = EvaluationError(rule.broken)
        if verdict is True:
            hits.append(rule.hit)
        elif isinstance(verdict, EvaluationError):
            hits.append(erred(rule, verdict.message))
    return tuple(hits)


def _variables(action: Action, facts: FactSets) -> Mapping[str, Any]:
    """Give what expressions read of an action, as `decision.cel.fields` lists it; absent fields are left out."""
    variables: dict[str, Any] = {
        "kind": action.kind,
        "name": action.name,
        "riskTags": sorted(facts.risk_tags),
        "dataClasses": sorted(facts.data_classes),
        "labels": sorted(facts.labels),
    }
    if facts.target is not None:
        variables["target"] = facts.target
    if facts.reversibility is not None:
        variables["reversibility"] = facts.reversibility
    return variables
