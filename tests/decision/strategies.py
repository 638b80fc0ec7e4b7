"""Random worlds: resources and actions over alphabets so small that things collide all the time.

A world is drawn as the plain data a user would write, so that the reference evaluator reads just what the product
reads, and a failing example can be pasted into a file.
"""

import os
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from decision.build import load, read_request
from hypothesis import settings
from hypothesis import strategies as st

from fleetward.decision.engine import Engine
from fleetward.registry.registry import Registry
from fleetward.resources import Resource

Data = dict[str, Any]

_TIMES = int(os.environ.get("FLEETWARD_EXAMPLES_TIMES", "1"))
"""How many times as many examples as usual: for a long search before a release."""

FEW = settings(max_examples=40 * _TIMES)
SOME = settings(max_examples=80 * _TIMES)
MANY = settings(max_examples=250 * _TIMES)

NAMESPACES = ("n", "m")
NAMES = ("a", "b")
AGENTS = tuple(f"{namespace}/{name}" for namespace in NAMESPACES for name in NAMES)
ROLES = ("Coordinator", "Planner", "Worker")
KINDS = ("ToolCall", "Delegation", "Message")
MODES = ("Running", "Paused", "Stopped", "Quarantined")
DECISIONS = ("Allow", "Constrain", "Throttle", "RequireApproval", "Deny")
TAGS, CLASSES, MARKS = ("t", "u"), ("c", "d"), ("v", "w")
TARGETS = ("x", "a", "n/b", "m/a")
SEGMENTS = ("a", "b", "ab")
GLOB_SEGMENTS = ("a", "b", "*", "**", "a*", "*b")
LABELS: tuple[dict[str, str], ...] = ({}, {"k": "1"}, {"k": "2"}, {"k": "1", "l": "1"})
AMOUNTS = ("inputTokens", "costMicroUsd", "records")

EXPRESSIONS = (
    "true",
    "false",
    "action.estimate.records > 1",
    "has(action.estimate.records) && action.estimate.records > 1",
    "has(action.estimate.records) && action.estimate.records <= 1",
    "'c' in action.dataClasses",
    "!('t' in action.riskTags)",
    "size(action.labels) > 0",
    "action.target == 'x'",
    "has(action.target)",
    "action.reversibility == 'Irreversible'",
    "action.arguments.n > 1",
    "has(action.argumentsDigest)",
    "agent.riskTier == 'High'",
    "agent.owner == 'o'",
    "agent.labels.k == '1'",
    "'c' in agent.dataClasses",
    "size(agent.fleets) == 1",
)
"""Expressions the reference evaluator knows, too; some err where a field is absent."""

_TEN = "[0,1,2,3,4,5,6,7,8,9]"
RUNAWAY = "".join(f"{_TEN}.all({name}, " for name in "abcdef") + "a + b + c + d + e + f >= 0" + ")" * 6
"""A million rounds: more than any runtime's budget."""

ERRING = (
    "action.nothing == 1",
    "agent.nothing",
    "action.name",
    "action.estimate.nothing > 0",
    "action.name + 1 > 0",
    "action.riskTags[9] == 't'",
    "1 / (size(action.name) - size(action.name)) == 1",
    "1 +",
    "unknown == 1",
    "misspelt(action.name)",
    RUNAWAY,
)
"""Expressions that never give a verdict: absent fields, types, an index, a division, no compilation, the budget."""


# Making a strategy costs more than drawing from it, so those that are drawn from within others are made once.


@cache
def some(values: tuple[Any, ...], least: int = 1) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=2, unique=True)


def dotted(segments: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(segments), min_size=1, max_size=3).map(".".join)


globs = dotted(GLOB_SEGMENTS)
action_names = dotted(SEGMENTS)
estimates = st.dictionaries(st.sampled_from(AMOUNTS), st.sampled_from((0, 1, 5)), max_size=2)


@cache
def selectors() -> st.SearchStrategy[Data]:
    requirement = st.one_of(
        st.builds(
            lambda key, operator, values: {"key": key, "operator": operator, "values": values},
            st.sampled_from(("k", "l")),
            st.sampled_from(("In", "NotIn")),
            some(("1", "2")),
        ),
        st.builds(
            lambda key, operator: {"key": key, "operator": operator},
            st.sampled_from(("k", "l")),
            st.sampled_from(("Exists", "DoesNotExist")),
        ),
    )
    return st.one_of(
        st.just({}),
        st.sampled_from(LABELS).map(lambda labels: {"matchLabels": labels}),
        requirement.map(lambda one: {"matchExpressions": [one]}),
    )


obligations = st.sampled_from(
    (
        {"type": "Clamp", "field": "arguments.n", "maximum": 1},
        {"type": "Clamp", "field": "arguments.n", "maximum": 4},
        {"type": "Redact", "field": "arguments.s"},
        {"type": "Redact", "field": "result.s"},
    )
)

MATCH_FIELDS = {
    "kinds": some(KINDS),
    "names": st.lists(globs, min_size=1, max_size=2),
    "riskTags": some(TAGS),
    "dataClasses": some(CLASSES),
    "targets": some(TARGETS),
    "labels": some(MARKS),
    "reversibility": some(("Reversible", "Irreversible")),
    "agents": some((*NAMES, *AGENTS)),
    "roles": some(ROLES),
    "fleets": some(("f", "g")),
}


_FIELD_NAMES = some(tuple(MATCH_FIELDS))


@st.composite
def _matches(draw: st.DrawFn) -> Data:
    """Draw one field or two: a match of more rarely holds."""
    return {name: draw(MATCH_FIELDS[name]) for name in draw(_FIELD_NAMES)}


matches = _matches()
_any_match = st.one_of(st.just({}), matches)


@cache
def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


@cache
def rarely(often: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from((*[often] * (7 * len(others)), *others))


_rarely = rarely(False, True)
_owed = st.lists(obligations, min_size=1, max_size=2)
_subjects = st.one_of(
    st.just({}),
    st.just({}),
    st.fixed_dictionaries(
        {}, optional={"roles": some(ROLES), "agents": some((*NAMES, *AGENTS)), "agentSelector": selectors()}
    ),
)
_fleets = st.fixed_dictionaries(
    {"agents": st.fixed_dictionaries({}, optional={"namespaceSelector": selectors(), "agentSelector": selectors()})},
    optional={
        "defaultDecision": st.sampled_from(("Allow", "RequireApproval", "Deny")),
        "declaredFacts": st.sampled_from(("RestrictOnly", "Trusted")),
        "operatingMode": rarely(*MODES),
    },
)
_entries = st.lists(
    st.fixed_dictionaries(
        {"names": st.lists(globs, min_size=1, max_size=2)},
        optional={
            "riskTags": some(TAGS),
            "dataClasses": some(CLASSES),
            "target": st.sampled_from(TARGETS),
            "estimate": estimates,
            "reversibility": st.sampled_from(("Reversible", "Irreversible")),
        },
    ),
    min_size=1,
    max_size=2,
)
_actions = st.fixed_dictionaries(
    {"kind": st.sampled_from(KINDS), "name": action_names},
    optional={
        "riskTags": some(TAGS),
        "dataClasses": some(CLASSES),
        "labels": some(MARKS),
        "target": st.sampled_from(TARGETS),
        "estimate": estimates,
        "arguments": st.sampled_from(({}, {"n": 0}, {"n": 9}, {"n": "text"}, {"s": "secret", "n": 2})),
    },
)


_throttles: st.SearchStrategy[Data] = st.sampled_from(
    ({}, {}, {"retryAfterSeconds": 1}, {"retryAfterSeconds": 60}, {"throttle": {"concurrency": 1}})
)


@st.composite
def _rules(draw: st.DrawFn, expressions: tuple[str, ...], decisions: tuple[str, ...]) -> Data:
    # Half the rules match everything: a narrow one rarely meets anything.
    rule: Data = {"match": draw(_any_match), "decision": draw(one_of(*decisions))}
    if draw(_rarely):
        rule["exclude"] = draw(matches)
    if expressions and draw(one_of(False, False, True)):
        rule["when"] = draw(one_of(*expressions))
    if rule["decision"] == "Constrain":
        rule["obligations"] = draw(_owed)
    if rule["decision"] == "Throttle":
        rule |= draw(_throttles)
    if draw(_rarely):
        rule |= {"audit": "Durable", "message": "because"}
    return rule


@cache
def rules(
    expressions: tuple[str, ...] = EXPRESSIONS, decisions: tuple[str, ...] = DECISIONS
) -> st.SearchStrategy[Data]:
    return _rules(expressions, decisions)


@cache
def _some_rules(expressions: tuple[str, ...]) -> st.SearchStrategy[list[Data]]:
    return st.lists(rules(expressions), min_size=1, max_size=4)


@st.composite
def policies(draw: st.DrawFn, kind: str, name: str, expressions: tuple[str, ...] = EXPRESSIONS) -> Data:
    metadata = {"name": name, "uid": f"uid-{name}", "generation": draw(one_of(1, 2))}
    subjects = draw(_subjects)
    if kind == "AgentPolicy":
        metadata["namespace"] = draw(one_of(*NAMESPACES))
    elif draw(_rarely):
        subjects = {**subjects, "namespaceSelector": draw(selectors())}
    return {
        "kind": kind,
        "metadata": metadata,
        "spec": {
            "enforcement": draw(rarely("Enforce", "Audit")),
            "subjects": subjects,
            "rules": [{"name": f"r{number}", **rule} for number, rule in enumerate(draw(_some_rules(expressions)))],
        },
    }


@st.composite
def agents(draw: st.DrawFn, key: str) -> Data:
    namespace, name = key.split("/")
    spec = {
        "role": draw(one_of(*ROLES)),
        "owner": draw(one_of("", "o")),
        "riskTier": draw(one_of("Low", "High")),
        "operatingMode": draw(rarely(*MODES)),
    }
    if draw(one_of(False, False, True)):
        spec["dataClasses"] = draw(some(CLASSES, 0))
    if draw(one_of(False, False, True)):
        spec["mayDelegateTo"] = {"roles": draw(some(ROLES, 0)), "agents": draw(some((*NAMES, *AGENTS), 0))}
    labels = LABELS[draw(one_of(*range(len(LABELS))))]
    return {"kind": "Agent", "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}


def fleets(name: str) -> st.SearchStrategy[Data]:
    return _fleets.map(lambda spec: {"kind": "AgentFleet", "metadata": {"name": name}, "spec": spec})


def catalogs(name: str) -> st.SearchStrategy[Data]:
    return _entries.map(
        lambda entries: {"kind": "ActionCatalog", "metadata": {"name": name}, "spec": {"entries": entries}}
    )


@dataclass
class World:
    """Resources as written, and the labels of namespaces."""

    documents: list[Data]
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def resources(self) -> list[Resource]:
        return [load(document) for document in self.documents]

    @property
    def registry(self) -> Registry:
        return Registry.build(self.resources, self.namespaces)

    @property
    def engine(self) -> Engine:
        registry = self.registry
        return Engine(registry.cut(registry.agents))

    def of(self, *kinds: str) -> list[Data]:
        return [document for document in self.documents if document["kind"] in kinds]


@st.composite
def budgets(draw: st.DrawFn, kind: str, name: str) -> Data:
    """Draw a budget that may be part of one that is not there, or of itself by way of others."""
    metadata = {"name": name, "uid": f"uid-{name}", "generation": draw(one_of(1, 2))}
    subjects = draw(_subjects)
    if draw(one_of(False, False, True)):
        subjects = {**subjects, "fleets": draw(some(("f", "g")))}
    if kind == "AgentBudget":
        metadata["namespace"] = draw(one_of(*NAMESPACES))
    elif draw(_rarely):
        subjects = {**subjects, "namespaceSelector": draw(selectors())}
    spec = {"subjects": subjects, "limits": {"records": draw(one_of(1, 9))}, "scope": draw(one_of("Shared", "Run"))}
    above = draw(one_of(None, "b0", "b1", "b2"))
    if above is not None and above != name:
        above_kind = (
            "ClusterAgentBudget" if kind != "AgentBudget" else draw(one_of("AgentBudget", "ClusterAgentBudget"))
        )
        spec["parent"] = {"kind": above_kind, "name": above}
    return {"kind": kind, "metadata": metadata, "spec": spec}


_agent_keys = st.lists(st.sampled_from(AGENTS), min_size=1, max_size=3, unique=True)
_label_number = st.sampled_from(range(len(LABELS)))


@st.composite
def worlds(
    draw: st.DrawFn,
    expressions: tuple[str, ...] = EXPRESSIONS,
    *,
    restrict_only: bool = False,
    with_budgets: bool = False,
) -> World:
    documents = [draw(agents(key)) for key in draw(_agent_keys)]
    documents += [draw(fleets(name)) for name in draw(some(("f", "g"), 0))]
    documents += [draw(catalogs(name)) for name in draw(some(("i", "j"), 0))]
    for number in range(draw(one_of(1, 2, 3))):
        kind = draw(one_of("AgentPolicy", "ClusterAgentPolicy"))
        documents.append(draw(policies(kind, f"p{number}", expressions)))
    for number in range(draw(one_of(0, 1, 2, 3)) if with_budgets else 0):
        documents.append(draw(budgets(draw(one_of("AgentBudget", "ClusterAgentBudget")), f"b{number}")))
    if restrict_only:
        for document in documents:
            document["spec"].pop("declaredFacts", None)
    return World(documents, {name: LABELS[draw(_label_number)] for name in draw(some(NAMESPACES, 0))})


DECLARED = ("riskTags", "dataClasses", "labels", "target", "estimate")


@st.composite
def requests(draw: st.DrawFn, world: World | None = None) -> Data:
    """Draw a request, mostly of an agent of the world."""
    present = [f"{d['metadata']['namespace']}/{d['metadata']['name']}" for d in world.of("Agent")] if world else []
    action = draw(_actions)
    if "arguments" not in action and draw(_rarely):
        action["argumentsDigest"] = "sha256:" + "0" * 64
    return {"agent": draw(one_of(*(present or AGENTS))), "action": action}


def undeclared(request: Data) -> Data:
    """Give the request as an agent makes it that declares nothing."""
    return {**request, "action": {k: v for k, v in request["action"].items() if k not in DECLARED}}


def decide(engine: Engine, request: Data) -> Any:
    return engine.decide(read_request(request))
