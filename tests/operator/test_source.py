"""Events and lists may come late, twice or never: after a list the view is the truth, and no old news undoes new."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetward.registry.registry import Registry
from fleetward.resources import KINDS
from fleetward.resources.base import SET_BY_ANNOTATION
from fleetward_operator.view.source import Source

Body = dict[str, Any]

WHEN = "action.name == 'b'"


def agent(version: int, name: str = "a", *, uid: str = "u", **spec: Any) -> Body:
    return {
        "metadata": {
            "name": name,
            "namespace": "reports",
            "uid": uid,
            "generation": version,
            "resourceVersion": str(version),
        },
        "spec": {"role": "Worker", **spec},
    }


def policy(version: int, *, when: str = WHEN, decision: str = "Deny", **more: Any) -> Body:
    rule = {"name": "r", "match": {}, "when": when, "decision": decision}
    metadata = {"name": "p", "namespace": "reports", "uid": "p", "generation": version, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"rules": [rule], **more}}


def source() -> Source:
    return Source()


class Cluster:
    """A history of one kind: every state of every object, and what is there at each resourceVersion."""

    def __init__(self) -> None:
        self.version = 0
        self.there: dict[str, Body] = {}
        self.events: list[tuple[str, Body]] = []
        self.lists: list[tuple[int, list[Body]]] = []

    def put(self, name: str) -> None:
        self.version += 1
        old = self.there.get(name)
        uid = old["metadata"]["uid"] if old else f"{name}-{self.version}"
        self.there[name] = agent(self.version, name, uid=uid, owner=f"owner-{self.version}")
        self.events.append(("ADDED" if old is None else "MODIFIED", self.there[name]))

    def delete(self, name: str) -> None:
        if name not in self.there:
            return
        self.version += 1
        last = self.there.pop(name)
        self.events.append(
            ("DELETED", {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.version)}})
        )

    def list(self) -> None:
        self.lists.append((self.version, list(self.there.values())))

    def truth(self) -> dict[str, str]:
        return {f"reports/{name}": body["spec"]["owner"] for name, body in self.there.items()}


def tell(view: Source, event: tuple[str, Body]) -> None:
    type_, body = event
    (view.gone if type_ == "DELETED" else view.see)("agents", body)


def owners(view: Source) -> dict[str, str]:
    return {key: item.owner for key, item in view.registry.agents.items()}


@st.composite
def histories(draw: st.DrawFn) -> Cluster:
    cluster = Cluster()
    for step, name in draw(
        st.lists(st.tuples(st.sampled_from(["put", "put", "delete", "list"]), st.sampled_from("abc")), max_size=25)
    ):
        cluster.list() if step == "list" else getattr(cluster, step)(name)
    return cluster


@given(histories(), st.randoms(use_true_random=False))
def test_a_list_is_the_truth_whatever_events_came_before(cluster: Cluster, random: Any) -> None:
    view = source()
    news: list[Any] = [event for event in cluster.events if random.random() < 0.6]  # some are lost
    news += random.sample(news, k=len(news) // 2)  # some come twice
    news += [listed for listed in cluster.lists if random.random() < 0.5]
    random.shuffle(news)
    for each in news:
        if isinstance(each[0], int):
            view.relisted("agents", each[1], each[0])
        else:
            tell(view, each)
    view.relisted("agents", list(cluster.there.values()), cluster.version)
    assert owners(view) == cluster.truth()
    for event in cluster.events:  # all of it is old news now
        tell(view, event)
    assert owners(view) == cluster.truth()


@given(histories(), st.integers(0, 30))
def test_an_old_list_undoes_nothing(cluster: Cluster, when: int) -> None:
    """Events come in order, as a watch brings them; lists were taken in between and arrive late."""
    view = source()
    for number, event in enumerate(cluster.events):
        tell(view, event)
        if number >= when:
            for version, bodies in cluster.lists:
                if version <= int(event[1]["metadata"]["resourceVersion"]):
                    view.relisted("agents", bodies, version)
    assert owners(view) == cluster.truth()
    assert view.registry.version == Registry.build(o.resource for o in view.observed.values() if o.resource).version


def test_a_fault_keeps_the_last_good_version() -> None:
    view = source()
    view.see("agentpolicies", policy(1))
    good = view.registry.version
    view.see("agentpolicies", policy(2, when="action.totl > 10"))
    observed = view.observed["AgentPolicy", "reports/p"]
    assert not observed.governs
    assert "spec.rules[0].when" in observed.faults[0]
    assert "totl" in observed.faults[0]
    assert observed.generation == 2
    assert observed.resource is not None
    assert observed.resource.metadata.generation == 1
    assert view.registry.version == good
    view.see("agentpolicies", policy(3, when="action.name == 'x'"))
    assert view.observed["AgentPolicy", "reports/p"].governs
    assert view.registry.version != good


def test_a_new_object_of_the_same_name_inherits_no_good_version() -> None:
    view = source()
    view.see("agents", agent(1, uid="first"))
    view.see("agents", agent(2, uid="second", role="Boss"))
    assert view.observed["Agent", "reports/a"].resource is None
    assert not view.registry.agents


def test_an_unreadable_policy_without_a_good_version_denies_everything_in_its_reach() -> None:
    view = source()
    view.see("agents", agent(1))
    view.see("agentpolicies", policy(2, enforcment="Audit"))
    (found,) = view.registry.policies.values()
    assert [rule.decision for rule in found.rules] == ["Deny"]
    assert view.registry.agents["reports/a"].policies
    view.see("agentpolicies", policy(3))
    (found,) = view.registry.policies.values()
    assert found.rules[0].when == WHEN


def test_an_unreadable_catalog_denies_until_it_reads_or_is_gone() -> None:
    view = source()
    view.see("agents", agent(1))
    bad: Body = {
        "metadata": {"name": "crm", "uid": "c", "generation": 1, "resourceVersion": "2"},
        "spec": {"entrys": []},
    }
    view.see("actioncatalogs", bad)
    assert len(view.registry.policies) == 1
    view.gone("actioncatalogs", {**bad, "metadata": {**bad["metadata"], "resourceVersion": "3"}})
    assert not view.registry.policies


def budget(version: int, kind: str = "AgentBudget", **spec: Any) -> Body:
    place = {"namespace": "reports"} if kind == "AgentBudget" else {}
    return {
        "metadata": {"name": "day", **place, "uid": "b", "generation": version, "resourceVersion": str(version)},
        "spec": spec,
    }


def may_do_nothing(view: Source) -> set[str]:
    """The agents to whom a rule of the stand-in denies everything."""
    denied = set()
    for key, item in view.registry.agents.items():
        for policy in item.policies:
            (rule,) = view.registry.policies[policy].rules
            assert rule.decision == "Deny"
            if rule.match.fleets is None or set(rule.match.fleets) & set(item.fleets):
                denied.add(key.partition("/")[2])
    return denied


@pytest.mark.parametrize("kind", ["AgentBudget", "ClusterAgentBudget"])
@pytest.mark.parametrize(
    ("spec", "denied"),
    [
        ({"limits": {"records": 0}}, {"a", "b"}),
        ({"limits": {"records": 0}, "subjects": {"agents": ["a"]}}, {"a"}),
        ({"limits": {"records": 0}, "subjects": {"agents": ["a"], "roles": ["Planner"]}}, set()),
        ({"limits": {"records": 0}, "subjects": {"agents": ["a"], "roles": ["Planer"]}}, {"a"}),
        ({"limits": {"records": 0}, "subjects": {"fleets": ["none"]}}, set()),
        ({"limits": {"records": 0}, "subjects": {"flets": ["none"], "agents": ["b"]}}, {"b"}),
        ({"limits": {"records": 0}, "subjects": "everybody"}, {"a", "b"}),
        ({"subjects": {"agents": ["a"]}}, {"a"}),
        (
            {
                "limits": {"records": 1},
                "subjects": {"agents": ["b"]},
                "window": {"kind": "Calendar", "unit": "Day", "timeZone": "Europe/Berlim"},
            },
            {"b"},
        ),
    ],
)
def test_subjects_of_a_budget_that_was_never_right_may_do_nothing(
    kind: str, spec: dict[str, Any], denied: set[str]
) -> None:
    view = source()
    view.see("agents", agent(1))
    view.see("agents", agent(2, name="b"))
    plural = KINDS[kind].PLURAL
    view.see(plural, budget(3, kind, **spec))
    (key,) = {k for k in view.observed if k[0] == kind}
    assert view.observed[key].faults
    assert not view.registry.budgets
    assert may_do_nothing(view) == denied
    view.see(plural, budget(4, kind, limits={"records": 1}))
    assert may_do_nothing(view) == set()
    assert len(view.registry.budgets) == 1
    view.see(plural, budget(5, kind, limits={"records": -1}))
    assert may_do_nothing(view) == set()
    (item,) = view.registry.budgets.values()
    assert item.generation == 4, "the last good generation stays in force"


def test_who_stopped_an_agent_is_the_field_manager_unless_the_webhook_said() -> None:
    view = source()
    body = agent(1, operatingMode="Paused")
    body["metadata"]["managedFields"] = [
        {
            "manager": "kubectl-create",
            "time": "2026-01-01T00:00:00Z",
            "fieldsV1": {"f:spec": {"f:role": {}, "f:operatingMode": {}}},
        },
        {"manager": "kubectl-patch", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:spec": {"f:operatingMode": {}}}},
    ]
    view.see("agents", body)
    assert view.registry.agents["reports/a"].mode.set_by == "the field manager kubectl-patch"
    stamped = {
        **body,
        "metadata": {
            **body["metadata"],
            "resourceVersion": "2",
            "annotations": {SET_BY_ANNOTATION: "Paused by ada@example.com"},
        },
    }
    view.see("agents", stamped)
    assert view.registry.agents["reports/a"].mode.set_by == "ada@example.com"


def test_namespaces_and_pods() -> None:
    touched: list[tuple[str, str]] = []
    view = Source(lambda plural, key: touched.append((plural, key)))
    view.see("namespaces", {"metadata": {"name": "reports", "resourceVersion": "1", "labels": {"team": "x"}}})
    assert view.registry.namespace_labels("reports")["team"] == "x"
    pod = {
        "metadata": {"name": "p", "namespace": "reports", "uid": "1", "resourceVersion": "2"},
        "spec": {},
        "status": {"phase": "Running"},
    }
    view.see("pods", pod)
    assert view.pods.get("reports", "p") is not None
    view.relisted("pods", [], 5)
    assert view.pods.get("reports", "p") is None
    assert touched == [("namespaces", "reports"), ("pods", "reports/p"), ("pods", "reports/p")]
