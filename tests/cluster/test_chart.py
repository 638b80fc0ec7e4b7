"""The chart and the plain manifests on a real API server: installed, upgraded, uninstalled; what people may then do."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chart import CHART, MANIFESTS, NAMESPACE, run_helm
from support.controlplane.fixtures import make_namespace
from support.controlplane.plane import ControlPlane
from support.installed import apply_manifests, own_plane
from support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("cluster")]

AGENT = {
    "apiVersion": "fleetward.dev/v1alpha1",
    "kind": "Agent",
    "metadata": {"name": "kept", "namespace": "default"},
    "spec": {"role": "Worker"},
}


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """Give a cluster that knows nothing of Fleetward yet."""
    with own_plane() as running:
        yield running


@pytest.fixture(scope="module")
def applied() -> Iterator[ControlPlane]:
    """Give a cluster with the plain manifests applied."""
    with own_plane() as running:
        apply_manifests(running)
        yield running


def helm(plane: ControlPlane, *arguments: str) -> str:
    done = run_helm(*arguments, "--namespace", NAMESPACE, kubeconfig=plane.admin_kubeconfig)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pods(plane: ControlPlane, component: str) -> list[str]:
    selector = f"app.kubernetes.io/name=fleetward,app.kubernetes.io/component={component}"
    return plane.kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "name").split()


def ours(plane: ControlPlane) -> list[str]:
    """Give what of the chart is there and not in its namespace."""
    scoped = "clusterroles,clusterrolebindings,customresourcedefinitions"
    return plane.kubectl("get", scoped, "-l", "app.kubernetes.io/part-of=fleetward", "-o", "name").split()


def columns(plane: ControlPlane) -> str:
    return plane.kubectl("get", "crd", "agents.fleetward.dev", "-o", "jsonpath={..additionalPrinterColumns[*].name}")


def older(tmp_path: Path) -> Path:
    """Give the chart with a kind as it may have been in an older version: with no columns."""
    chart = tmp_path / "fleetward"
    shutil.copytree(CHART, chart)
    file = chart / "files" / "crds" / "fleetward.dev_agents.yaml"
    before, _, rest = file.read_text().partition("  - additionalPrinterColumns:\n")
    *_, after = rest.partition("    name: v1alpha1\n")
    file.write_text(f"{before}  - name: v1alpha1\n{after}")
    return chart


def test_helm_installs_upgrades_and_uninstalls(plane: ControlPlane, tmp_path: Path) -> None:
    """The kinds are upgraded with the rest, and stay when all else goes, with what people applied."""
    notes = helm(plane, "install", "fleetward", str(older(tmp_path)), "--create-namespace")
    assert "kubectl label namespace fleetward-system pod-security.kubernetes.io/enforce=restricted" in notes
    assert columns(plane) == ""
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/agents.fleetward.dev")
    plane.kubectl("apply", "-f", "-", input=json.dumps(AGENT))

    helm(plane, "upgrade", "fleetward", str(CHART), "--set", "operator.replicas=3")
    assert "Role" in columns(plane)
    assert plane.kubectl("get", "agents.fleetward.dev", "-n", "default", "-o", "name").split()
    until(lambda: (len(pods(plane, "operator")), len(pods(plane, "admission"))) == (3, 2), "pods of both workloads")

    helm(plane, "uninstall", "fleetward")
    assert {name.partition(".")[0] for name in ours(plane)} == {"customresourcedefinition"}
    assert plane.kubectl("get", "agents.fleetward.dev", "-n", "default", "-o", "name").split()
    until(lambda: not pods(plane, "operator") + pods(plane, "admission"), "the pods are gone")


def test_the_pods_keep_to_restricted_pod_security(applied: ControlPlane) -> None:
    until(lambda: (len(pods(applied, "operator")), len(pods(applied, "admission"))) == (2, 2), "pods of both workloads")
    careless = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "careless", "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    said = applied.kubectl("create", "-f", "-", input=json.dumps(careless), check=False)
    assert 'violates PodSecurity "restricted' in said


def test_manifests_apply_without_a_warning(applied: ControlPlane) -> None:
    said = applied.kubectl("apply", "--server-side", "-f", str(MANIFESTS), check=False)
    assert "arning" not in said
    assert "rror" not in said


def allowed(plane: ControlPlane, user: str, verb: str, resource: str, namespace: str = "") -> bool:
    resource, _, subresource = resource.partition("/")
    attributes = {"group": "fleetward.dev", "verb": verb, "resource": resource, "namespace": namespace}
    spec: dict[str, Any] = {"user": user, "resourceAttributes": attributes}
    if subresource:
        attributes["subresource"] = subresource
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return bool(plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])


def bind(plane: ControlPlane, user: str, role: str, namespace: str = "") -> None:
    """Bind a user, in the whole cluster where no namespace is given."""
    where = ("rolebinding", "-n", namespace) if namespace else ("clusterrolebinding",)
    plane.kubectl("create", *where, user, f"--clusterrole={role}", f"--user={user}")


def test_who_may_do_what(applied: ControlPlane) -> None:
    plane = applied
    make_namespace(plane, "reports")
    for user, role in (("viewer", "view"), ("editor", "edit"), ("lead", "fleetward-edit")):
        bind(plane, user, role, "reports")
    for user, role in (("on-call", "fleetward-pauser"), ("overseer", "fleetward-view")):
        bind(plane, user, role)

    until(lambda: allowed(plane, "viewer", "list", "agents", "reports"), "the role is aggregated to view")
    assert allowed(plane, "editor", "get", "agentpolicies", "reports"), "view is part of edit"
    assert not allowed(plane, "viewer", "list", "agents", "default")
    assert not allowed(plane, "viewer", "patch", "agents", "reports")
    assert not allowed(plane, "editor", "patch", "agents", "reports"), "who may edit pods may not lift a pause"
    assert allowed(plane, "lead", "patch", "agents", "reports")
    assert allowed(plane, "lead", "create", "agentpolicies", "reports")
    assert not allowed(plane, "lead", "patch", "agents", "default")
    assert not allowed(plane, "lead", "patch", "agents/status", "reports"), "status is Fleetward's alone"

    for kind, namespace in (("agents", "reports"), ("agentfleets", "")):
        assert [v for v in ("get", "list", "watch", "patch") if not allowed(plane, "on-call", v, kind, namespace)] == []
        assert not any(allowed(plane, "on-call", v, kind, namespace) for v in ("create", "update", "delete"))
    assert not allowed(plane, "on-call", "patch", "agentpolicies", "reports")
    assert allowed(plane, "overseer", "list", "clusteragentpolicies")
    assert not allowed(plane, "overseer", "list", "auditrecords")

    auditor = f"system:serviceaccount:{NAMESPACE}:fleetward-auditor"
    assert allowed(plane, auditor, "list", "auditrecords")
    assert allowed(plane, auditor, "get", "hubstatus")
    assert not allowed(plane, auditor, "list", "agents")


def test_who_may_read_the_audit_trail(applied: ControlPlane) -> None:
    """What `kubectl fleetward audit` does on the way to the hub."""
    plane = applied
    plane.kubectl("-n", NAMESPACE, "create", "rolebinding", "readers", "--role=fleetward-audit-reader", "--user=reader")

    def may(*what: str) -> bool:
        said = plane.kubectl("auth", "can-i", *what, "--as=reader", "-n", NAMESPACE, check=False)
        return said.strip().endswith("yes")

    for what in (
        ("get", "services/fleetward-hub"),
        ("list", "pods"),
        ("get", "pods"),
        ("create", "pods", "--subresource=portforward"),
        ("create", "serviceaccounts/fleetward-auditor", "--subresource=token"),
        ("get", "configmaps/fleetward-ca"),
    ):
        assert may(*what), what
    for what in (
        ("create", "serviceaccounts/fleetward-operator", "--subresource=token"),
        ("get", "secrets/fleetward-ca"),
        ("create", "pods", "--subresource=exec"),
    ):
        assert not may(*what), what
