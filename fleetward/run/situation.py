"""What the hub says of a run, as decisions read it."""

from typing import Any

import msgspec

from fleetward.decision.action import DeclaredEstimate
from fleetward.decision.agent import agent_variables
from fleetward.decision.situation import Situation
from fleetward.delegation.scope import Amounts
from fleetward.registry.slice import Agent, Estimate
from fleetward.run.calls import PlanTotals, View


def situation_of(view: View, *, to: Agent | None = None, totals: PlanTotals | None = None, **known: Any) -> Situation:
    """Give where an action of a run stands; `known` is what else the hub vouches for: see Situation."""
    return Situation(
        path=view.path,
        grants=view.grants,
        labels=view.labels,
        run={
            "id": view.run,
            "requester": view.requester,
            "purpose": view.purpose,
            "openedBy": view.opened_by,
            "steps": view.used.steps or 0,
            "used": _amounts(view.used),
            "agents": list(view.agents),
            "depth": view.depth,
            "ageSeconds": view.age_seconds,
            "repeats": view.repeats,
            "idleSteps": view.idle_steps,
            "exchanges": view.exchanges,
            "onTarget": {name: list(agents) for name, agents in view.on_target.items()},
            "recentOnTarget": {name: list(agents) for name, agents in view.recent_on_target.items()},
        },
        to={} if to is None else agent_variables(to),
        plan={} if totals is None else _plan(totals),
        **known,
    )


def amounts_of(used: Estimate | DeclaredEstimate | None) -> Amounts:
    """Give what an action may use, or used, as a run counts it."""
    if used is None:
        return Amounts()
    return Amounts(
        calls=used.calls,
        records=used.records,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cost_micro_usd=used.cost_micro_usd,
    )


def _plan(totals: PlanTotals) -> dict[str, Any]:
    return {
        "steps": totals.steps,
        "agents": list(totals.agents),
        "fanOut": totals.fan_out,
        "depth": totals.depth,
        "dataClasses": list(totals.data_classes),
        "targets": list(totals.targets),
        "used": _amounts(totals.amounts),
    }


def _amounts(amounts: Amounts) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(amounts)
    data.pop("steps", None)
    return data
