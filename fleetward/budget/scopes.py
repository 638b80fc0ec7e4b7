"""Scopes: which pots of a budget, or of a rule with a limit, an action counts in."""

from fleetward.registry.slice import BudgetScope

Where = tuple[str | None, tuple[str, ...]]
"""The run that an action is part of, and the grants by which the work came down in it."""


def scopes_of(scope: BudgetScope, agent: str, where: Where) -> tuple[str, ...]:
    """Give the pots, by their scope keys; outside any run an agent is by itself."""
    run, grants = where
    if scope == "Shared":
        return ("",)
    if scope == "Agent":
        return (agent,)
    if run is None:
        return (f"agent:{agent}",)
    return (run,) if scope == "Run" else (run, *(f"{run}/{grant}" for grant in grants))
