"""Rules made ready to be matched: one object for each rule that can concern an agent."""

from dataclasses import dataclass, field

import msgspec

from fleetward.decision.action import RuleRef
from fleetward.decision.cel.runtime import ExpressionError, Program, Runtime
from fleetward.decision.facts import FactSets
from fleetward.decision.glob import GlobIndex, glob_index
from fleetward.registry.slice import Agent, Decision, Match, Obligation, Phase, Policy, Rule

SEVERITY: dict[Decision, int] = {"Allow": 0, "Constrain": 1, "Throttle": 2, "RequireApproval": 3, "Deny": 4}
"""Decisions from the least to the most restrictive."""
DECISIONS: tuple[Decision, ...] = tuple(SEVERITY)
DEFAULT_RETRY_SECONDS = 30


def is_agent(agent: Agent, names: tuple[str, ...]) -> bool:
    """Say whether one of `names` (`name` or `namespace/name`) is the agent."""
    return agent.name in names or agent.key in names


def may_concern(agent: Agent, match: Match, path: tuple[str, ...] | None = None) -> bool:
    """Say whether a match can hold for `agent`, by what never changes from action to action.

    `path` says who handed the work down to it; None: whoever it may be.
    """
    return (
        (match.agents is None or is_agent(agent, match.agents))
        and (match.roles is None or agent.role in match.roles)
        and (match.fleets is None or not set(match.fleets).isdisjoint(agent.fleets))
        and (path is None or fits_path(match, path))
    )


def fits_path(match: Match, path: tuple[str, ...]) -> bool:
    """Say whether a match can hold for work that was handed down along `path`."""
    return (
        (match.path is None or any(key in match.path or key.partition("/")[2] in match.path for key in path))
        and (match.min_depth is None or len(path) >= match.min_depth)
        and (match.max_depth is None or len(path) <= match.max_depth)
    )


class FactMatch:
    """The part of a match that depends on an action's facts."""

    __slots__ = ("data_classes", "labels", "reversibility", "risk_tags", "targets")

    def __init__(self, match: Match) -> None:
        self.risk_tags = _as_set(match.risk_tags)
        self.data_classes = _as_set(match.data_classes)
        self.labels = _as_set(match.labels)
        self.targets = _as_set(match.targets)
        self.reversibility = _as_set(match.reversibility)

    def holds(self, facts: FactSets) -> bool:
        """Say whether all the fields given hold for `facts`."""
        return (
            (self.risk_tags is None or not self.risk_tags.isdisjoint(facts.risk_tags))
            and (self.data_classes is None or not self.data_classes.isdisjoint(facts.data_classes))
            and (self.labels is None or not self.labels.isdisjoint(facts.labels))
            and (self.targets is None or facts.target in self.targets)
            and (self.reversibility is None or facts.reversibility in self.reversibility)
        )


class Exclusion:
    """What a rule leaves out: a whole match of its own."""

    __slots__ = ("_facts", "_kinds", "_names")

    def __init__(self, match: Match) -> None:
        self._kinds = _as_set(match.kinds)
        self._names: GlobIndex[bool] | None = None if match.names is None else glob_index(match.names)
        self._facts = FactMatch(match)

    def holds(self, kind: str, name: str, facts: FactSets) -> bool:
        """Say whether the action is excluded."""
        return (
            (self._kinds is None or kind in self._kinds)
            and (self._names is None or bool(self._names.find(name)))
            and self._facts.holds(facts)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """A rule that counted, and as what: an expression that erred makes a rule count as Deny."""

    rule: "ReadyRule"
    ref: RuleRef

    @property
    def limits(self) -> bool:
        """Whether the rule only says beyond what it throttles, so that it decides nothing by itself."""
        return self.rule.pot != "" and self.rule.enforced and self.ref.error is None


@dataclass(frozen=True, slots=True, eq=False)
class Erred:
    """An Allow that did not count since its expression erred."""

    rule: "ReadyRule"
    error: str


@dataclass(frozen=True, slots=True, eq=False)
class ReadyRule:
    """A rule of one policy, ready for one agent's actions."""

    ref: RuleRef
    severity: int
    phase: Phase
    kinds: frozenset[str] | None
    names: tuple[str, ...]
    match: FactMatch
    exclusion: Exclusion | None
    program: Program | None
    """None: the rule has no `when`."""
    broken: str | None
    """Why the rule's `when` does not compile: it then errs always."""
    obligations: tuple[Obligation, ...]
    retry_after_seconds: int
    cleanses: tuple[str, ...]
    durable: bool
    message: str
    inherited: bool
    """Whether it is the policy of somebody who handed the work down."""
    pot: str
    """Of a rule that throttles beyond some limit: where it counts, as in `Judgement.throttles`; else empty."""
    hit: Hit = field(init=False)
    """How the rule counts where it counts as what it says."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hit", Hit(self, self.ref))

    @property
    def conditional(self) -> bool:
        """Whether a `when` must be asked."""
        return self.program is not None or self.broken is not None

    @property
    def enforced(self) -> bool:
        """Whether the rule's policy is enforced, not only recorded."""
        return self.ref.enforcement == "Enforce"

    def excluded(self, kind: str, name: str, facts: FactSets) -> bool:
        """Say whether the rule leaves the action out."""
        return self.exclusion is not None and self.exclusion.holds(kind, name, facts)


def erred(rule: ReadyRule, error: str) -> Hit | Erred:
    """Give how a rule counts whose expression erred: an Allow not at all, any other as Deny."""
    if rule.severity == SEVERITY["Allow"]:
        return Erred(rule, error)
    return Hit(rule, msgspec.structs.replace(rule.ref, decision="Deny", error=error))


def ref_of(policy: Policy, rule: Rule, principal: str) -> RuleRef:
    """Identify a rule that counts, for the agent `principal`, as what it says."""
    return RuleRef(
        policy=policy.name,
        kind=policy.kind,
        uid=policy.uid,
        generation=policy.generation,
        hash=policy.hash,
        rule=rule.name,
        decision=rule.decision,
        enforcement=policy.enforcement,
        principal=principal,
    )


def pot_of(policy: Policy, rule: Rule) -> str:
    """Give `KIND/NAME#RULE` of a rule that throttles beyond some limit only; empty for any other.

    A limit is on actions that begin, so in a later phase there is none: such a rule throttles always.
    """
    if rule.throttle is None or rule.decision != "Throttle" or rule.phase != "Before":
        return ""
    return f"{policy.kind}/{policy.name}#{rule.name}"


def make_ready(
    policy: Policy, agent: Agent, runtime: Runtime, path: tuple[str, ...] = (), principal: str | None = None
) -> list[ReadyRule]:
    """Give the policy's rules that can concern what `agent` does with work handed down along `path`, compiled.

    With `principal`, one of that path, they are that agent's policy's: only what restricts is given.
    """
    return [
        _ready(rule, policy, agent, runtime, path=path, principal=principal)
        for rule in policy.rules
        if may_concern(agent, rule.match, path) and (principal is None or rule.decision != "Allow")
    ]


def _ready(
    rule: Rule, policy: Policy, agent: Agent, runtime: Runtime, *, path: tuple[str, ...], principal: str | None
) -> ReadyRule:
    program, broken = None, None
    if rule.when is not None:
        try:
            program = runtime.compile(rule.when)
        except ExpressionError as error:
            broken = error.message
    exclude = rule.exclude if rule.exclude is not None and may_concern(agent, rule.exclude, path) else None
    return ReadyRule(
        ref=ref_of(policy, rule, principal or agent.key),
        severity=SEVERITY[rule.decision],
        phase=rule.phase,
        kinds=_as_set(rule.match.kinds),
        names=rule.match.names or ("**",),
        match=FactMatch(rule.match),
        exclusion=None if exclude is None else Exclusion(exclude),
        program=program,
        broken=broken,
        obligations=rule.obligations,
        retry_after_seconds=rule.retry_after_seconds or DEFAULT_RETRY_SECONDS,
        cleanses=() if principal else rule.cleanses,
        durable=rule.audit == "Durable",
        message=rule.message,
        inherited=principal is not None,
        pot=pot_of(policy, rule),
    )


def _as_set(values: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)
