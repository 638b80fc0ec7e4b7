"""The chart as the real Helm renders it."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from support.controlplane.build import helm

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "fleetward"
MANIFESTS = ROOT / "deploy" / "fleetward.yaml"
NAMESPACE = "fleetward-system"

Object = dict[str, Any]


def run_helm(*arguments: str, kubeconfig: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run Helm; whether it did what it should is for the caller to see."""
    environment = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    return subprocess.run(
        [str(helm()), *arguments], capture_output=True, text=True, check=False, timeout=120, env=environment
    )


def render(*settings: str, namespace: str = NAMESPACE) -> list[Object]:
    """Render the chart with `--set-json PATH=VALUE` for each setting. Fails with what Helm says."""
    given = [part for setting in settings for part in ("--set-json", setting)]
    done = run_helm("template", "fleetward", str(CHART), "--namespace", namespace, "--kube-version", "1.36.0", *given)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def objects(text: str) -> list[Object]:
    """Read the objects of a manifest."""
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def find(among: Iterable[Object], kind: str, name: str) -> Object:
    """Give the object of a kind and name."""
    return next(o for o in among if (o["kind"], o["metadata"]["name"]) == (kind, name))


def kinds(among: Iterable[Object]) -> set[tuple[str, str]]:
    """Give kind and name of each object."""
    return {(o["kind"], o["metadata"]["name"]) for o in among}


def workloads(among: Sequence[Object]) -> dict[str, Object]:
    """Give the workloads' pod templates, by component."""
    return {
        o["metadata"]["name"].removeprefix("fleetward-"): o["spec"]["template"]
        for o in among
        if o["kind"] in {"StatefulSet", "Deployment"}
    }
