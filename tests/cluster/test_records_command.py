"""`kubectl fleetward audit` on a real API server: the trail of every replica, through kubectl."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.certificates import Authority
from support.controlplane.build import program
from support.controlplane.plane import ControlPlane
from support.make import record
from support.replica import Replica
from support.trail import api, authority, line, name, one, peers, start, system, token, two

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

BIN = Path(sys.executable).parent

__all__ = ["api", "authority", "name", "one", "peers", "start", "system", "token", "two"]


Cli = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
def env(plane: ControlPlane, system: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETWARD_", "KUBE"))}
    ours = {"FLEETWARD_KUBECTL": str(program("kubectl")), "FLEETWARD_SYSTEM_NAMESPACE": system}
    return {**kept, **ours, "KUBECONFIG": str(plane.admin_kubeconfig)}


@pytest.fixture
def cli(env: dict[str, str], tmp_path: Path) -> Cli:
    """`kubectl fleetward audit` as a process."""

    async def call(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "kubectl-fleetward"), "audit", *args]
        return await asyncio.to_thread(
            lambda: subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env={**env, **more}
            )
        )

    return call


async def test_the_command_reads_both_hubs(
    cli: Cli, two: tuple[Replica, Replica], peers: list[str], authority: Authority
) -> None:
    left, right = two
    left.store.append([line("a", 1, 1), line("a", 4, 3, agent="other/beta")])
    right.store.append([line("b", 1, 2), line("a", 2, 2)])
    done = await cli("list", "--hub", left.url, "-o", "jsonl")
    assert [json.loads(each)["id"] for each in done.stdout.splitlines()] == ["a-1", "a-2", "b-1", "a-4"]
    assert done.stderr == "warning: 1 record, number 3 of writer a: missing\n"
    table = await cli("list", "--hub", right.url, "-n", "other")
    assert [row.split()[-1] for row in table.stdout.splitlines()] == ["ID", "a-4"]
    everything = await cli("list", "--hub", right.url, "--limit", "0", "-o", "json", "--hub-ca", str(authority.file))
    assert [each["id"] for each in json.loads(everything.stdout)] == ["a-1", "a-2", "b-1", "a-4"]
    shown = await cli("show", "b-1", "--hub", left.url)
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (0, "Allow  reports/alpha  ToolCall crm.read  (b-1)")
    missing = await cli("show", "z-1", "--hub", left.url)
    assert "found no record z-1 in the audit stores of the cluster" in missing.stderr
    peers.append("https://127.0.0.1:1")
    partly = await cli("tail", "--no-follow", "--limit", "1", "--hub", left.url, "-o", "jsonl")
    assert json.loads(partly.stdout)["id"] == "a-4"
    assert "note: the replica https://127.0.0.1:1: its records are missing here: " in partly.stderr


async def test_what_keeps_the_command_from_reading(
    plane: ControlPlane, system: str, cli: Cli, one: Replica, tmp_path: Path
) -> None:
    async def refused(*args: str, **more: str) -> str:
        done = await cli("list", *args, **more)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done
        return done.stderr

    other = Authority(tmp_path / "other")
    assert "cannot be trusted: " in await refused("--hub", one.url, "--hub-ca", str(other.file))
    assert "holds no certificate" in await refused("--hub", one.url, "--hub-ca", str(BIN / "activate"))
    assert "cannot read /nowhere" in await refused("--hub", one.url, "--hub-ca", "/nowhere")
    assert "cannot be read: Connection refused" in await refused("--hub", "https://127.0.0.1:1")
    assert 'configmaps "fleetward-ca" not found' in await refused("--hub", one.url, "--system-namespace", "default")
    assert 'services "fleetward-hub" not found' in await refused()
    plane.kubectl("delete", "clusterrolebinding", f"auditor-{system}")
    assert "the hub answered 403: system:serviceaccount:" in await refused("--hub", one.url)
    plane.kubectl("delete", "serviceaccount", "fleetward-auditor", "-n", system)
    assert 'serviceaccounts "fleetward-auditor" not found' in await refused("--hub", one.url)


FORWARD = '''#!{python}
"""kubectl, but for port-forward, which needs a kubelet: this relays to a port of this machine instead."""
import os, signal, socket, sys, threading
if "port-forward" not in sys.argv:
    os.execv({kubectl!r}, ["kubectl", *sys.argv[1:]])
server = socket.create_server(("127.0.0.1", 0))
print(f"Forwarding from 127.0.0.1:{{server.getsockname()[1]}} -> 8443", flush=True)
open({pids!r}, "a").write(f"{{os.getpid()}}\\n")
def pump(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass
    for each in (one, other):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
while True:
    one = server.accept()[0]
    other = socket.create_connection(("127.0.0.1", int(open({port!r}).read())))
    for pair in ((one, other), (other, one)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
'''


@pytest.fixture
def forwarded(tmp_path: Path, env: dict[str, str], one: Replica) -> dict[str, str]:
    """The environment of somebody whose kubectl forwards to the hub `one`."""
    (tmp_path / "port").write_text(one.url.rpartition(":")[2])
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        FORWARD.format(
            python=sys.executable,
            kubectl=env["FLEETWARD_KUBECTL"],
            port=str(tmp_path / "port"),
            pids=str(tmp_path / "pids"),
        )
    )
    kubectl.chmod(0o755)
    return {**env, "FLEETWARD_KUBECTL": str(kubectl)}


def running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


async def test_through_a_port_forward_that_is_ended(
    cli: Cli, one: Replica, forwarded: dict[str, str], tmp_path: Path
) -> None:
    one.store.append([line("a", 1, 1)])
    done = await cli("list", "-o", "jsonl", FLEETWARD_KUBECTL=forwarded["FLEETWARD_KUBECTL"])
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["id"] == "a-1"
    (pid,) = map(int, (tmp_path / "pids").read_text().split())
    assert not running(pid)


async def test_tail_over_a_port_forward_that_breaks(one: Replica, forwarded: dict[str, str], tmp_path: Path) -> None:
    one.store.append([line("a", 1, 1), line("a", 2, 2)])
    tail = await asyncio.create_subprocess_exec(
        str(BIN / "kubectl-fleetward"),
        "audit",
        "tail",
        "--limit=1",
        "--output=jsonl",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=forwarded,
    )
    assert tail.stdout is not None
    try:
        async with asyncio.timeout(40):

            async def next_id() -> str:
                assert tail.stdout is not None
                return str(json.loads(await tail.stdout.readline())["id"])

            assert await next_id() == "a-2"
            one.store.append([line("a", 3, 3)])
            assert await next_id() == "a-3"
            (first,) = map(int, (tmp_path / "pids").read_text().split())
            os.kill(first, 9)
            now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
            one.store.append([record("a", 4, time=now)])
            assert await next_id() == "a-4"
            tail.terminate()
            rest, errors = await tail.communicate()
    finally:
        if tail.returncode is None:
            tail.kill()
            await tail.wait()
    assert (tail.returncode, rest) == (0, b"")
    assert b"trying again" in errors
    assert not any(running(int(pid)) for pid in (tmp_path / "pids").read_text().split())
