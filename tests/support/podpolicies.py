"""The admission policies for pods in force on a real API server, and pods and Agents to try them with."""

import asyncio
import contextlib
import json
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

from support.controlplane.fixtures import make_namespace, remove_namespace
from support.controlplane.plane import ControlPlane
from support.waiting import until

from fleetward.resources import Agent
from fleetward_operator.keeper import KeeperSettings, governedpods, injectedpods
from fleetward_operator.keeper.ensure import Ensure
from fleetward_operator.kube.objects import BINDING, POLICY, Objects

GOVERNED = "fleetward-governed-pods"
INJECTED = "fleetward-injected-pods"
IMAGE = "registry.example:5000/fleetward/webhook:1.2.3"
SETTINGS = KeeperSettings(
    IMAGE,
    namespace="fleetward-system",
    excluded_namespaces=("excluded-one",),
    other_repositories=("mirror.example/fw",),
)
LABELS = {"app": "worker"}
LABELLED = {**LABELS, "fleetward.dev/injected": "true"}
UNGOVERNED = "selects this pod, and it carries no decision webhook"
"""What the policy of governed pods says."""
FORGED = "says that this pod carries the decision webhook, and it does not"
"""What the policy of injected pods says of a new pod, or one that is labelled later."""
KEPT = "this pod carries the decision webhook, and is to keep it"
"""What it says of a pod that would not be injected any more."""


@contextlib.contextmanager
def enforced(plane: ControlPlane, probe: str) -> Iterator[ControlPlane]:
    """Have both policies and their bindings in force, and a namespace of the name `probe`."""
    make_namespace(plane, probe)
    try:
        asyncio.run(_install(plane))
        create_agent(plane, probe, "probe", {"matchLabels": {"app": "probe"}})
        until(lambda: create_pod(plane, pod(probe, {"app": "probe"})), "the policy of governed pods is in force")
        until(lambda: create_pod(plane, pod(probe, LABELLED)), "the policy of injected pods is in force")
        yield plane
    finally:
        both = "validatingadmissionpolicybinding,validatingadmissionpolicy"
        plane.kubectl("delete", both, GOVERNED, INJECTED, "--ignore-not-found")
        remove_namespace(plane, probe)


async def _install(plane: ControlPlane) -> None:
    async with plane.api() as api:
        ensure = Ensure(Objects(api))
        for _ in range(2):  # the second time nothing may differ
            for name, part in ((INJECTED, injectedpods), (GOVERNED, governedpods)):
                await ensure(POLICY, name, part.policy(SETTINGS), None)
                await ensure(BINDING, name, part.binding(), None)


def pod(namespace: str, labels: dict[str, str] | None = None, account: str = "", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "p-",
            "namespace": namespace,
            **({"labels": labels} if labels is not None else {}),
        },
        "spec": {
            "containers": [{"name": "agent", "image": "agent"}],
            **({"serviceAccountName": account} if account else {}),
            **spec,
        },
    }


def sidecar(**changes: Any) -> dict[str, Any]:
    container = {"name": "fleetward-webhook", "image": IMAGE, "restartPolicy": "Always", **changes}
    return {key: value for key, value in container.items() if value is not None}


def create_pod(plane: ControlPlane, body: dict[str, Any]) -> str:
    """Create a pod as a dry run; give the refusal, or nothing where it passes."""
    try:
        plane.request("POST", f"/api/v1/namespaces/{body['metadata']['namespace']}/pods?dryRun=All", body)
    except urllib.error.HTTPError as error:
        return str(json.loads(error.read())["message"])
    return ""


def create_agent(
    plane: ControlPlane, namespace: str, name: str, selector: dict[str, Any] | None, account: str | None = None
) -> Agent:
    workload = (
        None if selector is None else {"selector": selector} | ({"serviceAccountName": account} if account else {})
    )
    body = {
        "apiVersion": "fleetward.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"role": "Worker", **({"workload": workload} if workload is not None else {})},
    }
    plane.request("POST", f"/apis/fleetward.dev/v1alpha1/namespaces/{namespace}/agents", body)
    return Agent.model_validate(body)


def seen(plane: ControlPlane, namespace: str, agent: str) -> None:
    """Wait until the policy knows of an Agent, by a pod that only a further Agent made after it selects.

    The API server learns of Agents by watching them, in order.
    """
    label = f"after-{agent}"
    create_agent(plane, namespace, label, {"matchLabels": {"probe": label}})
    deadline = time.monotonic() + 30
    while not create_pod(plane, pod(namespace, {"probe": label})):
        assert time.monotonic() < deadline, "the policy does not see Agents"
        time.sleep(0.02)
