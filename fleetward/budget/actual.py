"""What an action really took, once it has ended: what its reservations are settled at."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import time

from fleetward.budget.amounts import CONCURRENCY, COST, INPUT_TOKENS, OUTPUT_TOKENS, RECORDS, WALL, limits_of
from fleetward.budget.price import Price, prices_of
from fleetward.budget.scopes import scopes_of
from fleetward.budget.windows import WindowError, window_at
from fleetward.decision.action import Actual, OutcomeRequest, Spend
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import OpenDecision
from fleetward.decision.facts import model_of
from fleetward.registry.slice import Estimate
from fleetward.registry.text import MAX_COUNT

_FIELDS = {INPUT_TOKENS: "input_tokens", OUTPUT_TOKENS: "output_tokens", RECORDS: "records", COST: "cost_micro_usd"}
_NOTHING = Estimate()


def used(
    engine: Engine, opened: OpenDecision, outcome: OutcomeRequest, elapsed_ms: int, now: float | None = None
) -> tuple[Spend, ...]:
    """Give what each reservation of an action is settled at by its final outcome, however it ended.

    What is not reported stays as it was reserved. What is reported counts no lower than what a catalog expects, up to
    what was reserved, unless the agent's fleet is trusted; more than was reserved counts in full. A model call costs
    what its tokens come to at the model's price, or what is reported if that is more. `elapsed_ms` is how long the
    action took, as it was seen from here; a place among the actions under way is free again.

    What is reported to have been taken out of a budget that nothing was reserved in counts, too, in the window of
    `now` (seconds since the epoch; None: as the clock says).
    """
    agent = engine.slice.items.agents.get(opened.agent)
    unforeseen = agent is not None and bool(agent.budgets) and outcome.actual is not None
    if not (opened.spends or unforeseen):
        return ()
    model = model_of(opened.action)
    report = _Report(
        actual=outcome.actual or Actual(),
        least=engine.least(opened.agent, opened.action.name) or _NOTHING,
        price=None if model is None else prices_of(engine).find(model),
        believed=engine.believes(opened.agent),
        elapsed_ms=elapsed_ms,
    )
    budgets = engine.slice.items.budgets
    settled = []
    for spend in opened.spends:
        budget = budgets.get(spend.budget)
        amounts = {limit: report.settled(limit, amount) for limit, amount in spend.amounts.items()}
        for limit in () if budget is None else limits_of(budget.limits):
            if limit in _FIELDS and limit not in amounts and (more := report.settled(limit, 0)):
                amounts[limit] = more
        settled.append(Spend(budget=spend.budget, scope=spend.scope, window=spend.window, amounts=amounts))
    if unforeseen:
        settled += _unforeseen(engine, opened, report, time() if now is None else now)
    return tuple(settled)


def _unforeseen(engine: Engine, opened: OpenDecision, report: "_Report", now: float) -> Iterator[Spend]:
    """Give what an action is reported to have taken out of budgets in which nothing was reserved for it."""
    items = engine.slice.items
    reserved = {spend.budget for spend in opened.spends}
    for key in items.agents[opened.agent].budgets:
        budget = items.budgets.get(key)
        if budget is None or key in reserved:
            continue
        amounts = {
            limit: amount
            for limit in limits_of(budget.limits)
            if limit in _FIELDS and (amount := report.settled(limit, 0))
        }
        if not amounts:
            continue
        try:
            window = window_at(budget.window, now).id
        except WindowError:  # nothing can be reserved in such a budget, so there is nothing to protect either
            continue
        for scope in scopes_of(budget.scope, opened.agent, (opened.run, opened.situation.grants)):
            yield Spend(budget=key, scope=scope, window=window, amounts=amounts)


@dataclass(frozen=True, slots=True)
class _Report:
    """What is known of an action that has ended."""

    actual: Actual
    least: Estimate
    price: Price | None
    believed: bool
    elapsed_ms: int

    def settled(self, limit: str, reserved: int) -> int:
        """Give what an action took of a limit."""
        if limit == WALL:
            return min(max(0, self.elapsed_ms), MAX_COUNT)
        if limit == CONCURRENCY:
            return 0
        if limit == COST:
            return self._cost(reserved)
        field = _FIELDS.get(limit)
        said: int | None = None if field is None else getattr(self.actual, field)
        if field is None or said is None:
            return reserved
        return max(said, min(getattr(self.least, field) or 0, reserved))

    def _cost(self, reserved: int) -> int:
        actual, least, price = self.actual, self.least, self.price
        sent, returned, said = actual.input_tokens, actual.output_tokens, actual.cost_micro_usd
        cached, reasoning = actual.cached_input_tokens or 0, actual.reasoning_tokens or 0
        floor = least.cost_micro_usd or 0
        if price is None:
            return reserved if said is None else max(said, min(floor, reserved))
        cost = max(said or 0, price.cost(sent or 0, returned or 0, cached, reasoning))
        if sent is None or returned is None:
            # The tokens that are not told of may have cost all that was reserved; only a trusted agent may say less.
            return cost if self.believed and said is not None else max(cost, reserved)
        sent, returned = max(sent, least.input_tokens or 0), max(returned, least.output_tokens or 0)
        expected = price.cost(sent, returned, cached, reasoning)
        return max(cost, min(max(floor, expected), reserved))
