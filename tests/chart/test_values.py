"""Every value of the chart does something, and a bad one is refused with its field, what was found, what is allowed."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from support.chart import CHART, Object, find, kinds, render, run_helm, workloads

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
DEFAULT_LABELS = {"app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/part-of"}

Objects = list[Object]
Case = tuple[Any, Callable[[Objects], Any], Any]
"""A value, what to look at, and what is to be seen there."""


def pods(objects: Objects) -> list[Object]:
    return [template["spec"] for template in workloads(objects).values()]


def container(objects: Objects, component: str) -> Object:
    one: Object = workloads(objects)[component]["spec"]["containers"][0]
    return one


def argument(component: str, option: str) -> Callable[[Objects], Any]:
    def look(objects: Objects) -> Any:
        prefix = f"--{option}="
        return next(a.removeprefix(prefix) for a in container(objects, component)["args"] if a.startswith(prefix))

    return look


def images(objects: Objects) -> set[str]:
    """Both programs' images, and the one they are told to inject and to require: they must never differ."""
    named = {argument(component, "image")(objects) for component in ("operator", "admission")}
    return named | {container(objects, component)["image"] for component in ("operator", "admission")}


def of_pods(field: str) -> Callable[[Objects], list[Any]]:
    return lambda objects: [pod.get(field) for pod in pods(objects)]


def of(kind: str, name: str, *path: str) -> Callable[[Objects], Any]:
    def look(objects: Objects) -> Any:
        found: Any = find(objects, kind, name)
        for step in path:
            found = found[step]
        return found

    return look


def there(kind: str, name: str) -> Callable[[Objects], bool]:
    return lambda objects: (kind, name) in kinds(objects)


def claim(objects: Objects) -> Any:
    return of("StatefulSet", "fleetward-operator", "spec")(objects)["volumeClaimTemplates"][0]["spec"]


def crd_annotations(objects: Objects) -> set[str]:
    return {json.dumps(o["metadata"].get("annotations")) for o in objects if o["kind"] == "CustomResourceDefinition"}


def added(part: str) -> Callable[[Objects], list[Any]]:
    def look(objects: Objects) -> list[Any]:
        metadata = [template["metadata"] for template in workloads(objects).values()]
        return [{k: v for k, v in m.get(part, {}).items() if "kubernetes.io" not in k} for m in metadata]

    return look


def metrics_rules(objects: Objects) -> list[Any]:
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    return [
        rule.get("from") for p in policies for rule in p["spec"]["ingress"] if rule["ports"] == [{"port": "health"}]
    ]


def ledger_url(objects: Objects) -> tuple[str, list[Any]] | str:
    """Give the Secret that the ledger's URL comes from, where the operator is told so; else who keeps it."""
    args = container(objects, "operator")["args"]
    if "--ledger-url-file=/var/run/fleetward/ledger/url" not in args:
        return argument("operator", "ledger-keeper")(objects)  # type: ignore[no-any-return]
    mounted = [
        m for m in container(objects, "operator")["volumeMounts"] if m["mountPath"] == "/var/run/fleetward/ledger"
    ]
    volumes = workloads(objects)["operator"]["spec"]["volumes"]
    (secret,) = [v["secret"] for v in volumes if v["name"] == mounted[0]["name"]]
    return secret["secretName"], secret["items"]


SPREAD = [{"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
AFFINITY: Object = {"nodeAffinity": {}}
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
HEX = "ab" * 32

CASES: dict[str, Case] = {
    "image.repository": ("mirror.example/fleetward", images, {"mirror.example/fleetward:0.1.0"}),
    "image.tag": ("1.2.3", images, {"fleetward:1.2.3"}),
    "image.digest": (f"sha256:{HEX}", images, {f"fleetward@sha256:{HEX}"}),
    "image.pullPolicy": (
        "Always",
        lambda o: (
            {argument("admission", "image-pull-policy")(o)}
            | {container(o, c)["imagePullPolicy"] for c in ("operator", "admission")}
        ),
        {"Always"},
    ),
    "imagePullSecrets": ([{"name": "mirror"}], of_pods("imagePullSecrets"), [[{"name": "mirror"}]] * 2),
    "crds.install": (False, there("CustomResourceDefinition", "agents.fleetward.dev"), False),
    "crds.keep": (False, crd_annotations, {"null"}),
    "namespace.create": (True, there("Namespace", "fleetward-system"), True),
    "excludedNamespaces": (["ci", "lab"], argument("operator", "excluded-namespaces"), "ci,lab"),
    "operator.replicas": (3, of("StatefulSet", "fleetward-operator", "spec", "replicas"), 3),
    "operator.leaseSeconds": (7.5, argument("operator", "lease-seconds"), "7.5"),
    "operator.viewSeconds": (20, argument("operator", "view-seconds"), "20"),
    "operator.relistSeconds": (86400, argument("operator", "relist-seconds"), "86400"),
    "operator.auditStore.persistent": (
        False,
        lambda o: [v for v in workloads(o)["operator"]["spec"]["volumes"] if v["name"] == "audit"],
        [{"name": "audit", "emptyDir": {}}],
    ),
    "operator.budgets.postgres.secret": ("ledger-db", ledger_url, ("ledger-db", [{"key": "url", "path": "url"}])),
    "operator.budgets.postgres.key": ("dsn", ledger_url, ("ledger-db", [{"key": "dsn", "path": "url"}])),
    "operator.auditStore.size": ("1Ti", lambda o: claim(o)["resources"], {"requests": {"storage": "1Ti"}}),
    "operator.auditStore.storageClassName": ("fast", lambda o: claim(o).get("storageClassName"), "fast"),
    "operator.resources.requests.cpu": ("1", lambda o: container(o, "operator")["resources"]["requests"]["cpu"], "1"),
    "operator.resources.requests.memory": (
        "",
        lambda o: container(o, "operator")["resources"]["requests"],
        {"cpu": "100m"},
    ),
    "operator.resources.limits.memory": ("", lambda o: "limits" in container(o, "operator")["resources"], False),
    "operator.affinity": (AFFINITY, lambda o: workloads(o)["operator"]["spec"]["affinity"], AFFINITY),
    "operator.topologySpreadConstraints": (
        SPREAD,
        lambda o: workloads(o)["operator"]["spec"]["topologySpreadConstraints"],
        SPREAD,
    ),
    "operator.disruptionBudget.enabled": (False, there("PodDisruptionBudget", "fleetward-operator"), False),
    "operator.disruptionBudget.maxUnavailable": (
        "50%",
        of("PodDisruptionBudget", "fleetward-operator", "spec", "maxUnavailable"),
        "50%",
    ),
    "admission.replicas": (3, of("Deployment", "fleetward-admission", "spec", "replicas"), 3),
    "admission.resources.requests.cpu": ("1", lambda o: container(o, "admission")["resources"]["requests"]["cpu"], "1"),
    "admission.resources.requests.memory": (
        "1Gi",
        lambda o: container(o, "admission")["resources"]["requests"]["memory"],
        "1Gi",
    ),
    "admission.resources.limits.memory": (
        "2Gi",
        lambda o: container(o, "admission")["resources"]["limits"],
        {"memory": "2Gi"},
    ),
    "admission.affinity": (AFFINITY, lambda o: workloads(o)["admission"]["spec"]["affinity"], AFFINITY),
    "admission.topologySpreadConstraints": (
        SPREAD,
        lambda o: workloads(o)["admission"]["spec"]["topologySpreadConstraints"],
        SPREAD,
    ),
    "admission.disruptionBudget.enabled": (False, there("PodDisruptionBudget", "fleetward-admission"), False),
    "admission.disruptionBudget.maxUnavailable": (
        2,
        of("PodDisruptionBudget", "fleetward-admission", "spec", "maxUnavailable"),
        2,
    ),
    "sidecar.resources.requests.cpu": ("20m", argument("admission", "cpu-request"), "20m"),
    "sidecar.resources.requests.memory": ("80Mi", argument("admission", "memory-request"), "80Mi"),
    "sidecar.resources.limits.cpu": ("1", argument("admission", "cpu-limit"), "1"),
    "sidecar.resources.limits.memory": ("", argument("admission", "memory-limit"), ""),
    "sidecar.spoolSize": ("1Gi", argument("admission", "spool-size"), "1Gi"),
    "sidecar.tokenSeconds": (4294967296, argument("admission", "token-seconds"), "4294967296"),
    "priorityClassName": ("high", of_pods("priorityClassName"), ["high"] * 2),
    "nodeSelector": ({"disk": "ssd"}, of_pods("nodeSelector"), [{"disk": "ssd"}] * 2),
    "tolerations": ([{"operator": "Exists"}], of_pods("tolerations"), [[{"operator": "Exists"}]] * 2),
    "podLabels": ({"cost": "it"}, added("labels"), [{"cost": "it"}] * 2),
    "podAnnotations": ({"note": "yes"}, added("annotations"), [{"note": "yes"}] * 2),
    "rbac.aggregateToView": (
        False,
        lambda o: f"{AGGREGATE}view" in of("ClusterRole", "fleetward-view", "metadata", "labels")(o),
        False,
    ),
    "rbac.aggregateToEdit": (
        True,
        lambda o: of("ClusterRole", "fleetward-edit", "metadata", "labels")(o).get(f"{AGGREGATE}edit"),
        "true",
    ),
    "networkPolicy.enabled": (True, there("NetworkPolicy", "fleetward-operator"), True),
    "networkPolicy.metricsFrom": ([{"podSelector": {}}], metrics_rules, [[{"podSelector": {}}]] * 2),
    "serviceMonitor.enabled": (True, there("ServiceMonitor", "fleetward"), True),
    "serviceMonitor.interval": (
        "5s",
        lambda o: of("ServiceMonitor", "fleetward", "spec")(o)["endpoints"][0]["interval"],
        "5s",
    ),
    "serviceMonitor.labels": (
        {"release": "prometheus"},
        lambda o: of("ServiceMonitor", "fleetward", "metadata", "labels")(o).get("release"),
        "prometheus",
    ),
}

ALSO = {
    "networkPolicy.metricsFrom": "networkPolicy.enabled=true",
    "operator.budgets.postgres.key": 'operator.budgets.postgres.secret="ledger-db"',
} | dict.fromkeys(("serviceMonitor.interval", "serviceMonitor.labels"), "serviceMonitor.enabled=true")
"""What must be set, too, for a value to count."""

REFUSED = {
    'operator.budgets.postgres.secret="Ledger DB"': ("/operator/budgets/postgres/secret", "'Ledger DB'"),
    "operator.replicas=0": ("/operator/replicas", "got 0", "want 1"),
    "operator.replicas=1.5": ("/operator/replicas", "got number", "want integer"),
    "operator.replicaz=2": ("/operator", "'replicaz'", "not allowed"),
    "operator.leaseSeconds=301": ("/operator/leaseSeconds", "got 301", "want 300"),
    "operator.viewSeconds=3": ("/operator/viewSeconds", "got 3", "want 6"),
    "operator.relistSeconds=1": ("/operator/relistSeconds", "got 1", "want 5"),
    'operator.auditStore.size="much"': ("/operator/auditStore/size", "'much'", "[KMGTPE]i"),
    'operator.resources.limits.memory="1 GB"': ("/operator/resources/limits/memory", "'1 GB'", "[KMGTPE]i"),
    "operator.disruptionBudget.maxUnavailable=0": ("/operator/disruptionBudget/maxUnavailable", "got 0", "want 1"),
    'image.pullPolicy="Sometimes"': ("/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"),
    'image.digest="sha256:abc"': ("/image/digest", "'sha256:abc'", "[a-f0-9]{64}"),
    'image.repository="Fleetward:1"': ("/image/repository", "'Fleetward:1'"),
    'crds.install="yes"': ("/crds/install", "got string", "want boolean"),
    "sidecar.tokenSeconds=60": ("/sidecar/tokenSeconds", "got 60", "want 600"),
    'sidecar.resources.limits.gpu="1"': ("/sidecar/resources/limits", "'gpu'", "not allowed"),
    "podLabels.cost=3": ("/podLabels/cost", "got number", "want string"),
    'imagePullSecrets=["mirror"]': ("/imagePullSecrets/0", "got string", "want object"),
    'serviceMonitor.interval="often"': ("/serviceMonitor/interval", "'often'"),
    'excludedNamespaces=["CI"]': ("/excludedNamespaces/0", "'CI'"),
    "fleet.size=3": ("at ''", "'fleet'", "not allowed"),
}


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.fixture(scope="module")
def default() -> Objects:
    return render()


def test_every_value_has_a_case() -> None:
    assert sorted(CASES) == sorted(leaves(VALUES))


@pytest.mark.parametrize("path", CASES)
def test_a_value_does_something(path: str, default: Objects) -> None:
    value, look, seen = CASES[path]
    base = render(ALSO[path]) if path in ALSO else default
    assert look(render(*([ALSO[path]] if path in ALSO else []), f"{path}={json.dumps(value)}")) == seen
    assert look(base) != seen, "this is so by default, and proves nothing"


@pytest.mark.parametrize("setting", REFUSED)
def test_a_bad_value_is_refused(setting: str) -> None:
    done = run_helm("template", "fleetward", str(CHART), "--set-json", setting)
    assert done.returncode != 0
    for part in REFUSED[setting]:
        assert part in done.stderr


def test_pod_labels_cannot_take_pods_away_from_their_service() -> None:
    changed = workloads(render('podLabels={"app.kubernetes.io/name": "other"}'))
    assert {t["metadata"]["labels"]["app.kubernetes.io/name"] for t in changed.values()} == {"fleetward"}


def test_metrics_are_served_where_the_service_monitor_looks() -> None:
    objects = render("serviceMonitor.enabled=true")
    wanted = find(objects, "ServiceMonitor", "fleetward")["spec"]["selector"]["matchLabels"].items()
    services = [o for o in objects if o["kind"] == "Service" and wanted <= o["metadata"]["labels"].items()]
    ports = [{p["name"]: p["targetPort"] for p in s["spec"]["ports"]}["metrics"] for s in services]
    assert ports == ["health"] * 2
