"""Documents that are fine, that are not ours, and where things stand in them."""

import datetime as dt
from typing import Any

import pytest

from fleetward.resources import KINDS, Agent, AgentFleet
from fleetward.resources.explain import PATTERNS
from fleetward.resources.manifest import Document, Foreign, PolicyTest, parse_document, read_documents

AGENT = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: a, namespace: reports}
spec: {role: Worker}
"""


def one(text: str, file: str = "f.yaml") -> Document:
    (document,) = read_documents(file, text)
    return document


def agent(text: str) -> Agent:
    resource = parse_document(one(text))
    assert isinstance(resource, Agent), resource
    return resource


def test_a_document_becomes_a_resource() -> None:
    resource = agent(AGENT)
    assert (resource.key, resource.spec.role) == ("reports/a", "Worker")


@pytest.mark.parametrize("metadata", ["{name: a}", "{name: a, namespace: }", "{name: a, namespace: ~}"])
def test_a_namespaced_kind_without_namespace_is_in_default(metadata: str) -> None:
    text = AGENT.replace("{name: a, namespace: reports}", metadata)
    assert agent(text).key == "default/a"
    assert str(one(text).identity) == "Agent default/a"


def test_a_cluster_kind_has_no_namespace() -> None:
    text = (
        AGENT.replace("Agent", "AgentFleet").replace(", namespace: reports", "").replace("role: Worker", "agents: {}")
    )
    resource = parse_document(one(text))
    assert isinstance(resource, AgentFleet)
    assert resource.key == "a"


def test_what_the_api_server_adds_is_left_alone() -> None:
    added = "resourceVersion: '7', creationTimestamp: 2024-01-01T00:00:00Z, managedFields: []"
    text = AGENT.replace("name: a", f"name: a, {added}") + "status: {conditions: []}\n"
    assert agent(text).metadata.name == "a"


def test_empty_documents_and_comments_are_nothing() -> None:
    assert read_documents("f.yaml", "# nothing\n---\n---\n# more\n") == []
    assert len(read_documents("f.yaml", f"---\n---\n{AGENT}---\n")) == 1


def test_several_documents_keep_their_lines() -> None:
    documents = read_documents("f.yaml", f"# first\n{AGENT}---\n{AGENT}")
    assert [document.line for document in documents] == [2, 7]


def test_a_byte_order_mark_and_carriage_returns_are_fine() -> None:
    (document,) = read_documents("f.yaml", b"\xef\xbb\xbf" + AGENT.replace("\n", "\r\n").encode())
    assert document.line_of(("spec", "role")) == 4


def test_json_is_read_with_tabs_and_escaped_characters() -> None:
    text = '{\n\t"apiVersion": "fleetward.dev/v1alpha1",\n\t"kind": "Agent",\n\t"metadata": {"name": "a"},\n'
    text += '\t"spec": {"role": "Worker", "owner": "caf\\u00e9 \\ud83d\\ude00"}\n}\n'
    resource = parse_document(one(text, "f.json"))
    assert isinstance(resource, Agent)
    assert resource.spec.owner == "café 😀"


def test_merge_keys_and_aliases_mean_what_yaml_says() -> None:
    text = """\
apiVersion: v1
kind: List
items:
- apiVersion: fleetward.dev/v1alpha1
  kind: Agent
  metadata: {name: a}
  spec: &base {role: Worker, owner: &who team, riskTier: Low}
- apiVersion: fleetward.dev/v1alpha1
  kind: Agent
  metadata: {name: b}
  spec:
    <<: [*base, {role: Planner, operatingReason: merged}]
    riskTier: High
    dataClasses: [*who]
"""
    _, second = read_documents("f.yaml", text)
    resource = parse_document(second)
    assert isinstance(resource, Agent)
    spec = resource.spec
    assert (spec.role, spec.owner, spec.risk_tier, spec.operating_reason) == ("Worker", "team", "High", "merged")
    assert spec.data_classes == ["team"]


def test_a_place_is_found_through_lists_aliases_and_merge_keys() -> None:
    document = one("a: &a\n  b:\n  - x\n  - {c: 1,\n     d: 2}\ne: *a\nf:\n  <<: *a\n")
    assert document.line_of(("a", "b", 1, "d")) == 5
    assert document.line_of(("e", "b", 0)) == 3
    assert document.line_of(("f", "b", 1)) == 4


def test_a_missing_place_has_the_line_of_the_nearest_one_above() -> None:
    document = one("a:\n  b:\n  - c: 1\n")
    assert document.line_of(("a", "b", 0, "x")) == 3
    assert document.line_of(("a", "x", "y")) == 1
    assert document.line_of(("a", "b", 7)) == 2
    assert document.line_of(()) == 1


def test_a_finding_of_a_document_says_where_and_in_what() -> None:
    finding = one(AGENT).finding(("spec", "role"), "m")
    assert str(finding) == "f.yaml:4: spec.role: m"
    assert finding.resource == "Agent reports/a"


def test_documents_of_other_groups_are_foreign_whatever_they_hold() -> None:
    text = "apiVersion: kagent.dev/v1alpha2\nkind: Agent\nspec: !x {a: 1, a: 2, on: 3}\n"
    foreign = parse_document(one(text))
    assert isinstance(foreign, Foreign)
    assert (foreign.api_version, foreign.kind, foreign.is_namespace) == ("kagent.dev/v1alpha2", "Agent", False)


def test_a_namespace_is_foreign_and_gives_its_labels() -> None:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: reports, labels: {team: reports}}\n"
    namespace = parse_document(one(text))
    assert isinstance(namespace, Foreign)
    assert (namespace.is_namespace, namespace.name, namespace.labels) == (True, "reports", {"team": "reports"})


def test_policy_tests_are_given_as_written_with_their_lines() -> None:
    text = "apiVersion: fleetward.dev/v1alpha1\nkind: PolicyTest\ntests:\n- name: x\n  expect: Deny\n"
    test = parse_document(one(text))
    assert isinstance(test, PolicyTest)
    assert test.data["tests"] == [{"name": "x", "expect": "Deny"}]
    assert test.document.line_of(("tests", 0, "expect")) == 5


def test_plain_data_is_what_yaml_says() -> None:
    text = "{a: 1, b: 1.5, c: true, d: ~, e: x, f: [1], g: 2024-01-01, h: '1', i: =, j: 0, k: 0b11, l: !!str 1}"
    assert one(text).data == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": "x",
        "f": [1],
        "g": dt.date(2024, 1, 1),
        "h": "1",
        "i": "=",
        "j": 0,
        "k": 3,
        "l": "1",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_pattern_of_the_models_is_told_in_words(kind: str) -> None:
    missing = [pattern for pattern in _patterns(KINDS[kind].model_json_schema()) if pattern not in PATTERNS]
    assert missing == []


def _patterns(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [pattern for part in schema for pattern in _patterns(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    own += list(schema.get("patternProperties", {}))
    return own + [pattern for part in schema.values() for pattern in _patterns(part)]
