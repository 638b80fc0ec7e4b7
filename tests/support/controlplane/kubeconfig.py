"""Kubeconfig files for users known by a token."""

import base64
from pathlib import Path
from typing import Any

import yaml


def kubeconfig(url: str, ca_file: Path, token: str, *, user: str, namespace: str = "default") -> dict[str, Any]:
    """Give the kubeconfig of one user at one API server, with everything inside it."""
    ca = base64.b64encode(ca_file.read_bytes()).decode()
    context = {"cluster": "fleetward", "user": user, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": user,
        "clusters": [{"name": "fleetward", "cluster": {"server": url, "certificate-authority-data": ca}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": user, "context": context}],
    }


def kubeconfig_of_files(url: str, ca_file: Path, token_file: Path, *, namespace: str) -> dict[str, Any]:
    """Give a kubeconfig that refers to files, whose content may change."""
    cluster = {"server": url, "certificate-authority": str(ca_file)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pod",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": str(token_file)}}],
        "contexts": [{"name": "pod", "context": {"cluster": "cluster", "user": "pod", "namespace": namespace}}],
    }


def write_kubeconfig(path: Path, content: dict[str, Any]) -> Path:
    """Write a kubeconfig that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def redirected(source: Path, url: str, target: Path) -> Path:
    """Write a copy of a kubeconfig that reaches its API server at another URL, such as a proxy's."""
    content = yaml.safe_load(source.read_text())
    for cluster in content["clusters"]:
        cluster["cluster"]["server"] = url
    return write_kubeconfig(target, content)
