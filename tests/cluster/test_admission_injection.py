"""Injection into pods of every origin, by the real API server."""

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from support.admission import IMAGE, apply, review
from support.controlplane.fixtures import make_namespace, remove_namespace
from support.governed import Governed, agent, governed
from support.waiting import until

from fleetward_webhook.admission.inject import govern
from fleetward_webhook.admission.settings import Sidecar

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

__all__ = ["governed"]

Json = dict[str, Any]
SPEC: Json = {"containers": [{"name": "app", "image": "example.com/app:1"}]}
HARDENED: Json = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def template(**spec: Any) -> Json:
    return {"metadata": {"labels": {"app": "worker"}}, "spec": SPEC | spec}


def pod(name: str, *, app: str = "worker", **spec: Any) -> Json:
    metadata = {"name": name, "labels": {"app": app}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": SPEC | spec}


def create(governed: Governed, namespace: str, body: Json) -> Json:
    path = {"Pod": "api/v1", "Job": "apis/batch/v1", "CronJob": "apis/batch/v1"}.get(body["kind"], "apis/apps/v1")
    made = governed.plane.request("POST", f"/{path}/namespaces/{namespace}/{body['kind'].lower()}s", body)
    assert isinstance(made, dict)
    return made


def the_pod(governed: Governed, namespace: str) -> Json:
    """Give the one pod of the namespace, once a controller made it."""

    def items() -> list[Json]:
        found: list[Json] = governed.plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        return found

    until(items, "a pod")
    (found,) = items()
    return found


def webhooks(found: Json) -> list[Json]:
    spec = found["spec"]
    return [one for one in spec.get("initContainers", []) + spec["containers"] if one["name"] == "fleetward-webhook"]


def assert_governed(found: Json, agents: str) -> None:
    (webhook,) = webhooks(found)
    assert found["spec"]["initContainers"][0] == webhook
    assert webhook["image"] == IMAGE
    assert found["metadata"]["labels"]["fleetward.dev/injected"] == "true"
    assert found["metadata"]["annotations"]["fleetward.dev/agents"] == agents


def deployment(**more: Any) -> Json:
    selector = {"matchLabels": {"app": "worker"}}
    spec = {"replicas": 1, "selector": selector, "template": template()} | more
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker"}, "spec": spec}


def job() -> Json:
    spec = {"template": template(restartPolicy="Never")}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "worker"}, "spec": spec}


WORKLOADS = {
    "Deployment": deployment(),
    "StatefulSet": deployment(serviceName="worker") | {"kind": "StatefulSet"},
    "Job": job(),
    "bare pod": pod("worker"),
    "generated name": pod("") | {"metadata": {"generateName": "worker-", "labels": {"app": "worker"}}},
}


@pytest.mark.parametrize("origin", WORKLOADS)
def test_a_pod_is_governed_whoever_makes_it(governed: Governed, namespace: str, origin: str) -> None:
    apply(governed.plane, agent(namespace))
    body = WORKLOADS[origin]
    made = create(governed, namespace, body)
    found = the_pod(governed, namespace)
    assert_governed(found, f"{namespace}/worker")
    if "template" in made["spec"]:
        name = f"{body['kind'].lower()}/worker"
        template_now = json.loads(governed.plane.kubectl("-n", namespace, "get", name, "-o", "json"))["spec"][
            "template"
        ]
        assert template_now == made["spec"]["template"]  # what Git owns is never changed
        assert "fleetward" not in json.dumps(template_now)


def test_a_job_of_a_cron_job_is_governed(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job()["spec"]}}
    create(governed, namespace, {"kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": "c"}, "spec": spec})
    governed.plane.kubectl("-n", namespace, "create", "job", "now", "--from=cronjob/c")
    assert_governed(the_pod(governed, namespace), f"{namespace}/worker")


def test_a_pod_of_two_agents_names_both(governed: Governed, namespace: str) -> None:
    shared = {"selector": {"matchLabels": {"app": "worker"}}}
    apply(governed.plane, agent(namespace), agent(namespace, "planner", workload=shared))
    found = create(governed, namespace, pod("crew"))
    assert_governed(found, f"{namespace}/planner,{namespace}/worker")
    (app,) = found["spec"]["containers"]
    assert app["env"] == [{"name": "FLEETWARD_URL", "value": "http://127.0.0.1:8180"}]


@pytest.mark.parametrize(
    ("label", "account"), [("other", "default"), ("worker", "other")], ids=["labels", "service account"]
)
def test_a_pod_of_no_agent_is_left_alone(governed: Governed, namespace: str, label: str, account: str) -> None:
    plane = governed.plane
    apply(
        plane,
        agent(namespace),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other", "namespace": namespace}},
    )
    found = create(governed, namespace, pod("free", app=label, serviceAccountName=account))
    apart = create(governed, governed.system, pod(f"free-{secrets.token_hex(3)}", app=label))
    assert _plain(found["spec"]) == _plain(apart["spec"])
    assert found["metadata"]["labels"] == {"app": label}
    assert "annotations" not in found["metadata"]


def test_an_agent_of_another_service_account_governs_its_pods(governed: Governed, namespace: str) -> None:
    workload = {"selector": {"matchLabels": {"app": "worker"}}, "serviceAccountName": "other"}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other", "namespace": namespace}}
    apply(governed.plane, account, agent(namespace, workload=workload))
    assert not webhooks(create(governed, namespace, pod("as-default")))
    assert_governed(create(governed, namespace, pod("as-other", serviceAccountName="other")), f"{namespace}/worker")


@pytest.fixture
def excluded(governed: Governed) -> Iterator[str]:
    name = f"excluded-{secrets.token_hex(4)}"
    make_namespace(governed.plane, name, {"fleetward.dev/injection": "disabled"})
    yield name
    remove_namespace(governed.plane, name)


def test_an_excluded_namespace_is_left_alone(governed: Governed, excluded: str) -> None:
    apply(governed.plane, agent(excluded), agent(governed.system))
    assert not webhooks(create(governed, excluded, pod("free")))
    assert not webhooks(create(governed, governed.system, pod(f"free-{secrets.token_hex(3)}")))


def test_the_webhook_itself_knows_excluded_namespaces(governed: Governed, namespace: str, excluded: str) -> None:
    """Whatever the webhook configuration says."""
    apply(governed.plane, agent(namespace), agent(excluded), agent(governed.system), agent("kube-system"))
    patched = []
    for name in (namespace, excluded, governed.system, "kube-system"):
        body = review(pod("worker"), namespace=name)
        status, answer = governed.admission.post("/mutate/pods", body, governed.authority.context)
        assert (status, answer["response"]["allowed"]) == (200, True)
        patched.append("patch" in answer["response"])
    assert patched == [True, False, False, False]
    governed.plane.kubectl("-n", "kube-system", "delete", "agent", "worker")


def test_twice_is_once(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    stored = create(governed, namespace, pod("first"))
    sidecar = Sidecar(image=IMAGE, hub_url=f"https://fleetward-hub.{governed.system}.svc:8443")
    assert govern(stored, [f"{namespace}/worker"], sidecar, hold=False).patch == []
    metadata = {"name": "second", "labels": stored["metadata"]["labels"]}
    again = create(governed, namespace, {**stored, "metadata": metadata})
    assert_governed(again, f"{namespace}/worker")
    assert _plain(again["spec"]) == _plain(stored["spec"])


def test_a_governed_pod_is_reviewed_once_and_its_webhook_gets_no_api_token(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    before = reviews(governed)
    stored = create(governed, namespace, pod("once"))
    assert reviews(governed) == before + 1  # the API server's own admission added nothing afterwards
    mounts = {mount["mountPath"]: mount["name"] for mount in stored["spec"]["initContainers"][0]["volumeMounts"]}
    assert mounts["/var/run/secrets/kubernetes.io/serviceaccount"] == "fleetward-hub"
    (app,) = stored["spec"]["containers"]
    assert [mount["name"].startswith("kube-api-access") for mount in app["volumeMounts"]] == [True]


def reviews(governed: Governed) -> float:
    found = re.findall(r'seconds_count{path="/mutate/pods"} (\S+)', governed.admission.probe("/metrics")[1])
    return sum(map(float, found))


def test_a_namespace_that_limits_every_container_takes_it(governed: Governed, namespace: str) -> None:
    limit = {"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "20m"}}
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "cpu", "namespace": namespace}}
    apply(governed.plane, agent(namespace), body | {"spec": {"limits": [limit]}})
    stored = create(governed, namespace, pod("limited"))
    assert_governed(stored, f"{namespace}/worker")
    resources = webhooks(stored)[0]["resources"]
    assert resources == {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}


def test_init_containers_and_sidecars_of_ones_own_stay_after_ours(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    own = [{"name": "fetch", "image": "i"}, {"name": "mesh", "image": "i", "restartPolicy": "Always"}]
    found = create(governed, namespace, pod("meshed", initContainers=own))
    inits = found["spec"]["initContainers"]
    assert [(one["name"], one.get("restartPolicy")) for one in inits] == [
        ("fleetward-webhook", "Always"),
        ("fetch", None),
        ("mesh", "Always"),
    ]
    for one in inits[1:] + found["spec"]["containers"]:
        names = [each["name"] for each in one["env"]]
        assert names == ["FLEETWARD_URL", "FLEETWARD_AGENT"]


@pytest.fixture
def restricted(governed: Governed) -> Iterator[str]:
    name = f"restricted-{secrets.token_hex(4)}"
    make_namespace(governed.plane, name, {"pod-security.kubernetes.io/enforce": "restricted"})
    yield name
    remove_namespace(governed.plane, name)


def test_it_fits_restricted_pod_security(governed: Governed, restricted: str) -> None:
    apply(governed.plane, agent(restricted))
    hardened = [{"name": "app", "image": "i", "securityContext": HARDENED}]
    assert_governed(create(governed, restricted, pod("hardened", containers=hardened)), f"{restricted}/worker")
    said = _kubectl_create(governed, restricted, pod("loose"))
    assert 'violates PodSecurity "restricted' in said
    assert "fleetward-webhook" not in said  # the agent's own container is at fault, not ours


def test_who_overrules_governance_is_told(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    redirected = [{"name": "app", "image": "i", "env": [{"name": "FLEETWARD_URL", "value": "http://127.0.0.1:1"}]}]
    said = _kubectl_create(governed, namespace, pod("redirected", containers=redirected))
    assert "Warning: spec.containers[0].env: FLEETWARD_URL was set and is replaced by http://127.0.0.1:8180" in said
    assert the_pod(governed, namespace)["spec"]["containers"][0]["env"][0]["value"] == "http://127.0.0.1:8180"


def test_a_pod_that_cannot_be_governed_is_refused_in_words(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    said = _kubectl_create(governed, namespace, pod("panes", os={"name": "windows"}))
    assert "spec.os.name: found windows, allowed linux" in said
    assert f"Agent {namespace}/worker" in said


def _kubectl_create(governed: Governed, namespace: str, body: Json) -> str:
    return governed.plane.kubectl("-n", namespace, "create", "-f", "-", input=json.dumps(body), check=False)


def _plain(spec: Json) -> Json:
    """Give a pod's spec without what differs between any two pods: the volume with the API token has a random name."""
    text = json.dumps({k: v for k, v in spec.items() if not k.startswith("serviceAccount")}, sort_keys=True)
    for volume in spec["volumes"]:
        if volume["name"].startswith("kube-api-access-"):
            text = text.replace(volume["name"], "kube-api-access")
    plain = json.loads(text)
    assert isinstance(plain, dict)
    return plain
