"""How much is kept of runs, so that no agent can fill the hub's memory."""

from dataclasses import dataclass

RECENT_SECONDS = 3600.0
"""How far back `recentOnTarget` looks."""

FORGET_SECONDS = RECENT_SECONDS + 60.0
"""How long a run that ended is remembered: longer than anybody asks who did what in it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds on all runs, and on one run. What goes beyond is refused in words, or the oldest is forgotten."""

    open_runs: int = 10_000
    open_runs_of_agent: int = 2_000
    remembered_runs: int = 100_000
    """Open ones, and those that ended within the last hour or so."""
    asks: int = 1_000_000
    """Actions, delegations and plans that may be asked for in one run, the denied ones included."""
    grants: int = 10_000
    """Grants given in one run, and proposed ones that nobody has decided yet."""
    agents: int = 1_000
    """Agents of one run, whatever its mandate says."""
    labels: int = 256
    """Different labels in one run."""
    actions: int = 8_192
    """How many different actions of a run are certain to be recognised as seen before."""
    reservations: int = 8_192
    """How many of a run's latest actions can still be settled; what older ones reserved stands."""
    marks: int = 4_096
    """Who did what on which target: entries for one run."""
    recent_marks: int = 50_000
    """The same for all runs within the last hour."""
    marks_of_target: int = 128
    """The same for one target."""
