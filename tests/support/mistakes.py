"""Resources right and wrong: the examples of the reference, each changed at one place.

`BAD` are to be refused and `GOOD` to be taken, by the models and by the API server alike.
"""

import copy
from typing import Any

import yaml

from fleetward.resources.examples import EXAMPLES

Path = tuple[str | int, ...]
GONE = object()
"""In place of a value: the field is left out."""

BASES = {
    f"{kind}{'' if number == 0 else f' {number}'}": document
    for kind, text in EXAMPLES.items()
    for number, document in enumerate(yaml.safe_load_all(text))
}
"""What the cases change: each example by its kind, the second AuditSink (type JsonLines) as `AuditSink 1`."""

LONG = {length: "x" * length for length in (64, 128, 254, 256, 257, 318, 1025, 2100, 4097)}
RULE = {"name": "r", "match": {}, "decision": "Deny"}
PRICE = {"models": ["a"], "inputMicroUsdPerMillion": 0, "outputMicroUsdPerMillion": 10**12}
CLAMP = {"type": "Clamp", "field": "arguments.limit", "maximum": 1}
REDACT = {"type": "Redact", "field": "result.rows"}

BAD: list[tuple[str, str, Any]] = [
    *[(base, "metadata.name", "a.b") for base in BASES],
    *[(base, "spec", GONE) for base in BASES],
    ("Agent", "apiVersion", "fleetward.dev/v1"),
    ("Agent", "kind", "agent"),
    *[("Agent", "metadata.name", name) for name in ("Data-worker", "-a", "a\n", "", LONG[64])],
    ("Agent", "status", {"phase": "Ready"}),
    ("Agent", "spec", []),
    *[("Agent", "spec.role", role) for role in (GONE, None, "Boss", "worker", ["Worker"], 1)],
    ("Agent", "spec.rolle", "Worker"),
    ("Agent", "spec.workload", {}),
    ("Agent", "spec.workload.selector", GONE),
    ("Agent", "spec.workload.selector", "app=data-worker"),
    *[("Agent", "spec.workload.selector.matchLabels", {key: "x"}) for key in ("a b", "", "-a", "a/b/c", LONG[318])],
    *[("Agent", "spec.workload.selector.matchLabels", {"app": value}) for value in ("a b", "-", LONG[64], 1, True)],
    ("Agent", "spec.workload.selector.matchLabels", {f"l{n}": "x" for n in range(65)}),
    *[("Agent", "spec.workload.serviceAccountName", name) for name in ("", "A", LONG[64])],
    ("Agent", "spec.owner", LONG[254]),
    ("Agent", "spec.riskTier", "Extreme"),
    *[("Agent", "spec.dataClasses", each) for each in (["x"] * 65, ["a b"], [""], [LONG[64]], "customer", [1], [None])],
    *[("Agent", "spec.mayDelegateTo.roles", each) for each in (["Worker"] * 4, ["Boss"])],
    *[("Agent", "spec.mayDelegateTo.agents", each) for each in (["a/b/c"], ["/a"], ["a"] * 257, [LONG[128]])],
    ("Agent", "spec.operatingMode", "paused"),
    ("Agent", "spec.operatingReason", LONG[1025]),
    ("AgentFleet", "spec.agents", GONE),
    *[
        ("AgentFleet", "spec.agents.agentSelector.matchExpressions", expressions)
        for expressions in (
            [{"key": "a", "operator": "In"}],
            [{"key": "a", "operator": "NotIn", "values": []}],
            [{"key": "a", "operator": "Exists", "values": ["b"]}],
            [{"key": "a", "operator": "DoesNotExist", "values": ["b"]}],
            [{"key": "a", "operator": "Is", "values": ["b"]}],
            [{"key": "a"}],
            [{"operator": "Exists"}],
            [{"key": "", "operator": "Exists"}],
            [{"key": "a b", "operator": "Exists"}],
            [{"key": "a", "operator": "Exists", "not": True}],
            [{"key": "a", "operator": "In", "values": ["b"] * 65}],
            [{"key": "a", "operator": "In", "values": ["b c"]}],
            [{"key": "a", "operator": "Exists"}] * 33,
        )
    ],
    ("AgentFleet", "spec.defaultDecision", "Constrain"),
    ("AgentFleet", "spec.declaredFacts", "Believed"),
    ("AgentFleet", "spec.operatingMode", "Halted"),
    ("AgentFleet", "spec.operatingReason", LONG[1025]),
    ("ActionCatalog", "spec.entries", []),
    ("ActionCatalog", "spec.entries", GONE),
    ("ActionCatalog", "spec.entries", [{"names": ["a"]}] * 513),
    ("ActionCatalog", "spec.entries.0.names", GONE),
    *[("ActionCatalog", "spec.entries.0.names", names) for names in ([], ["a"] * 65)],
    *[("ActionCatalog", "spec.entries.0.names", [name]) for name in ("", "a b", "a..b", ".a", "a.", "ä", LONG[257])],
    ("ActionCatalog", "spec.entries.0.riskTags", ["pii", "a b"]),
    ("ActionCatalog", "spec.entries.0.riskTags", ["a"] * 65),
    ("ActionCatalog", "spec.entries.0.dataClasses", ["-"]),
    ("ActionCatalog", "spec.entries.0.dataClasses", ["a"] * 65),
    *[("ActionCatalog", "spec.entries.0.target", target) for target in ("", "-x", "a b", LONG[254])],
    *[("ActionCatalog", "spec.entries.0.estimate.records", count) for count in (-1, 2**53, 2**64, 1.5, "1", True)],
    *[
        ("ActionCatalog", f"spec.entries.2.estimate.{field}", count)
        for field in ("inputTokens", "outputTokens", "costMicroUsd", "calls")
        for count in (-1, 2**53)
    ],
    ("ActionCatalog", "spec.entries.0.estimate.tokens", 1),
    ("ActionCatalog", "spec.entries.0.reversibility", "Undoable"),
    ("ActionCatalog 1", "spec", {}),
    ("ActionCatalog 1", "spec.models", []),
    ("ActionCatalog 1", "spec.models", [PRICE] * 257),
    *[("ActionCatalog 1", "spec.models.0.models", models) for models in (GONE, [], ["a"] * 65, ["a b"], [""], ["ä"])],
    *[
        ("ActionCatalog 1", f"spec.models.0.{field}", price)
        for field in PRICE
        if field != "models"
        for price in (GONE, -1, 10**12 + 1, 0.5, "3 USD")
    ],
    ("ActionCatalog 1", "spec.models.0.inputUsdPerMillion", 3),
    *[("ActionCatalog 1", f"spec.models.0.{f}MicroUsdPerMillion", -1) for f in ("cachedInput", "reasoning")],
    ("AgentPolicy", "spec.enforcement", "Off"),
    ("AgentPolicy", "spec.subjects.roles", ["worker"]),
    ("AgentPolicy", "spec.subjects.agents", ["Planner"]),
    ("AgentPolicy", "spec.subjects.agents", ["a"] * 257),
    ("AgentPolicy", "spec.subjects.agentSelector.matchExpressions", [{"key": "a", "operator": "In"}]),
    ("AgentPolicy", "spec.subjects.namespaceSelector", {}),
    ("AgentPolicy", "spec.rules", []),
    ("AgentPolicy", "spec.rules", GONE),
    ("AgentPolicy", "spec.rules", [RULE, RULE]),
    ("AgentPolicy", "spec.rules", [RULE | {"name": f"r{n}"} for n in range(257)]),
    *[("AgentPolicy", "spec.rules.0.name", name) for name in (GONE, "", "Rule", "a b", LONG[64])],
    ("AgentPolicy", "spec.rules.0.phase", "Later"),
    ("AgentPolicy", "spec.rules.0.match", GONE),
    ("AgentPolicy", "spec.rules.0.match", []),
    ("AgentPolicy", "spec.rules.0.match.topics", ["a"]),
    *[
        ("AgentPolicy", f"spec.rules.0.match.{field}", value)
        for field, right, wrong, most in (
            ("kinds", "Plan", "Call", 64),
            ("names", "a", "a b", 64),
            ("riskTags", "a", "a b", 64),
            ("dataClasses", "a", "", 64),
            ("targets", "a", "a b", 64),
            ("labels", "a", "-", 64),
            ("reversibility", "Reversible", "Maybe", 2),
            ("agents", "a", "A", 64),
            ("roles", "Worker", "Boss", 3),
            ("fleets", "a", "a/b", 64),
        )
        for value in ([], [wrong], [None], [right] * (most + 1))
    ],
    ("AgentPolicy", "spec.rules.0.exclude", {}),
    ("AgentPolicy", "spec.rules.0.exclude", {"kinds": None}),
    ("AgentPolicy", "spec.rules.0.exclude", {"topics": ["a"]}),
    ("AgentPolicy", "spec.rules.0.exclude.targets", []),
    *[("AgentPolicy", "spec.rules.0.when", when) for when in ("", LONG[4097], True)],
    *[("AgentPolicy", "spec.rules.0.decision", decision) for decision in (GONE, "Maybe", "Constrain")],
    ("AgentPolicy", "spec.rules.0.obligations", [CLAMP]),
    *[("AgentPolicy", "spec.rules.0.audit", audit) for audit in ("None", False)],
    ("AgentPolicy", "spec.rules.0.message", LONG[1025]),
    ("AgentPolicy", "spec.rules.0.retryAfterSeconds", 30),
    *[("ActionCatalog", "spec.entries.3.resultLabels", each) for each in (["a b"], "web", ["x"] * 65)],
    *[("AgentPolicy", "spec.inheritance", each) for each in ("None", True)],
    *[("AgentPolicy", "spec.rules.0.match.minDepth", each) for each in (-1, 33, "1")],
    *[("AgentPolicy", "spec.rules.0.match.maxDepth", each) for each in (-1, 33)],
    *[("AgentPolicy", "spec.rules.0.match.path", each) for each in ([], ["a/b/c"], "desk")],
    ("AgentPolicy", "spec.rules.0.cleanses", ["web"]),
    *[("AgentPolicy", "spec.rules.5.cleanses", each) for each in (["not a label"], "web")],
    ("AgentPolicy", "spec.rules.5.phase", "After"),
    *[("AgentFleet", "spec.delegation", each) for each in ("Union", True)],
    *[("AgentPolicy", "spec.rules.1.obligations", each) for each in (GONE, [], [CLAMP] * 33, ["Clamp"])],
    ("AgentPolicy", "spec.rules.1.phase", "During"),
    ("AgentPolicy", "spec.rules.1.phase", "After"),
    ("AgentPolicy", "spec.rules.1.decision", "Deny"),
    *[("AgentPolicy", "spec.rules.1.obligations.0.type", each) for each in (GONE, "Mask", "Redact")],
    *[
        ("AgentPolicy", "spec.rules.1.obligations.0.field", field)
        for field in (GONE, "arguments", "arguments.", "arguments.a.", "body.a", "a.arguments", "result.a", LONG[257])
    ],
    *[("AgentPolicy", "spec.rules.1.obligations.0.maximum", each) for each in (GONE, -1, 2**53, 0.5, "1")],
    ("AgentPolicy", "spec.rules.2.obligations", [REDACT, {"type": "Redact", "field": "arguments.a"}]),
    ("AgentPolicy", "spec.rules.2.obligations.0.maximum", 1),
    *[("AgentPolicy", "spec.rules.3.retryAfterSeconds", each) for each in (0, 86401, "60")],
    ("AgentPolicy", "spec.rules.3.decision", "Deny"),
    ("AgentPolicy", "spec.rules.0.throttle", {"concurrency": 1}),
    ("AgentPolicy", "spec.rules.3.throttle", {"concurrency": 1}),
    *[("AgentPolicy", "spec.rules.4.throttle", each) for each in ({}, {"scope": "Run"}, {"speed": 1})],
    ("AgentPolicy", "spec.rules.4.throttle", []),
    ("AgentPolicy", "spec.rules.4.phase", "After"),
    ("AgentPolicy", "spec.rules.4.phase", "During"),
    ("AgentPolicy", "spec.rules.4.retryAfterSeconds", 30),
    ("AgentPolicy", "spec.rules.4.throttle.scope", "Fleet"),
    *[("AgentPolicy", "spec.rules.4.throttle.concurrency", each) for each in (0, -1, 10**6 + 1, "2")],
    *[("AgentPolicy", "spec.rules.4.throttle.rate.count", each) for each in (GONE, 0, 10**6 + 1, "10/min")],
    *[("AgentPolicy", "spec.rules.4.throttle.rate.perSeconds", each) for each in (GONE, 0, 86401, "60s")],
    *[("AgentPolicy", "spec.rules.4.throttle.rate.burst", each) for each in (0, 10**6 + 1)],
    ("ClusterAgentPolicy", "metadata.name", "No-bulk"),
    ("ClusterAgentPolicy", "spec.enforcement", "Dry"),
    ("ClusterAgentPolicy", "spec.subjects.namespaceSelector.matchLabels", {"a b": "x"}),
    ("ClusterAgentPolicy", "spec.subjects.namespaceSelector.matchExpressions", [{"key": "a", "operator": "In"}]),
    ("ClusterAgentPolicy", "spec.subjects.roles", ["Worker"] * 4),
    ("ClusterAgentPolicy", "spec.rules", [RULE, RULE]),
    ("ClusterAgentPolicy", "spec.rules.0.obligations", [CLAMP]),
    *[("AgentBudget", "spec.subjects.fleets", each) for each in (["a/b"], ["a"] * 65, "reporting")],
    ("AgentBudget", "spec.subjects.roles", ["worker"]),
    ("AgentBudget", "spec.subjects.agents", ["Planner"]),
    ("AgentBudget", "spec.subjects.agentSelector.matchExpressions", [{"key": "a", "operator": "In"}]),
    ("AgentBudget", "spec.subjects.namespaceSelector", {}),
    ("AgentBudget", "spec.scope", "Fleet"),
    *[
        ("AgentBudget", "spec.window", window)
        for window in (
            {},
            {"kind": "Daily"},
            {"kind": "Calendar"},
            {"kind": "Calendar", "unit": "Year"},
            {"kind": "Calendar", "unit": "Day", "duration": "24h"},
            {"kind": "Rolling"},
            {"kind": "Rolling", "duration": "24h", "unit": "Day"},
            {"kind": "Rolling", "duration": "24h", "timeZone": "UTC"},
            {"kind": "Rolling", "duration": 86400},
            {"kind": "Total", "unit": "Day"},
            {"kind": "Total", "timeZone": "UTC"},
            {"kind": "Total", "duration": "24h"},
        )
    ],
    *[("AgentBudget", "spec.window.timeZone", zone) for zone in ("", "/etc", "Europe/", "../UTC", "a b", LONG[128])],
    *[
        ("AgentBudget 1", "spec.window.duration", duration)
        for duration in (
            "",
            "24",
            "h",
            "-1h",
            "1.5h",
            "1d",
            "1 h",
            "30m1h",
            "59s",
            "8784h1s",
            "99999h",
            "1h" + LONG[64],
        )
    ],
    ("AgentBudget", "spec.limits", GONE),
    ("AgentBudget 1", "spec.limits", {}),
    ("AgentBudget 1", "spec.limits", {"calls": []}),
    *[("AgentBudget 1", "spec.limits", limits) for limits in ({"tokens": 1}, {"records": None})],
    *[
        ("AgentBudget", f"spec.limits.{field}", amount)
        for field in ("inputTokens", "outputTokens", "costMicroUsd", "records", "wallSeconds")
        for amount in (0, -1, 2**53, 2**64, 0.5, "5 EUR")
    ],
    *[
        ("AgentBudget", "spec.limits.calls", calls)
        for calls in (
            [{"names": ["a"]}],
            [{"max": 1}],
            [{"names": [], "max": 1}],
            [{"names": ["a b"], "max": 1}],
            [{"names": ["a"] * 17, "max": 1}],
            [{"names": ["a"], "max": 0}],
            [{"names": ["a"], "max": 2**53}],
            [{"names": ["a"], "max": 1}, {"names": ["a"], "max": 2}],
            [{"names": [f"a{n}"], "max": 1} for n in range(17)],
        )
    ],
    *[
        ("AgentBudget", "spec.thresholds", thresholds)
        for thresholds in (
            [{"percent": 80}],
            [{"action": "Event"}],
            [{"percent": 0, "action": "Event"}],
            [{"percent": 101, "action": "Event"}],
            [{"percent": "80%", "action": "Event"}],
            [{"percent": 80, "action": "Deny"}],
            [{"percent": 80, "action": "Pause", "perMinute": 1}],
            [{"percent": 80, "action": "Throttle", "perMinute": 0}],
            [{"percent": 80, "action": "Throttle", "perMinute": 100_001}],
            [{"percent": 80, "action": "Event"}] * 2,
            [{"percent": 80 + n, "action": "Event"} for n in range(17)],
        )
    ],
    *[
        ("AgentBudget", "spec.parent", parent)
        for parent in (
            {"name": "organisation"},
            {"kind": "AgentBudget"},
            {"kind": "AgentFleet", "name": "reporting"},
            {"kind": "AgentBudget", "name": "Day"},
            {"kind": "AgentBudget", "name": "reporting-day"},
            "organisation",
        )
    ],
    *[("AgentBudget", "spec.defaultEstimate", each) for each in (GONE, {}, {"tokens": 1})],
    *[("AgentBudget", "spec.defaultEstimate.wallSeconds", each) for each in (GONE, -1, 2**53, "30s")],
    ("AgentBudget", "spec.defaultEstimate.costMicroUsd", -1),
    ("AgentBudget", "spec.unpricedModels", "Allow"),
    *[("AgentBudget", "spec.settleAfterSeconds", each) for each in (59, 86401, "1h")],
    ("ClusterAgentBudget", "spec.subjects.namespaceSelector.matchLabels", {"a b": "x"}),
    ("ClusterAgentBudget", "spec.parent", {"kind": "AgentBudget", "name": "reporting-day"}),
    ("ClusterAgentBudget", "spec.parent.name", "organisation"),
    ("ClusterAgentBudget", "spec.limits", {}),
    ("AuditSink", "spec.type", GONE),
    ("AuditSink", "spec.type", "Syslog"),
    ("AuditSink", "spec.type", "JsonLines"),
    ("AuditSink", "spec.cloudEvents", GONE),
    ("AuditSink", "spec.cloudEvents", {}),
    ("AuditSink 1", "spec.jsonLines", {}),
    ("AuditSink", "spec.jsonLines", {"path": "a"}),
    *[
        ("AuditSink", "spec.cloudEvents.url", url)
        for url in (
            "",
            "http://",
            "ftp://host/",
            "https://a b",
            "https://a\u00a0b",
            "https://ä",
            "https://" + LONG[2100],
        )
    ],
    *[("AuditSink", "spec.cloudEvents.timeoutSeconds", seconds) for seconds in (0, 301, 1.5, "10")],
    *[("AuditSink", "spec.records", records) for records in ([], ["All"], ["Decision"] * 7)],
    ("AuditSink 1", "spec.type", "CloudEvents"),
    ("AuditSink 1", "spec.jsonLines", GONE),
    ("AuditSink 1", "spec.cloudEvents", {"url": "https://host/"}),
    *[("AuditSink 1", "spec.jsonLines.path", path) for path in ("", "/a", "../a", "a/../b", "a//b", "a/", LONG[256])],
]

GOOD: list[tuple[str, str, Any]] = [
    *[(base, "metadata.labels", {"a": "b"}) for base in BASES],
    ("Agent", "metadata.name", "x" * 63),
    ("Agent", "metadata.labels", {f"example.com/l{n}": "" for n in range(70)}),
    ("Agent", "metadata.annotations", {"a": "ä\n"}),
    ("Agent", "spec", {"role": "Worker"}),
    ("Agent", "spec.workload", GONE),
    ("Agent", "spec.workload", None),
    ("Agent", "spec.workload", {"selector": {}}),
    ("Agent", "spec.workload.selector.matchLabels", {"example.com/a_b.C": ""}),
    ("Agent", "spec.owner", "ä" * 253),
    ("Agent", "spec.dataClasses", []),
    ("Agent", "spec.dataClasses", ["a"] * 64),
    ("Agent", "spec.mayDelegateTo", {}),
    ("Agent", "spec.operatingReason", "first line\nsecond line " + "x" * 1000),
    ("AgentFleet", "spec", {"agents": {}}),
    ("AgentFleet", "spec.agents.agentSelector.matchExpressions", [{"key": "a", "operator": "Exists"}] * 32),
    (
        "AgentFleet",
        "spec.agents.agentSelector.matchExpressions",
        [{"key": "a", "operator": "DoesNotExist", "values": []}, {"key": "a", "operator": "NotIn", "values": [""]}],
    ),
    ("ActionCatalog", "spec.entries.0", {"names": ["**", "a.*.b-*", "x" * 256]}),
    *[("ActionCatalog", "spec.entries.0.estimate.records", count) for count in (0, 2**53 - 1)],
    ("ActionCatalog", "spec.entries.0.estimate", {}),
    ("ActionCatalog 1", "spec.entries", [{"names": ["a"]}]),
    ("ActionCatalog 1", "spec.models.0", PRICE),
    ("ActionCatalog 1", "spec.models.0.models", ["*", "vendor/large-2.5:thinking@eu", "x" * 253]),
    ("AgentPolicy", "spec", {"rules": [RULE]}),
    ("AgentPolicy", "spec.rules", [RULE | {"name": f"r{n}"} for n in range(256)]),
    ("AgentPolicy", "spec.rules.0.exclude", None),
    ("AgentPolicy", "spec.rules.0.match", {"kinds": None}),
    ("AgentPolicy", "spec.rules.0.obligations", []),
    ("AgentPolicy", "spec.rules.0.when", "x" * 4096),
    ("AgentPolicy", "spec.rules.0.phase", "During"),
    ("AgentPolicy", "spec.rules.1.obligations", [CLAMP, {"type": "Redact", "field": "arguments.a.*"}, REDACT]),
    ("AgentPolicy", "spec.rules.2.obligations", [REDACT] * 32),
    *[("AgentPolicy", "spec.rules.3.retryAfterSeconds", each) for each in (GONE, 1, 86400)],
    *[("AgentPolicy", "spec.rules.4.throttle.rate", each) for each in (GONE, {"count": 1, "perSeconds": 86400})],
    *[("AgentPolicy", "spec.rules.4.throttle.concurrency", each) for each in (GONE, 10**6)],
    ("AgentPolicy", "spec.rules.4.phase", "Before"),
    ("ClusterAgentPolicy", "spec.subjects", {"agents": ["a/b", "c"]}),
    ("AgentBudget", "spec", {"limits": {"records": 1}}),
    ("AgentBudget", "spec.scope", GONE),
    ("AgentBudget", "spec.limits", {"calls": [{"names": ["a", "b"], "max": 1}, {"names": ["b", "a"], "max": 1}]}),
    ("AgentBudget", "spec.limits.costMicroUsd", 2**53 - 1),
    *[
        ("AgentBudget", "spec.window", window)
        for window in (
            GONE,
            {"kind": "Total"},
            {"kind": "Calendar", "unit": "Month"},
            {"kind": "Calendar", "unit": "Hour", "timeZone": "America/Argentina/Buenos_Aires"},
            {"kind": "Calendar", "unit": "Week", "timeZone": "Etc/GMT+5"},
        )
    ],
    *[
        ("AgentBudget 1", "spec.window.duration", each)
        for each in ("60s", "1m", "8784h", "1h30m10s", "90m", "31622400s")
    ],
    *[("AgentBudget", "spec.thresholds", each) for each in (GONE, [], [{"percent": 1, "action": "RequireApproval"}])],
    ("AgentBudget", "spec.thresholds", [{"percent": 100, "action": each} for each in ("Event", "Pause", "Throttle")]),
    *[("AgentBudget", "spec.parent", each) for each in (GONE, {"kind": "AgentBudget", "name": "reporting-month"})],
    ("AgentBudget", "spec.parent", {"kind": "ClusterAgentBudget", "name": "reporting-day"}),
    ("AgentBudget 1", "spec.defaultEstimate", {}),
    *[("AgentBudget", "spec.settleAfterSeconds", each) for each in (GONE, 60, 86400)],
    ("ClusterAgentBudget", "spec", {"limits": {"costMicroUsd": 1}}),
    *[("AuditSink", "spec.records", each) for each in (["Budget"], ["Decision"] * 6)],
    ("AuditSink", "spec.records", GONE),
    ("AuditSink", "spec.cloudEvents", {"url": "http://[::1]:8080/?a=b#c"}),
    ("AuditSink 1", "spec.jsonLines.path", "a/b_c/d-e.jsonl"),
]


def changed(base: str, path: str, value: Any) -> dict[str, Any]:
    """The base with the value at the path."""
    whole: dict[str, Any] = copy.deepcopy(BASES[base])
    *way, last = steps(path)
    at: Any = whole
    for step in way:
        at = at[step]
    if value is GONE:
        del at[last]
    else:
        at[last] = copy.deepcopy(value)
    return whole


def steps(path: str) -> Path:
    return tuple(int(step) if step.isdigit() else step for step in path.split("."))


def case_name(case: tuple[str, str, Any]) -> str:
    base, path, value = case
    said = "gone" if value is GONE else repr(value)
    return f"{base}-{path}-{said if len(said) <= 50 else said[:47] + '...'}".encode("unicode_escape").decode()
