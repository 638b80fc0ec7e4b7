"""The admission policy for labelled pods on a real API server: the label alone is no way round the decision webhook."""

import copy
import json
import re
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.controlplane.fixtures import make_namespace, remove_namespace
from support.controlplane.plane import ControlPlane
from support.podpolicies import (
    FORGED,
    GOVERNED,
    IMAGE,
    KEPT,
    LABELLED,
    LABELS,
    UNGOVERNED,
    create_agent,
    create_pod,
    enforced,
    pod,
    seen,
    sidecar,
)
from support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

Change = Callable[[dict[str, Any]], object]

LABEL = "fleetward.dev/injected"
OTHERS = {**LABELS, LABEL: "yes"}
REPOSITORY = "registry.example:5000/fleetward/webhook"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def policy(plane: ControlPlane) -> Iterator[ControlPlane]:
    """Have both policies in force."""
    with enforced(plane, "probe-injected"):
        yield plane


@pytest.mark.parametrize("governed", [True, False])
@pytest.mark.parametrize(
    ("labels", "sidecars", "refusal"),
    [
        (LABELLED, [sidecar()], ""),
        (LABELLED, [{"name": "first", "image": "x"}, sidecar()], ""),
        (LABELLED, [sidecar(image=REPOSITORY)], ""),
        (LABELLED, [sidecar(image=f"{REPOSITORY}@{DIGEST}")], ""),
        (LABELLED, [sidecar(image=f"{REPOSITORY}:0.9@{DIGEST}")], ""),
        (LABELLED, [sidecar(image="mirror.example/fw:1")], ""),
        (LABELLED, [sidecar(image=f"{REPOSITORY}-of-mine:1.2.3")], FORGED),
        (LABELLED, [sidecar(image="elsewhere/fleetward/webhook:1.2.3")], FORGED),
        (LABELLED, [sidecar(restartPolicy=None)], FORGED),
        (LABELLED, [sidecar(name="other")], FORGED),
        (LABELLED, [], FORGED),
        (LABELS, [sidecar()], UNGOVERNED),
        (OTHERS, [sidecar()], UNGOVERNED),
    ],
)
def test_what_counts_as_injected(
    policy: ControlPlane,
    namespace: str,
    *,
    labels: dict[str, str],
    sidecars: list[dict[str, Any]],
    refusal: str,
    governed: bool,
) -> None:
    """The label is held to its word in pods that no Agent selects, too: one policy for all has no Agents to ask."""
    create_agent(policy, namespace, "worker", {"matchLabels": LABELS if governed else {"app": "another"}})
    seen(policy, namespace, "worker")
    said = create_pod(policy, pod(namespace, labels, initContainers=sidecars))
    if not governed and refusal == UNGOVERNED:
        refusal = ""
    assert (refusal in said) if refusal else (said == ""), said


def test_a_refusal_says_what_to_do(policy: ControlPlane, namespace: str) -> None:
    said = create_pod(policy, pod(namespace, LABELLED))
    assert f"the label {LABEL}=true says" in said
    assert f"an image of {REPOSITORY} or mirror.example/fw. Leave the label out" in said


def test_a_sidecar_among_the_containers_is_none(policy: ControlPlane, namespace: str) -> None:
    body = pod(namespace, LABELLED)
    body["spec"]["containers"].append({"name": "fleetward-webhook", "image": IMAGE})
    assert FORGED in create_pod(policy, body)


def test_injected_pods_are_not_looked_at_for_each_agent(policy: ControlPlane, namespace: str) -> None:
    """What makes admission dear is evaluating a policy once for each Agent."""
    agents = 5
    for number in range(agents):
        create_agent(policy, namespace, f"worker-{number}", {"matchLabels": {"app": f"worker-{number}"}})
    seen(policy, namespace, "worker-4")  # by a further Agent
    before = evaluations(policy)
    assert create_pod(policy, pod(namespace, {"app": "free"})) == ""
    assert evaluations(policy) == before + agents + 1
    assert create_pod(policy, pod(namespace, LABELLED, initContainers=[sidecar()])) == ""
    assert evaluations(policy) == before + agents + 1


def evaluations(plane: ControlPlane) -> int:
    """Say how often the API server has asked whether an Agent selects a new pod."""
    found = re.findall(
        r'^apiserver_admission_match_condition_evaluation_seconds_count\{([^}]*name="' + GOVERNED + r'"[^}]*)\} (\d+)',
        str(plane.request("GET", "/metrics")),
        re.MULTILINE,
    )
    assert found, "the API server has evaluated it"
    return sum(int(count) for _, count in found)


def label(value: str | None) -> Change:
    """Set the label; None takes it off."""

    def change(body: dict[str, Any]) -> None:
        body["metadata"]["labels"].pop(LABEL, None)
        if value is not None:
            body["metadata"]["labels"][LABEL] = value

    return change


def image(name: str) -> Change:
    """Give the first init container an image."""
    return lambda body: body["spec"]["initContainers"][0].update(image=name)


def both(one: Change, other: Change) -> Change:
    return lambda body: (one(body), other(body))


@pytest.mark.parametrize(
    ("labels", "sidecars", "change", "refusal"),
    [
        (LABELLED, [sidecar()], lambda body: body["metadata"]["labels"].update(app="changed"), ""),
        (LABELLED, [sidecar()], lambda body: body["metadata"]["labels"].clear(), KEPT),
        (LABELLED, [sidecar()], label(None), KEPT),
        (LABELLED, [sidecar()], label("false"), KEPT),
        (LABELLED, [sidecar()], image(f"{REPOSITORY}:2"), ""),
        (LABELLED, [sidecar()], image("elsewhere/webhook:1"), KEPT),
        (LABELLED, [sidecar()], both(label(None), image("elsewhere/webhook:1")), KEPT),
        (LABELS, [], label("true"), FORGED),
        (LABELS, [], label("yes"), ""),
        (LABELS, [sidecar()], label("true"), ""),
        (LABELS, [sidecar(image="elsewhere/webhook:1")], label("true"), FORGED),
    ],
)
def test_what_may_become_of_a_pod(
    policy: ControlPlane,
    namespace: str,
    *,
    labels: dict[str, str],
    sidecars: list[dict[str, Any]],
    change: Change,
    refusal: str,
) -> None:
    made = policy.request(
        "POST", f"/api/v1/namespaces/{namespace}/pods", pod(namespace, labels, initContainers=sidecars)
    )
    assert update(policy, made, lambda _: None) == ""
    said = update(policy, made, change)
    assert (refusal in said) if refusal else (said == ""), said


def test_what_was_wrong_before_can_still_be_changed(policy: ControlPlane) -> None:
    """Pods with another image of ours, of before an upgrade, are released and lose finalizers by updates."""
    unlooked, name = {"fleetward.dev/injection": "disabled"}, "before"
    make_namespace(policy, name, unlooked)
    try:
        older = pod(name, LABELLED, initContainers=[sidecar(image="older.example/webhook:1")])
        made = policy.request("POST", f"/api/v1/namespaces/{name}/pods", older)
        policy.kubectl("label", "namespace", name, "fleetward.dev/injection-")
        # The API server learns of the namespace's labels by watching.
        until(lambda: FORGED in create_pod(policy, pod(name, LABELLED)), "the policy looks at the namespace")
        for change in (
            lambda body: body["metadata"].update(annotations={"a": "b"}),
            label(None),
            image("yet.another/webhook:1"),
            image(IMAGE),
        ):
            assert update(policy, made, change) == ""
    finally:
        remove_namespace(policy, name)


def update(plane: ControlPlane, made: dict[str, Any], change: Change) -> str:
    """Change a pod as a dry run; give the refusal, or nothing where it passes."""
    path = f"/api/v1/namespaces/{made['metadata']['namespace']}/pods/{made['metadata']['name']}"
    body = copy.deepcopy(made)
    body["metadata"].pop("resourceVersion")
    change(body)
    try:
        plane.request("PUT", f"{path}?dryRun=All", body)
    except urllib.error.HTTPError as error:
        with error:
            return str(json.loads(error.read())["message"])
    return ""


@pytest.mark.parametrize(
    ("name", "labels"),
    [("kube-system", None), ("excluded-one", {}), ("labelled", {"fleetward.dev/injection": "disabled"})],
)
def test_excluded_namespaces(policy: ControlPlane, name: str, labels: dict[str, str] | None) -> None:
    if labels is not None:
        make_namespace(policy, name, labels)
    try:
        assert create_pod(policy, pod(name, LABELLED)) == ""
    finally:
        if labels is not None:
            remove_namespace(policy, name)
