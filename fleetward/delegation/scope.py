"""Scopes: what work that is handed over may do. A scope is never wider than the one it comes from."""

from typing import Annotated

from msgspec import Meta

from fleetward.registry.slice import Wire
from fleetward.registry.text import ActionGlob, Count, Tag, Target

MAX_DEPTH = 32
"""The longest chain there is, whatever a scope or a mandate says."""

MAX_GRANT_SECONDS = 86_400
DEFAULT_GRANT_SECONDS = 3_600

Depth = Annotated[int, Meta(ge=0, le=MAX_DEPTH)]
DataClasses = Annotated[tuple[Tag, ...], Meta(max_length=64)]
Targets = Annotated[tuple[Target, ...], Meta(max_length=64)]
Actions = Annotated[tuple[ActionGlob, ...], Meta(max_length=64)]
GrantSeconds = Annotated[int, Meta(ge=1, le=MAX_GRANT_SECONDS)]


class Amounts(Wire, frozen=True):
    """What may be used in all; None: no limit of its own. Tokens, millionths of a US dollar, calls, data records."""

    steps: Count | None = None
    """Actions that were let go ahead, of whatever kind."""
    calls: Count | None = None
    records: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cost_micro_usd: Count | None = None


AMOUNTS = Amounts.__struct_fields__
"""The names of the amounts."""


class Scope(Wire, frozen=True):
    """What a grant lets its holder, and whoever the holder delegates to, do. None: nothing narrower than above it."""

    actions: Actions | None = None
    """Globs over the names of tool calls, model calls and messages; depth is what governs delegations."""
    data_classes: DataClasses | None = None
    targets: Targets | None = None
    depth: Depth | None = None
    """How often the work may be handed on from here; 0: not at all."""
    limits: Amounts = Amounts()
    """What the holder and all below it may use together."""


class AskedScope(Scope, frozen=True):
    """The scope a delegation asks for."""

    expires_in_seconds: GrantSeconds | None = None
    """Counted from the grant on; left out, an hour, and never longer than the grant it comes from."""

    @property
    def lasting(self) -> Scope:
        """The scope without how long it lasts."""
        return Scope(self.actions, self.data_classes, self.targets, self.depth, self.limits)


class Violation(Wire, frozen=True, kw_only=True):
    """Where a plan or an action goes beyond what was authorised. One of `step` and `total` is given."""

    step: str | None = None
    """The id of the plan's step."""
    total: str | None = None
    """What goes too far in all, such as dataClasses, targets, steps, agents, depth or records."""
    found: str
    allowed: str
    by: str = ""
    """What says so: `mandate`, `grant g-...`, or the rule and its policy."""
