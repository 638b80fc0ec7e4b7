"""The NetworkPolicy that cuts quarantined pods off, in namespaces of a real API server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from support.clusterpods import make_pod
from support.controlplane.fixtures import make_namespace
from support.controlplane.plane import ControlPlane, connected

from fleetward.registry.selector import selects
from fleetward.resources.names import QUARANTINED_LABEL
from fleetward_operator.keeper.problems import Problems
from fleetward_operator.keeper.quarantine import keep_quarantine
from fleetward_operator.kube.objects import NotLeadingError, Objects
from fleetward_operator.view.quarantine import Cuts, Quarantines

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

NAME = "fleetward-quarantine"
RIGHT = {"podSelector": {"matchLabels": {QUARANTINED_LABEL: "true"}}, "policyTypes": ["Ingress", "Egress"]}
"""As the API server gives it: with no rules, so nothing is allowed."""


@pytest.fixture(autouse=True)
def cleaned(plane: ControlPlane, namespace: str) -> Iterator[None]:
    yield
    plane.kubectl("delete", "networkpolicy", "--all", "-n", namespace)


def stored(plane: ControlPlane, namespace: str) -> dict[str, Any] | None:
    found = plane.kubectl("get", "networkpolicy", NAME, "-n", namespace, "-o", "json", "--ignore-not-found")
    return dict(json.loads(found)) if found else None


async def keep(
    api: ApiClient, *agents: str, pods: tuple[str, ...] = (), may_write: bool = True
) -> tuple[Cuts, dict[str, str]]:
    problems = Problems()
    wanted = Quarantines(frozenset(agents), frozenset(pods))
    return await keep_quarantine(Objects(api, lambda: may_write), problems, wanted, None), problems.current


def add(plane: ControlPlane, namespace: str, name: str, spec: dict[str, Any]) -> None:
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}
    plane.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(body))


async def test_made_kept_right_and_removed_once_no_pod_has_the_label(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        assert await keep(api, namespace) == ({namespace: ()}, {})
        made = stored(plane, namespace)
        assert made is not None
        assert made["spec"] == RIGHT
        assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "fleetward"
        await keep(api, namespace)
        assert stored(plane, namespace) == made, "not written again"

        edits: tuple[dict[str, Any], ...] = (
            {"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}},
            {"spec": {"ingress": [{}]}},
            {"spec": {"policyTypes": ["Ingress"]}},
            {"spec": {"podSelector": {"matchLabels": {"more": "of-it"}}}},
            {"spec": {"podSelector": {"matchExpressions": [{"key": "more", "operator": "Exists"}]}}},
            {"spec": {"podSelector": {"matchLabels": {QUARANTINED_LABEL: "false"}}}},
            {"metadata": {"labels": None}},
        )
        for edit in edits:
            patch = ("patch", "networkpolicy", NAME, "-n", namespace, "--type", "merge", "-p", json.dumps(edit))
            plane.kubectl(*patch)
            changed = stored(plane, namespace)
            assert changed is not None
            assert changed["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
            await keep(api, namespace)
            right = stored(plane, namespace)
            assert right is not None
            assert right["spec"] == RIGHT, edit
            assert right["metadata"]["labels"] == made["metadata"]["labels"], edit
        plane.kubectl("delete", "networkpolicy", NAME, "-n", namespace)
        await keep(api, namespace)
        assert stored(plane, namespace) is not None

        assert await keep(api, pods=(namespace,)) == ({}, {})
        assert stored(plane, namespace) is not None, "a pod has the label yet"
        with pytest.raises(NotLeadingError):
            await keep(api, may_write=False)
        assert stored(plane, namespace) is not None
        await keep(api)
        assert stored(plane, namespace) is None


async def test_what_other_policies_allow_is_found(plane: ControlPlane, namespace: str) -> None:
    dns = {"podSelector": {}, "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}], "policyTypes": ["Egress"]}
    add(plane, namespace, "dns", dns)
    web = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, "ingress": [{}]}
    add(plane, namespace, "web", web)
    add(plane, namespace, "deny-all", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    add(plane, namespace, "idle", {"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]})
    many = [{"key": f"k{number}", "operator": "DoesNotExist"} for number in range(40)]
    add(plane, namespace, "wide", {"podSelector": {"matchExpressions": many}, "ingress": [{}]})
    async with plane.api() as api:
        cuts, problems = await keep(api, namespace)
    assert problems == {}
    found = {opening.policy: opening.selector for opening in cuts[namespace]}
    assert sorted(found) == ["dns", "web", "wide"]
    assert [selects(found[name], {"app": "web"}) for name in sorted(found)] == [True, True, True]
    assert [selects(found[name], {"app": "db"}) for name in sorted(found)] == [True, False, True]


async def test_a_stranger_s_policy_is_left_alone_until_something_is_quarantined(
    plane: ControlPlane, namespace: str
) -> None:
    add(plane, namespace, NAME, {"podSelector": {}, "policyTypes": ["Ingress"]})
    before = stored(plane, namespace)
    async with plane.api() as api:
        await keep(api)
        assert stored(plane, namespace) == before
        await keep(api, namespace)
    right = stored(plane, namespace)
    assert right is not None
    assert right["spec"] == RIGHT


async def test_namespaces_that_go_are_no_problem(plane: ControlPlane, namespace: str) -> None:
    going = f"{namespace}-going"
    make_namespace(plane, going)
    make_pod(plane, going, "stays", "x", grace=300)
    plane.kubectl("delete", "namespace", going, "--wait=false")
    try:
        async with plane.api() as api:
            assert await keep(api, going, "was-never-there", namespace) == ({namespace: ()}, {})
            assert stored(plane, going) is None
    finally:
        plane.request("DELETE", f"/api/v1/namespaces/{going}/pods/stays?gracePeriodSeconds=0")


async def test_one_namespace_that_refuses_keeps_no_other_from_its_policy(plane: ControlPlane, namespace: str) -> None:
    role = f"quarantine-{namespace}"
    who = f"--serviceaccount={namespace}:default"
    plane.kubectl("create", "clusterrole", role, "--verb=list", "--resource=networkpolicies")
    plane.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", who)
    plane.kubectl("create", "role", "q", "-n", namespace, "--verb=create,patch", "--resource=networkpolicies")
    plane.kubectl("create", "rolebinding", "q", "-n", namespace, "--role=q", who)
    try:
        async with connected(plane.kubeconfig_for(namespace, "default")) as api:
            cuts, problems = await keep(api, "default", namespace)
        assert cuts == {namespace: ()}
        assert problems[f"NetworkPolicy default/{NAME}"].startswith(f"cannot patch NetworkPolicy default/{NAME}: 403: ")
    finally:
        plane.kubectl("delete", "clusterrole,clusterrolebinding", role)
