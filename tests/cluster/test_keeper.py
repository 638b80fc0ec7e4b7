"""The keeper as a whole, against a real API server and the real admission webhook."""

import asyncio
import json
import time
import urllib.error
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import admission
from support.admission import Admission
from support.controlplane.plane import ControlPlane, connected, free_ports
from support.keeping import Keeping, clean, keeping
from support.streams import until

from fleetward_operator.keeper import KeeperSettings
from fleetward_operator.view.quarantine import Quarantines

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

IMAGE = "registry.example/fleetward-webhook:1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MUTATING = f"{_ADMISSION}/mutatingwebhookconfigurations/fleetward"
VALIDATING = f"{_ADMISSION}/validatingwebhookconfigurations/fleetward"
POLICY = f"{_ADMISSION}/validatingadmissionpolicies/fleetward-governed-pods"
BINDING = f"{_ADMISSION}/validatingadmissionpolicybindings/fleetward-governed-pods"
INJECTED_POLICY = f"{_ADMISSION}/validatingadmissionpolicies/fleetward-injected-pods"
INJECTED_BINDING = f"{_ADMISSION}/validatingadmissionpolicybindings/fleetward-injected-pods"
POLICIES, BINDINGS = (POLICY, INJECTED_POLICY), (BINDING, INJECTED_BINDING)
ALL = (MUTATING, VALIDATING, *POLICIES, *BINDINGS)

CLUSTER_RULES: list[dict[str, Any]] = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["fleetward-ca"],
        "verbs": ["list", "patch", "delete"],
    },
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create", "list"]},
    {
        "apiGroups": ["networking.k8s.io"],
        "resources": ["networkpolicies"],
        "resourceNames": ["fleetward-quarantine"],
        "verbs": ["patch", "delete"],
    },
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["clusterroles"],
        "resourceNames": ["fleetward-operator"],
        "verbs": ["get"],
    },
    {
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "resourceNames": ["agents.fleetward.dev"],
        "verbs": ["get"],
    },
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        "verbs": ["create"],
    },
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        "resourceNames": ["fleetward"],
        "verbs": ["get", "update"],
    },
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
        "verbs": ["create"],
    },
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
        "resourceNames": ["fleetward-governed-pods", "fleetward-injected-pods"],
        "verbs": ["get", "update", "delete"],
    },
    {"apiGroups": ["fleetward.dev"], "resources": ["agents"], "verbs": ["get", "list"]},
    {"apiGroups": ["fleetward.dev"], "resources": ["clusteragentpolicies"], "verbs": ["create"]},
]
"""All that election and keeper need in the whole cluster. Agents are read as the policy's parameters."""

SYSTEM_RULES: list[dict[str, Any]] = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["fleetward-operator"],
        "verbs": ["get", "update"],
    },
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["fleetward-ca", "fleetward-hub-tls", "fleetward-admission-tls"],
        "verbs": ["get", "update", "delete"],
    },
]
"""All that they need besides in Fleetward's own namespace."""


@pytest.fixture
def cleaned(plane: ControlPlane) -> Iterator[ControlPlane]:
    clean(plane)
    yield plane
    clean(plane)


def allow(plane: ControlPlane, namespace: str, cluster_rules: list[dict[str, Any]]) -> Path:
    """Make the operator's service account with these rules; give a kubeconfig of it."""
    subject = [{"kind": "ServiceAccount", "name": "fleetward-operator", "namespace": namespace}]
    group, name = "rbac.authorization.k8s.io", {"name": "fleetward-operator"}
    for body in (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**name, "namespace": namespace}},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": name, "rules": cluster_rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{namespace}-operator"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", **name},
            "subjects": subject,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": {**name, "namespace": namespace},
            "rules": SYSTEM_RULES,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {**name, "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "Role", **name},
            "subjects": subject,
        },
    ):
        plane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(body))
    return plane.kubeconfig_for(namespace, "fleetward-operator")


def get(plane: ControlPlane, path: str) -> dict[str, Any] | None:
    """Read an object; None where there is none."""
    try:
        return dict(plane.request("GET", path))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
        raise


def failure_policy(plane: ControlPlane) -> str:
    """Give the failure policy of the webhook that may block."""
    hooks = (get(plane, VALIDATING) or {"webhooks": []})["webhooks"]
    return {hook["name"]: str(hook["failurePolicy"]) for hook in hooks}.get("resources.fleetward.dev", "")


@asynccontextmanager
async def admitting(plane: ControlPlane, system: str, directory: Path, port: int) -> AsyncIterator[Admission]:
    """Have a real admission webhook that serves the certificate which the keeper makes for it."""
    account = "fleetward-admission"
    admission.allow(plane, system, account)
    config = plane.kubeconfig_for(system, account)
    options = ("--kubeconfig", str(config), "--namespace", system)
    process = Admission(directory / "admission.log", *options, listen=f"127.0.0.1:{port}")
    try:
        yield await asyncio.to_thread(process.start)
    finally:
        process.stop()
        admission.disallow(plane, system, account)


async def eventually(condition: Callable[[], Any], within: float = 40.0) -> None:
    """Wait until a condition holds that may ask the API server, beside the loop on which the keeper works."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def as_installed(plane: ControlPlane, system: str, **more: Any) -> AsyncIterator[Keeping]:
    """Have a keeper under the operator's service account, with all that it may do and nothing else."""
    settings = KeeperSettings(IMAGE, namespace=system, **{"period": 1.0, **more})
    async with connected(allow(plane, system, CLUSTER_RULES)) as api, keeping(api, settings) as running:
        yield running


async def test_validation_blocks_only_once_proven_and_never_for_long(
    cleaned: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    plane = cleaned
    (port,), grace = free_ports(1), 4.0
    where = {"admission_url": f"https://127.0.0.1:{port}", "admission_names": ("127.0.0.1",), "proof_grace": grace}
    try:
        async with as_installed(plane, namespace, **where) as running:
            await eventually(lambda: failure_policy(plane))
            assert failure_policy(plane) == "Ignore", "nothing answers yet"
            assert create(plane, policy("good", "action.estimate.calls > 0")) == ""

            async with admitting(plane, namespace, tmp_path, port) as process:
                await eventually(lambda: failure_policy(plane) == "Fail")
                await eventually(lambda: not running.keeper.problems)
                assert "spec.rules[0].when" in create(plane, policy("bad", "action.nonsense ("))
                assert create(plane, policy("fine", "action.estimate.calls > 0")) == ""
                await eventually(lambda: events(plane)[-1:] == ["ValidationProven"])

                died = time.monotonic()
                process.kill()
                assert "failed calling webhook" in create(plane, policy("late", "action.estimate.calls > 0"))
                assert create(plane, agent(namespace)) == "", "nothing keeps an emergency pause out"
                pause = '{"spec":{"operatingMode":"Paused"}}'
                plane.kubectl("patch", "agent", "worker", "-n", namespace, "--type", "merge", "-p", pause)
                await eventually(lambda: failure_policy(plane) == "Ignore")
                assert time.monotonic() - died > grace
                await eventually(lambda: events(plane)[-1] == "ValidationNotProven")
                await eventually(lambda: create(plane, policy("later", "action.estimate.calls > 0")) == "")

                await asyncio.to_thread(process.start)
                await eventually(lambda: failure_policy(plane) == "Fail")
        assert failure_policy(plane) == "Fail", "who stops changes nothing"
        async with as_installed(plane, namespace, **where):
            await eventually(lambda: failure_policy(plane) == "Ignore")
    finally:
        plane.kubectl("delete", "clusteragentpolicies", "--all")


def policy(name: str, when: str) -> dict[str, Any]:
    rule = {"name": "r", "match": {"kinds": ["ToolCall"]}, "when": when, "decision": "Deny"}
    return {
        "apiVersion": "fleetward.dev/v1alpha1",
        "kind": "ClusterAgentPolicy",
        "metadata": {"name": name},
        "spec": {"rules": [rule]},
    }


def agent(namespace: str) -> dict[str, Any]:
    workload = {"selector": {"matchLabels": {"app": "worker"}}}
    return {
        "apiVersion": "fleetward.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "worker", "namespace": namespace},
        "spec": {"role": "Worker", "workload": workload},
    }


def create(plane: ControlPlane, body: dict[str, Any]) -> str:
    """Create an object; give what kubectl says if it is refused."""
    said = plane.kubectl("create", "-f", "-", input=json.dumps(body), check=False)
    return "" if said.rstrip().endswith(" created") else said


def events(plane: ControlPlane) -> list[str]:
    """Give the reasons of the Events on the validating configuration, oldest first."""
    chosen = "involvedObject.kind%3DValidatingWebhookConfiguration,involvedObject.name%3Dfleetward"
    found = plane.request("GET", f"/api/v1/namespaces/default/events?fieldSelector={chosen}")
    return [event["reason"] for event in sorted(found["items"], key=lambda event: str(event["eventTime"]))]


async def test_edits_and_deletions_are_put_right(cleaned: ControlPlane, namespace: str) -> None:
    plane = cleaned
    async with as_installed(plane, namespace) as running:
        running.namespaces = {namespace}
        await eventually(lambda: all(get(plane, each) for each in ALL))
        await eventually(lambda: get(plane, f"/api/v1/namespaces/{namespace}/configmaps/fleetward-ca"))
        before = {each: get(plane, each) for each in ALL}
        wide = {"op": "replace", "path": "/webhooks/0/namespaceSelector", "value": {}}
        strict = {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}
        edit(plane, MUTATING, [wide, strict])
        await eventually(lambda: same(get(plane, MUTATING), before[MUTATING]))
        edit(plane, VALIDATING, [{"op": "remove", "path": "/webhooks/1"}])
        await eventually(lambda: same(get(plane, VALIDATING), before[VALIDATING]))

        def restored(path: str) -> bool:
            return same(get(plane, path), before[path])

        for each in POLICIES:
            edit(plane, each, [{"op": "replace", "path": "/spec/validations/0/expression", "value": "true"}])
            await eventually(partial(restored, each))
            edit(plane, each, [{"op": "remove", "path": "/spec/matchConstraints/objectSelector"}])
            await eventually(partial(restored, each))
        for each in BINDINGS:
            edit(plane, each, [{"op": "replace", "path": "/spec/validationActions/0", "value": "Audit"}])
            await eventually(partial(restored, each))

        edit(plane, MUTATING, [{"op": "add", "path": "/metadata/annotations", "value": {"example.com/else": "kept"}}])
        for each in (VALIDATING, *POLICIES, *BINDINGS):
            plane.request("DELETE", each)
        await eventually(lambda: all(get(plane, each) for each in ALL))
        assert "example.com/else" in json.dumps(get(plane, MUTATING))

        versions = {each: generation(get(plane, each)) for each in ALL}
        rounds = running.keeper.rounds
        await eventually(lambda: running.keeper.rounds > rounds + 2)
        assert {each: generation(get(plane, each)) for each in ALL} == versions, "written when wrong only"


async def test_quarantine_is_kept_and_ended_by_the_leader(cleaned: ControlPlane, namespace: str) -> None:
    plane = cleaned
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/fleetward-quarantine"
    async with as_installed(plane, namespace) as running:
        running.quarantines = Quarantines(agents=frozenset({namespace}), pods=frozenset())
        await eventually(lambda: get(plane, path))
        await eventually(lambda: running.keeper.cuts == {namespace: ()})
        made = get(plane, path)
        plane.request("DELETE", path)
        await eventually(lambda: same(get(plane, path), made))
        everywhere = [{"op": "add", "path": "/spec/egress", "value": [{}]}]
        plane.kubectl(
            "patch", "netpol", "fleetward-quarantine", "-n", namespace, "--type=json", "-p", json.dumps(everywhere)
        )
        await eventually(lambda: same(get(plane, path), made))
        dns = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "dns"}}
        plane.kubectl(
            "create",
            "-n",
            namespace,
            "-f",
            "-",
            input=json.dumps({**dns, "spec": {"podSelector": {}, "ingress": [{}]}}),
        )
        await eventually(lambda: [opening.policy for opening in running.keeper.cuts[namespace]] == ["dns"])

        running.quarantines = None
        rounds = running.keeper.rounds
        await eventually(lambda: running.keeper.rounds > rounds + 1)
        assert get(plane, path), "what is not known changes nothing"
        running.quarantines = Quarantines(agents=frozenset(), pods=frozenset({namespace}))
        await eventually(lambda: running.keeper.cuts == {})
        assert get(plane, path), "a pod has the label yet"
        running.quarantines = Quarantines(frozenset(), frozenset())
        await eventually(lambda: get(plane, path) is None)
        assert running.keeper.problems.keys() <= {"validation"}


async def test_who_reads_the_audit_trail_finds_what_to_trust_the_hub_by(cleaned: ControlPlane, namespace: str) -> None:
    """`kubectl fleetward audit` looks for it where Fleetward runs, be an agent there or not."""
    async with as_installed(cleaned, namespace) as running:
        running.namespaces = set()
        await eventually(lambda: get(cleaned, f"/api/v1/namespaces/{namespace}/configmaps/fleetward-ca"))


def edit(plane: ControlPlane, path: str, patch: list[dict[str, Any]]) -> None:
    what = "/".join(path.split("/")[-2:])
    plane.kubectl("patch", what, "--type", "json", "-p", json.dumps(patch))


def same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    keys = ("webhooks", "spec")
    return one is not None and other is not None and all(one.get(key) == other.get(key) for key in keys)


def generation(body: dict[str, Any] | None) -> int:
    return int(body["metadata"]["generation"]) if body else 0


async def test_uninstalling_takes_everything_along(cleaned: ControlPlane, namespace: str) -> None:
    plane = cleaned
    config = f"/api/v1/namespaces/{namespace}/configmaps/fleetward-ca"
    # As admin, whom deleting the role takes no permission from: what is gone then stays gone because it is not made.
    allow(plane, namespace, CLUSTER_RULES)
    async with plane.api() as api, keeping(api, KeeperSettings(IMAGE, namespace=namespace, period=0.2)) as running:
        running.namespaces = {namespace}
        await eventually(lambda: all(get(plane, each) for each in ALL) and get(plane, config))
        plane.kubectl("delete", "clusterrole", "fleetward-operator")
        belonging = [MUTATING, VALIDATING, *POLICIES]
        await eventually(lambda: not any(get(plane, each) for each in belonging) and not get(plane, config))
        await eventually(lambda: "uninstalled" in running.keeper.problems.get("ClusterRole fleetward-operator", ""))
        rounds = running.keeper.rounds
        await eventually(lambda: running.keeper.rounds > rounds + 2)
        assert not any(get(plane, each) for each in belonging)

        allow(plane, namespace, CLUSTER_RULES)
        await eventually(lambda: all(get(plane, each) for each in ALL) and get(plane, config))


async def test_only_the_leader_acts(cleaned: ControlPlane, namespace: str) -> None:
    plane = cleaned
    settings = KeeperSettings(IMAGE, namespace=namespace, period=0.2)
    async with plane.api() as api, keeping(api, settings) as first:
        await eventually(lambda: all(get(plane, each) for each in ALL))
        async with keeping(api, settings) as second:
            second.election._identity = "two"
            await until(lambda: second.election.holder == "one")
            assert second.keeper.rounds == 0
            assert second.keeper.problems == {}
            await first.stop()
            await until(lambda: second.keeper.rounds)


async def test_a_missing_verb_is_named_and_keeps_nothing_else(
    cleaned: ControlPlane, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    plane = cleaned
    less = [rule for rule in CLUSTER_RULES if "mutatingwebhookconfigurations" not in rule["resources"]]
    settings = KeeperSettings(IMAGE, namespace=namespace, period=1)
    async with connected(allow(plane, namespace, less)) as api, keeping(api, settings) as running:
        await eventually(lambda: "webhook configurations" in running.keeper.problems)
        said = running.keeper.problems["webhook configurations"]
        assert said.startswith("cannot get MutatingWebhookConfiguration fleetward: 403")
        assert 'cannot get resource "mutatingwebhookconfigurations"' in said
        await eventually(lambda: get(plane, BINDING))
        rounds = running.keeper.rounds
        await eventually(lambda: running.keeper.rounds > rounds + 1)
        assert caplog.text.count("webhook configurations: not right") == 1, "told once"
        allow(plane, namespace, CLUSTER_RULES)
        await eventually(lambda: get(plane, MUTATING))
        await eventually(lambda: "webhook configurations" not in running.keeper.problems)


async def test_an_api_server_that_restarts_is_waited_for(cleaned: ControlPlane, namespace: str) -> None:
    plane = cleaned
    async with as_installed(plane, namespace) as running:
        await eventually(lambda: all(get(plane, each) for each in ALL))
        plane.stop_apiserver()
        await eventually(lambda: running.keeper.problems or not running.election.leading)
        plane.start_apiserver()
        plane.request("DELETE", MUTATING)
        await eventually(lambda: get(plane, MUTATING))


@pytest.mark.slow
async def test_without_the_kind_agent_no_pod_is_refused() -> None:
    """A policy whose parameters are of no known kind refuses everything, so it must not outlive the CRD."""
    from support.controlplane.fixtures import CRDS, install_crds, make_namespace

    with ControlPlane(scheduler=False) as plane:
        install_crds(plane, CRDS)
        make_namespace(plane, "fleetward-system")
        async with plane.api() as api:
            async with keeping(api, KeeperSettings(IMAGE, period=0.5)):
                await eventually(lambda: all(get(plane, each) for each in ALL))
            create(plane, agent("default"))
            free, governed = (pod("default", {"app": name}) for name in ("free", "worker"))
            await eventually(lambda: "carries no decision webhook" in create(plane, governed))
            assert create(plane, free) == ""

            labelled = pod("default", {"app": "free", "fleetward.dev/injected": "true"})
            await eventually(lambda: "says that this pod carries the decision webhook" in create(plane, labelled))

            # No operator runs any more: the API server alone has to get out of this.
            plane.kubectl("delete", "crd", "agents.fleetward.dev")
            await eventually(lambda: not any(get(plane, each) for each in BINDINGS))
            await eventually(lambda: create(plane, free) == "")

            async with keeping(api, KeeperSettings(IMAGE, period=0.5)) as running:
                await eventually(lambda: "governed pods" in running.keeper.problems)
                assert not any(get(plane, each) for each in BINDINGS)
                install_crds(plane, CRDS)
                await eventually(lambda: all(get(plane, each) for each in BINDINGS))


def pod(namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "p-", "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "agent", "image": "agent"}]},
    }
