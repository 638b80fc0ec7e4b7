"""Engines with budgets, for tests of what actions need."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from decision.build import agent, policy, slice_of

from fleetward.budget.needs import Needs, needs_of
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.request import parse_request
from fleetward.decision.situation import ALONE, Situation
from fleetward.registry import slice as sl

AGENT = "reports/worker"
ALLOW = {"decision": "Allow"}
MODEL = sl.ModelPrice(("m-*",), 3_000_000, 15_000_000, 300_000)
"""3 micro-USD a token sent, 0.3 where it was cached, 15 a token returned."""


def budget(name: str = "b", scope: sl.BudgetScope = "Shared", **said: Any) -> sl.Budget:
    default = sl.DefaultEstimate(**said.pop("default", {}))
    more = {key: said.pop(key) for key in ("problem", "unpriced_models") if key in said}
    calls = tuple(sl.CallLimit(names, most) for names, most in said.pop("calls", ()))
    limits = sl.BudgetLimits(calls=calls, **said)
    window = sl.BudgetWindow()
    return sl.Budget(
        "AgentBudget", f"reports/{name}", "", 1, "", scope, window, limits, default_estimate=default, **more
    )


def engine_with(
    *budgets: sl.Budget,
    rules: Sequence[dict[str, Any]] = (ALLOW,),
    estimate: dict[str, int] | None = None,
    trusted: bool = False,
    prices: Sequence[sl.ModelPrice] = (MODEL,),
    keys: Sequence[str] | None = None,
) -> Engine:
    """Give an engine for one agent whose actions count in `budgets`; `estimate` is the catalog's of every action."""
    items = slice_of(agent(), policy(*rules)).items
    entries = () if estimate is None else (sl.CatalogEntry(names=("**",), estimate=sl.Estimate(**estimate)),)
    known = msgspec.structs.replace(
        items.agents[AGENT],
        budgets=tuple(keys if keys is not None else (each.key for each in budgets)),
        declared_facts="Trusted" if trusted else "RestrictOnly",
    )
    changed = msgspec.structs.replace(
        items,
        agents={AGENT: known},
        budgets={each.key: each for each in budgets},
        catalogs={"c": sl.Catalog(name="c", entries=entries, models=tuple(prices))},
    )
    return Engine(sl.Slice("1", changed))


def decide(
    engine: Engine,
    kind: str = "ToolCall",
    *,
    name: str = "crm.read",
    run: str | None = None,
    situation: Situation = ALONE,
    **action: Any,
) -> Evaluation:
    body = {"agent": AGENT, "action": {"kind": kind, "name": name, **action}, **({"run": run} if run else {})}
    return engine.decide(parse_request(json.dumps(body).encode()), situation)


def needs(engine: Engine, kind: str = "ToolCall", **asked: Any) -> Needs:
    return needs_of(engine, decide(engine, kind, **asked))


def amounts(engine: Engine, kind: str = "ToolCall", **asked: Any) -> dict[str, int]:
    """Give what an action takes out of the only pot that it counts in."""
    found = needs(engine, kind, **asked)
    assert found.refusal is None, found.refusal
    [need] = found.needs
    return need.amounts


def refusal(engine: Engine, kind: str = "ToolCall", **asked: Any) -> str:
    found = needs(engine, kind, **asked)
    assert found.refusal is not None
    assert not found.needs
    return found.refusal
