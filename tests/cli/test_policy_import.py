"""Imported policies against a plain evaluator of the source format, through the real engine."""

import fnmatch
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.cli.policy.convert import to_policies
from fleetward.cli.policy.order import differences
from fleetward.cli.policy.safety import SafetyRule, read_safety
from fleetward.cli.policy.topics import mistake
from fleetward.decision.action import Action, DecisionRequest
from fleetward.decision.cel.runtime import load_runtime
from fleetward.decision.engine import Engine
from fleetward.registry.registry import Registry
from fleetward.resources import ActionCatalog, Agent, AgentPolicy

Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]
Source = dict[str, Any]

RUNTIME = load_runtime()
ORDER = ["allow", "allow_with_constraints", "throttle", "require_approval", "deny"]
DECISIONS = dict(zip(ORDER, ["Allow", "Constrain", "Throttle", "RequireApproval", "Deny"], strict=True))

topics = st.text(alphabet="ab*.", min_size=1, max_size=6).filter(lambda topic: mistake(topic) is None)
tags = st.lists(st.sampled_from(["pii", "external", "Bulk"]), max_size=2, unique=True)
names = st.lists(st.text(alphabet="ab", min_size=1, max_size=2), min_size=1, max_size=3).map(".".join)


def rule_data(decision: str, of_topics: list[str] | None, of_tags: list[str] | None, *, limited: bool) -> Source:
    rule: Source = {"decision": decision, "match": {}}
    if of_topics is not None:
        rule["match"]["topics"] = of_topics
    if of_tags is not None:
        rule["match"]["risk_tags"] = of_tags
    if decision == "allow_with_constraints" and limited:
        rule["constraints"] = {"limit": 5}
    return rule


rules = st.builds(
    rule_data,
    st.sampled_from(ORDER),
    st.none() | st.lists(topics, max_size=2),
    st.none() | tags,
    limited=st.booleans(),
)
safety_files = st.lists(rules, min_size=1, max_size=5).map(
    lambda many: {"version": "v1", "rules": [{"id": f"rule {i}", **rule} for i, rule in enumerate(many)]}
)


def effect(rule: Source) -> str:
    """What a rule comes to: with nothing to constrain, an allow."""
    decision: str = rule["decision"]
    return "allow" if decision == "allow_with_constraints" and not rule.get("constraints") else decision


def that_match(source: Source, name: str, action_tags: list[str]) -> list[Source]:
    """The rules that match, by a reading of the format of its own."""
    found = []
    for rule in source["rules"]:
        of_topics, of_tags = rule["match"].get("topics"), rule["match"].get("risk_tags")
        topic_fits = not of_topics or any(fnmatch.fnmatchcase(name, topic) for topic in of_topics)
        if topic_fits and (not of_tags or set(of_tags) & set(action_tags)):
            found.append(rule)
    return found


def expected_verdict(source: Source, name: str, action_tags: list[str]) -> str | None:
    effects = [effect(rule) for rule in that_match(source, name, action_tags)]
    return max(effects, key=ORDER.index, default=None)


def read(source: Source) -> tuple[SafetyRule, ...]:
    found = read_safety("safety.yaml", yaml.safe_dump(source).encode())
    assert isinstance(found, tuple), found
    return found


def engine_for(source: Source, actions: dict[str, list[str]]) -> Engine:
    """The real engine over the imported policy; the tags are the catalog's, since declared ones only tighten."""
    head = {"apiVersion": "fleetward.dev/v1alpha1"}
    agent = {**head, "kind": "Agent", "metadata": {"name": "a", "namespace": "n"}, "spec": {"role": "Worker"}}
    entries = [{"names": [name], "riskTags": of} for name, of in actions.items()]
    catalog = {**head, "kind": "ActionCatalog", "metadata": {"name": "c"}, "spec": {"entries": entries}}
    policies = to_policies(read(source), source="safety.yaml", name="safety", namespace="n")
    written = yaml.safe_load_all(yaml.safe_dump_all(policies, sort_keys=False))
    resources = [
        Agent.model_validate(agent),
        ActionCatalog.model_validate(catalog),
        *map(AgentPolicy.model_validate, written),
    ]
    registry = Registry.build(resources)
    return Engine(registry.cut(registry.agents), RUNTIME)


@settings(max_examples=200)
@given(safety_files, st.dictionaries(names, tags, min_size=1, max_size=6))
def test_the_verdicts_are_those_of_the_source(source: Source, actions: dict[str, list[str]]) -> None:
    engine = engine_for(source, actions)
    for name, action_tags in actions.items():
        found = engine.decide(DecisionRequest(Action("ToolCall", name), agent="n/a"))
        expected = expected_verdict(source, name, action_tags)
        if expected is None:
            assert (found.decision, found.rules) == ("Deny", ())
        else:
            assert (found.decision, bool(found.rules)) == (DECISIONS[expected], True)


@settings(max_examples=200)
@given(safety_files, st.lists(st.tuples(names, tags), max_size=10))
def test_pairs_whose_order_matters(source: Source, actions: list[tuple[str, list[str]]]) -> None:
    everything = source["rules"]
    found = {(each.earlier, each.later): each for each in differences(read(source))}
    for (earlier, later), each in found.items():
        matching = that_match(source, each.example.name, list(each.example.risk_tags))
        assert everything[later] in matching
        assert matching[0] is everything[earlier]
        assert ORDER.index(effect(everything[earlier])) < ORDER.index(effect(everything[later]))
        assert each.by_order.id == everything[earlier]["id"]
        strictest = max((effect(rule) for rule in matching), key=ORDER.index)
        assert each.by_severity.decision == DECISIONS[strictest]
    # No action shows a difference that is not among the pairs.
    for name, action_tags in actions:
        matching = that_match(source, name, action_tags)
        for rule in matching[1:]:
            if ORDER.index(effect(rule)) > ORDER.index(effect(matching[0])):
                assert (everything.index(matching[0]), everything.index(rule)) in found


SAFETY = """\
version: v1
rules:
- id: Allow_Jobs
  match: {topics: ["job.*"]}
  decision: allow
  reason: jobs are fine
- id: no-export
  match: {topics: ["job.*.export"], risk_tags: [pii, Secret]}
  decision: deny
- id: limited
  match: {topics: ["llm.*"]}
  decision: allow_with_constraints
  constraints: {max_tokens: 100}
- id: unlimited
  match: {topics: ["tool.*"]}
  decision: allow_with_constraints
"""


@pytest.fixture
def safety(tmp_path: Path) -> Path:
    path = tmp_path / "Safety Rules.yaml"
    path.write_text(SAFETY)
    return path


def test_yaml_on_standard_output_and_the_report_beside_it(process: Process, safety: Path) -> None:
    done = process("policy", "import", safety, "--namespace", "reports")
    assert done.returncode == 0
    policy = yaml.safe_load(done.stdout)
    AgentPolicy.model_validate(policy)
    assert policy["metadata"]["namespace"] == "reports"
    assert policy["metadata"]["name"] == "safety-rules"
    assert policy["metadata"]["annotations"]["imported-id.fleetward.dev/allow-jobs"] == "Allow_Jobs"
    first, second, limited, unlimited = policy["spec"]["rules"]
    assert first == {
        "name": "allow-jobs",
        "match": {"names": ["job.*.**"]},
        "decision": "Allow",
        "message": "jobs are fine",
    }
    assert second["match"] == {"names": ["job.*.**.export"], "riskTags": ["pii", "Secret"]}
    assert limited["obligations"] == [{"type": "Clamp", "field": "arguments.max_tokens", "maximum": 100}]
    assert unlimited["decision"] == "Allow"
    assert "rule unlimited: allow_with_constraints without constraints became Allow" in done.stderr
    assert "Allow_Jobs (line 3) before no-export (line 7), for example job.x.export with risk tags " in done.stderr
    assert "by file order   Allow (rule Allow_Jobs)" in done.stderr
    assert "in Fleetward    Deny (rule no-export)" in done.stderr


def test_the_result_lints_and_decides(run: Run, safety: Path, folder: Path) -> None:
    out = folder / "imported.yaml"
    assert run("policy", "import", safety, "--namespace", "reports", "--name", "old", "--out", out).exit_code == 0
    assert run("policy", "lint", folder).exit_code == 0
    asked = {"agent": "reports/writer", "action": {"kind": "ToolCall", "name": "job.daily.import"}}
    result = run("decide", "--dir", folder, "-f", "-", stdin=json.dumps(asked))
    assert result.exit_code == 0
    assert "rule allow-jobs of AgentPolicy reports/old: jobs are fine" in result.stdout


def test_json_has_the_policies_and_the_report(run: Run, safety: Path, tmp_path: Path) -> None:
    data = json.loads(run("policy", "import", safety, "-o", "json").stdout)
    AgentPolicy.model_validate(data["policies"][0])
    report = data["report"]
    assert report["constraintsMissing"] == ["unlimited"]
    [pair] = report["orderMatters"]
    assert pair["earlier"] == {"rule": "Allow_Jobs", "line": 3}
    assert pair["later"] == {"rule": "no-export", "line": 7}
    assert pair["example"]["topic"] == "job.x.export"
    assert len(pair["example"]["riskTags"]) == 1
    assert pair["fileOrder"] == {"rule": "Allow_Jobs", "decision": "Allow"}
    assert pair["mostRestrictive"] == {"rule": "no-export", "decision": "Deny"}
    written = run("policy", "import", safety, "-o", "json", "--out", tmp_path / "out.json")
    assert json.loads(written.stdout) == {"report": report}
    assert json.loads((tmp_path / "out.json").read_text()) == data["policies"][0]


def test_a_file_that_is_there_is_not_overwritten(run: Run, safety: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    out.write_text("mine")
    result = run("policy", "import", safety, "--out", out)
    assert result.exit_code == 2
    assert "exists" in result.stderr
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("version: v1", "version: v2", ':1: version: found "v2", allowed v1'),
        ("decision: deny", "decision: denied", ':9: rules[1].decision: found "denied", allowed allow, deny, '),
        ("risk_tags:", "riskTags:", "rules[1].match.riskTags: found the unknown field riskTags"),
        ("reason: jobs are fine", "because: x", ":6: rules[0].because: found the unknown field because"),
        ("version: v1", "version: v1\ndefault: deny", ":2: default: found the unknown field default"),
        ('"job.*.export"', '"job..export"', ':8: rules[1].match.topics[0]: found "job..export", an empty segment'),
        ('"job.*.export"', '"job.[ab]"', "allowed letters, digits"),
        ("Secret", "top secret", ':8: rules[1].match.risk_tags[1]: found "top secret", allowed'),
        ("max_tokens: 100", "max_tokens: many", ":13: rules[2].constraints.max_tokens: "),
        ("decision: deny", "decision: deny\n  constraints: {a: 1}", "constraints go with decision allow_with_"),
        ("rules:", "rules: []\nold:", "rules: found "),
        ("version: v1", "version: v1: x", "not valid YAML"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_line(
    run: Run, safety: Path, before: str, after: str, words: str
) -> None:
    safety.write_text(SAFETY.replace(before, after, 1))
    result = run("policy", "import", safety)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(str(safety))
    assert words in result.stderr


@pytest.mark.parametrize("arguments", [["nowhere.yaml"], ["x.yaml", "--namespace", "No"], ["x.yaml", "--name", "a/b"]])
def test_bad_arguments(process: Process, arguments: list[str]) -> None:
    done = process("policy", "import", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_many_rules_topics_and_equal_names(tmp_path: Path) -> None:
    many_topics = [f"t{i}.*" for i in range(150)]
    source = {
        "version": "v1",
        "rules": [{"id": "Big", "match": {"topics": many_topics}, "decision": "deny"}]
        + [{"id": f"rule_{i % 3}", "decision": "allow"} for i in range(300)],
    }
    policies = [AgentPolicy.model_validate(p) for p in to_policies(read(source), source="s", name="s", namespace=None)]
    assert [policy.metadata.name for policy in policies] == ["s", "s-2"]
    written = [rule for policy in policies for rule in policy.spec.rules]
    assert len({rule.name for rule in written}) == len(written) == 303
    assert sorted(name for rule in written for name in rule.match.names or ()) == sorted(f"{t}.**" for t in many_topics)


def test_an_order_that_matters_for_one_of_several_tags_only() -> None:
    source = {
        "version": "v1",
        "rules": [
            {"id": "first", "match": {"risk_tags": ["pii"]}, "decision": "deny"},
            {"id": "loose", "match": {"risk_tags": ["pii", "bulk"]}, "decision": "allow"},
            {"id": "strict", "decision": "deny"},
        ],
    }
    [found] = differences(read(source))
    assert (found.earlier, found.later, found.example.risk_tags) == (1, 2, ("bulk",))


def test_an_order_hidden_by_an_earlier_rule_does_not_matter() -> None:
    deny = {"id": "d", "match": {"topics": ["a.*"]}, "decision": "deny"}
    allow = {"id": "a", "match": {"topics": ["a.b*"]}, "decision": "allow"}
    hold = {"id": "h", "match": {"topics": ["a.bc*"]}, "decision": "require_approval"}
    assert list(differences(read({"version": "v1", "rules": [deny, allow, hold]}))) == []
    # The second rule never decides by order, since the first one takes all its actions.
    found = differences(read({"version": "v1", "rules": [allow, hold, deny]}))
    assert [(each.earlier, each.later) for each in found] == [(0, 1), (0, 2)]
