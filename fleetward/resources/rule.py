"""Rules: what a policy says about actions. Shared by AgentPolicy and ClusterAgentPolicy."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fleetward.resources.actioncatalog import Reversibility
from fleetward.resources.base import (
    ActionGlob,
    AgentName,
    Count,
    Decision,
    LabelSelector,
    Model,
    ObjectName,
    Role,
    Tag,
    Target,
    Validation,
)

ActionKind = Literal["ToolCall", "ModelCall", "Delegation", "Plan", "Message"]
Phase = Literal["Before", "During", "After"]

Depth = Annotated[int, Field(ge=0, le=32)]
Some = Field(min_length=1, max_length=64)
"""A list in a match: left out it matches anything, and an empty one is refused, since it could be read either way."""


class Match(Model):
    """Which actions. In a list one suffices; all the fields given must hold."""

    kinds: Annotated[list[ActionKind], Some] | None = None
    """Kinds of action."""
    names: Annotated[list[ActionGlob], Some] | None = None
    """Globs over the action's name."""
    risk_tags: Annotated[list[Tag], Some] | None = None
    """Risk tags, one of which the action carries."""
    data_classes: Annotated[list[Tag], Some] | None = None
    """Data classes, one of which the action touches."""
    targets: Annotated[list[Target], Some] | None = None
    """Targets, one of which is the action's."""
    labels: Annotated[list[Tag], Some] | None = None
    """Provenance labels, one of which the action carries."""
    reversibility: Annotated[list[Reversibility], Field(min_length=1, max_length=2)] | None = None
    """Whether the action can be undone."""
    agents: Annotated[list[AgentName], Some] | None = None
    """The acting agent, as name or namespace/name."""
    roles: Annotated[list[Role], Field(min_length=1, max_length=3)] | None = None
    """The acting agent's role."""
    fleets: Annotated[list[ObjectName], Some] | None = None
    """Fleets, to one of which the acting agent belongs."""
    path: Annotated[list[AgentName], Some] | None = None
    """Agents, one of which handed the work down to the acting agent, directly or through others."""
    min_depth: Depth | None = None
    """How often the work was handed on, at least: 0 for an agent that acts for itself or opened the run."""
    max_depth: Depth | None = None
    """How often the work was handed on, at most."""


class Obligation(Model):
    """What the client must do to a constrained action, and what is checked in its outcome."""

    VALIDATIONS = (
        Validation(
            "self.type != 'Clamp' || has(self.maximum)",
            "maximum is missing; Clamp needs the largest value allowed",
            ".maximum",
            "FieldValueRequired",
        ),
        Validation(
            "self.type != 'Clamp' || self.field.startsWith('arguments.')",
            "Clamp applies to arguments; only Redact applies to a result",
            ".field",
            found="self.field",
        ),
        Validation(
            "self.type != 'Redact' || !has(self.maximum)",
            "maximum goes with Clamp, not with Redact",
            ".maximum",
            "FieldValueForbidden",
        ),
    )

    type: Literal["Clamp", "Redact"]
    """Clamp: a number may be at most the maximum. Redact: the value is replaced before it is passed on."""
    field: Annotated[str, Field(min_length=3, max_length=256, pattern=r"^(arguments|result)(\.([A-Za-z0-9_-]+|\*))+$")]
    """The field, as a dotted path from arguments or result; `*` stands for every element."""
    maximum: Count | None = None
    """The largest value a clamped field may have; an absent field is set to it."""

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        if self.type == "Clamp" and self.maximum is None:
            raise ValueError("maximum is missing; Clamp needs the largest value allowed")
        if self.type == "Clamp" and not self.field.startswith("arguments."):
            raise ValueError("Clamp applies to arguments; only Redact applies to a result")
        if self.type == "Redact" and self.maximum is not None:
            raise ValueError("maximum goes with Clamp, not with Redact")
        return self


class Rate(Model):
    """A token bucket: how many actions go ahead in how many seconds, and how many at once."""

    count: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many actions."""
    per_seconds: Annotated[int, Field(ge=1, le=86400)]
    """In how many seconds."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many may come at once after a rest; as `count` where left out."""


class Throttle(Model):
    """How many actions go ahead, by a rate, by how many are under way, or both; beyond that the rule throttles."""

    VALIDATIONS = (
        Validation(
            "has(self.rate) || has(self.concurrency)",
            "rate or concurrency is missing; throttle needs at least one of them",
            reason="FieldValueRequired",
        ),
    )

    rate: Rate | None = None
    """How many actions in how many seconds."""
    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many actions may be under way at once: decided, and without an outcome yet."""
    scope: Literal["Agent", "Run", "Shared"] = "Agent"
    """Counted for each agent by itself, for each run, or together for all whom the rule matches, fleet-wide."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.rate is None and self.concurrency is None:
            raise ValueError("rate or concurrency is missing; throttle needs at least one of them")
        return self


class Rule(Model):
    """One rule: for the actions matched and not excluded, and when the expression holds, a decision."""

    VALIDATIONS = (
        Validation(
            "self.decision != 'Constrain' || (has(self.obligations) && self.obligations.size() > 0)",
            "obligations are missing; decision Constrain needs at least one",
            ".obligations",
            "FieldValueRequired",
        ),
        Validation(
            "self.decision == 'Constrain' || !has(self.obligations) || self.obligations.size() == 0",
            "obligations go with decision Constrain only",
            ".obligations",
            "FieldValueForbidden",
            "self.decision",
        ),
        Validation(
            "self.decision == 'Throttle' || !has(self.retryAfterSeconds)",
            "retryAfterSeconds goes with decision Throttle only",
            ".retryAfterSeconds",
            "FieldValueForbidden",
            "self.decision",
        ),
        Validation(
            "self.decision == 'Throttle' || !has(self.throttle)",
            "throttle goes with decision Throttle only",
            ".throttle",
            "FieldValueForbidden",
            "self.decision",
        ),
        Validation(
            "!has(self.throttle) || !has(self.phase) || self.phase == 'Before'",
            "throttle fits the phase Before only: what is under way is not held back",
            ".throttle",
            "FieldValueForbidden",
            "self.phase",
        ),
        Validation(
            "!has(self.throttle) || !has(self.retryAfterSeconds)",
            "retryAfterSeconds does not go with throttle, which works out when there is room again",
            ".retryAfterSeconds",
            "FieldValueForbidden",
        ),
        Validation(
            "self.decision != 'Constrain' || !has(self.phase) || self.phase != 'During'",
            "decision Constrain fits the phases Before and After, not During",
            ".decision",
        ),
        Validation(
            "!has(self.cleanses) || self.cleanses.size() == 0 || self.decision in ['Allow', 'Constrain']",
            "cleanses goes with the decisions Allow and Constrain",
            ".cleanses",
            "FieldValueForbidden",
            "self.decision",
        ),
        Validation(
            "!has(self.cleanses) || self.cleanses.size() == 0 || !has(self.phase) || self.phase == 'Before'",
            "cleanses fits the phase Before: the labels go once the action has succeeded",
            ".cleanses",
            "FieldValueForbidden",
            "self.phase",
        ),
        Validation(
            "!has(self.phase) || self.phase != 'After' || !has(self.obligations) || "
            "self.obligations.all(o, o.field.startsWith('result.'))",
            "in phase After an obligation can only be about the result, found one about the arguments",
            ".obligations",
        ),
    )

    name: ObjectName
    """The rule's name, unique in its policy; answers and records repeat it."""
    phase: Phase = "Before"
    """Before the action, During it (at each sign of progress), or After it (on its outcome)."""
    match: Match
    """Which actions; {} matches every action."""
    exclude: Annotated[Match, Field(json_schema_extra={"minProperties": 1})] | None = None
    """Which of the matched actions are left out; it names at least one field."""
    when: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A CEL expression over action, agent, run, delegation, to and plan (and outcome, During and After) to be true."""
    decision: Decision
    """Of all rules that count, the most restrictive decides: Allow, Constrain, Throttle, RequireApproval, Deny."""
    obligations: Annotated[list[Obligation], Field(max_length=32)] = []
    """With Constrain: what the client must do; obligations of several rules add up."""
    cleanses: Annotated[list[Tag], Field(max_length=64)] = []
    """Provenance labels that the agent is rid of, in the run, once an action allowed by this rule has succeeded."""
    retry_after_seconds: Annotated[int, Field(ge=1, le=86400)] | None = None
    """With Throttle: after how many seconds to try again; 30 where left out. Not with `throttle`, which says it."""
    throttle: Throttle | None = None
    """With Throttle: only what goes beyond this is throttled; left out, every action is that the rule matches."""
    audit: Literal["Grouped", "Durable"] = "Grouped"
    """Durable: the record is synced to disk before the answer leaves, not with the next group."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What to tell whoever is refused."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.exclude == Match():
            raise ValueError(
                "exclude is empty, which would exclude everything or nothing; give it a field or leave it out"
            )
        if self.decision == "Constrain" and not self.obligations:
            raise ValueError("obligations are missing; decision Constrain needs at least one")
        if self.decision != "Constrain" and self.obligations:
            raise ValueError(f"obligations go with decision Constrain, found {self.decision}")
        if self.decision != "Throttle" and self.retry_after_seconds is not None:
            raise ValueError(f"retryAfterSeconds goes with decision Throttle, found {self.decision}")
        if self.throttle is not None:
            self._check_throttle()
        if self.cleanses and self.decision not in ("Allow", "Constrain"):
            raise ValueError(f"cleanses goes with the decisions Allow and Constrain, found {self.decision}")
        if self.cleanses and self.phase != "Before":
            raise ValueError(
                f"cleanses fits the phase Before: the labels go once the action has succeeded; found {self.phase}"
            )
        if self.phase == "During" and self.decision == "Constrain":
            raise ValueError("decision Constrain fits the phases Before and After, found During")
        if self.phase == "After" and any(not o.field.startswith("result.") for o in self.obligations):
            raise ValueError("in phase After an obligation can only be about the result, found one about the arguments")
        return self

    def _check_throttle(self) -> None:
        if self.decision != "Throttle":
            raise ValueError(f"throttle goes with decision Throttle only, found {self.decision}")
        if self.phase != "Before":
            raise ValueError(
                f"throttle fits the phase Before only: what is under way is not held back, found {self.phase}"
            )
        if self.retry_after_seconds is not None:
            raise ValueError("retryAfterSeconds does not go with throttle, which works out when there is room again")


class PolicySubjects(Model):
    """Whose actions a policy is about: all the fields given must hold; empty, everyone."""

    roles: Annotated[list[Role], Field(max_length=3)] = []
    """Roles."""
    agents: Annotated[list[AgentName], Field(max_length=256)] = []
    """Agents, as name or namespace/name."""
    agent_selector: LabelSelector = LabelSelector()
    """Labels of the agents."""


class PolicySpec(Model):
    """Rules, whom they concern, and whether they are enforced."""

    enforcement: Literal["Enforce", "Audit"] = "Enforce"
    """Audit: what the policy would have done is recorded, and changes nothing."""
    inheritance: Literal["Chain", "Self"] = "Chain"
    """Chain: what the policy restricts binds whoever its subjects delegate to, too, however far down; Self: only them.

    An Allow is never inherited.
    """
    subjects: PolicySubjects = PolicySubjects()
    """Whose actions; left out, every agent the policy can reach."""
    rules: Annotated[
        list[Rule],
        Field(
            min_length=1,
            max_length=256,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """The rules, each under its own name; their order never matters."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        seen: set[str] = set()
        for rule in self.rules:
            if rule.name in seen:
                raise ValueError(f"rules: two rules are named {rule.name!r}; names must be unique in a policy")
            seen.add(rule.name)
        return self
