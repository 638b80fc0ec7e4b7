"""Work that was handed down: the restrictions of whoever handed it down count, and nothing they may do does."""

from typing import Any

import pytest
from decision.build import agent, catalog, engine_of, fleet, outcome, policy, request
from hypothesis import given
from hypothesis import strategies as st

from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.rules import SEVERITY
from fleetward.decision.situation import Situation
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Items, Slice

A, B, C = "reports/a", "reports/b", "reports/c"
AGENTS = (agent("a", role="Coordinator"), agent("b", role="Planner"), agent("c"))
ALLOW_C = policy({"decision": "Allow"}, name="c-may", subjects={"agents": ["c"]})


def of_a(*rules: dict[str, Any], **spec: Any) -> Any:
    return policy(*rules, name="of-a", subjects={"agents": ["a"]}, **spec)


def under(engine: Engine, *path: str, agent_key: str = C, **ask: Any) -> Evaluation:
    more = {name: ask.pop(name) for name in ("labels_along", "run", "to", "plan") if name in ask}
    labels = tuple(more.pop("labels_along", ()))
    return engine.decide(request(agent_key, **ask), Situation(path=path, labels=labels, **more))


def test_a_restriction_reaches_all_the_way_down_and_says_whose_it_is() -> None:
    engine = engine_of(*AGENTS, ALLOW_C, of_a({"decision": "Deny", "message": "not so"}))
    assert under(engine).decision == "Allow"
    denied = under(engine, A, B)
    assert denied.decision == "Deny"
    assert [(ref.policy, ref.principal) for ref in denied.rules] == [("reports/of-a", A), ("reports/c-may", C)]
    assert denied.reason == (
        "denied by rule r0 of AgentPolicy reports/of-a, which binds reports/a, who handed the work down: not so"
    )


def test_what_a_principal_may_do_is_not_handed_down() -> None:
    engine = engine_of(*AGENTS, of_a({"decision": "Allow"}))
    assert under(engine, A).decision == "Deny"
    assert under(engine, agent_key=A).decision == "Allow"


def test_who_only_looks_on_does_not_count() -> None:
    engine = engine_of(*AGENTS, ALLOW_C, of_a({"decision": "Deny"}))
    assert under(engine, B).decision == "Allow"


def test_an_inherited_rule_is_matched_on_the_agent_that_acts() -> None:
    engine = engine_of(*AGENTS, ALLOW_C, of_a({"decision": "Deny", "match": {"roles": ["Coordinator"]}}))
    assert under(engine, A).decision == "Allow"
    engine = engine_of(*AGENTS, ALLOW_C, of_a({"decision": "Deny", "when": "agent.key == 'reports/c'"}))
    assert under(engine, A).decision == "Deny"


def test_a_policy_of_several_in_the_chain_counts_once() -> None:
    engine = engine_of(*AGENTS, policy({"decision": "Deny"}))
    assert [ref.principal for ref in under(engine, A, B).rules] == [C]


def test_obligations_of_principals_add_up() -> None:
    clamp = {"type": "Clamp", "field": "arguments.n", "maximum": 5}
    mine = {**clamp, "maximum": 9}
    engine = engine_of(
        *AGENTS,
        policy({"decision": "Constrain", "obligations": [mine]}, name="c-may", subjects={"agents": ["c"]}),
        of_a({"decision": "Constrain", "obligations": [clamp]}),
    )
    assert [o.maximum for o in under(engine, A).judgement.obligations] == [5]
    assert [o.maximum for o in under(engine).judgement.obligations] == [9]


def test_an_inherited_constrain_alone_allows_nothing() -> None:
    clamp = {"type": "Clamp", "field": "arguments.n", "maximum": 5}
    engine = engine_of(*AGENTS, of_a({"decision": "Constrain", "obligations": [clamp]}))
    assert under(engine, A).decision == "Deny"


def test_the_data_classes_of_principals_bound_the_chain() -> None:
    engine = engine_of(
        agent("a", role="Coordinator", dataClasses=["public"]),
        agent("c"),
        ALLOW_C,
        catalog({"names": ["crm.**"], "dataClasses": ["customer"]}),
    )
    assert under(engine).decision == "Allow"
    denied = under(engine, A)
    assert denied.decision == "Deny"
    assert denied.reason == (
        "crm.read touches the data classes customer, and reports/a, who handed the work down, "
        "may touch public (spec.dataClasses)"
    )


@pytest.mark.parametrize("mode", ["Paused", "Stopped", "Quarantined"])
def test_work_stops_with_whoever_handed_it_down(mode: str) -> None:
    engine = engine_of(agent("a", operatingMode=mode, operatingReason="incident 7"), agent("c"), ALLOW_C)
    denied = under(engine, A)
    assert denied.decision == "Deny"
    assert denied.reason == f"{A} is {mode}, set on Agent {A}: incident 7; it handed the work down to {C}"
    assert under(engine).decision == "Allow"


def test_a_principal_that_is_gone_ends_the_chain() -> None:
    denied = under(engine_of(agent("c"), ALLOW_C), A)
    assert (denied.decision, denied.reason) == (
        "Deny",
        "reports/a, who handed the work down to reports/c, is not governed any more",
    )


def test_intersection_asks_every_principal() -> None:
    strict = fleet(delegation="Intersection")
    engine = engine_of(*AGENTS, ALLOW_C, strict)
    denied = under(engine, A)
    assert denied.decision == "Deny"
    assert denied.reason.startswith(
        "reports/a, who handed the work down, may not do it itself: no rule matches ToolCall"
    )
    both = policy({"decision": "Allow"}, name="both", subjects={"agents": ["a", "c"]})
    assert under(engine_of(*AGENTS, both, strict), A).decision == "Allow"
    assert under(engine_of(*AGENTS, both, strict), A, B).decision == "Deny"


def test_an_outcome_is_judged_along_the_chain_too() -> None:
    engine = engine_of(*AGENTS, ALLOW_C, of_a({"decision": "Deny", "phase": "After"}))
    opened = under(engine, A).open("d-1")
    assert engine.review(opened, outcome()).decision == "Deny"
    assert engine.review(under(engine).open("d-2"), outcome()).decision == "Allow"


def test_labels_along_the_way_are_trusted_and_only_add() -> None:
    engine = engine_of(*AGENTS, ALLOW_C, policy({"decision": "Deny", "match": {"labels": ["web"]}}, name="no-web"))
    assert under(engine, labels_along=["web"]).decision == "Deny"
    assert under(engine, labels_along=["web"], labels=["other"]).decision == "Deny"
    sees = policy({"decision": "Allow", "match": {"labels": ["reviewed"]}})
    assert under(engine_of(*AGENTS, sees), labels_along=["reviewed"]).decision == "Allow"
    assert under(engine_of(*AGENTS, sees), labels=["reviewed"]).decision == "Deny"


def test_only_trusted_facts_make_a_rule_cleanse() -> None:
    rule = {"decision": "Allow", "match": {"riskTags": ["sanitizer"]}, "cleanses": ["web"]}
    told = catalog({"names": ["text.clean"], "riskTags": ["sanitizer"]})
    engine = engine_of(*AGENTS, told, policy(rule), policy({"decision": "Allow"}, name="all"))
    assert under(engine, name="text.clean").judgement.cleanses == ("web",)
    assert under(engine, name="crm.read", riskTags=["sanitizer"]).judgement.cleanses == ()


def test_a_denied_action_and_an_audit_policy_cleanse_nothing() -> None:
    rule = {"decision": "Allow", "cleanses": ["web"]}
    engine = engine_of(*AGENTS, policy(rule), policy({"decision": "Deny"}, name="no"))
    assert under(engine).judgement.cleanses == ()
    engine = engine_of(*AGENTS, ALLOW_C, policy(rule, enforcement="Audit"))
    assert under(engine).judgement.cleanses == ()


def test_principals_reach_an_engine_by_the_slice() -> None:
    """A webhook serves C alone, and is sent A because A handed work down."""
    registry = Registry.build([*AGENTS, ALLOW_C, of_a({"decision": "Deny"})])
    alone = registry.cut([C])
    assert alone.items.principals == {}
    engine = Engine(alone)
    assert under(engine, A).reason.endswith("is not governed any more")
    engine.apply(registry.cut([C], [A]))
    assert engine.agents.keys() == {C}
    assert under(engine, A).rules[0].policy == "reports/of-a"
    engine.apply(Registry.build([*AGENTS, ALLOW_C]).cut([C], [A]))
    assert under(engine, A).decision == "Allow"


def test_policies_of_a_principal_that_did_not_arrive_deny() -> None:
    whole = Registry.build([*AGENTS, ALLOW_C, of_a({"decision": "Deny"})]).cut([C], [A])
    kept = {key: p for key, p in whole.items.policies.items() if key != "AgentPolicy/reports/of-a"}
    torn = Slice(
        version="torn", items=Items(agents=whole.items.agents, policies=kept, principals=whole.items.principals)
    )
    denied = under(Engine(torn), A)
    assert denied.decision == "Deny"
    assert denied.reason == "policies that concern reports/a did not arrive here: AgentPolicy/reports/of-a"


DECISIONS = st.sampled_from(["Allow", "Throttle", "RequireApproval", "Deny"])
MATCHES = st.fixed_dictionaries(
    {},
    optional={"names": st.sampled_from([["crm.*"], ["mail.*"]]), "roles": st.sampled_from([["Worker"], ["Planner"]])},
)
RULES = st.lists(st.builds(lambda d, m: {"decision": d, "match": m}, DECISIONS, MATCHES), min_size=1, max_size=3)
SUBJECTS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=2, unique=True)
POLICIES = st.lists(st.tuples(RULES, SUBJECTS, st.sampled_from(["Chain", "Self"])), max_size=4)


@given(policies=POLICIES, name=st.sampled_from(["crm.read", "mail.send"]), strict=st.booleans())
def test_a_chain_never_allows_more_than_acting_alone(policies: Any, name: str, *, strict: bool) -> None:
    made = [
        policy(*rules, name=f"p{n}", subjects={"agents": subjects}, inheritance=inheritance)
        for n, (rules, subjects, inheritance) in enumerate(policies)
    ]
    fleets = [fleet(delegation="Intersection")] if strict else []
    engine = engine_of(*AGENTS, *made, *fleets)
    paths = [(), (A,), (A, B)]
    severities = [SEVERITY[under(engine, *path, name=name).decision] for path in paths]
    assert severities[0] <= severities[1]
    if strict:  # and never more than any principal may do itself
        own = SEVERITY[under(engine, agent_key=A, name=name).decision]
        assert severities[1] >= own
    backwards = engine_of(*reversed([*AGENTS, *made, *fleets]))
    assert [SEVERITY[under(backwards, *path, name=name).decision] for path in paths] == severities
