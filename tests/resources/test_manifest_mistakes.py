"""What people get wrong, and what they are told: the line, the field, and the words that matter."""

import itertools

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetward.resources import yamltree
from fleetward.resources.content import read_content
from fleetward.resources.finding import Finding

AGENT = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata:
  name: data-worker
  namespace: reports
spec:
  role: Worker
"""
POLICY = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: p, namespace: reports}
spec:
  rules:
  - name: one
    match: {names: ["a.b"]}
    decision: Deny
"""
SINK = """\
apiVersion: fleetward.dev/v1alpha1
kind: AuditSink
metadata: {name: s}
spec:
"""
LIST = """\
apiVersion: v1
kind: List
items:
- apiVersion: fleetward.dev/v1alpha1
  kind: Agent
  metadata: {name: a}
  spec: {role: Boss}
"""
BUDGET = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata: {name: day, namespace: reports}
spec:
  limits: {records: 1}
"""
FLEET = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentFleet
metadata: {name: f}
spec: {agents: {}}
"""


@pytest.fixture(params=["libyaml", "pure Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say the same whichever of PyYAML's two parsers is there."""
    loader = getattr(yaml, "CSafeLoader", None) if request.param == "libyaml" else yaml.SafeLoader
    if loader is None:
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(yamltree, "_PARSER", loader)


def findings(text: str | bytes) -> list[Finding]:
    return list(read_content("f.yaml", text.encode() if isinstance(text, str) else text).findings)


# text, then line, field and words of its only finding
SYNTAX = {
    "tab": (AGENT + "\towner: x\n", 8, "found a tab, allowed spaces"),
    "two colons": ("a: b: c\n", 1, "no mapping can begin"),
    "colon in the value": (AGENT + "  owner: team: x\n", 8, "quote a text that holds ': '"),
    "no colon": (AGENT + "  owner\n  riskTier: Low\n", 9, "not valid YAML"),
    "indentation": (AGENT + " owner: x\n", 8, "indentation does not fit"),
    "list not closed": ("a: [1, 2\nb: 3\n", 2, "a list in [ ] (from line 1) lacks"),
    "mapping not closed": ("a: {b: 1\nc: 3\n", 2, "a mapping in { } (from line 1) lacks"),
    "quote not closed": ("a: 'abc\nb: 1\n", 3, "a quote (from line 1) is never closed"),
    "quote over documents": ("a: 'x\n---\nb: 1\n", 2, "before the next document begins"),
    "escape": ('a: "\\d+"\n', 1, "backslash in double quotes"),
    "at sign": (AGENT + "  owner: @team\n", 8, "'@' at the beginning of a text; put the text in quotes"),
    "backtick": ("a: `b`\n", 1, "'`' at the beginning of a text"),
    "list in line": ("a: - b\n", 1, "put each item on its own line"),
    "tag prefix": ("a: !u!x 1\n", 1, "unknown prefix"),
    "version": ("%YAML 3.0\n---\na: 1\n", 1, "%YAML directive"),
    "after a block": ("a: |x\n b\n", 1, "where the line should end"),
    "unknown alias": ("a: &b 1\nc: *d\n", 2, "the alias *d, but this document has &b before it"),
    "endless alias": ("a: &b\n- *b\n", 2, "inside its own anchor &b"),
    "deep": ("[" * 200 + "]" * 200, 1, "deeper than 64"),
    "deep in block": ("\n".join("  " * i + "a:" for i in range(100)) + " b\n", 65, "deeper than 64"),
    "NUL": (AGENT.encode() + b"  owner: a\x00b\n", 8, "the character U+0000"),
    "escape character": (AGENT + "  owner: a\x1b[31m\n", 8, "the character U+001B"),
    "hidden line break": ("# a\u2028b: 1\n", 1, "the character U+2028"),
    "lone carriage return": ("# a\rb: 1\n", 1, "the character U+000D"),
    "not UTF-8": (AGENT.encode() + b"  owner: M\xfcller\n", 8, "the byte 0xfc, allowed UTF-8"),
    "UTF-16": (AGENT.encode("utf-16"), 1, "found UTF-16, allowed UTF-8"),
    "large": ("#" * 1024 * 1024 + "\n", 0, "larger than 1024 KiB"),
}


@pytest.mark.parametrize(("text", "line", "words"), SYNTAX.values(), ids=SYNTAX)
def test_what_is_no_yaml_is_one_finding_in_words(text: str | bytes, line: int, words: str) -> None:
    (finding,) = findings(text)
    assert (finding.file, finding.line, finding.field) == ("f.yaml", line, "")
    assert words in finding.message
    assert "Traceback" not in str(finding)
    assert "while parsing" not in str(finding)


BAD = {
    # The header
    "no apiVersion": ("kind: Agent\n", 1, "apiVersion", "is missing; every document needs it"),
    "no kind": ("apiVersion: v1\n", 1, "kind", "is missing"),
    "empty kind": ("apiVersion: v1\nkind:\n", 2, "kind", "is missing"),
    "a list": ("- a\n", 1, "", "found a list, allowed a mapping with apiVersion"),
    "a text": ("hello\n", 1, "", 'found "hello", allowed a mapping'),
    "number as apiVersion": ("apiVersion: 1\nkind: Agent\n", 1, "apiVersion", "found 1 (a whole number)"),
    "other version": (AGENT.replace("v1alpha1", "v1"), 1, "apiVersion", "allowed fleetward.dev/v1alpha1"),
    "group misspelt": (AGENT.replace("fleetward", "fleetwrd"), 1, "apiVersion", "allowed fleetward.dev/v1alpha1"),
    "group forgotten": (AGENT.replace("fleetward.dev/", ""), 1, "apiVersion", 'found "v1alpha1", allowed'),
    "kind misspelt": (AGENT.replace("Agent", "Agnet"), 2, "kind", "did you mean Agent?"),
    "kind unknown": (
        AGENT.replace("Agent", "Tool"),
        2,
        "kind",
        "allowed Agent, AgentFleet, ActionCatalog, AgentPolicy",
    ),
    "kind twice": (AGENT + "kind: AgentFleet\n", 8, "kind", "is given twice, on line 2 and on line 8"),
    # Metadata
    "no name": (AGENT.replace("name: data-worker", "labels: {}"), 3, "metadata.name", "is missing"),
    "name with capitals": (AGENT.replace("data-worker", "Data_Worker"), 4, "metadata.name", "lower-case letters"),
    "name too long": (
        AGENT.replace("data-worker", "a" * 64),
        4,
        "metadata.name",
        "(64 characters), allowed at most 63",
    ),
    "empty name": (AGENT.replace("data-worker", '""'), 4, "metadata.name", "found an empty text"),
    "name is a number": (
        AGENT.replace("data-worker", "12"),
        4,
        "metadata.name",
        'allowed a text (string); quote it: "12"',
    ),
    "name is a date": (AGENT.replace("data-worker", "2024-01-01"), 4, "metadata.name", "found 2024-01-01 (a date)"),
    "name is no": (
        AGENT.replace("data-worker", "no"),
        4,
        "metadata.name",
        "found no (a boolean: YAML reads it as false)",
    ),
    "name is true": (
        AGENT.replace("data-worker", "true"),
        4,
        "metadata.name",
        "found true (a boolean), allowed a text",
    ),
    "metadata misspelt": (
        AGENT.replace("  namespace: reports", "  lables: {}"),
        5,
        "metadata.lables",
        "found the unknown field lables, allowed name, namespace, labels or annotations; did you mean labels?",
    ),
    "metadata a list": (
        AGENT.replace("  name:", "- name:").replace("  namespace", "- namespace"),
        3,
        "metadata",
        "found a list",
    ),
    "label is a boolean": (
        AGENT.replace("  name: d", "  labels: {x: yes}\n  name: d"),
        4,
        "metadata.labels.x",
        'found yes (a boolean: YAML reads it as true), allowed a text (string); quote it: "yes"',
    ),
    "label key is a boolean": (
        AGENT.replace("  name: d", "  labels:\n    on: x\n  name: d"),
        5,
        "metadata.labels.on",
        'found the key on (a boolean: YAML reads it as true), allowed a text as key; quote it: "on"',
    ),
    "label key": (
        AGENT.replace("  name: d", "  labels: {a b: x}\n  name: d"),
        4,
        'metadata.labels["a b"]',
        "as a key, found",
    ),
    "namespace on a cluster kind": (
        FLEET.replace("name: f", "name: f, namespace: x"),
        3,
        "metadata.namespace",
        "AgentFleet is cluster-scoped",
    ),
    # The spec of an agent
    "no spec": (AGENT[: AGENT.index("spec")], 1, "spec", "is missing"),
    "empty spec": (AGENT[: AGENT.index("  role")], 6, "spec", "found nothing, allowed a mapping"),
    "no role": (AGENT.replace("role: Worker", "owner: x"), 6, "spec.role", "is missing; it is required: What part"),
    "role in lower case": (AGENT.replace("Worker", "worker"), 7, "spec.role", "did you mean Worker?"),
    "role is a list": (
        AGENT.replace("Worker", "[Worker]"),
        7,
        "spec.role",
        "found a list, allowed Coordinator, Planner or",
    ),
    "field twice": (AGENT + "  role: Planner\n", 8, "spec.role", "is given twice, on line 7 and on line 8"),
    "field in snake case": (AGENT + "  risk_tier: High\n", 8, "spec.risk_tier", "did you mean riskTier?"),
    "field unknown": (
        AGENT + "  budget: 1\n",
        8,
        "spec.budget",
        "found the unknown field budget, allowed role, workload",
    ),
    "mode misspelt": (AGENT + "  operatingMode: Pause\n", 8, "spec.operatingMode", "did you mean Paused?"),
    "mode off": (
        AGENT + "  operatingMode: off\n",
        8,
        "spec.operatingMode",
        "found off (a boolean: YAML reads it as false)",
    ),
    "null in a list": (
        AGENT + "  dataClasses: [a, ~]\n",
        8,
        "spec.dataClasses[1]",
        "found ~ (null, nothing), allowed a text",
    ),
    "text for a list": (AGENT + "  dataClasses: customer\n", 8, "spec.dataClasses", 'found "customer", allowed a list'),
    "octal": (AGENT + "  owner: 012\n", 8, "spec.owner", "found 012, which YAML reads as the number 10; write 10 for"),
    "sexagesimal": (AGENT + "  owner: 12:30\n", 8, "spec.owner", '"12:30" in quotes'),
    "infinite": (AGENT + "  owner: .inf\n", 8, "spec.owner", "found .inf, allowed a finite number"),
    "hexadecimal": (AGENT + "  owner: 0x1F\n", 8, "spec.owner", "found 0x1F (a whole number: YAML reads it as 31)"),
    "impossible date": (AGENT + "  owner: 2024-13-45\n", 8, "spec.owner", "cannot be read as a date"),
    "Python object": (
        AGENT + "  owner: !!python/object/apply:os.system [ls]\n",
        8,
        "spec.owner",
        "found the tag !!python/object/apply",
    ),
    "own tag": (AGENT + "  owner: !Ref x\n", 8, "spec.owner", "found the tag !Ref"),
    "binary": (AGENT + "  owner: !!binary aGk=\n", 8, "spec.owner", "found the tag !!binary"),
    "lone surrogate": (AGENT + '  owner: "\\ud800"\n', 8, "spec.owner", "half of a surrogate pair"),
    "merge of a text": (AGENT + "  <<: 3\n", 8, "spec", "the merge key << takes a mapping"),
    "too many": (
        AGENT + f"  dataClasses: [{'a, ' * 65}]\n",
        8,
        "spec.dataClasses",
        "with 65 items, allowed at most 64",
    ),
    "too long": (AGENT + f"  owner: {'a' * 300}\n", 8, "spec.owner", "(300 characters), allowed at most 253"),
    # Policies
    "no rules": (
        POLICY[: POLICY.index("  rules")] + "  rules: []\n",
        5,
        "spec.rules",
        "found an empty list, allowed at least 1 item",
    ),
    "decision unknown": (POLICY.replace("Deny", "Forbid"), 8, "spec.rules[0].decision", "RequireApproval or Deny"),
    "no decision": (POLICY.replace("    decision: Deny\n", ""), 6, "spec.rules[0].decision", "is missing"),
    "glob": (POLICY.replace("a.b", "a..b"), 7, "spec.rules[0].match.names[0]", "a glob of dotted segments"),
    "tag": (
        POLICY.replace('names: ["a.b"]', "riskTags: [ok, a b]"),
        7,
        "spec.rules[0].match.riskTags[1]",
        "letters, digits and",
    ),
    "match misspelt": (POLICY.replace("{names", "{nmaes"), 7, "spec.rules[0].match.nmaes", "did you mean names?"),
    "agent": (
        POLICY.replace('names: ["a.b"]', "agents: [a/b/c]"),
        7,
        "spec.rules[0].match.agents[0]",
        "name or namespace/name",
    ),
    "quoted number": (
        POLICY.replace("Deny", 'Throttle\n    retryAfterSeconds: "5"'),
        9,
        "spec.rules[0].retryAfterSeconds",
        'found "5", allowed a whole number without quotes',
    ),
    "fraction": (
        POLICY.replace("Deny", "Throttle\n    retryAfterSeconds: 1.5"),
        9,
        "spec.rules[0].retryAfterSeconds",
        "found 1.5 (a number), allowed a whole number",
    ),
    "zero": (
        POLICY.replace("Deny", "Throttle\n    retryAfterSeconds: 0"),
        9,
        "spec.rules[0].retryAfterSeconds",
        "found 0 (a whole number), allowed at least 1",
    ),
    "parts that do not fit": (
        POLICY.replace("Deny", "Deny\n    retryAfterSeconds: 5"),
        6,
        "spec.rules[0]",
        "retryAfterSeconds goes with decision Throttle, found Deny",
    ),
    "obligation": (
        POLICY.replace("Deny", "Constrain\n    obligations: [{type: Redact, field: rows}]"),
        9,
        "spec.rules[0].obligations[0].field",
        "begins with arguments. or result.",
    ),
    # Sinks
    "no target": (SINK + "  type: JsonLines\n", 4, "spec", "jsonLines is missing; type JsonLines needs it"),
    "path upwards": (
        SINK + "  type: JsonLines\n  jsonLines: {path: ../x}\n",
        6,
        "spec.jsonLines.path",
        "a relative file path",
    ),
    "url": (
        SINK + "  type: CloudEvents\n  cloudEvents: {url: ftp://example.com}\n",
        6,
        "spec.cloudEvents.url",
        "begins with http://",
    ),
    "timeout": (
        SINK + "  type: CloudEvents\n  cloudEvents:\n    url: http://x.example\n    timeoutSeconds: 1000\n",
        8,
        "spec.cloudEvents.timeoutSeconds",
        "found 1000 (a whole number), allowed at most 300",
    ),
    # What is not ours, but read
    "namespace label": (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {a: 1}}\n",
        3,
        "metadata.labels.a",
        "found 1",
    ),
    "namespace without name": ("apiVersion: v1\nkind: Namespace\nmetadata: {}\n", 3, "metadata.name", "is missing"),
    "in a List": (
        LIST,
        7,
        "spec.role",
        'found "Boss"',
    ),
}


@pytest.mark.parametrize(("text", "line", "field", "words"), BAD.values(), ids=BAD)
def test_a_mistake_is_told_with_its_line_field_and_what_is_allowed(
    text: str, line: int, field: str, words: str
) -> None:
    (finding,) = findings(text)
    assert (finding.line, finding.field) == (line, field)
    assert words in finding.message


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_lines() -> None:
    text = AGENT.replace("Worker", "worker") + "  owner: no\n---\n" + POLICY.replace("Deny", "deny")
    assert [(f.line, f.field, f.resource) for f in findings(text)] == [
        (7, "spec.role", "Agent reports/data-worker"),
        (8, "spec.owner", "Agent reports/data-worker"),
        (17, "spec.rules[0].decision", "AgentPolicy reports/p"),
    ]


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    names = "abcdefghi"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in itertools.pairwise(names))
    (finding,) = findings(bomb)
    assert "more than 100,000 values with its aliases written out" in finding.message


def test_aliases_nested_in_aliases_count_towards_the_depth() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))
    (finding,) = findings(text)
    assert "deeper than 64" in finding.message


def test_a_mistake_in_an_anchored_mapping_is_told_once_and_where_it_stands() -> None:
    text = POLICY + "    message: &m !bad x\n  - {name: two, match: {}, decision: Deny, message: *m}\n"
    assert [f.line for f in findings(text)] == [9]


def test_what_a_file_says_reaches_no_terminal_raw() -> None:
    (finding,) = findings(AGENT + '  riskTier: "\\e[31mHigh\\nx: y"\n')
    assert "\x1b" not in str(finding)
    assert "\n" not in str(finding)


def test_of_very_many_mistakes_the_first_are_told() -> None:
    text = AGENT + "".join(f"  unknown{i}: x\n" for i in range(20_000))
    assert [f.line for f in findings(text)] == list(range(8, 58))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_however_broken_is_more_than_findings(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([AGENT, POLICY, SINK, FLEET, LIST]))
    scraps = st.sampled_from(
        [*"&*!|>%@`{}[],:?-#'\"\n\t ~=<", "<<", "&a ", "*a", "!!set", "- ", ": ", "---", "\r\n", "1e9", "\ud800"]
    )
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + data.draw(scraps | st.text(max_size=3)) + text[end:]
    content = read_content("f.yaml", text.encode("utf-8", "surrogatepass"))
    assert all(str(finding) for finding in content.findings)
    assert content.unread or not content.broken or content.findings


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ("window: {kind: Rolling, duration: 24}", 6, "spec.window.duration", "found 24 without a unit, allowed a dura"),
        ("window: {kind: Rolling, duration: '24'}", 6, "spec.window.duration", "such as 24h, 90m or 1h30m"),
        ("window: {kind: Rolling, duration: 1d}", 6, "spec.window.duration", 'found "1d", allowed a duration in h, m'),
        ("window: {kind: Rolling, duration: 5s}", 6, "spec.window", "duration must be 1m to 8784h, which is 366 days"),
        ("window: {kind: Calendar}", 6, "spec.window", "unit is missing; kind Calendar needs Hour, Day, Week or Mo"),
        ("thresholds: [{percent: 80%, action: Event}]", 6, "spec.thresholds[0].percent", "a whole number without qu"),
        ("limits: {costMicroUsd: 5 EUR}", 5, "spec.limits.costMicroUsd", "allowed a whole number without quotes"),
        ("limits: {cost: 5}", 5, "spec.limits.cost", "costMicroUsd, records, wallSeconds or calls"),
        ("limits: {costMicroUsd: -5}", 5, "spec.limits.costMicroUsd", "allowed at least 1"),
        ("limits: {costMicroUsd: 9007199254740992}", 5, "spec.limits.costMicroUsd", "allowed at most 9007199254740991"),
        ("limits: {}", 5, "spec.limits", "a limit is missing; a budget needs at least one of inputTokens"),
        ("parent: {kind: AgentBudget, name: day}", 1, "", "spec.parent is the budget itself; name another one"),
    ],
)
def test_a_budget_that_makes_no_sense(text: str, line: int, field: str, words: str) -> None:
    whole = BUDGET.replace("limits: {records: 1}", text) if text.startswith("limits") else f"{BUDGET}  {text}\n"
    (finding,) = findings(whole)
    assert (finding.line, finding.field) == (line, field)
    assert words in finding.message
