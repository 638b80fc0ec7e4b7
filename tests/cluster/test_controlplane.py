"""The control plane that tests and demo stand on: what it promises, tried on the real thing."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
from kubernetes.aio import client
from support.controlplane.errors import KubectlError
from support.controlplane.nodeapi import NodeApi
from support.controlplane.plane import ControlPlane
from support.controlplane.proxy import HttpProxy, TcpProxy
from support.streams import until

from fleetward.resources import KINDS

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def test_kinds_are_served(plane: ControlPlane) -> None:
    served = plane.kubectl("api-resources", "--api-group=fleetward.dev", "-o", "name").split()
    assert "agents.fleetward.dev" in served
    assert len(served) == len(KINDS)


async def test_restart_keeps_data(plane: ControlPlane, namespace: str) -> None:
    plane.kubectl("create", "configmap", "kept", "-n", namespace, "--from-literal=a=b")
    before = plane.programs["kube-apiserver"].pid
    await asyncio.to_thread(plane.restart_apiserver)
    assert plane.programs["kube-apiserver"].pid not in {None, before}
    async with plane.api() as api:
        assert (await client.CoreV1Api(api).read_namespaced_config_map("kept", namespace)).data == {"a": "b"}


def test_service_account_has_only_its_rights(plane: ControlPlane, namespace: str) -> None:
    kubeconfig = plane.kubeconfig_for(namespace, "default")
    who = json.loads(plane.kubectl("--kubeconfig", str(kubeconfig), "auth", "whoami", "-o", "json"))
    assert who["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
    with pytest.raises(KubectlError, match="cannot list resource") as refused:
        plane.kubectl("--kubeconfig", str(kubeconfig), "get", "secrets")
    assert "secrets is forbidden" in refused.value.stderr
    assert "secrets is forbidden" in plane.kubectl("--kubeconfig", str(kubeconfig), "get", "secrets", check=False)


OWN_PLANE = """
import sys, time
from support.controlplane.plane import ControlPlane
with ControlPlane(controllers=False, scheduler=False) as plane:
    print(plane.directory, *(running.pid for running in plane.programs.values()), flush=True)
    sys.stdin.read()
"""


def _own_plane() -> tuple["subprocess.Popen[str]", Path, list[int]]:
    """Start a process that starts a plane of its own; give both."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", OWN_PLANE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    directory, *pids = process.stdout.readline().split()
    return process, Path(directory), [int(pid) for pid in pids]


async def test_nothing_is_left_after_stop() -> None:
    process, directory, pids = _own_plane()
    with process:
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        process.communicate("")
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not directory.exists()


async def test_nothing_is_left_when_the_tests_are_killed() -> None:
    process, directory, pids = _own_plane()
    with process:
        process.send_signal(signal.SIGKILL)
        await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    shutil.rmtree(directory)


@asynccontextmanager
async def watching(kubeconfig: Path, namespace: str) -> AsyncIterator[tuple[set[str], "asyncio.Task[None]"]]:
    """Watch a namespace's ConfigMaps through a kubeconfig: the names seen, and the watch itself."""
    seen: set[str] = set()
    async with NodeApi(kubeconfig) as api:
        path = f"/api/v1/namespaces/{namespace}/configmaps?labelSelector=seen"
        version = (await api.ask("GET", path))["metadata"]["resourceVersion"]

        async def follow() -> None:
            async for event in api.watch(path, version):
                if event["type"] == "ADDED":
                    seen.add(event["object"]["metadata"]["name"])

        task = asyncio.create_task(follow())
        try:
            yield seen, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def config_map(plane: ControlPlane, namespace: str, name: str) -> None:
    metadata = {"name": name, "labels": {"seen": "true"}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    plane.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body)


async def test_quiet_proxy_stalls_a_watch_without_closing_it(plane: ControlPlane, namespace: str) -> None:
    async with TcpProxy(plane) as proxy, watching(proxy.kubeconfig(), namespace) as (seen, watch), plane.api() as api:
        config_map(plane, namespace, "one")
        await until(lambda: seen == {"one"})
        proxy.quiet()
        config_map(plane, namespace, "two")
        direct = await client.CoreV1Api(api).list_namespaced_config_map(namespace, label_selector="seen")
        assert len(direct.items) == 2
        taken = proxy.accepted
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), aiohttp.ClientSession() as session:
                await session.get(f"{proxy.url}/readyz", ssl=plane.ssl)
        assert proxy.accepted == taken + 1
        assert seen == {"one"}
        assert not watch.done()
        proxy.resume()
        await until(lambda: seen == {"one", "two"})
        assert not watch.done()


async def test_cut_drops_connections(plane: ControlPlane, namespace: str) -> None:
    async with TcpProxy(plane) as proxy, watching(proxy.kubeconfig(), namespace) as (seen, watch):
        config_map(plane, namespace, "one")
        await until(lambda: seen)
        await proxy.cut()
        with pytest.raises((aiohttp.ClientError, OSError)):
            await watch
        answer = await asyncio.to_thread(
            plane.kubectl, "--kubeconfig", str(proxy.kubeconfig()), "get", "--raw", "/readyz"
        )
        assert answer == "ok"


async def test_http_proxy_refuses_what_it_is_told_to(plane: ControlPlane, namespace: str) -> None:
    async with HttpProxy(plane) as proxy, watching(proxy.kubeconfig(), namespace) as (seen, _):
        proxy.refuse(2, lambda method, path: method == "GET" and path.startswith("/api/v1/namespaces?"))
        list_namespaces = ("--kubeconfig", str(proxy.kubeconfig()), "get", "namespaces", "-o", "name")
        assert f"namespace/{namespace}" in await asyncio.to_thread(plane.kubectl, *list_namespaces)
        assert proxy.refused == 2, "kubectl tries again when it is told to come back later"
        config_map(plane, namespace, "one")
        await until(lambda: seen == {"one"})
