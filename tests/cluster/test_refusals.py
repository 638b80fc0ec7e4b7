"""What the real API server says to a bad resource: which field, what was found there, what is allowed."""

import json
import urllib.error
from typing import Any, NamedTuple

import pytest
import yaml
from support.controlplane.plane import ControlPlane
from support.mistakes import BAD, GONE, GOOD, case_name, changed, steps

from fleetward.resources import KINDS
from fleetward.resources.crd import definition
from fleetward.resources.structural import VALIDATIONS

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

NAMESPACE = "default"


class Mistake(NamedTuple):
    """An example with one mistake, and what the API server says: the field as it names it, and these words."""

    base: str
    path: str
    value: Any
    found: str
    allowed: str
    field: str = ""
    """Where it is not the field changed."""


MODES = '"Running", "Paused", "Stopped", "Quarantined"'
ROLES = '"Coordinator", "Planner", "Worker"'
NAME = "lower-case letters, digits and '-', beginning and ending with a letter or digit"
TAG = "letters, digits and '._:/-', beginning and ending with a letter or digit"
LABEL_KEY = "a label key: letters, digits and '_.-', beginning and ending with a letter or digit"
LABEL_VALUE = "a label value: letters, digits and '_.-'"
GLOB = r"should match '^(\*\*|[A-Za-z0-9_:/@+*-]+)(\.(\*\*|[A-Za-z0-9_:/@+*-]+))*$'"
TARGET = r"should match '^[A-Za-z0-9]([A-Za-z0-9._:/@-]*[A-Za-z0-9])?$'"
MISSING = "Required value"
"""All there is to say of a field that is not there: what it should hold, `kubectl explain` says."""
UNKNOWN = "unknown field"
LIMIT = "less than or equal to 9007199254740991"
RULE = {"name": "r", "match": {}, "decision": "Deny"}
CLAMP = {"type": "Clamp", "field": "arguments.limit", "maximum": 1}

SELECTOR = "spec.workload.selector"
REQUIREMENT = "spec.agents.agentSelector.matchExpressions"
ENTRY = "spec.entries.0"
FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH = (f"spec.rules.{number}" for number in range(6))
PRICE = "spec.models.0"
GLOBS = "spec.limits.calls[0].names[0]"
DURATION = "a duration in h, m and s, in this order and with their units, such as 24h, 90m or 1h30m"

MISTAKES = [
    # Fields missing and unknown
    Mistake("Agent", "spec", GONE, MISSING, ""),
    Mistake("Agent", "spec.role", GONE, MISSING, ""),
    Mistake("Agent", "spec.role", None, MISSING, ""),
    Mistake("Agent", SELECTOR, GONE, MISSING, ""),
    Mistake("AgentFleet", "spec.agents", GONE, MISSING, ""),
    Mistake("ActionCatalog", f"{ENTRY}.names", GONE, MISSING, ""),
    Mistake("AgentPolicy", "spec.rules", GONE, MISSING, ""),
    Mistake("AgentPolicy", f"{FIRST}.match", GONE, MISSING, ""),
    Mistake("AgentPolicy", f"{SECOND}.obligations.0.field", GONE, MISSING, ""),
    Mistake("AuditSink", "spec.type", GONE, MISSING, ""),
    Mistake("AgentBudget", "spec.limits", GONE, MISSING, ""),
    Mistake("AgentBudget", "spec.window", {}, MISSING, "", "spec.window.kind"),
    Mistake("AgentBudget", "spec.limits.calls.0.max", GONE, MISSING, ""),
    Mistake("AgentBudget", "spec.limits.tokens", 5, UNKNOWN, ""),
    Mistake("AgentPolicy", f"{FIFTH}.throttle.rate.perSeconds", GONE, MISSING, ""),
    Mistake("ActionCatalog 1", f"{PRICE}.outputMicroUsdPerMillion", GONE, MISSING, ""),
    Mistake("AuditSink", "spec.cloudEvents", {}, MISSING, "", "spec.cloudEvents.url"),
    Mistake("Agent", "spec.rolle", "Worker", UNKNOWN, ""),
    Mistake("Agent", "spec.workload.pods", 1, UNKNOWN, ""),
    Mistake("Agent", "status", {"phase": "Ready"}, UNKNOWN, "", "status.phase"),
    Mistake("ActionCatalog", f"{ENTRY}.estimate.tokens", 1, UNKNOWN, ""),
    Mistake("AgentPolicy", f"{FIRST}.match.topics", ["a"], UNKNOWN, ""),
    Mistake("AgentPolicy", "spec.subjects.namespaceSelector", {}, UNKNOWN, ""),
    # Types
    Mistake("Agent", "spec", [], '"array"', "must be of type object"),
    Mistake("Agent", "spec.role", 1, '"integer"', "must be of type string"),
    Mistake("Agent", SELECTOR, "app=data-worker", '"string"', "must be of type object"),
    Mistake("Agent", "spec.dataClasses", "customer", '"string"', "must be of type array"),
    Mistake("Agent", "spec.dataClasses", [1], '"integer"', "must be of type string", "spec.dataClasses[0]"),
    Mistake("ActionCatalog", f"{ENTRY}.estimate.records", "1", '"string"', "must be of type integer"),
    Mistake("AgentPolicy", f"{FIRST}.when", True, '"boolean"', "must be of type string"),
    Mistake("AuditSink", "spec.cloudEvents.timeoutSeconds", "10", '"string"', "must be of type integer"),
    Mistake("AgentBudget", "spec.limits.costMicroUsd", "5 EUR", '"string"', "must be of type integer"),
    Mistake("AgentBudget 1", "spec.window.duration", 86400, '"integer"', "must be of type string"),
    # Choices
    Mistake("Agent", "spec.role", "worker", '"worker"', ROLES),
    Mistake("Agent", "spec.riskTier", "Extreme", '"Extreme"', '"Low", "Medium", "High", "Critical"'),
    Mistake("Agent", "spec.operatingMode", "paused", '"paused"', MODES),
    Mistake("Agent", "spec.mayDelegateTo.roles", ["Boss"], '"Boss"', ROLES, "spec.mayDelegateTo.roles[0]"),
    Mistake("AgentFleet", "spec.operatingMode", "Halted", '"Halted"', MODES),
    Mistake("AgentFleet", "spec.defaultDecision", "Constrain", '"Constrain"', '"Allow", "RequireApproval", "Deny"'),
    Mistake("AgentFleet", "spec.declaredFacts", "Believed", '"Believed"', '"RestrictOnly", "Trusted"'),
    Mistake("ActionCatalog", f"{ENTRY}.reversibility", "No", '"No"', '"Reversible", "Irreversible"'),
    Mistake("AgentFleet", "spec.delegation", "Union", '"Union"', '"Inherit", "Intersection"'),
    Mistake("AgentPolicy", "spec.enforcement", "Off", '"Off"', '"Enforce", "Audit"'),
    Mistake("AgentPolicy", "spec.inheritance", "None", '"None"', '"Chain", "Self"'),
    Mistake("AgentPolicy", f"{FIRST}.phase", "Later", '"Later"', '"Before", "During", "After"'),
    Mistake("AgentPolicy", f"{FIRST}.decision", "Maybe", '"Maybe"', '"Throttle", "RequireApproval", "Deny"'),
    Mistake("AgentPolicy", f"{FIRST}.audit", "None", '"None"', '"Grouped", "Durable"'),
    Mistake(
        "AgentPolicy", f"{FIRST}.match.kinds", ["Call"], '"Call"', '"ToolCall", "ModelCall"', f"{FIRST}.match.kinds.0"
    ),
    Mistake("AgentPolicy", f"{SECOND}.obligations.0.type", "Mask", '"Mask"', '"Clamp", "Redact"'),
    Mistake("ClusterAgentPolicy", "spec.enforcement", "Dry", '"Dry"', '"Enforce", "Audit"'),
    Mistake("AgentBudget", "spec.scope", "Fleet", '"Fleet"', '"Shared", "Agent", "Run", "Subtree"'),
    Mistake("AgentBudget", "spec.window.kind", "Daily", '"Daily"', '"Calendar", "Rolling", "Total"'),
    Mistake("AgentBudget", "spec.window.unit", "Year", '"Year"', '"Hour", "Day", "Week", "Month"'),
    Mistake("AgentBudget", "spec.thresholds.0.action", "Deny", '"Deny"', '"Throttle", "RequireApproval", "Pause"'),
    Mistake("AgentBudget", "spec.unpricedModels", "Allow", '"Allow"', '"Deny", "UseEstimate"'),
    Mistake("ClusterAgentBudget", "spec.parent.kind", "AgentBudget", '"AgentBudget"', '"ClusterAgentBudget"'),
    Mistake("AgentPolicy", f"{FIFTH}.throttle.scope", "Fleet", '"Fleet"', '"Agent", "Run", "Shared"'),
    Mistake("AuditSink", "spec.type", "Syslog", '"Syslog"', '"JsonLines", "CloudEvents"'),
    Mistake("AuditSink", "spec.records", ["All"], '"All"', '"Decision", "Outcome"', "spec.records[0]"),
    # Texts
    Mistake("Agent", "metadata.name", "a.b", 'found "a.b"', NAME),
    Mistake("Agent", "metadata.name", "Data-worker", 'found "Data-worker"', NAME),
    Mistake("ClusterAgentPolicy", "metadata.name", "no_bulk", 'found "no_bulk"', NAME),
    Mistake("AgentFleet", "metadata.name", "x" * 64, "Too long", "not be more than 63"),
    Mistake("Agent", "spec.workload.serviceAccountName", "Robot", '"Robot"', NAME),
    Mistake("Agent", "spec.workload.serviceAccountName", "x" * 64, "Too long", "not be more than 63"),
    Mistake("Agent", "spec.owner", "x" * 254, "Too long", "not be more than 253"),
    Mistake("Agent", "spec.operatingReason", "x" * 1025, "Too long", "not be more than 1024"),
    Mistake("Agent", "spec.dataClasses", ["a b"], '"a b"', TAG, "spec.dataClasses[0]"),
    Mistake("Agent", "spec.dataClasses", [""], '""', "at least 1 chars", "spec.dataClasses[0]"),
    Mistake(
        "Agent",
        "spec.mayDelegateTo.agents",
        ["a/b/c"],
        '"a/b/c"',
        "as name or namespace/name",
        "spec.mayDelegateTo.agents[0]",
    ),
    Mistake("Agent", f"{SELECTOR}.matchLabels", {"a b": "x"}, 'found "a b"', LABEL_KEY),
    Mistake("Agent", f"{SELECTOR}.matchLabels", {"app": "a b"}, '"a b"', LABEL_VALUE, f"{SELECTOR}.matchLabels[app]"),
    Mistake("ActionCatalog", f"{ENTRY}.names", ["a..b"], '"a..b"', GLOB, f"{ENTRY}.names.0"),
    Mistake("ActionCatalog", f"{ENTRY}.target", "-x", '"-x"', "letters, digits and '._:/@-', beginning"),
    Mistake("AgentPolicy", f"{FIRST}.name", "Rule", '"Rule"', NAME),
    Mistake("AgentPolicy", f"{FIRST}.when", "", '""', "at least 1 chars"),
    Mistake("AgentPolicy", f"{FIRST}.when", "x" * 4097, "Too long", "not be more than 4096"),
    Mistake("AgentPolicy", f"{FIRST}.match.names", ["crm. read"], '"crm. read"', GLOB, f"{FIRST}.match.names.0"),
    Mistake("AgentPolicy", f"{FIRST}.match.targets", ["a b"], '"a b"', TARGET, f"{FIRST}.match.targets.0"),
    Mistake("AgentPolicy", f"{FIRST}.match.riskTags", ["a b"], '"a b"', TAG, f"{FIRST}.match.riskTags.0"),
    Mistake("AgentPolicy", f"{FIRST}.match.fleets", ["a/b"], '"a/b"', NAME, f"{FIRST}.match.fleets.0"),
    Mistake("AgentPolicy", f"{SECOND}.obligations.0.field", "limit", '"limit"', "begins with arguments. or result."),
    Mistake("AuditSink", "spec.cloudEvents.url", "ftp://host/", '"ftp://host/"', "begins with http:// or https://"),
    Mistake("AuditSink 1", "spec.jsonLines.path", "../a", '"../a"', "a relative file path"),
    Mistake(
        "ActionCatalog 1",
        f"{PRICE}.models",
        ["a b"],
        '"a b"',
        "should match '^[A-Za-z0-9._:/@*-]+$'",
        f"{PRICE}.models.0",
    ),
    Mistake("AgentBudget", "spec.limits.calls.0.names", ["a..b"], '"a..b"', "a glob of dotted segments", GLOBS),
    Mistake("AgentBudget 1", "spec.window.duration", "24", '"24"', DURATION),
    Mistake("AgentBudget 1", "spec.window.duration", "1d", '"1d"', DURATION),
    Mistake("AgentBudget", "spec.window.timeZone", "../UTC", '"../UTC"', "a time zone of the IANA database"),
    # Numbers
    Mistake("AgentBudget", "spec.limits.records", 0, "0", "greater than or equal to 1"),
    Mistake("AgentBudget", "spec.limits.inputTokens", -5, "-5", "greater than or equal to 1"),
    Mistake("AgentBudget", "spec.limits.costMicroUsd", 2**53, str(2**53), LIMIT),
    Mistake("AgentBudget", "spec.thresholds.0.percent", 101, "101", "less than or equal to 100"),
    Mistake("AgentBudget", "spec.settleAfterSeconds", 59, "59", "greater than or equal to 60"),
    Mistake("AgentPolicy", f"{FIFTH}.throttle.rate.count", 0, "0", "greater than or equal to 1"),
    Mistake("ActionCatalog 1", f"{PRICE}.inputMicroUsdPerMillion", -1, "-1", "greater than or equal to 0"),
    Mistake("ActionCatalog", f"{ENTRY}.estimate.records", -1, "-1", "greater than or equal to 0"),
    Mistake("ActionCatalog", f"{ENTRY}.estimate.records", 2**53, str(2**53), LIMIT),
    Mistake("AgentPolicy", f"{FOURTH}.retryAfterSeconds", 0, "0", "greater than or equal to 1"),
    Mistake("AgentPolicy", f"{FOURTH}.retryAfterSeconds", 86401, "86401", "less than or equal to 86400"),
    Mistake("AgentPolicy", f"{SECOND}.obligations.0.maximum", -1, "-1", "greater than or equal to 0"),
    Mistake("AuditSink", "spec.cloudEvents.timeoutSeconds", 301, "301", "less than or equal to 300"),
    # Lists
    Mistake("Agent", "spec.dataClasses", ["x"] * 65, "65", "at most 64"),
    Mistake("Agent", "spec.mayDelegateTo.roles", ["Worker"] * 4, "4", "at most 3"),
    Mistake("Agent", f"{SELECTOR}.matchLabels", {f"l{n}": "x" for n in range(65)}, "65", "at most 64"),
    Mistake("ActionCatalog", "spec.entries", [], "entries are missing", "at least one of entries and models"),
    Mistake("ActionCatalog", "spec.entries", [{"names": ["a"]}] * 513, "513", "at most 512"),
    Mistake("AgentPolicy", "spec.rules", [], "0", "at least 1 items"),
    Mistake("AgentPolicy", "spec.rules", [RULE | {"name": f"r{n}"} for n in range(257)], "257", "at most 256"),
    Mistake("AgentPolicy", "spec.rules", [RULE, RULE], '"r"', "Duplicate value", "spec.rules[1]"),
    Mistake("AgentPolicy", f"{FIRST}.match.names", [], "0", "at least 1 items"),
    Mistake("AgentPolicy", f"{FIRST}.exclude", {}, "0", "at least 1 properties"),
    # Fields that do not go together
    Mistake(
        "AgentFleet",
        REQUIREMENT,
        [{"key": "a", "operator": "In"}],
        "values are missing",
        "need at least one",
        f"{REQUIREMENT}.0.values",
    ),
    Mistake(
        "AgentFleet",
        REQUIREMENT,
        [{"key": "a", "operator": "Exists", "values": ["b"]}],
        "found Exists",
        "values go with the operators In and NotIn",
        f"{REQUIREMENT}.0.values",
    ),
    Mistake(
        "AgentFleet", REQUIREMENT, [{"key": "a b", "operator": "Exists"}], '"a b"', LABEL_KEY, f"{REQUIREMENT}.0.key"
    ),
    Mistake("AgentPolicy", f"{SECOND}.obligations", GONE, "obligations are missing", "needs at least one"),
    Mistake("AgentPolicy", f"{FIRST}.obligations", [CLAMP], "found RequireApproval", "decision Constrain only"),
    Mistake("AgentPolicy", f"{FIRST}.retryAfterSeconds", 30, "found RequireApproval", "decision Throttle only"),
    Mistake("AgentPolicy", f"{SECOND}.phase", "During", "not During", "phases Before and After", f"{SECOND}.decision"),
    Mistake(
        "AgentPolicy",
        f"{SECOND}.phase",
        "After",
        "found one about the arguments",
        "only be about the result",
        f"{SECOND}.obligations",
    ),
    Mistake("AgentPolicy", f"{SECOND}.obligations.0.maximum", GONE, "maximum is missing", "largest value allowed"),
    Mistake("AgentPolicy", f"{SECOND}.obligations.0.field", "result.a", "found result.a", "applies to arguments"),
    Mistake("AgentPolicy", f"{THIRD}.obligations.0.maximum", 1, "not with Redact", "maximum goes with Clamp"),
    Mistake("AgentPolicy", f"{FIRST}.cleanses", ["web"], "found RequireApproval", "decisions Allow and Constrain"),
    Mistake("AgentPolicy", f"{SIXTH}.phase", "After", "found After", "fits the phase Before", f"{SIXTH}.cleanses"),
    Mistake("AgentPolicy", f"{FIRST}.throttle", {"concurrency": 1}, "found RequireApproval", "decision Throttle only"),
    Mistake("AgentPolicy", f"{FIFTH}.throttle", {}, "rate or concurrency is missing", "at least one of them"),
    Mistake("AgentPolicy", f"{FIFTH}.phase", "During", "found During", "the phase Before only", f"{FIFTH}.throttle"),
    Mistake("AgentPolicy", f"{FIFTH}.retryAfterSeconds", 30, "does not go with throttle", "works out when"),
    Mistake("ActionCatalog 1", "spec", {}, "entries are missing", "one of entries and models", "spec.entries"),
    Mistake("AgentBudget", "spec.limits", {}, "a limit is missing", "at least one of inputTokens"),
    Mistake(
        "AgentBudget 1",
        "spec.window",
        {"kind": "Rolling"},
        "duration is missing",
        "such as 24h",
        "spec.window.duration",
    ),
    Mistake(
        "AgentBudget 1",
        "spec.window.duration",
        "59s",
        "found 59s",
        "duration must be 1m to 8784h, which is 366 days",
    ),
    Mistake("AgentBudget 1", "spec.window.unit", "Day", "found Rolling", "unit goes with kind Calendar only"),
    Mistake("AgentBudget 1", "spec.window.timeZone", "UTC", "found Rolling", "timeZone goes with kind Calendar only"),
    Mistake("AgentBudget", "spec.window.unit", GONE, "unit is missing", "needs Hour, Day, Week or Month"),
    Mistake("AgentBudget", "spec.window.duration", "24h", "found Calendar", "duration goes with kind Rolling only"),
    Mistake(
        "AgentBudget",
        "spec.defaultEstimate.wallSeconds",
        GONE,
        "defaultEstimate.wallSeconds is missing",
        "limits.wallSeconds needs it",
        "spec.defaultEstimate",
    ),
    Mistake(
        "AgentBudget",
        "spec.thresholds.0.perMinute",
        6,
        "found Event",
        "perMinute goes with action Throttle only",
    ),
    Mistake(
        "AgentBudget",
        "spec.thresholds",
        [{"percent": 80, "action": "Event"}] * 2,
        "two thresholds",
        "the same percent and action",
    ),
    Mistake(
        "AgentBudget",
        "spec.limits.calls",
        [{"names": ["a"], "max": 1}] * 2,
        "two limits on calls",
        "have the same names",
    ),
    Mistake(
        "AgentBudget",
        "spec.parent",
        {"kind": "AgentBudget", "name": "reporting-day"},
        "the budget itself",
        "another one",
    ),
    Mistake("ClusterAgentBudget", "spec.parent.name", "organisation", "the budget itself", "another", "spec.parent"),
    Mistake("AuditSink", "spec.cloudEvents", GONE, "cloudEvents is missing", "type CloudEvents needs it"),
    Mistake("AuditSink", "spec.jsonLines", {"path": "a"}, "found CloudEvents", "type JsonLines only"),
    Mistake("AuditSink 1", "spec.jsonLines", GONE, "jsonLines is missing", "type JsonLines needs it"),
    Mistake("AuditSink 1", "spec.cloudEvents", {"url": "https://host/"}, "found JsonLines", "type CloudEvents only"),
]


def as_api(path: str) -> str:
    """The path as the API server writes it: `spec.rules[0].name`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps(path)).removeprefix(".")


def answer(plane: ControlPlane, base: str, document: dict[str, Any]) -> dict[str, Any]:
    """What the API server answers to its creation, tried with strict field validation, as kubectl asks for."""
    model = KINDS[base.split(maxsplit=1)[0]]
    where = f"namespaces/{NAMESPACE}/{model.PLURAL}" if model.SCOPE == "Namespaced" else model.PLURAL
    if model.SCOPE == "Namespaced":
        document["metadata"]["namespace"] = NAMESPACE
    path = f"/apis/fleetward.dev/v1alpha1/{where}?dryRun=All&fieldValidation=Strict"
    try:
        return dict(plane.request("POST", path, document))
    except urllib.error.HTTPError as error:
        with error:
            said: dict[str, Any] = json.loads(error.read())
    assert said["code"] in (400, 422), said
    return said


def causes(said: dict[str, Any]) -> dict[str, str]:
    """What was said about each field; a strict decoding error names the field in its one message."""
    found: dict[str, str] = {}
    for cause in said.get("details", {}).get("causes", ()):
        found[cause["field"]] = " / ".join(filter(None, (found.get(cause["field"]), cause["message"])))
    return found


def name(mistake: Mistake) -> str:
    return case_name((mistake.base, mistake.path, mistake.value))


def test_the_table_is_long_and_about_every_kind() -> None:
    assert len(MISTAKES) >= 60
    assert {mistake.base.split()[0] for mistake in MISTAKES} == KINDS.keys()


@pytest.mark.parametrize("mistake", MISTAKES, ids=name)
def test_says_where_what_was_found_and_what_is_allowed(plane: ControlPlane, mistake: Mistake) -> None:
    said = answer(plane, mistake.base, changed(mistake.base, mistake.path, mistake.value))
    assert said["kind"] == "Status", "it was taken"
    field = as_api(mistake.field or mistake.path)
    if mistake.found == UNKNOWN:
        assert f'unknown field "{field}"' in said["message"]
        return
    about = causes(said).get(field, "")
    assert mistake.found in about, said["message"]
    assert mistake.allowed in about, said["message"]


def test_kubectl_shows_it_line_by_line(plane: ControlPlane) -> None:
    document = changed("AgentPolicy", f"{FIRST}.name", "Rule")
    document["metadata"]["namespace"] = NAMESPACE
    document["spec"]["rules"][1]["phase"] = "During"
    said = plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(document), check=False).splitlines()
    assert said[0].startswith('The AgentPolicy "customer-data" is invalid:')
    assert f'* spec.rules[0].name: Invalid value: "Rule": allowed: {NAME}' in said
    words = "decision Constrain fits the phases Before and After, not During"
    assert f"* spec.rules[1].decision: Invalid value: {words}" in said


@pytest.mark.parametrize("case", BAD, ids=case_name)
def test_refuses_what_the_models_refuse(plane: ControlPlane, case: tuple[str, str, Any]) -> None:
    """The cases of tests/resources/test_crd_parity.py, where the API server is played: here it is the real one."""
    base, path, _ = case
    said = answer(plane, base, changed(*case))
    assert said["kind"] == "Status", "it was taken"
    if path in ("apiVersion", "kind"):
        return
    field = as_api(path)
    beside = field.rpartition(".")[0] or field  # of two fields that do not go together, the other one may be named
    named = [each for each in (*causes(said), *said["message"].split('"')[1::2]) if each]
    assert any(each.startswith(beside) or field.startswith(each) for each in named), said["message"]


@pytest.mark.parametrize("case", GOOD, ids=case_name)
def test_takes_what_the_models_take(plane: ControlPlane, case: tuple[str, str, Any]) -> None:
    said = answer(plane, case[0], changed(*case))
    assert said["kind"] == case[0].split()[0], said


def messages(schema: dict[str, Any]) -> set[str]:
    below = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    own = {check["message"] for check in schema.get(VALIDATIONS, ())}
    return own.union(*map(messages, below))


def test_every_message_of_ours_is_in_the_table(plane: ControlPlane) -> None:
    """One that no mistake leads to could be wrong, or never shown, without anybody noticing."""
    said = " ".join(answer(plane, each.base, changed(*each[:3])).get("message", "") for each in MISTAKES)
    for kind, model in KINDS.items():
        schema = definition(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert {message for message in messages(schema) if message not in said} == set(), kind
