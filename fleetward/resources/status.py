"""The status of every kind: what Fleetward writes about a resource, and nobody else does.

Nothing in a status is required save what makes a condition: during an upgrade an older or a newer operator writes it,
and an object stored by either must stay valid. Text and lists that are too long are cut, since a status that is refused
says nothing at all.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, PlainSerializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from fleetward.resources.base import Count, Decision, Model, ObjectName, OperatingMode

_CUT = " [...]"


def _cut_to(longest: int) -> BeforeValidator:
    """Return what cuts a text, or a list, to the longest allowed. Other values pass: they are refused elsewhere."""

    def cut(value: Any) -> Any:
        if isinstance(value, str) and len(value) > longest:
            return value[: longest - len(_CUT)] + _CUT
        return value[:longest] if isinstance(value, list) else value

    return BeforeValidator(cut)


def _seconds(moment: datetime) -> str:
    """Write a time as Kubernetes does: RFC 3339, in UTC, in whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[AwareDatetime, PlainSerializer(_seconds, when_used="json")]
"""A moment, with its time zone."""

_TYPE = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
)
ConditionType = Annotated[str, Field(min_length=1, max_length=316, pattern=_TYPE)]

ConditionReason = Annotated[
    str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
]

Text = Annotated[str, _cut_to(1024), Field(max_length=1024)]
Name = Annotated[str, _cut_to(256), Field(max_length=256)]


class StatusModel(Model):
    """A part of a status. Its schema says no defaults: what a writer left out is not known."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Take the defaults out of the model's JSON schema."""
        schema = super().__get_pydantic_json_schema__(core, handler)
        for field in handler.resolve_ref_schema(schema)["properties"].values():
            field.pop("default", None)
        return schema

    def dump(self) -> dict[str, Any]:
        """Return it as JSON has it, without what is not known."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(StatusModel):
    """One aspect of the resource's state, as in every Kubernetes API (metav1.Condition)."""

    type: ConditionType
    """Which aspect: Ready on every resource; Reconciling and Stalled only while they are True."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: Count | None = None
    """The metadata.generation the condition is about."""
    last_transition_time: Time
    """When the status of this condition last changed."""
    reason: ConditionReason
    """Why, in one word for programs."""
    message: Annotated[str, _cut_to(32768), Field(max_length=32768)]
    """Why, in words for people."""


class Status(StatusModel):
    """What every status has."""

    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """Whether the resource is in force, and if not why: Ready always, Reconciling and Stalled only while True."""
    observed_generation: Count | None = None
    """The metadata.generation this status is about."""


class ModeInForce(StatusModel):
    """The operating mode in force, who set it where and why."""

    operating_mode: OperatingMode | None = None
    """The mode that decisions are made under; for an agent, the strongest of its own and its fleets'."""
    reason: Text = ""
    """Why, as it was given with the mode."""
    set_by: Text = ""
    """Who set it."""
    source: Text = ""
    """The resource that says so: Agent, or AgentFleet and its name."""
    since: Time | None = None
    """Since when it has been in force."""


class AgentPods(StatusModel):
    """The agent's pods, counted. One pod may count under several headings."""

    total: Count = 0
    """Pods that the agent's workload selects."""
    ready: Count = 0
    """Pods that are Ready."""
    held: Count = 0
    """Pods held by the scheduling gate fleetward.dev/stopped, because the agent is Stopped or Quarantined."""
    without_webhook: Count = 0
    """Pods without an injected decision webhook: they were there before the agent. Recreate them."""
    terminating: Count = 0
    """Pods being deleted or evicted."""


class AgentWebhooks(StatusModel):
    """The decision webhooks of the agent's pods."""

    connected: Count = 0
    """Decision webhooks connected to the hub."""
    current: Count = 0
    """Of those, how many decide by the registry version in force."""
    registry_version: Name = ""
    """The registry version they decide by; empty where they differ."""


class LastDecision(StatusModel):
    """The last decision made for the agent, as the audit store has it."""

    id: Name = ""
    """The decision's id, for fleetward audit show."""
    time: Time | None = None
    """When it was made."""
    decision: Decision | None = None
    """What was decided."""
    action: Name = ""
    """The name of the action."""


class AgentStatus(Status):
    """What is known of an agent: whether it is governed, its mode in force, its pods and decision webhooks."""

    mode: ModeInForce | None = None
    """The operating mode in force, fleets included."""
    recorded_mode: OperatingMode | None = None
    """The spec.operatingMode that was last put on the audit record; left out, Running."""
    fleets: Annotated[list[ObjectName], _cut_to(256), Field(max_length=256)] = []
    """The fleets the agent belongs to; the first 256 of them."""
    policies: Count | None = None
    """How many policies concern the agent."""
    pods: AgentPods | None = None
    """The agent's pods."""
    webhooks: AgentWebhooks | None = None
    """The decision webhooks of its pods."""
    last_decision: LastDecision | None = None
    """The last decision made for it; written with a delay of some seconds."""


class FleetAgentsStatus(StatusModel):
    """The fleet's agents, counted by their mode in force."""

    total: Count = 0
    """Agents in the fleet."""
    running: Count = 0
    """Agents in force as Running."""
    paused: Count = 0
    """Agents in force as Paused."""
    stopped: Count = 0
    """Agents in force as Stopped."""
    quarantined: Count = 0
    """Agents in force as Quarantined."""


class AgentFleetStatus(Status):
    """What is known of a fleet: its mode in force, and its agents."""

    mode: ModeInForce | None = None
    """The fleet's operating mode, who set it and why."""
    recorded_mode: OperatingMode | None = None
    """The spec.operatingMode that was last put on the audit record; left out, Running."""
    agents: FleetAgentsStatus | None = None
    """The fleet's agents."""


class AgentPolicyStatus(Status):
    """What is known of a policy: which generation of it is in force, and for how many agents."""

    generation_in_force: Count | None = None
    """The metadata.generation that decisions are made by; an older one while the latest has faults."""
    hash: Name = ""
    """Identifies the content in force; decision records name it."""
    rules: Count | None = None
    """How many rules are in force."""
    agents: Count | None = None
    """How many agents the policy concerns."""


class ActionCatalogStatus(Status):
    """What is known of a catalog: which generation of it is in force."""

    generation_in_force: Count | None = None
    """The metadata.generation that decisions are made by; an older one while the latest has faults."""
    entries: Count | None = None
    """How many entries are in force."""


class AuditSinkStatus(Status):
    """What is known of a sink: which generation of it is in force, and how far it has come."""

    generation_in_force: Count | None = None
    """The metadata.generation that records are delivered by; an older one while the latest has faults."""
    delivered: Count | None = None
    """How many records of the audit store are dealt with: delivered, or of a type the sink does not ask for."""
    behind: Count | None = None
    """How many records of the audit store are still to be dealt with."""
    last_delivered: Time | None = None
    """When the target last took a record."""
    last_error: Text = ""
    """Why the last attempt failed; empty when it did not."""


class LimitStatus(StatusModel):
    """How one limit of a pot stands."""

    limit: Name = ""
    """Which limit: inputTokens, outputTokens, costMicroUsd, records, wallMilliseconds, or calls and their globs."""
    max: Count = 0
    """What may be used in the window."""
    spent: Count = 0
    """What was used."""
    reserved: Count = 0
    """What actions under way are expected to use."""
    leased: Count = 0
    """What decision webhooks hold and did not spend yet."""
    remaining: Count = 0
    """What is left beside all that."""
    percent: Count = 0
    """How much of the limit is spent and reserved, in percent."""
    overshoot: Count = 0
    """What actions used beyond what was reserved for them; it is in `spent`, too."""
    empty_at: Time | None = None
    """When nothing will be left, should it go on as of late; left out where that is not before it begins anew."""


class PotStatus(LimitStatus):
    """A pot of a budget, by the limit of it that is used most."""

    scope: Name = ""
    """Whose pot it is: an agent, a run, or a run and a grant."""
    window: Name = ""
    """The window it is in."""
    resets_at: Name = ""
    """When it begins anew; empty where it never does by itself, or bit by bit."""


class AgentBudgetStatus(Status):
    """What is known of a budget: which generation is in force, for whom, what is spent and what is left.

    Besides Ready it has the conditions Near (a threshold is passed somewhere) and Exhausted (a pot has no room left).
    """

    generation_in_force: Count | None = None
    """The metadata.generation that holds; an older one while the latest has faults."""
    hash: Name = ""
    """Identifies the content in force."""
    agents: Count | None = None
    """How many agents share the budget, those of budgets that are part of it included."""
    pots: Count | None = None
    """How many pots something was taken from: 1 at most where the scope is Shared."""
    paused: Count | None = None
    """How many pots have their agents Paused."""
    used: Name = ""
    """How much of the limit used most, in the pot used most, is spent and reserved, such as 84%."""
    spent: Name = ""
    """What was spent of that limit, and what may be, in words."""
    window: Name = ""
    """The window the budget is in, where all its pots have the same one."""
    resets_at: Name = ""
    """When it begins anew (RFC 3339); empty where it never does by itself, or bit by bit."""
    limits: Annotated[list[LimitStatus], Field(max_length=32)] = []
    """Scope Shared: how each limit stands."""
    top_pots: Annotated[list[PotStatus], Field(max_length=16)] = []
    """Other scopes: the pots used most, at most 16 of them."""
