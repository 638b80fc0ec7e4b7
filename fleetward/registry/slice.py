"""What one sidecar needs of the registry, as plain data that travels well.

A slice holds items under stable keys. The hub sends a sidecar its slice once and then only the items that changed, so
a stream that was cut resumes with `difference` from whatever the sidecar still holds. Nothing here knows resources: a
sidecar loads no pydantic and no YAML.
"""

from typing import Literal

import msgspec

ActionKind = Literal["ToolCall", "ModelCall", "Delegation", "Plan", "Message"]
Decision = Literal["Allow", "Constrain", "Throttle", "RequireApproval", "Deny"]
Phase = Literal["Before", "During", "After"]
Role = Literal["Coordinator", "Planner", "Worker"]
OperatingMode = Literal["Running", "Paused", "Stopped", "Quarantined"]
Reversibility = Literal["Reversible", "Irreversible"]
Enforcement = Literal["Enforce", "Audit"]

MODES: tuple[OperatingMode, ...] = ("Running", "Paused", "Stopped", "Quarantined")
"""Operating modes from the weakest to the strongest."""

HOLDING_MODES: frozenset[OperatingMode] = frozenset({"Stopped", "Quarantined"})
"""The operating modes in which no new pod of an agent starts: a scheduling gate holds it."""


class Wire(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True):
    """A value as it travels: immutable, camelCase, no field it does not know."""


class Estimate(Wire, frozen=True):
    """What an action is expected to use, or used: tokens, millionths of a US dollar, calls, data records."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_micro_usd: int | None = None
    calls: int | None = None
    records: int | None = None


class Match(Wire, frozen=True):
    """Which actions a rule is about; None: the field was left out. See `fleetward.resources.rule.Match`."""

    kinds: tuple[ActionKind, ...] | None = None
    names: tuple[str, ...] | None = None
    risk_tags: tuple[str, ...] | None = None
    data_classes: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    reversibility: tuple[Reversibility, ...] | None = None
    agents: tuple[str, ...] | None = None
    roles: tuple[Role, ...] | None = None
    fleets: tuple[str, ...] | None = None
    path: tuple[str, ...] | None = None
    min_depth: int | None = None
    max_depth: int | None = None


class Obligation(Wire, frozen=True):
    """What the client must do: clamp a number in the arguments, or redact a value. See `resources.rule.Obligation`."""

    type: Literal["Clamp", "Redact"]
    field: str
    maximum: int | None = None


class Rate(Wire, frozen=True):
    """A token bucket: so many actions in so many seconds, and so many at once."""

    count: int
    per_seconds: int
    burst: int


class Throttle(Wire, frozen=True):
    """When a rule throttles: beyond a rate, beyond so many at once, or both. See `resources.rule.Throttle`."""

    rate: Rate | None = None
    concurrency: int | None = None
    scope: Literal["Agent", "Run", "Shared"] = "Agent"


class Rule(Wire, frozen=True):
    """One rule of a policy. See `fleetward.resources.rule.Rule`."""

    name: str
    decision: Decision
    match: Match
    phase: Phase = "Before"
    exclude: Match | None = None
    when: str | None = None
    obligations: tuple[Obligation, ...] = ()
    cleanses: tuple[str, ...] = ()
    retry_after_seconds: int | None = None
    throttle: Throttle | None = None
    """With decision Throttle: beyond what; None: always."""
    audit: Literal["Grouped", "Durable"] = "Grouped"
    message: str = ""


class Policy(Wire, frozen=True):
    """A policy's rules, and what identifies the very version of it in a record."""

    kind: Literal["AgentPolicy", "ClusterAgentPolicy"]
    name: str
    """`namespace/name`, or `name` for a cluster policy."""
    uid: str
    generation: int
    hash: str
    rules: tuple[Rule, ...]
    enforcement: Enforcement = "Enforce"
    inheritance: Literal["Chain", "Self"] = "Chain"


class CatalogEntry(Wire, frozen=True):
    """Facts about actions, by name. See `fleetward.resources.actioncatalog.CatalogEntry`."""

    names: tuple[str, ...]
    risk_tags: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()
    target: str | None = None
    estimate: Estimate | None = None
    reversibility: Reversibility | None = None
    result_labels: tuple[str, ...] = ()


class ModelPrice(Wire, frozen=True):
    """What models cost, in millionths of a US dollar for a million tokens. See `resources.actioncatalog.ModelPrice`."""

    models: tuple[str, ...]
    """Globs over model names."""
    input_micro_usd_per_million: int
    output_micro_usd_per_million: int
    cached_input_micro_usd_per_million: int | None = None
    """None: as input."""
    reasoning_micro_usd_per_million: int | None = None
    """None: as output."""


class Catalog(Wire, frozen=True):
    """One ActionCatalog."""

    name: str
    entries: tuple[CatalogEntry, ...]
    models: tuple[ModelPrice, ...] = ()


class CallLimit(Wire, frozen=True):
    """How many actions with names that one of the globs matches."""

    names: tuple[str, ...]
    max: int


class BudgetLimits(Wire, frozen=True):
    """What may be used in one window of one pot; None: not limited."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_micro_usd: int | None = None
    records: int | None = None
    wall_seconds: int | None = None
    calls: tuple[CallLimit, ...] = ()


class BudgetWindow(Wire, frozen=True):
    """After what time a pot begins anew. See `resources.budget.Window`."""

    kind: Literal["Calendar", "Rolling", "Total"] = "Total"
    unit: Literal["Hour", "Day", "Week", "Month"] | None = None
    time_zone: str = "UTC"
    duration_seconds: int | None = None


class Threshold(Wire, frozen=True):
    """What happens from some part of a limit on."""

    percent: int
    action: Literal["Event", "Throttle", "RequireApproval", "Pause"]
    per_minute: int = 1
    """With Throttle: how many actions still go ahead a minute."""


class DefaultEstimate(Estimate, frozen=True):
    """What an action is taken to use that nothing else is said of."""

    wall_seconds: int | None = None


BudgetScope = Literal["Shared", "Agent", "Run", "Subtree"]


class Budget(Wire, frozen=True):
    """An AgentBudget or ClusterAgentBudget. See `resources.budget`."""

    kind: Literal["AgentBudget", "ClusterAgentBudget"]
    name: str
    """`namespace/name`, or `name` for a cluster budget."""
    uid: str
    generation: int
    hash: str
    scope: BudgetScope
    window: BudgetWindow
    limits: BudgetLimits
    thresholds: tuple[Threshold, ...] = ()
    """By percent, going up."""
    default_estimate: DefaultEstimate = DefaultEstimate()
    unpriced_models: Literal["Deny", "UseEstimate"] = "Deny"
    """What holds for a call of a model without a price, where cost is limited."""
    settle_after_seconds: int = 3600
    """After how long an action without an outcome counts as what it was expected to use."""
    problem: str = ""
    """Why nothing may be spent from it, such as a parent that is missing; empty where nothing is wrong."""

    @property
    def key(self) -> str:
        """`kind/name`."""
        return f"{self.kind}/{self.name}"


class Mode(Wire, frozen=True):
    """The operating mode in force, and who set it where and why."""

    operating_mode: OperatingMode = "Running"
    reason: str = ""
    set_by: str = ""
    source: str = ""
    """The resource that says so, such as `AgentFleet reporting`."""


class Delegates(Wire, frozen=True):
    """Whom an agent may hand work to: agents of its namespace in one of the roles, and the agents named."""

    roles: tuple[Role, ...] = ()
    agents: tuple[str, ...] = ()
    """As `namespace/name`."""


class Agent(Wire, frozen=True):
    """An agent with all that holds for it: its fleets' settings folded in, and the keys of its policies."""

    name: str
    namespace: str
    role: Role
    owner: str
    risk_tier: str
    labels: dict[str, str] = {}
    data_classes: tuple[str, ...] | None = None
    may_delegate_to: Delegates | None = None
    fleets: tuple[str, ...] = ()
    default_decision: Decision = "Deny"
    default_source: str = ""
    """The fleet the default comes from; empty where the agent is in no fleet."""
    declared_facts: Literal["RestrictOnly", "Trusted"] = "RestrictOnly"
    delegation: Literal["Inherit", "Intersection"] = "Inherit"
    mode: Mode = Mode()
    policies: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ()
    """Keys of the budgets that what it does counts in, with all that these are part of."""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


class Items(Wire, frozen=True):
    """Items by key: a whole slice, or the part of one that changed."""

    agents: dict[str, Agent] = {}
    policies: dict[str, Policy] = {}
    catalogs: dict[str, Catalog] = {}
    roles: dict[str, Role] = {}
    """Roles of agents that an agent of this slice might delegate to."""
    principals: dict[str, Agent] = {}
    """Agents that handed work down to an agent of this slice: their restrictions count for it."""
    budgets: dict[str, Budget] = {}


class Removed(Wire, frozen=True):
    """Keys of items that are gone."""

    agents: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    catalogs: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ()


class Slice(Wire, frozen=True):
    """All that one sidecar decides from, at one version of the registry."""

    version: str
    items: Items = Items()


class Change(Wire, frozen=True):
    """What turns one slice into the next."""

    version: str
    changed: Items = Items()
    removed: Removed = Removed()

    @property
    def empty(self) -> bool:
        """Whether only the version moves."""
        return self.changed == Items() and self.removed == Removed()


_PARTS = Items.__struct_fields__


def difference(old: Slice, new: Slice) -> Change:
    """Say what turns `old` into `new`. Items are compared by identity first, so unchanged ones cost next to nothing."""
    changed, removed = {}, {}
    for part in _PARTS:
        before, after = getattr(old.items, part), getattr(new.items, part)
        changed[part] = {
            key: item for key, item in after.items() if (known := before.get(key)) is not item and known != item
        }
        removed[part] = tuple(key for key in before if key not in after)
    return Change(version=new.version, changed=Items(**changed), removed=Removed(**removed))


def apply(old: Slice, change: Change) -> Slice:
    """Give the slice that `change` makes of `old`."""
    parts = {}
    for part in _PARTS:
        before, changed, removed = (
            getattr(old.items, part),
            getattr(change.changed, part),
            getattr(change.removed, part),
        )
        if changed or removed:
            gone = frozenset(removed)
            before = {key: item for key, item in before.items() if key not in gone} | changed
        parts[part] = before
    return Slice(version=change.version, items=Items(**parts))
