"""How budgets stand: what a ledger reports of its pots, at one moment. Times are seconds since the epoch."""

from fleetward.registry.slice import Wire


class LimitReport(Wire, frozen=True, kw_only=True):
    """One limit of a pot in the window that is open now; amounts in the unit of the limit."""

    limit: str
    """Its name; see `fleetward.budget.amounts`."""
    max: int
    spent: int = 0
    """Settled: what actions really used."""
    reserved: int = 0
    """What actions that are under way were expected to use."""
    leased: int = 0
    """What webhooks hold and have not spent."""
    remaining: int = 0
    """What nobody has yet: `max` less spent, reserved and leased; below zero where more is gone than `max` allows."""
    overshoot: int = 0
    """What actions used beyond what was reserved for them; it is in `spent`, too."""
    empty_at: float | None = None
    """When spent and reserved reach `max` at the rate of late; None: not before the window ends, or nobody spends."""


class Spender(Wire, frozen=True, kw_only=True):
    """What one agent used of a pot in the window that is open now."""

    agent: str
    """Its key; of a pot that a chain of delegations shares, the agent that acted. Empty: lost with a webhook."""
    amounts: dict[str, int]
    """Settled and reserved, by limit."""


class Point(Wire, frozen=True, kw_only=True):
    """What was settled in one step of time."""

    at: float
    """The end of the step; steps of one report are equally long, and those in which nothing was settled left out."""
    amounts: dict[str, int]
    """Settled within the step, not since the beginning; by limit."""
    agent: str = ""
    """Who used it: a point for each agent and step. Empty: all together."""


class PotReport(Wire, frozen=True, kw_only=True):
    """One pot in the window that is open now."""

    budget: str
    """`KIND/NAME` of a budget, or `KIND/NAME#RULE` of a rule that throttles."""
    scope: str = ""
    """Empty: shared by all subjects. Else the agent's key, the run's id, or `RUN/GRANT`."""
    window: str
    """Its id."""
    began_at: float
    """When the window began; of one that rolls, as long ago as it is; of `Total`, when something was first taken."""
    resets_at: float | None = None
    """When the pot begins anew; None: never at once."""
    limits: tuple[LimitReport, ...] = ()
    paused: str = ""
    """Why nothing more may be spent in this window; empty: it is not paused."""
    spenders: tuple[Spender, ...] = ()
    """Who used it, whoever used most first."""
    series: tuple[Point, ...] = ()
    """How it was used over the window, in order; at most 120 steps."""


class BudgetsReport(Wire, frozen=True, kw_only=True):
    """All pots that something was taken out of, and the moment this is said of."""

    at: float
    pots: tuple[PotReport, ...] = ()
