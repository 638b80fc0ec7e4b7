"""What a decision webhook and the hub say to each other about budgets and throttled rules, over the stream.

The hub's ledger is the only place that grants. A webhook holds leases: parts of a pot that it may spend alone. What it
spends is in the records of its decisions and outcomes, and the hub settles by these records alone, before it
acknowledges them; so what is acknowledged is settled, and a record that comes twice counts once.

All that a holder got from a pot and gave back is told in totals that only grow, so a message that is lost or said twice
does no harm: whatever the hub granted beyond what the holder says it got never arrived, and is free again.
"""

from typing import Annotated

from msgspec import Meta

from fleetward.decision.action import Shortfall
from fleetward.decision.replies import Done, Failed
from fleetward.registry.slice import Decision, Wire
from fleetward.registry.text import AgentKey, Count, Reference

MAX_WISHES = 256
"""Actions in one question."""

Amounts = dict[str, Count]
"""By limit; see `fleetward.budget.amounts`."""


Totals = dict[str, Annotated[int, Meta(ge=0)]]
"""Amounts added up over the life of a process: there is no telling how large they get."""


class PotRef(Wire, frozen=True, kw_only=True):
    """Names a pot: all that is limited together. What it holds begins anew with each window."""

    budget: str
    """`KIND/NAME` of a budget (`sl.Budget.key`), or `KIND/NAME#RULE` for a rule that throttles."""
    scope: str = ""
    """Empty: shared by all subjects. Else the agent's key, the run's id, or `RUN/GRANT` for a subtree."""


class Need(PotRef, frozen=True, kw_only=True):
    """What an action takes out of one pot."""

    amounts: Amounts
    wanted: Amounts = {}
    """What the webhook would like to have on lease: what it used of late."""


class Wish(Wire, frozen=True, kw_only=True):
    """One action: it gets all that it needs, or nothing."""

    agent: AgentKey
    needs: tuple[Need, ...]
    run: Reference | None = None


class Holding(PotRef, frozen=True, kw_only=True):
    """What the holder got from one window of a pot in all, and gave back unspent of it; both only grow."""

    window: str
    got: Totals
    returned: Totals = {}


class Reserve(Wire, frozen=True, tag=True, kw_only=True):
    """Actions are about to be decided, and the leases held do not suffice. Answered by Reserved.

    A holder has one such question under way at a time; that is what lets the hub trust `holdings`.
    """

    born: str
    """Identifies the process of the webhook: a lease is of one process, and dies with it."""
    wishes: Annotated[tuple[Wish, ...], Meta(max_length=MAX_WISHES)]
    holdings: tuple[Holding, ...] = ()
    """Of each pot that the wishes name, where the holder has a window of it."""
    number: int = 0
    """Grows with each question of the process: what an old one says of holdings, asked late, is not true any more."""

    @property
    def agent(self) -> str | None:
        """None: each wish says its own."""
        return None


class Release(Wire, frozen=True, tag=True, kw_only=True):
    """Leases are given back, unspent. Answered by Done; said again until it is."""

    born: str
    holdings: tuple[Holding, ...]


class Disown(Wire, frozen=True, tag=True, kw_only=True):
    """Leases of earlier processes of this webhook are void: all that they spent is acknowledged. Answered by Done."""

    born: str
    """The process that says so; its own leases stay."""
    lost: bool = False
    """The machine died meanwhile, so the last records may be lost: what was on lease counts as used."""


Request = Reserve | Release | Disown


class Grant(PotRef, frozen=True, kw_only=True):
    """A lease, or more of one."""

    window: str
    amounts: Amounts
    """What is granted now; at least what was needed."""
    seconds: float
    """For how long it may be spent, counted from when it was asked for."""


class Lease(Wire, frozen=True, tag=True, kw_only=True):
    """The action may go ahead as far as budgets go."""

    grants: tuple[Grant, ...]


class Short(Wire, frozen=True, tag=True, kw_only=True):
    """There is no room for the action, and nothing was granted for it."""

    decision: Decision
    """Deny, Throttle or RequireApproval."""
    reason: str
    """In words: the budget, what is left, when it begins anew."""
    shortfall: Shortfall
    retry_after_seconds: int | None = None
    """With Throttle."""


class Reserved(Wire, frozen=True, tag=True, kw_only=True):
    """An answer for each wish, in order."""

    answers: tuple[Lease | Short, ...]


Reply = Reserved | Done | Failed
