"""What an action is expected to take out of each budget, limit by limit.

What a catalog says of an action counts, else the budget's defaultEstimate; what its agent declares can only add to
that, save where its fleet is trusted, or where neither says anything. Defaults are for the kind of action that a limit
is made for: those of tokens for model calls, that of records for tool calls, those of cost and wall time for both.
Where nobody knows how much of a limit an action of such a kind uses, it must not go ahead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isnan
from typing import Any, NamedTuple

from fleetward.budget.amounts import COST, INPUT_TOKENS, OUTPUT_TOKENS, RECORDS, WALL, calls_limit
from fleetward.budget.price import Price
from fleetward.budget.terms import named
from fleetward.decision.action import DeclaredEstimate
from fleetward.decision.glob import glob_index
from fleetward.registry.slice import ActionKind, Budget, Estimate, Obligation
from fleetward.registry.text import MAX_COUNT

MODEL_CALL, TOOL_CALL = "ModelCall", "ToolCall"

OUTPUT_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Arguments that say how many tokens a model may return at most, as the APIs of providers call them."""

_CHOICES = ("n", "best_of")
"""Arguments that ask for several answers at once, each of which may be that long."""

_ASKED: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    (INPUT_TOKENS, "input_tokens", (MODEL_CALL,), (MODEL_CALL,)),
    (OUTPUT_TOKENS, "output_tokens", (MODEL_CALL,), (MODEL_CALL,)),
    (COST, "cost_micro_usd", (MODEL_CALL, TOOL_CALL), (MODEL_CALL,)),
    (RECORDS, "records", (TOOL_CALL,), (TOOL_CALL,)),
)
"""Each limit, the field it goes by, the kinds of action that a default is for, and those that must be known of."""


class UnknownError(Exception):
    """Nobody knows what an action takes, so it must not go ahead: why, and what to do about it."""


class Ceiling(NamedTuple):
    """What a model call may return at most by its arguments and by what rules make of them."""

    field: str = OUTPUT_FIELDS[0]
    """The argument that says so, or would."""
    most: int | None = None
    """For each answer; None: nothing says it."""
    choices: int = 1
    """How many answers are asked for."""
    trouble: str = ""
    """Why it cannot be told."""


_UNBOUNDED = Ceiling()
_READ = frozenset((*OUTPUT_FIELDS, *_CHOICES))


@dataclass(frozen=True, slots=True)
class Call:
    """What tells one model call from another."""

    model: str | None
    price: Price | None
    ceiling: Ceiling


class Expected(NamedTuple):
    """What an action takes out of each budget, in their order; nothing is left out of `amounts` that is more than 0."""

    amounts: tuple[dict[str, int], ...]
    clamp: Obligation | None = None
    """What keeps a model call to the output tokens reserved for it."""


class _Counted:
    """A budget, as actions of one kind and name count in it."""

    __slots__ = ("asked", "budget", "fixed", "limits", "needs_wall", "words")

    def __init__(self, budget: Budget, kind: ActionKind, name: str, calls: int) -> None:
        self.budget = budget
        self.words = named(budget.key)
        limits, default = budget.limits, budget.default_estimate
        self.limits = limits
        self.asked = {
            field: (limit, getattr(default, field) if kind in defaulted else None, kind in known)
            for limit, field, defaulted, known in _ASKED
            if getattr(limits, field) is not None
        }
        self.fixed = {calls_limit(c.names): calls for c in limits.calls if calls and glob_index(c.names).find(name)}
        self.needs_wall = limits.wall_seconds is not None and kind in (MODEL_CALL, TOOL_CALL)
        if self.needs_wall and default.wall_seconds:
            self.fixed[WALL] = min(default.wall_seconds * 1000, MAX_COUNT)


class Expectation:
    """What actions of one kind and name by one agent are expected to take out of `budgets`."""

    def __init__(
        self, kind: ActionKind, name: str, budgets: Sequence[Budget], catalog: Estimate | None, *, believed: bool
    ) -> None:
        self._kind, self._name = kind, name
        self._catalog = catalog
        self._believed = believed
        self._counted = [_Counted(budget, kind, name, 1) for budget in budgets]

    def of(self, told: DeclaredEstimate | None, call: Call | None) -> Expected:
        """Give what an action takes of which `told` is declared; `call` is of a model call. Raises UnknownError."""
        if call is None:
            return Expected(tuple(self._amounts(counted, told) for counted in self._counted))
        output = self._output(told, call)
        amounts = tuple(self._of_model_call(counted, told, call, output) for counted in self._counted)
        if output is None or not any(_bounds_output(counted, call) for counted in self._counted):
            return Expected(amounts)
        field = f"arguments.{call.ceiling.field}"
        return Expected(amounts, Obligation("Clamp", field, output // call.ceiling.choices))

    def _said(self, told: DeclaredEstimate | None, field: str, default: int | None) -> int | None:
        known: int | None = None if self._catalog is None else getattr(self._catalog, field)
        declared: int | None = None if told is None else getattr(told, field)
        if known is None and (declared is None or not self._believed):
            known = default
        if known is None or declared is None:
            return declared if known is None else known
        return max(known, declared)

    def _amounts(self, counted: _Counted, told: DeclaredEstimate | None) -> dict[str, int]:
        amounts = self._fixed(counted, told)
        for field, (limit, default, must) in counted.asked.items():
            amount = self._said(told, field, default)
            if amount is None and must:
                raise self._unknown(counted, limit)
            if amount:
                amounts[limit] = amount
        return amounts

    def _fixed(self, counted: _Counted, told: DeclaredEstimate | None) -> dict[str, int]:
        if counted.needs_wall and WALL not in counted.fixed and counted.budget.default_estimate.wall_seconds is None:
            raise self._unknown(counted, "wallSeconds")
        amounts = dict(counted.fixed)
        calls = self._said(told, "calls", None) or 1
        if calls > 1:
            for limit in amounts:
                if limit != WALL:
                    amounts[limit] = calls
        return amounts

    def _output(self, told: DeclaredEstimate | None, call: Call) -> int | None:
        """Give how many tokens a model call may return in all; None: nothing says it, or nothing asks."""
        asking = [counted for counted in self._counted if _bounds_output(counted, call)]
        if not asking:
            return self._said(told, "output_tokens", None)
        if call.ceiling.trouble:
            raise UnknownError(f"{asking[0].words} limits what {self._name} returns: {call.ceiling.trouble}")
        defaults = (counted.budget.default_estimate.output_tokens for counted in asking)
        output = self._said(told, "output_tokens", min((d for d in defaults if d is not None), default=None))
        each, choices = call.ceiling.most, call.ceiling.choices
        if each is not None:
            output = each * choices if output is None else min(output, each * choices)
        return None if output is None else min(output, MAX_COUNT) // choices * choices

    def _of_model_call(
        self, counted: _Counted, told: DeclaredEstimate | None, call: Call, output: int | None
    ) -> dict[str, int]:
        limits, default = counted.limits, counted.budget.default_estimate
        amounts = self._fixed(counted, told)
        tokens = {INPUT_TOKENS: self._said(told, "input_tokens", default.input_tokens), OUTPUT_TOKENS: output}
        for limit, limited in ((INPUT_TOKENS, limits.input_tokens), (OUTPUT_TOKENS, limits.output_tokens)):
            if limited is not None:
                amounts[limit] = self._known(counted, limit, tokens[limit])
        if limits.cost_micro_usd is not None:
            amounts[COST] = self._cost(counted, told, call, tokens[INPUT_TOKENS], output)
        if limits.records is not None:
            amounts[RECORDS] = self._said(told, "records", None) or 0
        return {limit: amount for limit, amount in amounts.items() if amount}

    def _cost(
        self, counted: _Counted, told: DeclaredEstimate | None, call: Call, sent: int | None, returned: int | None
    ) -> int:
        said = self._said(told, "cost_micro_usd", counted.budget.default_estimate.cost_micro_usd)
        if call.price is None:
            if counted.budget.unpriced_models == "Deny":
                raise UnknownError(_unpriced(self._name, call.model, counted))
        elif sent is not None and returned is not None:
            return max(said or 0, call.price.most(sent, returned))
        return self._known(counted, COST, said)

    def _known(self, counted: _Counted, limit: str, amount: int | None) -> int:
        if amount is None:
            raise self._unknown(counted, limit)
        return amount

    def _unknown(self, counted: _Counted, limit: str) -> UnknownError:
        words = f"{counted.words} limits {limit}, and nothing says how much of it {self._name} uses"
        if limit == "wallSeconds":
            return UnknownError(f"{words}: set defaultEstimate.wallSeconds on it")
        tokens = " (and the tokens, which a model's price needs)" if limit == COST else ""
        return UnknownError(
            f"{words}: say estimate.{limit}{tokens} in an ActionCatalog entry for {self._name}, "
            f"or defaultEstimate.{limit}{tokens} on the budget"
        )


def _bounds_output(counted: _Counted, call: Call) -> bool:
    """Say whether what a model returns counts in a budget, by itself or by what it costs."""
    limits = counted.limits
    return limits.output_tokens is not None or (limits.cost_micro_usd is not None and call.price is not None)


def _unpriced(name: str, model: str | None, counted: _Counted) -> str:
    what = (
        f"{name} does not say its model (arguments.model, or action.model where the arguments are not sent)"
        if model is None
        else f"no ActionCatalog says what the model {model} costs (spec.models)"
    )
    return f"{counted.words} limits costMicroUsd, and {what}; unpricedModels: UseEstimate on it would go by estimates"


def ceiling_of(arguments: Mapping[str, Any] | None, owed: Sequence[Obligation] = ()) -> Ceiling:
    """Give what a model call may return at most, by its arguments and the obligations that rules gave."""
    arguments = arguments or {}
    if not owed and arguments.keys().isdisjoint(_READ):
        return _UNBOUNDED
    said = [field for field in OUTPUT_FIELDS if arguments.get(field) is not None]
    if len(said) > 1:
        return Ceiling(trouble=f"{' and '.join(f'arguments.{field}' for field in said)} both say it; leave one")
    choices = max(_number(arguments.get(_CHOICES[0])) or 1, _number(arguments.get(_CHOICES[1])) or 1)
    if not owed:
        return Ceiling(said[0] if said else OUTPUT_FIELDS[0], _number(arguments[said[0]]) if said else None, choices)
    clamps = {o.field.removeprefix("arguments."): o.maximum or 0 for o in owed if o.type == "Clamp"}
    field = next((f for f in (*said, *(f for f in OUTPUT_FIELDS if f in clamps))), OUTPUT_FIELDS[0])
    limits = [limit for limit in (clamps.get(field), _number(arguments.get(field))) if limit is not None]
    return Ceiling(field, min(limits, default=None), choices)


def _number(value: object) -> int | None:
    """Give a number of tokens or answers, rounded up; None for what is none."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and isnan(value)):
        return None
    return ceil(min(max(0, value), MAX_COUNT))
