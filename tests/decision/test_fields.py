"""A field that nothing reads does not ship: for every field of a kind, two values make two answers."""

import types
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from decision.build import AGENT, agent, ask, engine_of, load, request
from decision.fieldcases import CASES, LEFT_OUT, READ_ELSEWHERE, Case
from pydantic import BaseModel

from fleetward.resources import KINDS, Resource

NAMESPACES = {"reports": {"env": "yes"}}


def base(kind: str) -> dict[str, dict[str, Any]]:
    """Give a world in which the agent may do the one thing it asks for, by the one rule of a policy of `kind`."""
    policy = "AgentPolicy" if kind not in ("AgentPolicy", "ClusterAgentPolicy") else kind
    place = {"namespace": "reports"} if policy == "AgentPolicy" else {}
    entry = {"names": ["crm.**"], "riskTags": ["pii"], "dataClasses": ["customer"], "target": "crm"}
    documents: list[dict[str, Any]] = [
        {
            "kind": "Agent",
            "metadata": {"name": "worker", "namespace": "reports", "labels": {"team": "yes"}},
            "spec": {"role": "Worker"},
        },
        {"kind": "AgentFleet", "metadata": {"name": "f"}, "spec": {"agents": {}}},
        {
            "kind": "ActionCatalog",
            "metadata": {"name": "c"},
            "spec": {"entries": [{**entry, "reversibility": "Irreversible"}]},
        },
        {
            "kind": policy,
            "metadata": {"name": "p", **place},
            "spec": {"rules": [{"name": "r", "match": {}, "decision": "Allow"}]},
        },
    ]
    return {document["kind"]: document for document in documents}


def put(document: dict[str, Any], path: str, value: Any) -> None:
    """Set a field; in a list, of the first item."""
    *steps, last = path.split(".")
    at: Any = document
    for step in steps:
        at = at.setdefault(step, {})
        at = at[0] if isinstance(at, list) else at
    if value is LEFT_OUT:
        at.pop(last, None)
    else:
        at[last] = value


def resources(kind: str, case: Case, value: Any) -> list[Resource]:
    documents = base(kind)
    for other, changes in case.elsewhere.items():
        for path, change in changes.items():
            put(documents[other], path, change)
    for path, change in case.beside.items():
        put(documents[kind], path, _copied(change))
    put(documents[kind], case.path, value)
    if case.path.endswith("obligations.type") and value == "Clamp":
        put(documents[kind], "spec.rules.obligations.maximum", 0)
    if kind == "AgentFleet" and "Selector" in case.path:  # the fleet's default is what tells whether it holds the agent
        del documents["AgentPolicy"]
    if case.path == "spec.defaultDecision":
        del documents["AgentPolicy"]
    return [load(document) for document in documents.values()]


def _copied(value: Any) -> Any:
    return [dict(item) if isinstance(item, dict) else item for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        pytest.param(kind, case, id=f"{kind}.{case.path}-{n}")
        for kind, cases in CASES.items()
        for n, case in enumerate(cases)
    ],
)
def test_two_values_make_two_answers(kind: str, case: Case) -> None:
    seen = []
    for value in case.values:
        desk = agent("desk", role="Coordinator")
        engine = engine_of(*resources(kind, case, value), desk, namespaces=NAMESPACES)
        seen.append(case.observe(engine, engine.decide(request(**case.ask), case.situation)))
    key = "reports/p" if kind == "AgentPolicy" else "p"
    expected = [e.format(kind=kind, key=key) if isinstance(e, str) else e for e in case.expect]
    assert seen == expected
    assert seen[0] != seen[1]


def fields_of(model: type[BaseModel], path: str) -> Iterator[str]:
    """Walk every field of a model down to those that hold no further model."""
    for name, info in model.model_fields.items():
        at = f"{path}.{info.alias or name}"
        inner = [kind for kind in _parts(info.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for kind in inner:
            yield from fields_of(kind, at)
        if not inner:
            yield at


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) is not None or isinstance(annotation, types.UnionType):
        for part in get_args(annotation):
            yield from _parts(part)


def test_every_field_has_a_case() -> None:
    fields = {
        path
        for kind in CASES
        for path in fields_of(KINDS[kind].model_fields["spec"].annotation, f"{kind}.spec")  # type: ignore[arg-type]
    }
    assert len(fields) > 100
    cases = {f"{kind}.{case.path}" for kind, cases in CASES.items() for case in cases}
    assert fields - cases - set(READ_ELSEWHERE) == set(), "fields without a case"
    assert set(READ_ELSEWHERE) <= fields, "fields that are no more"
    of_parts = {path for path in cases - fields if not any(other.startswith(f"{path}.") for other in fields)}
    assert of_parts == set(), "cases for fields that are no more"


def test_every_kind_is_looked_at() -> None:
    # Sinks concern records, not decisions; fields of budgets: tests/registry/test_budgets.py and tests/budget.
    assert set(CASES) | {"AuditSink", "AgentBudget", "ClusterAgentBudget"} == set(KINDS)


def test_what_metadata_decisions_read() -> None:
    case = Case("metadata.uid", ("u-1", "u-2"))
    for path, values, observe in (
        ("metadata.uid", ("u-1", "u-2"), "uid"),
        ("metadata.generation", (3, 4), "generation"),
    ):
        seen = []
        for value in values:
            engine = engine_of(*resources("AgentPolicy", Case(path, values), value), namespaces=NAMESPACES)
            seen.append(getattr(ask(engine).rules[0], observe))
        assert tuple(seen) == values
    hashes = []
    for enforcement in ("Enforce", "Audit"):
        engine = engine_of(*resources("AgentPolicy", Case("spec.enforcement", case.values), enforcement))
        hashes.append(ask(engine).rules[0].hash)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("labels", "decision"),
    [({"team": "yes"}, "Allow"), ({"team": "no"}, "Deny"), ({}, "Deny")],
)
def test_labels_of_the_agent_are_read_by_expressions(labels: dict[str, str], decision: str) -> None:
    case = Case(
        "metadata.labels", (labels, {}), elsewhere={"AgentPolicy": {"spec.rules.when": "agent.labels.team == 'yes'"}}
    )
    assert ask(engine_of(*resources("Agent", case, labels))).decision == decision


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("agent.name == 'worker' && agent.namespace == 'reports'", True),
        ("agent.role == 'Worker'", True),
        ("agent.fleets == ['f']", True),
        ("agent.name == 'reports/worker'", False),
        ("action.kind == 'ToolCall' && action.name == 'crm.read' && action.target == 'crm'", True),
        ("action.reversibility == 'Irreversible'", True),
        ("action.riskTags == ['pii'] && action.dataClasses == ['customer'] && action.labels == []", True),
        ("has(action.arguments) || has(action.argumentsDigest)", False),
        ("has(action.estimate)", True),
        ("has(action.estimate.records)", False),
    ],
)
def test_what_expressions_read(expression: str, holds: bool) -> None:  # noqa: FBT001
    case = Case("spec.rules.when", (expression, ""))
    engine = engine_of(*resources("AgentPolicy", case, expression), namespaces=NAMESPACES)
    assert ask(engine, AGENT).decision == ("Allow" if holds else "Deny")


def test_who_set_the_mode_is_told_while_that_mode_holds() -> None:
    said = "fleetward.dev/operating-mode-set-by"
    for mode, told in (("Paused", " by ann@example.com"), ("Stopped", "")):
        case = Case("metadata.annotations", ({}, {}), beside={"spec.operatingMode": mode})
        paused = resources("Agent", case, {said: "Paused by ann@example.com"})
        evaluation = ask(engine_of(*paused))
        assert evaluation.reason == f"{AGENT} is {mode}, set on Agent {AGENT}{told}"
        assert evaluation.mode is not None
        assert evaluation.mode.operating_mode == mode
        assert evaluation.rules == ()


def test_the_stronger_mode_of_agent_and_fleet_counts() -> None:
    for of_agent, of_fleet, source in (
        ("Paused", "Stopped", "AgentFleet f"),
        ("Quarantined", "Stopped", f"Agent {AGENT}"),
        ("Paused", "Paused", f"Agent {AGENT}"),
    ):
        case = Case("spec.operatingMode", ("", ""), elsewhere={"AgentFleet": {"spec.operatingMode": of_fleet}})
        evaluation = ask(engine_of(*resources("Agent", case, of_agent)))
        assert evaluation.mode is not None
        assert evaluation.mode.source == source
