"""Replicas with stores of their own on a real API server, and an auditor who may read them."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from kubernetes.aio.client import ApiClient
from support.certificates import Authority
from support.controlplane.plane import ControlPlane
from support.make import record
from support.replica import Replica, replica

from fleetward.resources.names import AUDIENCE


def at(second: int) -> str:
    return f"2026-03-01T10:{second // 60:02}:{second % 60:02}.000000Z"


def line(writer: str, seq: int, second: int, **changes: Any) -> bytes:
    return record(writer, seq, time=at(second), **changes)


@pytest.fixture
def system(plane: ControlPlane, namespace: str, authority: Authority) -> Iterator[str]:
    """A namespace that is Fleetward's own: its CA's ConfigMap and an auditor who may read."""
    name = f"auditor-{namespace}"
    plane.kubectl("create", "configmap", "fleetward-ca", f"--from-file=ca.crt={authority.file}", "-n", namespace)
    for account in ("fleetward-auditor", "stranger"):
        plane.kubectl("create", "serviceaccount", account, "-n", namespace)
    rules = [
        {"apiGroups": ["fleetward.dev"], "resources": ["auditrecords"], "verbs": ["list"]},
        {"apiGroups": ["fleetward.dev"], "resources": ["hubstatus"], "verbs": ["get"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    plane.kubectl("apply", "-f", "-", input=json.dumps({**role, "rules": rules}))
    account = f"--serviceaccount={namespace}:fleetward-auditor"
    plane.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", account)
    yield namespace
    plane.kubectl("delete", "clusterrolebinding,clusterrole", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def token(plane: ControlPlane, system: str) -> str:
    """What an auditor presents."""
    return plane.token_for(system, "fleetward-auditor", audiences=(AUDIENCE,))


@pytest.fixture
def name(namespace: str) -> str:
    """The name in the hubs' certificates."""
    return f"fleetward-hub.{namespace}.svc"


@pytest.fixture
async def api(plane: ControlPlane) -> AsyncIterator[ApiClient]:
    async with plane.api() as client:
        yield client


@pytest.fixture
async def one(api: ApiClient, authority: Authority, tmp_path: Path, name: str) -> AsyncIterator[Replica]:
    """A replica that has no others."""
    async with replica(api, authority, tmp_path / "one.db", name) as running:
        yield running


@pytest.fixture
def peers() -> list[str]:
    """The URLs that every replica takes for the others', itself left out."""
    return []


@pytest.fixture
def start(api: ApiClient, authority: Authority, tmp_path: Path, name: str) -> Callable[..., Any]:
    """Start a replica with a store of its own; see `support.replica.replica`."""

    def running(file: str, urls: Callable[[], Sequence[str]], token: str) -> Any:
        return replica(api, authority, tmp_path / f"{file}.db", name, urls=urls, token=lambda: token)

    return running


@pytest.fixture
async def two(start: Callable[..., Any], token: str, peers: list[str]) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas that ask each other."""
    own = ["", ""]

    def others(number: int) -> Callable[[], list[str]]:
        return lambda: [url for url in peers if url != own[number]]

    async with start("left", others(0), token) as left, start("right", others(1), token) as right:
        own[:] = [left.url, right.url]
        peers += own
        yield left, right


def ids(lines: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in lines if "id" in each]


# Who may read


async def problem(replica: Replica, token: str | None, path: str = "/v1/records", **parameters: Any) -> dict[str, Any]:
    async with replica.get(path, token, **parameters) as response:
        assert response.headers["Content-Type"] == "application/problem+json"
        found = cast("dict[str, Any]", msgspec.json.decode(await response.read()))
        assert found["status"] == response.status
        assert (response.headers.get("WWW-Authenticate") == "Bearer") == (response.status == 401)
        return found
