"""Two values for every field of every kind that decisions read, and what differs between them.

A case puts one value and then the other into a document of a small world, in which nothing else changes, and asks the
same question both times. A field that nothing read would give the same answer twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from decision.build import outcome

from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.situation import ALONE, Situation

Observe = Callable[[Engine, Evaluation], object]

LEFT_OUT = object()


def decision(_: Engine, evaluation: Evaluation) -> object:
    return evaluation.decision


def reason(_: Engine, evaluation: Evaluation) -> object:
    return evaluation.reason


def obligations(_: Engine, evaluation: Evaluation) -> object:
    return [(o.type, o.field, o.maximum) for o in evaluation.judgement.obligations]


def retry(_: Engine, evaluation: Evaluation) -> object:
    return evaluation.judgement.retry_after_seconds


def durable(_: Engine, evaluation: Evaluation) -> object:
    return evaluation.judgement.durable


def cleansed(_: Engine, evaluation: Evaluation) -> object:
    return evaluation.judgement.cleanses


def limited(_: Engine, evaluation: Evaluation) -> object:
    return [pot.rpartition("#")[2] for pot in evaluation.judgement.throttles]


def rule_names(_: Engine, evaluation: Evaluation) -> object:
    return [ref.rule for ref in evaluation.rules]


def afterwards(engine: Engine, evaluation: Evaluation) -> object:
    """Give what is decided before, while and after the action runs."""
    open_ = evaluation.open("d-1")
    return [evaluation.decision, *(engine.review(open_, outcome(s)).decision for s in ("Running", "Succeeded"))]


@dataclass(frozen=True)
class Case:
    """One field with two values; `expect` holds what is observed with each."""

    path: str
    """Of the field, in camelCase, from the document; the first entry and rule are meant."""
    values: tuple[Any, Any]
    expect: tuple[Any, Any] = ("Allow", "Deny")
    observe: Observe = decision
    beside: dict[str, Any] = field(default_factory=dict)
    """What else the document says, by path; LEFT_OUT takes a field away."""
    elsewhere: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What other documents say, by kind and path."""
    ask: dict[str, Any] = field(default_factory=dict)
    situation: Situation = ALONE


HANDED_DOWN = Situation(path=("reports/desk",))
POLICIES = "AgentPolicy", "ClusterAgentPolicy"
DENY = {"spec.rules.decision": "Deny"}
WHEN = "spec.rules.when"
POLICY = "AgentPolicy"
TRUSTED = {"AgentFleet": {"spec.declaredFacts": "Trusted"}}
TO_AGENT = {"ActionCatalog": {"spec.entries.target": "worker"}}


def reads(expression: str) -> dict[str, dict[str, Any]]:
    """Make the policy's rule hold only where an expression does."""
    return {POLICY: {WHEN: expression}}


def selector(prefix: str, label: str, beside: dict[str, Any] | None = None) -> list[Case]:
    """Cases for a label selector; `label` is a label of what it selects, with the value yes."""
    one = f"{prefix}.matchExpressions"
    return [
        Case(f"{prefix}.matchLabels", ({label: "yes"}, {label: "no"}), beside=beside or {}),
        Case(f"{one}.key", (label, "absent"), beside={one: [{"key": "", "operator": "Exists"}], **(beside or {})}),
        Case(
            f"{one}.operator",
            ("In", "NotIn"),
            beside={one: [{"key": label, "operator": "", "values": ["yes"]}], **(beside or {})},
        ),
        Case(
            f"{one}.operator",
            ("Exists", "DoesNotExist"),
            beside={one: [{"key": label, "operator": ""}], **(beside or {})},
        ),
        Case(
            f"{one}.values",
            (["no", "yes"], ["no"]),
            beside={one: [{"key": label, "operator": "In"}], **(beside or {})},
        ),
    ]


def match(prefix: str, *, excludes: bool) -> list[Case]:
    """Cases for a match that holds for the first value and not for the second; an excluding one the other way."""
    expect = ("Deny", "Allow") if excludes else ("Allow", "Deny")

    def case(name: str, holds: Any, fails: Any, **more: Any) -> Case:
        return Case(f"{prefix}.{name}", (holds, fails), expect, **more)

    return [
        case("kinds", ["Message", "ToolCall"], ["Message"]),
        case("names", ["x.y", "crm.*"], ["x.y", "crm"]),
        case("riskTags", ["t", "pii"], ["t"]),
        case("dataClasses", ["c", "customer"], ["c"]),
        case("targets", ["t", "crm"], ["t"]),
        case("labels", ["l", "web"], ["l"], ask={"labels": ["web"]}, elsewhere=TRUSTED),
        case("reversibility", ["Irreversible"], ["Reversible"]),
        case("agents", ["other", "worker"], ["other"]),
        case("agents", ["reports/worker"], ["sales/worker"]),
        case("roles", ["Planner", "Worker"], ["Planner"]),
        case("fleets", ["g", "f"], ["g"]),
        case("path", ["other", "desk"], ["other"], situation=HANDED_DOWN),
        case("path", ["reports/desk"], ["sales/desk"], situation=HANDED_DOWN),
        case("minDepth", 1, 2, situation=HANDED_DOWN),
        case("maxDepth", 1, 0, situation=HANDED_DOWN),
    ]


def rule() -> list[Case]:
    clamp = {"type": "Clamp", "field": "arguments.n", "maximum": 5}
    redact = {"type": "Redact", "field": "result.n"}
    owing = {"spec.rules.decision": "Constrain", "spec.rules.obligations": [dict(clamp)]}
    throttling = {"spec.rules.decision": "Throttle"}
    return [
        Case("spec.rules.name", ("r", "s"), (["r"], ["s"]), rule_names),
        Case("spec.rules.decision", ("Allow", "RequireApproval"), ("Allow", "RequireApproval")),
        Case(
            "spec.rules.phase",
            ("During", "After"),
            (["Allow", "Deny", "Allow"], ["Allow", "Allow", "Deny"]),
            afterwards,
            beside=DENY,
            elsewhere={"AgentFleet": {"spec.defaultDecision": "Allow"}},
        ),
        Case("spec.rules.when", ("action.name == 'crm.read'", "action.name == 'crm.write'")),
        Case(
            "spec.rules.obligations",
            ([clamp], [clamp, redact]),
            ([("Clamp", "arguments.n", 5)], [("Clamp", "arguments.n", 5), ("Redact", "result.n", None)]),
            obligations,
            beside=owing,
        ),
        Case(
            "spec.rules.obligations.type",
            ("Redact", "Clamp"),
            ([("Redact", "arguments.n", None)], [("Clamp", "arguments.n", 0)]),
            obligations,
            beside={**owing, "spec.rules.obligations": [{"field": "arguments.n"}]},
        ),
        Case(
            "spec.rules.obligations.field",
            ("arguments.a", "arguments.b"),
            ([("Clamp", "arguments.a", 5)], [("Clamp", "arguments.b", 5)]),
            obligations,
            beside=owing,
        ),
        Case(
            "spec.rules.obligations.maximum",
            (3, 4),
            ([("Clamp", "arguments.n", 3)], [("Clamp", "arguments.n", 4)]),
            obligations,
            beside=owing,
        ),
        Case("spec.rules.retryAfterSeconds", (7, LEFT_OUT), (7, 30), retry, beside=throttling),
        Case(
            "spec.rules.throttle",
            ({"concurrency": 1}, LEFT_OUT),
            (["r"], []),
            limited,
            beside=throttling,
            elsewhere={"AgentFleet": {"spec.defaultDecision": "Allow"}},
        ),
        Case("spec.rules.cleanses", (["web"], LEFT_OUT), (("web",), ()), cleansed),
        Case("spec.rules.audit", ("Durable", "Grouped"), (True, False), durable),
        Case(
            "spec.rules.message",
            ("Not today", LEFT_OUT),
            ("denied by rule r of {kind} {key}: Not today", "denied by rule r of {kind} {key}"),
            reason,
            beside=DENY,
        ),
        *match("spec.rules.match", excludes=False),
        *match("spec.rules.exclude", excludes=True),
    ]


def policy() -> list[Case]:
    """Cases for both kinds of policy."""
    return [
        Case("spec.enforcement", ("Enforce", "Audit")),
        Case(
            "spec.inheritance",
            ("Self", "Chain"),
            beside={**DENY, "spec.subjects.agents": ["reports/desk"]},
            elsewhere={"AgentFleet": {"spec.defaultDecision": "Allow"}},
            situation=HANDED_DOWN,
        ),
        Case("spec.subjects.roles", (["Planner", "Worker"], ["Planner"])),
        Case("spec.subjects.agents", (["other", "worker"], ["other"])),
        Case("spec.subjects.agents", (["reports/worker"], ["sales/worker"])),
        *selector("spec.subjects.agentSelector", "team"),
        *rule(),
    ]


def mode(*, kind: str) -> list[Case]:
    key = "reports/worker" if kind == "Agent" else "f"
    stopped = f"reports/worker is Stopped, set on {kind} {key}"
    return [
        Case("spec.operatingMode", ("Running", "Paused")),
        Case("spec.operatingMode", ("Running", "Stopped")),
        Case("spec.operatingMode", ("Running", "Quarantined")),
        Case(
            "spec.operatingReason",
            ("incident 7", LEFT_OUT),
            (f"{stopped}: incident 7", stopped),
            reason,
            beside={"spec.operatingMode": "Stopped"},
        ),
    ]


def estimate(name: str) -> Case:
    return Case(
        f"spec.entries.estimate.{name}",
        (6, 5),
        elsewhere=reads(f"action.estimate.{name} > 5"),
        beside={"spec.entries.estimate": {}},
    )


DELEGATION = {"kind": "Delegation"}

CASES: dict[str, list[Case]] = {
    "Agent": [
        Case("spec.role", ("Worker", "Planner"), elsewhere={POLICY: {"spec.rules.match.roles": ["Worker"]}}),
        Case("spec.owner", ("me", "you"), elsewhere=reads("agent.owner == 'me'")),
        Case("spec.riskTier", ("Low", LEFT_OUT), elsewhere=reads("agent.riskTier == 'Low'")),
        Case("spec.dataClasses", (["customer"], ["other"])),
        Case("spec.dataClasses", (LEFT_OUT, [])),
        Case(
            "spec.dataClasses",
            (["customer", "d"], ["customer"]),
            elsewhere=reads("'d' in agent.dataClasses"),
        ),
        Case(
            "spec.mayDelegateTo.roles",
            (["Worker"], ["Planner"]),
            ask=DELEGATION,
            elsewhere=TO_AGENT,
            beside={"spec.mayDelegateTo": {}},
        ),
        Case(
            "spec.mayDelegateTo.agents",
            (["worker"], ["other"]),
            ask=DELEGATION,
            elsewhere=TO_AGENT,
            beside={"spec.mayDelegateTo": {}},
        ),
        *mode(kind="Agent"),
    ],
    "AgentFleet": [
        *selector("spec.agents.namespaceSelector", "env", {"spec.defaultDecision": "Allow"}),
        *selector("spec.agents.agentSelector", "team", {"spec.defaultDecision": "Allow"}),
        Case("spec.defaultDecision", ("Allow", "RequireApproval"), ("Allow", "RequireApproval")),
        Case("spec.defaultDecision", ("Allow", "Deny")),
        Case(
            "spec.declaredFacts",
            ("Trusted", "RestrictOnly"),
            elsewhere={POLICY: {"spec.rules.match.labels": ["web"]}},
            ask={"labels": ["web"]},
        ),
        Case(
            "spec.delegation",
            ("Inherit", "Intersection"),
            elsewhere={POLICY: {"spec.subjects.agents": ["worker"]}},
            situation=HANDED_DOWN,
        ),
        *mode(kind="AgentFleet"),
    ],
    "ActionCatalog": [
        Case("spec.entries.names", (["x", "crm.*"], ["x", "crm"]), elsewhere=reads("'pii' in action.riskTags")),
        Case("spec.entries.riskTags", (["a", "b"], ["a"]), elsewhere={POLICY: {"spec.rules.match.riskTags": ["b"]}}),
        Case(
            "spec.entries.dataClasses",
            (["a", "b"], ["a"]),
            elsewhere={POLICY: {"spec.rules.match.dataClasses": ["b"]}},
        ),
        Case("spec.entries.target", ("t", LEFT_OUT), elsewhere={POLICY: {"spec.rules.match.targets": ["t"]}}),
        Case(
            "spec.entries.reversibility",
            ("Reversible", LEFT_OUT),
            elsewhere={POLICY: {"spec.rules.match.reversibility": ["Reversible"]}},
        ),
        Case(
            "spec.entries.resultLabels",
            (["web"], LEFT_OUT),
            (["Allow", "Allow", "Deny"], ["Allow", "Allow", "Allow"]),
            afterwards,
            elsewhere={
                POLICY: {**DENY, "spec.rules.phase": "After", WHEN: "'web' in outcome.labels"},
                "AgentFleet": {"spec.defaultDecision": "Allow"},
            },
        ),
        *map(estimate, ("inputTokens", "outputTokens", "costMicroUsd", "calls", "records")),
    ],
    "AgentPolicy": policy(),
    "ClusterAgentPolicy": [*policy(), *selector("spec.subjects.namespaceSelector", "env")],
}

LIMITS = "rate.count", "rate.perSeconds", "rate.burst", "concurrency", "scope"
PRICES = "models", *(f"{tokens}MicroUsdPerMillion" for tokens in ("input", "output", "cachedInput", "reasoning"))

READ_ELSEWHERE = {
    **{f"{kind}.spec.rules.throttle.{field}": "the ledger: tests/budget" for kind in POLICIES for field in LIMITS},
    **{f"ActionCatalog.spec.models.{field}": "prices: tests/budget/test_price.py" for field in PRICES},
    "Agent.spec.workload.selector.matchLabels": "which agents share a pod: tests/local and, in a cluster, injection",
    "Agent.spec.workload.selector.matchExpressions.key": "the same",
    "Agent.spec.workload.selector.matchExpressions.operator": "the same",
    "Agent.spec.workload.selector.matchExpressions.values": "the same",
    "Agent.spec.workload.serviceAccountName": "the same",
}
"""Fields no decision reads, and where they are read."""
