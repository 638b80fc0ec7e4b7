"""Fixtures of the admission tests: a webhook process, and a namespace in which it is asked."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.admission import Admission, Authority, allow, apply, configured, disallow, put_certificate
from support.controlplane.fixtures import make_namespace, remove_namespace
from support.controlplane.plane import ControlPlane


@dataclass
class Governed:
    """A cluster with the admission webhook in it."""

    plane: ControlPlane
    admission: Admission
    authority: Authority
    system: str
    """Fleetward's namespace in this test."""


@pytest.fixture(scope="module")
def governed(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Governed]:
    """Give a running webhook, asked by the API server, under a service account that may do only what it must."""
    system, authority = f"system-{secrets.token_hex(4)}", Authority()
    make_namespace(plane, system)
    allow(plane, system, "fleetward-admission")
    put_certificate(plane, system, authority.issue())
    kubeconfig = plane.kubeconfig_for(system, "fleetward-admission")
    log = tmp_path_factory.mktemp("admission") / "log"
    admission = Admission(log, "--namespace", system, "--kubeconfig", str(kubeconfig)).start()
    try:
        admission.until_ready()
        with configured(plane, system, admission.listen, authority.pem, system):
            yield Governed(plane, admission, authority, system)
    finally:
        admission.stop()
        disallow(plane, system, "fleetward-admission")
        remove_namespace(plane, system)


def agent(namespace: str, name: str = "worker", **spec: Any) -> dict[str, Any]:
    """Give an Agent whose pods are labelled `app: NAME`."""
    body = {"role": "Worker", "workload": {"selector": {"matchLabels": {"app": name}}}} | spec
    return _resource("Agent", name, namespace, body)


def fleet(name: str, namespace: str, mode: str) -> dict[str, Any]:
    """Give a fleet of all agents of a namespace."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return _resource("AgentFleet", name, None, {"agents": {"namespaceSelector": selector}, "operatingMode": mode})


def _resource(kind: str, name: str, namespace: str | None, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "fleetward.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


__all__ = ["Governed", "agent", "apply", "fleet", "governed"]
