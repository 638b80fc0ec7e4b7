"""What an action that the rules allow must take out of budgets and of limits on rules before it goes ahead."""

import msgspec

from fleetward.budget.actual import used
from fleetward.budget.amounts import ACTIONS, CONCURRENCY
from fleetward.budget.calls import Need
from fleetward.budget.expected import Call, Ceiling, Expectation, Expected, UnknownError, ceiling_of
from fleetward.budget.price import prices_of
from fleetward.budget.scopes import Where, scopes_of
from fleetward.budget.terms import named
from fleetward.decision.action import DeclaredEstimate
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.facts import model_of
from fleetward.decision.outcome import constrain
from fleetward.decision.throttles import find_rule
from fleetward.registry.slice import ActionKind, Agent, Budget, BudgetScope, Items, Obligation

__all__ = ["Needs", "hold", "needs_of", "used"]

MAX_KNOWN = 2048
"""Answers remembered for each agent; beyond that they are worked out anew."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What an action must take before it goes ahead."""

    needs: tuple[Need, ...] = ()
    clamp: Obligation | None = None
    """Of a model call: what keeps it to the output tokens reserved; to be held to before anything is taken: `hold`."""
    refusal: str | None = None
    """Why the action is denied whatever is left."""


NOTHING = Needs()

_Asked = tuple[str | None, Ceiling]
"""Of a model call: the model, and what it may return at most."""

_Key = tuple[str, ActionKind, tuple[str, ...], Where | None, DeclaredEstimate | None, _Asked | None]
"""All that makes a difference to what an action of one agent needs: name, kind, throttles, where, declared, asked."""


def needs_of(engine: Engine, evaluation: Evaluation) -> Needs:
    """Give what an allowed action must take out of the budgets of its agent, and of the rules that throttle it.

    A plan takes nothing: its steps do, each in its time.
    """
    throttles = evaluation.judgement.throttles
    agent = engine.slice.items.agents.get(evaluation.agent)
    action = evaluation.request.action
    if agent is None or not (agent.budgets or throttles) or action.kind == "Plan":
        return NOTHING
    known = engine.derived.get("needs")
    if known is None:
        known = engine.derived["needs"] = {}
    spender: _Spender | None = known.get(agent.key)
    if spender is None:
        spender = known[agent.key] = _Spender(engine, agent)
    return spender.needs(engine, evaluation, throttles)


def hold(evaluation: Evaluation, needs: Needs) -> bool:
    """Refuse an allowed action, or constrain it, as `needs` says; give whether it may still go ahead."""
    if needs.refusal is not None:
        evaluation.judgement = evaluation.judgement.refused(needs.refusal)
    elif (clamp := needs.clamp) is not None:
        why = f"with {clamp.field} at most {clamp.maximum}, which is what its budgets reserve for it"
        evaluation.judgement = evaluation.judgement.owing(clamp, why)
        constrain(evaluation)
    return evaluation.allowed


class _Spender:
    """What is worked out for one agent while the slice stays the same."""

    def __init__(self, engine: Engine, agent: Agent) -> None:
        items = engine.slice.items
        self._agent = agent
        self._believed = agent.declared_facts == "Trusted"
        self._budgets = [items.budgets[key] for key in agent.budgets if key in items.budgets]
        self._refusal = _fault(items, agent, self._budgets)
        self._moves = any(budget.scope in ("Run", "Subtree") for budget in self._budgets)
        self._expectations: dict[tuple[ActionKind, str], Expectation] = {}
        self._known: dict[_Key, Needs] = {}

    def needs(self, engine: Engine, evaluation: Evaluation, throttles: tuple[str, ...]) -> Needs:
        action = evaluation.request.action
        where: Where | None = None
        if self._moves or throttles:
            where = (evaluation.request.run, evaluation.situation.grants)
        asked: _Asked | None = None
        if action.kind == "ModelCall" and self._budgets:
            asked = (model_of(action), ceiling_of(action.arguments, evaluation.judgement.obligations))
        key: _Key = (action.name, action.kind, throttles, where, action.estimate, asked)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = self._known[key] = self._work_out(engine, key)
        return found

    def _work_out(self, engine: Engine, key: "_Key") -> Needs:
        name, kind, throttles, where, told, asked = key
        if self._refusal is not None:
            return Needs(refusal=self._refusal)
        call = None
        if asked is not None:
            model, ceiling = asked
            call = Call(model, None if model is None else prices_of(engine).find(model), ceiling)
        try:
            expected = self._expectation(engine, kind, name).of(told, call)
            rules = _of_rules(engine.slice.items, throttles)
        except UnknownError as unknown:
            return Needs(refusal=str(unknown))
        needs = [
            Need(budget=budget, scope=scope, amounts=amounts)
            for budget, kept, amounts in [*self._of_budgets(expected), *rules]
            for scope in scopes_of(kept, self._agent.key, where or (None, ()))
        ]
        return Needs(needs=tuple(needs), clamp=expected.clamp)

    def _of_budgets(self, expected: Expected) -> "list[_Taken]":
        pairs = zip(self._budgets, expected.amounts, strict=True)
        return [(budget.key, budget.scope, amounts) for budget, amounts in pairs if amounts]

    def _expectation(self, engine: Engine, kind: ActionKind, name: str) -> Expectation:
        expectation = self._expectations.get((kind, name))
        if expectation is None:
            if len(self._expectations) >= MAX_KNOWN:
                self._expectations.clear()
            expectation = self._expectations[kind, name] = Expectation(
                kind, name, self._budgets, engine.expected(name), believed=self._believed
            )
        return expectation


_Taken = tuple[str, BudgetScope, dict[str, int]]
"""A budget or a rule, by its key, who shares a pot of it, and the amounts."""


def _fault(items: Items, agent: Agent, budgets: list[Budget]) -> str | None:
    """Say why nothing may be spent, whatever it is, if so."""
    if missing := ", ".join(key for key in agent.budgets if key not in items.budgets):
        return f"budgets that concern {agent.key} did not arrive here: {missing}"
    for budget in budgets:
        if budget.problem:
            return f"nothing may be spent from {named(budget.key)}: {budget.problem}"
    return None


def _of_rules(items: Items, throttles: tuple[str, ...]) -> list[_Taken]:
    """Give what the rules that throttle count. Raises UnknownError for one that is not known here."""
    taken: list[_Taken] = []
    for pot in throttles:
        found = find_rule(items.policies, pot)
        if found is None or (throttle := found[1].throttle) is None:
            raise UnknownError(f"{named(pot)}, which throttles it, is not known here any more; ask again")
        amounts = {} if throttle.rate is None else {ACTIONS: 1}
        if throttle.concurrency is not None:
            amounts[CONCURRENCY] = 1
        taken.append((pot, throttle.scope, amounts))
    return taken
