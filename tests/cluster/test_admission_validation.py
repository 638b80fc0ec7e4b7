"""What a schema cannot check, refused or told at apply."""

import json
import urllib.error
from functools import partial
from typing import Any

import pytest
from support.admission import apply
from support.controlplane.plane import ControlPlane
from support.governed import Governed, agent, governed
from support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

__all__ = ["governed"]

Json = dict[str, Any]


def resource(kind: str, name: str, namespace: str | None, spec: Json) -> Json:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "fleetward.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def policy(namespace: str, name: str = "rules", **rule: Any) -> Json:
    rules = [{"name": "one", "match": {"names": ["crm.**"]}, "decision": "Deny"} | rule]
    return resource("AgentPolicy", name, namespace, {"rules": rules})


def said(plane: ControlPlane, body: Json, verb: str = "create") -> str:
    return plane.kubectl(verb, "-f", "-", input=json.dumps(body), check=False)


def listed(plane: ControlPlane, plural: str) -> bool:
    """Whether the API server lists a kind from its cache, which it fills when it is first asked for it."""
    try:
        plane.request("GET", f"/apis/fleetward.dev/v1alpha1/{plural}?resourceVersion=0")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 429:
            raise
        return False
    return True


REFUSED = {
    "an unknown field": (
        "action.estimate.recrds > 1",
        "spec.rules[0].when: 1:17: unknown field 'recrds' of action.estimate; did you mean 'records'?",
        "  | action.estimate.recrds > 1\n  |                 ^",
    ),
    "a syntax error": ("action.name ==", "spec.rules[0].when: 1:15:", "  | action.name ==\n  |               ^"),
    "a type error": ("action.name > 1", "spec.rules[0].when: 1:13:", "  | action.name > 1\n  |             ^"),
    "no verdict": ("action.name", "spec.rules[0].when: 1:", "  | action.name\n"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_expression_that_does_not_compile_is_refused_with_its_caret(
    governed: Governed, namespace: str, case: str
) -> None:
    expression, message, caret = REFUSED[case]
    answer = said(governed.plane, policy(namespace, when=expression))
    assert 'The AgentPolicy "rules" is invalid: ' in answer
    assert message in answer
    assert caret in answer
    applied = said(governed.plane, policy(namespace, when=expression), "apply")
    assert message in applied
    assert caret in applied


def test_each_mistake_has_its_line(governed: Governed, namespace: str) -> None:
    body = policy(namespace)
    body["spec"]["rules"] += [
        {"name": "two", "match": {"names": ["a"]}, "decision": "Deny", "when": "1 +"},
        {"name": "three", "match": {"names": ["a"]}, "decision": "Deny", "when": "true"},
        {"name": "four", "match": {"names": ["a"]}, "decision": "Deny", "when": "nobody"},
    ]
    answer = said(governed.plane, body)
    assert "spec.rules[1].when: " in answer
    assert "spec.rules[2].when: " not in answer
    assert "spec.rules[3].when: " in answer


def test_cluster_policies_are_checked_too(governed: Governed) -> None:
    body = resource("ClusterAgentPolicy", "rules", None, policy("x", when="nobody")["spec"])
    assert 'The ClusterAgentPolicy "rules" is invalid: spec.rules[0].when' in said(governed.plane, body)


def test_what_refers_to_nothing_is_told_and_taken(governed: Governed, namespace: str) -> None:
    answer = said(governed.plane, policy(namespace, match={"agents": ["worker"], "fleets": ["none"]}))
    assert "agentpolicy.fleetward.dev/rules created" in answer
    assert "Warning: spec.rules[0].match.agents[0]: found worker, which is no Agent here" in answer
    assert "Warning: spec.rules[0].match.fleets[0]: found none, which is no AgentFleet here" in answer
    apply(governed.plane, agent(namespace))
    later = said(governed.plane, policy(namespace, "later", match={"agents": ["worker"]}))
    assert "Warning" not in later


def test_a_name_of_several_agents_is_told(governed: Governed, namespace: str) -> None:
    other = governed.system
    apply(governed.plane, agent(namespace, "twin"), agent(other, "twin"))
    body = resource("ClusterAgentPolicy", namespace, None, policy("x", match={"agents": ["twin"]})["spec"])
    answer = said(governed.plane, body)
    assert f"{namespace} created" in answer
    assert "Warning: spec.rules[0].match.agents[0]: twin is 2 agents, " in answer
    governed.plane.kubectl("delete", "clusteragentpolicy", namespace)


def catalog(name: str, *targets: str) -> Json:
    entries = [{"names": [f"{name[:3]}.read"], "target": target} for target in targets]
    return resource("ActionCatalog", name, None, {"entries": entries})


def test_a_catalog_at_odds_with_itself_is_refused_and_with_another_told(governed: Governed, namespace: str) -> None:
    answer = said(governed.plane, catalog(namespace, "crm", "erp"))
    assert f'The ActionCatalog "{namespace}" is invalid: ' in answer
    assert "spec.entries[0].names[0]: " in answer
    one, two = f"one-{namespace}", f"one-2-{namespace}"
    assert "Warning" not in said(governed.plane, catalog(one, "crm"))
    answer = said(governed.plane, catalog(two, "erp"))
    assert f"{two} created" in answer
    assert "Warning: spec.entries[0].names[0]: " in answer
    governed.plane.kubectl("delete", "actioncatalog", one, two)


BUDGET: Json = {"limits": {"records": 1}}


def test_a_budget_in_a_time_zone_that_does_not_exist_is_refused(governed: Governed, namespace: str) -> None:
    window = {"kind": "Calendar", "unit": "Day", "timeZone": "Europe/Berlim"}
    answer = said(governed.plane, resource("AgentBudget", "day", namespace, {**BUDGET, "window": window}))
    assert 'spec.window.timeZone: found "Europe/Berlim", allowed a time zone of the IANA database' in answer
    assert "did you mean Europe/Berlin?" in answer


def test_a_budget_that_is_part_of_nothing_or_of_itself_is_told_and_taken(governed: Governed, namespace: str) -> None:
    for plural in ("agentbudgets", "clusteragentbudgets"):  # which the API server had no reason to list so far
        until(partial(listed, governed.plane, plural), f"{plural} can be listed")

    def part_of(name: str, parent: str) -> str:
        spec = {**BUDGET, "subjects": {"fleets": [f"{namespace}-none"]}}
        above = {"kind": "AgentBudget", "name": parent}
        return said(governed.plane, resource("AgentBudget", name, namespace, {**spec, "parent": above}))

    answer = part_of("day", "month")
    assert f"Warning: spec.parent: AgentBudget {namespace}/month, which it is part of (spec.parent), is not" in answer
    assert f"Warning: spec.subjects.fleets[0]: found {namespace}-none, which is no AgentFleet here" in answer
    assert "agentbudget.fleetward.dev/day created" in answer
    answer = part_of("month", "day")
    assert "Warning: spec.parent: it is part of itself (spec.parent): AgentBudget" in answer
    assert "agentbudget.fleetward.dev/month created" in answer


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"workload": {"selector": {}}}, "spec.workload.selector: is empty, which selects every pod here"),
        ({"workload": None}, "spec.workload: is missing; no pod runs this agent"),
    ],
)
def test_an_agent_of_all_pods_or_none_is_told(governed: Governed, namespace: str, spec: Json, says: str) -> None:
    body = agent(namespace, **spec)
    if spec["workload"] is None:
        del body["spec"]["workload"]
    answer = said(governed.plane, body)
    assert "worker created" in answer
    assert f"Warning: {says}" in answer


def test_nothing_keeps_a_bad_resource_from_being_paused_or_deleted(governed: Governed, namespace: str) -> None:
    """What got in while the webhook was not asked can be labelled and deleted, and not be made bad in another way."""
    plane = governed.plane
    governed.admission.kill()
    try:
        body = policy(namespace, when="nobody")
        body["metadata"]["finalizers"] = ["example.com/wait"]
        refused = said(plane, body)
        assert "failed calling webhook" in refused  # policies fail closed
        hook = "validatingwebhookconfiguration"
        saved = json.loads(plane.kubectl("get", hook, governed.system, "-o", "json"))
        plane.kubectl("delete", hook, governed.system)
        assert "created" in said(plane, body)
    finally:
        governed.admission.start().until_ready()
    fresh = {"metadata": {"name": governed.system}, "webhooks": saved["webhooks"]}
    apply(plane, {"apiVersion": saved["apiVersion"], "kind": saved["kind"], **fresh})
    of = ("agentpolicy", "rules", "-n", namespace)
    worse = json.dumps({"spec": {"rules": [body["spec"]["rules"][0] | {"when": "somebody"}]}})
    assert "spec.rules[0].when" in plane.kubectl("patch", *of, "--type=merge", "-p", worse, check=False)
    plane.kubectl("label", *of, "team=reports")
    plane.kubectl("delete", *of, "--wait=false")
    plane.kubectl("patch", *of, "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))
    assert "NotFound" in plane.kubectl("get", *of, check=False)


def test_a_pause_passes_while_the_webhook_is_down(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    governed.admission.kill()
    try:
        body = json.dumps({"spec": {"operatingMode": "Paused"}})
        governed.plane.kubectl("-n", namespace, "patch", "agent", "worker", "--type=merge", "-p", body)
    finally:
        governed.admission.start().until_ready()
