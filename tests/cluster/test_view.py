"""The operator's view of a real API server: what happens to it while watches break, stall or are too late."""

import asyncio
import contextlib
import gc
import json
import secrets
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.controlplane.plane import ControlPlane
from support.controlplane.proxy import HttpProxy, TcpProxy
from support.streams import until

from fleetward_operator.kube.access import Access
from fleetward_operator.view.clusterview import ClusterView

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),
    # asyncio leaves the socket open whose TLS handshake a dying API server cuts off.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

STALE_SECONDS = 7.0
"""Older than any healthy view."""


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves open is its own, and not the next one's."""
    yield
    gc.collect()


class Following:
    """A view that follows, and what it was told."""

    def __init__(self, view: ClusterView) -> None:
        self.view = view
        self.changes: list[tuple[str, str]] = []
        self.failures: list[str] = []

    def agent(self, key: str) -> Any:
        return self.view.source.registry.agents.get(key)


@contextlib.asynccontextmanager
async def following(kubeconfig: Path, relist_seconds: float = 3600) -> AsyncIterator[Following]:
    access = Access(kubeconfig)
    failures: list[str] = []
    async with (
        access.client() as client,
        ClusterView(client, access, failed=failures.append, relist_seconds=relist_seconds) as view,
    ):
        it = Following(view)
        it.failures = failures
        await view.follow(lambda plural, key: it.changes.append((plural, key)))
        yield it
    assert not failures


def apply_agent(plane: ControlPlane, namespace: str, name: str, **spec: Any) -> None:
    body = {
        "apiVersion": "fleetward.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"role": "Worker", **spec},
    }
    plane.kubectl("apply", "-f", "-", input=json.dumps(body))


def pause(plane: ControlPlane, namespace: str, name: str) -> None:
    plane.kubectl("patch", "agent", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"operatingMode":"Paused"}}')


async def test_what_is_there_at_the_start_and_every_change(plane: ControlPlane, namespace: str) -> None:
    await asyncio.to_thread(apply_agent, plane, namespace, "a")
    async with following(plane.admin_kubeconfig) as it:
        assert it.agent(f"{namespace}/a").mode.operating_mode == "Running"
        assert it.view.source.registry.namespace_labels(namespace)
        await asyncio.to_thread(pause, plane, namespace, "a")
        await until(lambda: it.agent(f"{namespace}/a").mode.operating_mode == "Paused")
        assert it.agent(f"{namespace}/a").mode.set_by == "the field manager kubectl-patch"
        await asyncio.to_thread(plane.kubectl, "delete", "agent", "a", "-n", namespace)
        await until(lambda: it.agent(f"{namespace}/a") is None)
        await until(lambda: it.view.age_seconds() < STALE_SECONDS)


async def test_a_healthy_view_stays_young_with_nothing_going_on(plane: ControlPlane) -> None:
    async with following(plane.admin_kubeconfig) as it:
        # Through two whole rounds of watches, as nothing else would renew the proof.
        proofs = set[float]()
        while len(proofs) < 3:
            proofs.add(it.view.liveness._proven["auditsinks"])
            assert it.view.age_seconds() < STALE_SECONDS
            await asyncio.sleep(0.1)


async def test_a_connection_that_goes_quiet_makes_the_view_old_and_recovers(
    plane: ControlPlane, namespace: str
) -> None:
    async with TcpProxy(plane) as proxy, following(proxy.kubeconfig()) as it:
        await asyncio.to_thread(apply_agent, plane, namespace, "a")
        await until(lambda: it.agent(f"{namespace}/a"))
        proxy.quiet()
        await asyncio.to_thread(pause, plane, namespace, "a")
        await until(lambda: it.view.age_seconds() > STALE_SECONDS, within=30)
        assert it.agent(f"{namespace}/a").mode.operating_mode == "Running", "nothing came through"
        proxy.resume()
        await until(lambda: it.agent(f"{namespace}/a").mode.operating_mode == "Paused", within=30)
        await until(lambda: it.view.age_seconds() < STALE_SECONDS, within=30)


async def test_an_object_deleted_while_the_watch_could_not_go_on_is_gone(plane: ControlPlane, namespace: str) -> None:
    """The API server forgets what happened (compaction, restart), so watches get 410 Gone and begin anew."""
    async with TcpProxy(plane) as proxy, following(proxy.kubeconfig()) as it:
        for name in ("stays", "goes"):
            await asyncio.to_thread(apply_agent, plane, namespace, name)
        await until(lambda: it.agent(f"{namespace}/goes") and it.agent(f"{namespace}/stays"))
        proxy.quiet()
        await proxy.cut()
        await asyncio.to_thread(plane.kubectl, "delete", "agent", "goes", "-n", namespace)
        await asyncio.to_thread(compact, plane)
        await asyncio.to_thread(plane.restart_apiserver)
        proxy.resume()
        await until(lambda: it.agent(f"{namespace}/goes") is None, within=40)
        assert it.agent(f"{namespace}/stays")
        await until(lambda: it.view.age_seconds() < STALE_SECONDS, within=30)


async def test_the_api_server_restarted(plane: ControlPlane, namespace: str) -> None:
    async with following(plane.admin_kubeconfig) as it:
        await asyncio.to_thread(plane.restart_apiserver)
        await asyncio.to_thread(apply_agent, plane, namespace, "a")
        await until(lambda: it.agent(f"{namespace}/a"), within=60)
        await until(lambda: it.view.age_seconds() < STALE_SECONDS, within=30)


async def test_a_busy_api_server_is_waited_for(plane: ControlPlane, namespace: str) -> None:
    await asyncio.to_thread(apply_agent, plane, namespace, "a")
    async with HttpProxy(plane) as proxy:
        proxy.refuse(5, lambda _, path: "/agents" in path)
        async with following(proxy.kubeconfig()) as it:
            assert it.agent(f"{namespace}/a")
            assert proxy.refused == 5


async def test_a_relist_heals_what_no_event_told(plane: ControlPlane, namespace: str) -> None:
    await asyncio.to_thread(apply_agent, plane, namespace, "a")
    async with following(plane.admin_kubeconfig, relist_seconds=0.5) as it:
        ghost = {
            "metadata": {
                "name": f"ghost-{secrets.token_hex(4)}",
                "namespace": namespace,
                "uid": "ghost",
                "generation": 1,
                "resourceVersion": str(it.view.source._listed["agents"] + 1),
            },
            "spec": {"role": "Worker"},
        }
        it.view.source.see("agents", ghost)
        key = f"{namespace}/{ghost['metadata']['name']}"  # type: ignore[index]
        assert it.agent(key)
        await asyncio.to_thread(apply_agent, plane, namespace, "b")  # a later list must be newer than the ghost
        await asyncio.to_thread(apply_agent, plane, namespace, "c")
        await until(lambda: it.agent(key) is None)
        assert it.agent(f"{namespace}/a")


def compact(plane: ControlPlane) -> None:
    """Have etcd forget every state but the present."""
    url = next(a.partition("=")[2] for a in plane.programs["etcd"]._command if a.startswith("--listen-client-urls"))
    revision = plane.request("GET", "/api/v1/namespaces?limit=1")["metadata"]["resourceVersion"]
    body = json.dumps({"revision": revision, "physical": True}).encode()
    asked = urllib.request.Request(f"{url}/v3/kv/compaction", body)  # noqa: S310 - etcd of our own
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - as above
        assert answer.status == 200
