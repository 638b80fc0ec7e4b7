"""What the chart makes, without a cluster: it fits the programs, the names they share, and what is committed."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chart import CHART, MANIFESTS, ROOT, Object, find, render, run_helm, workloads

import fleetward
from fleetward.resources import GROUP, KINDS, names
from fleetward_operator.cluster.settings import read_settings as operator_settings
from fleetward_webhook.admission.container import USER
from fleetward_webhook.admission.settings import Sidecar
from fleetward_webhook.admission.settings import read_settings as admission_settings

RENDER = ROOT / "charts" / "render.py"


@pytest.fixture(scope="module")
def rendered() -> list[Object]:
    return render()


def arguments(among: list[Object], component: str) -> list[str]:
    given: list[str] = workloads(among)[component]["spec"]["containers"][0]["args"]
    return given


def pod_specs(among: list[Object]) -> Iterator[Any]:
    for template in workloads(among).values():
        yield template["spec"]


def test_plain_manifests_are_what_helm_makes_now() -> None:
    settings = ("--kube-version", "1.36.0", "--set", "namespace.create=true")
    made = run_helm("template", "fleetward", str(CHART), "--namespace", names.SYSTEM_NAMESPACE, *settings)
    header, _, body = MANIFESTS.read_text().partition("\n---\n")
    assert "make manifests" in header
    assert f"---\n{body}" == made.stdout


def test_check_finds_nothing_to_do() -> None:
    done = subprocess.run([sys.executable, RENDER, "--check"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_says_what_differs(tmp_path: Path) -> None:
    """On a copy of the tree, as the check looks beside itself."""
    copy = tmp_path / "copy"
    for part in ("charts", "crds", "deploy"):
        shutil.copytree(ROOT / part, copy / part)
    (copy / "crds" / "fleetward.dev_agents.yaml").write_text("kind: Other\n")
    (copy / "charts/fleetward/files/crds/stray.yaml").write_text("kind: Stray\n")
    done = subprocess.run(
        [sys.executable, copy / "charts" / "render.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "charts/fleetward/files/crds/fleetward.dev_agents.yaml: is not the same as in crds/; run `make manifests`",
        "charts/fleetward/files/crds/stray.yaml: is not the same as in crds/; run `make manifests`",
        "deploy/fleetward.yaml: was made from another chart; run `make manifests`",
    ]


def test_versions_are_the_programs(rendered: list[Object]) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == fleetward.__version__
    assert operator_settings([]).image == operator_settings(arguments(rendered, "operator")).image


def test_kinds_are_those_of_the_models(rendered: list[Object]) -> None:
    made = {o["metadata"]["name"]: o for o in rendered if o["kind"] == "CustomResourceDefinition"}
    assert sorted(made) == sorted(f"{model.PLURAL}.{GROUP}" for model in KINDS.values())
    for file in (ROOT / "crds").glob("*.yaml"):
        wanted = yaml.safe_load(file.read_text())
        found = made[wanted["metadata"]["name"]]
        assert found["spec"] == wanted["spec"]
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize(
    ("role", "verbs", "below"),
    [
        ("fleetward-view", {"get", "list", "watch"}, ""),
        ("fleetward-edit", {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}, ""),
        (names.OPERATOR, {"list", "watch"}, ""),
        (names.OPERATOR, {"patch"}, "/status"),
    ],
)
def test_roles_know_every_kind(rendered: list[Object], role: str, verbs: set[str], below: str) -> None:
    rules = find(rendered, "ClusterRole", role)["rules"]
    for model in KINDS.values():
        resource = model.PLURAL + below
        granted = {v for rule in rules if resource in rule["resources"] for v in rule["verbs"]}
        assert verbs <= granted, resource


def test_the_operator_takes_its_arguments(rendered: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    container = workloads(rendered)["operator"]["spec"]["containers"][0]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["valueFrom"]["fieldRef"]["fieldPath"])
    settings = operator_settings(container["args"])
    assert (settings.namespace, settings.identity, settings.address) == (
        "metadata.namespace",
        "metadata.name",
        "status.podIP",
    )
    assert (settings.lease_seconds, settings.view_seconds, settings.relist_seconds) == (5, 10, 300)
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert {str(settings.data), names.HUB_MOUNT, "/tmp"} <= mounts
    assert str(settings.peer_token) == f"{names.HUB_MOUNT}/{names.TOKEN_FILE}"
    assert settings.excluded_namespaces == ()
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"https": names.HUB_PORT, "health": int(settings.health_listen.rpartition(":")[2])}
    assert settings.listen.endswith(f":{ports['https']}")


def test_admission_takes_its_arguments(rendered: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    container = workloads(rendered)["admission"]["spec"]["containers"][0]
    assert [variable["name"] for variable in container["env"]] == ["FLEETWARD_NAMESPACE"]
    monkeypatch.setenv("FLEETWARD_NAMESPACE", "elsewhere")
    settings = admission_settings(container["args"])
    assert settings.namespace == "elsewhere"
    assert settings.sidecar == Sidecar(
        image=f"fleetward:{fleetward.__version__}", hub_url="https://fleetward-hub.elsewhere.svc:8443"
    ), "the chart's defaults are the program's"
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"https": settings.listen.port, "health": settings.health_listen.port}


def test_names_are_those_the_programs_use(rendered: list[Object]) -> None:
    system = names.SYSTEM_NAMESPACE
    for account in (names.OPERATOR, names.ADMISSION, names.AUDITOR):
        assert find(rendered, "ServiceAccount", account)["metadata"]["namespace"] == system
    hub, admission = (find(rendered, "Service", n)["spec"] for n in (names.HUB_SERVICE, names.ADMISSION))
    assert [(p["port"], p["targetPort"]) for p in hub["ports"]] == [(names.HUB_PORT, "https")]
    assert [(p["port"], p["targetPort"]) for p in admission["ports"]] == [(443, "https")]
    for service, component in ((hub, "operator"), (admission, "admission")):
        assert service["selector"].items() <= workloads(rendered)[component]["metadata"]["labels"].items()
    named = {
        name for o in rendered if "Role" in o["kind"] for r in o.get("rules", ()) for name in r.get("resourceNames", ())
    }
    assert named == {
        names.CA_SECRET,
        names.HUB_TLS_SECRET,
        names.GRANT_KEYS_SECRET,
        names.ADMISSION_TLS_SECRET,
        names.WEBHOOK_CONFIGURATION,
        names.GOVERNED_PODS_POLICY,
        names.INJECTED_PODS_POLICY,
        names.QUARANTINE_POLICY,
        names.OPERATOR,
        f"agents.{GROUP}",
        names.AUDITOR,
        names.HUB_SERVICE,
    }
    tokens = [
        source["serviceAccountToken"]
        for volume in workloads(rendered)["operator"]["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
    ]
    assert [(t["audience"], t["path"]) for t in tokens] == [(names.AUDIENCE, names.TOKEN_FILE)]


def test_another_namespace_is_used_throughout() -> None:
    text = json.dumps(render("namespace.create=true", "networkPolicy.enabled=true", namespace="elsewhere"))
    assert "fleetward-system" not in text
    found = find(json.loads(text), "Namespace", "elsewhere")
    assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_both_workloads_probe_what_is_served(rendered: list[Object]) -> None:
    for spec in pod_specs(rendered):
        for probe, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
            assert spec["containers"][0][f"{probe}Probe"]["httpGet"] == {"path": path, "port": "health"}


def test_no_pod_may_do_more_than_it_must(rendered: list[Object]) -> None:
    """What the restricted profile leaves open; that its rules are kept, the API server says in the cluster tests."""
    for spec in pod_specs(rendered):
        assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in spec["containers"])
        assert spec["securityContext"]["runAsUser"] == USER
        assert not spec["enableServiceLinks"], "FLEETWARD_HUB_PORT of a Service would be taken for an option"
    for account in (o for o in rendered if o["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_no_role_is_a_wildcard(rendered: list[Object]) -> None:
    rules = [rule for o in rendered if o["kind"] in {"Role", "ClusterRole"} for rule in o["rules"]]
    assert rules
    assert not [r for r in rules if "*" in (*r["apiGroups"], *r["resources"], *r["verbs"])]
    secrets = [r for r in rules if "secrets" in r["resources"] and "resourceNames" not in r]
    assert [r["verbs"] for r in secrets] == [["create"]]


def test_admission_reads_and_writes_nothing(rendered: list[Object]) -> None:
    roles = [find(rendered, kind, names.ADMISSION) for kind in ("Role", "ClusterRole")]
    assert {verb for role in roles for rule in role["rules"] for verb in rule["verbs"]} <= {"get", "list"}
    (secret,) = (r for role in roles for r in role["rules"] if "secrets" in r["resources"])
    assert secret["resourceNames"] == [names.ADMISSION_TLS_SECRET]


def test_pausers_may_pause_and_nothing_else(rendered: list[Object]) -> None:
    (rule,) = find(rendered, "ClusterRole", "fleetward-pauser")["rules"]
    assert rule == {
        "apiGroups": [GROUP],
        "resources": ["agents", "agentfleets"],
        "verbs": ["get", "list", "watch", "patch"],
    }


def test_an_old_cluster_is_refused() -> None:
    done = run_helm("template", "fleetward", str(CHART), "--kube-version", "1.30.5")
    assert done.returncode != 0
    assert ">=1.31.0-0" in done.stderr
    assert "1.30.5" in done.stderr


def test_helm_has_nothing_to_object() -> None:
    done = run_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\[(WARNING|ERROR)\]", done.stdout)
