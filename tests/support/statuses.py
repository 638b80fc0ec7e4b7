"""A status of every kind with every field filled in, and one with the longest values that a status takes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleetward.resources import status as st

WHEN = datetime(2026, 11, 21, 9, 30, 15, tzinfo=UTC)

TOO_LONG = "ä" * 40_000
"""Longer than any text of a status may be."""


def conditions(message: str = "in force", generation: int = 1) -> list[st.Condition]:
    """What kstatus reads: Ready, and that nothing is on its way."""
    return [
        st.Condition(
            type="Ready",
            status="True",
            observed_generation=generation,
            last_transition_time=WHEN,
            reason="InForce",
            message=message,
        )
    ]


def mode(reason: str = "The export is being looked into") -> st.ModeInForce:
    return st.ModeInForce(
        operating_mode="Paused", reason=reason, set_by="ada@example.com", source="AgentFleet reporting", since=WHEN
    )


def _policy() -> st.AgentPolicyStatus:
    return st.AgentPolicyStatus(
        conditions=conditions(), observed_generation=2, generation_in_force=1, hash="0f" * 16, rules=4, agents=2
    )


def _limit(**more: Any) -> st.LimitStatus:
    return st.LimitStatus(
        limit="costMicroUsd",
        max=5_000_000,
        spent=4_000_000,
        reserved=200_000,
        leased=100_000,
        remaining=700_000,
        percent=84,
        overshoot=3,
        empty_at=WHEN,
        **more,
    )


def _budget() -> st.AgentBudgetStatus:
    pot = _limit().model_dump() | {
        "scope": "reports/data-worker",
        "window": "day-2026-11-21T00:00",
        "resets_at": "soon",
    }
    return st.AgentBudgetStatus(
        conditions=conditions(),
        observed_generation=2,
        generation_in_force=1,
        hash="0f" * 16,
        agents=2,
        pots=1,
        paused=0,
        used="84%",
        spent="costMicroUsd 4200000 of 5000000",
        window="day-2026-11-21T00:00+01:00",
        resets_at="2026-11-21T23:00:00Z",
        limits=[_limit()],
        top_pots=[st.PotStatus(**pot)],
    )


def _longest_budget() -> st.AgentBudgetStatus:
    limit = st.LimitStatus(limit="ä" * 300, max=2**53 - 1)
    return st.AgentBudgetStatus(
        conditions=conditions(TOO_LONG),
        spent=TOO_LONG,
        limits=[limit] * 32,
        top_pots=[st.PotStatus(scope=TOO_LONG)] * 16,
    )


FILLED: Mapping[str, st.Status] = {
    "Agent": st.AgentStatus(
        conditions=conditions(),
        observed_generation=2,
        mode=mode(),
        recorded_mode="Paused",
        fleets=["night-shift", "reporting"],
        policies=3,
        pods=st.AgentPods(total=5, ready=2, held=1, without_webhook=1, terminating=1),
        webhooks=st.AgentWebhooks(connected=3, current=2, registry_version="00f1e2d3c4b5a697"),
        last_decision=st.LastDecision(id="k3q7xw2mza-17", time=WHEN, decision="Deny", action="crm.customers.read"),
    ),
    "AgentFleet": st.AgentFleetStatus(
        conditions=conditions(),
        observed_generation=2,
        mode=mode(),
        recorded_mode="Paused",
        agents=st.FleetAgentsStatus(total=10, running=4, paused=3, stopped=2, quarantined=1),
    ),
    "ActionCatalog": st.ActionCatalogStatus(
        conditions=conditions(), observed_generation=2, generation_in_force=1, entries=3
    ),
    "AgentPolicy": _policy(),
    "ClusterAgentPolicy": _policy(),
    "AgentBudget": _budget(),
    "ClusterAgentBudget": _budget(),
    "AuditSink": st.AuditSinkStatus(
        conditions=conditions(),
        observed_generation=2,
        generation_in_force=1,
        delivered=1200,
        behind=7,
        last_delivered=WHEN,
        last_error="503 Service Unavailable",
    ),
}
"""By kind."""

LONGEST: Mapping[str, st.Status] = {
    "Agent": st.AgentStatus(
        conditions=conditions(TOO_LONG),
        observed_generation=2**53 - 1,
        mode=mode(TOO_LONG),
        fleets=[f"{number:063}" for number in range(300)],
        webhooks=st.AgentWebhooks(connected=0, current=0, registry_version=TOO_LONG),
        last_decision=st.LastDecision(id=TOO_LONG, action=TOO_LONG),
    ),
    "AgentFleet": st.AgentFleetStatus(conditions=conditions(TOO_LONG), mode=mode(TOO_LONG)),
    "ActionCatalog": st.ActionCatalogStatus(conditions=conditions(TOO_LONG), entries=2**53 - 1),
    "AgentPolicy": st.AgentPolicyStatus(conditions=conditions(TOO_LONG), hash=TOO_LONG),
    "ClusterAgentPolicy": st.AgentPolicyStatus(conditions=conditions(TOO_LONG), hash=TOO_LONG),
    "AgentBudget": _longest_budget(),
    "ClusterAgentBudget": _longest_budget(),
    "AuditSink": st.AuditSinkStatus(conditions=conditions(TOO_LONG), last_error=TOO_LONG),
}
"""By kind. What is too long is cut by the models."""
