"""The ConfigMap by which decision webhooks trust the hub, in namespaces of a real API server."""

import json
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from support.controlplane.fixtures import make_namespace
from support.controlplane.plane import ControlPlane, connected

from fleetward_operator.keeper.problems import Problems
from fleetward_operator.keeper.trust import keep_trust
from fleetward_operator.kube.objects import NotLeadingError, Objects

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

NAME = "fleetward-ca"


def stored(plane: ControlPlane, namespace: str) -> dict[str, Any] | None:
    found = plane.kubectl("get", "configmap", NAME, "-n", namespace, "-o", "json", "--ignore-not-found")
    return dict(json.loads(found)) if found else None


async def keep(api: ApiClient, bundle: str, *namespaces: str, may_write: bool = True) -> dict[str, str]:
    problems = Problems()
    await keep_trust(Objects(api, lambda: may_write), problems, bundle.encode(), set(namespaces), None)
    return problems.current


async def test_made_renewed_put_right_and_removed(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        assert await keep(api, "one", namespace) == {}
        made = stored(plane, namespace)
        assert made is not None
        assert made["data"] == {"ca.crt": "one"}
        assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "fleetward"

        await keep(api, "one", namespace)
        assert stored(plane, namespace) == made, "not written again"

        await keep(api, "two", namespace)
        for edit in (
            {"data": {"ca.crt": "evil"}},
            {"data": None},
            {"metadata": {"labels": None}},
            {"data": {"ca.crt": "evil"}, "immutable": True},
        ):
            plane.kubectl("patch", "cm", NAME, "-n", namespace, "--type", "merge", "-p", json.dumps(edit))
            await keep(api, "two", namespace)
            right = stored(plane, namespace)
            assert right is not None
            assert right["data"] == {"ca.crt": "two"}, edit
            assert right["metadata"]["labels"] == made["metadata"]["labels"], edit

        with pytest.raises(NotLeadingError):
            await keep(api, "three", namespace, may_write=False)
        assert await keep(api, "two") == {}
        assert stored(plane, namespace) is None


async def test_a_strangers_config_map_is_left_alone(plane: ControlPlane, namespace: str) -> None:
    plane.kubectl("create", "configmap", NAME, "-n", namespace, "--from-literal=a=b")
    before = stored(plane, namespace)
    async with plane.api() as api:
        await keep(api, "one")
        assert stored(plane, namespace) == before


async def test_namespaces_that_go_are_no_problem(plane: ControlPlane, namespace: str) -> None:
    going = f"{namespace}-going"
    make_namespace(plane, going)
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    plane.kubectl("create", "-n", going, "-f", "-", input=json.dumps(held))
    plane.kubectl("delete", "namespace", going, "--wait=false")
    try:
        async with plane.api() as api:
            assert await keep(api, "one", going, "was-never-there", namespace) == {}
            assert stored(plane, going) is None
            assert stored(plane, namespace) is not None
    finally:
        plane.kubectl("patch", "cm", "held", "-n", going, "--type", "merge", "-p", '{"metadata":{"finalizers":null}}')


async def test_one_namespace_that_refuses_keeps_no_other_from_its_bundle(plane: ControlPlane, namespace: str) -> None:
    role = f"trust-{namespace}"
    who = f"--serviceaccount={namespace}:default"
    named = f"--resource-name={NAME}"
    plane.kubectl("create", "clusterrole", role, "--verb=list", "--resource=configmaps", named)
    plane.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", who)
    plane.kubectl("create", "role", "trust", "-n", namespace, "--verb=create,patch", "--resource=configmaps")
    plane.kubectl("create", "rolebinding", "trust", "-n", namespace, "--role=trust", who)
    try:
        async with connected(plane.kubeconfig_for(namespace, "default")) as api:
            problems = await keep(api, "one", "default", namespace)
        assert f"ConfigMap {namespace}/{NAME}" not in problems
        assert problems[f"ConfigMap default/{NAME}"].startswith(f"cannot patch ConfigMap default/{NAME}: 403: ")
        assert stored(plane, namespace) is not None
    finally:
        plane.kubectl("delete", "clusterrole,clusterrolebinding", role)
